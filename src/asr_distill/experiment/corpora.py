"""The corpora of a scale: parts, where they come from, features and tokens."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field

from asr_distill.experiment.base import Fraction, Name, Positive, PositiveInt, Record, Use


class PartBase(Record):
    """One part of a corpus, such as test-clean."""

    use: Use
    """What the part is for; dev and test parts share no speaker with parts of another use."""
    part_set: Name | None = None
    """A group of parts that only runs which ask for it use: they train on it and are scored on it."""


class SyntheticPart(PartBase):
    """Speech synthesised on the spot by eSpeak NG, written in LibriSpeech's or Libri-Light's layout."""

    source: Literal["synthetic"]
    layout: Literal["librispeech", "librilight"] = "librispeech"
    condition: Literal["clean", "mixed", "other"] = "clean"
    accents: tuple[str, ...]
    speakers: PositiveInt
    utterances: PositiveInt
    domains: tuple[str, ...] = ("commands", "stories", "news")


class LibriSpeechPart(PartBase):
    """A part of LibriSpeech as published, under <data>/LibriSpeech/<name>."""

    source: Literal["librispeech"]
    name: str
    download: bool = False


class LibriLightPart(PartBase):
    """A part of Libri-Light as published, under <data>/LibriLight/<name>; audio only."""

    source: Literal["librilight"]
    name: str


class ManifestPart(PartBase):
    """Any corpus as Lhotse manifests: <data>/<folder>/recordings_<name>.jsonl.gz and supervisions_<name>.jsonl.gz."""

    source: Literal["manifests"]
    folder: str = "."
    name: str
    speakers: PositiveInt | Literal["all", "rest"] = "all"
    """How many of the manifest's speakers belong to this part: drawn with the corpus seed, in the parts' order."""


Part = Annotated[SyntheticPart | LibriSpeechPart | LibriLightPart | ManifestPart, Field(discriminator="source")]


class Corpus(Record):
    """All parts of a scale's corpus and the rules for leaving utterances out."""

    seed: int = 0
    min_duration: Positive = 0.5
    """Seconds; shorter utterances go to quarantine."""
    max_duration: Positive = 30.0
    """Seconds; longer labelled utterances go to quarantine, unlabelled ones are cut into windows of this length."""
    max_quarantined: Fraction = 0.01
    """Share of a part that may be left out before that is an error."""
    parts: dict[Name, Part]
    """Those of sets stand last."""

    @property
    def sets(self) -> tuple[Name, ...]:
        """Return the names of the sets, in the order of the config."""
        return tuple(dict.fromkeys(part.part_set for part in self.parts.values() if part.part_set is not None))

    def restricted(self, sets: Collection[Name] = ()) -> Corpus:
        """Return the corpus without the parts of other sets than these."""
        kept = {name: part for name, part in self.parts.items() if part.part_set is None or part.part_set in sets}
        return self.model_copy(update={"parts": kept})


class Features(Record):
    """Log-mel filter bank energies."""

    sampling_rate: PositiveInt = 16000
    mel_bins: PositiveInt = 80
    """80-dim log-mel input (Hwang et al. 2022, sec. 4)."""
    frame_shift_ms: Positive = 10.0
    frame_length_ms: Positive = 25.0
    speed_perturbation: tuple[Positive, ...] = (1.0,)
    """Speeds at which training speech is stored; 1.0 must be among them."""
    cache_hours: float = 40.0
    """Keep the features of a training job in memory when its audio is shorter than this."""


class Tokenizer(Record):
    """SentencePiece model, estimated on the labelled transcripts."""

    vocabulary: Annotated[int, Field(ge=4)]
    """Number of tokens, blank (index 0) and unknown included."""
    type: Literal["unigram", "bpe", "char"] = "unigram"
