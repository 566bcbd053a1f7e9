"""The corpora of a scale: parts, where they come from, features and tokens."""

from __future__ import annotations

from collections.abc import Collection
from operator import not_
from typing import Annotated, Literal

from pydantic import Field, model_validator

from asr_distill.experiment.base import Fraction, Name, Positive, PositiveInt, Record, Use, unset
from asr_distill.experiment.texts import FoundText

Age = Annotated[int, Field(ge=0, le=150)]


class PartBase(Record):
    """One part of a corpus, such as test-clean."""

    use: Use
    """What the part is for; dev and test parts share no speaker with parts of another use."""
    part_set: Name | None = None
    """A group of parts that only runs which ask for it use: they train on it and are scored on it."""
    also_in: tuple[Name, ...] = Field(default=(), exclude_if=not_)
    """Sets of which a part without a set is a member too, so that runs can ask for it alone."""

    @property
    def sets(self) -> tuple[Name, ...]:
        """Return the sets that the part belongs to."""
        return self.also_in if self.part_set is None else (self.part_set, *self.also_in)


class SyntheticPart(PartBase):
    """Speech synthesised on the spot by eSpeak NG or Flite, written in LibriSpeech's or Libri-Light's layout."""

    source: Literal["synthetic"]
    layout: Literal["librispeech", "librilight"] = "librispeech"
    condition: Literal["clean", "mixed", "other"] = "clean"
    engine: Literal["espeak", "flite"] = Field(default="espeak", exclude_if=lambda engine: engine == "espeak")
    """eSpeak NG computes formants and comes with this package; Flite (Debian's libflite1) has the recorded voices of
    four people, for training parts."""
    accents: tuple[str, ...]
    """Of eSpeak NG, or voices of Flite; speakers share them out among themselves."""
    speakers: PositiveInt
    utterances: PositiveInt
    domains: tuple[str, ...] = ("commands", "stories", "news")
    """Of the grammar that the sentences come from, unless they are of a text."""
    text: FoundText | None = Field(default=None, exclude_if=unset)
    """Speak sentences of this text instead, drawn without repeats, none of which is a dev or test transcript. The part
    must be of a set."""

    @model_validator(mode="after")
    def _check_engine(self) -> SyntheticPart:
        if self.engine == "flite" and self.use in ("dev", "test"):
            raise ValueError(
                "engine: Flite has the voices of four people, and training may have heard them; let eSpeak speak dev "
                "and test parts"
            )
        return self


class LibriSpeechPart(PartBase):
    """A part of LibriSpeech as published, under <data>/LibriSpeech/<name>."""

    source: Literal["librispeech"]
    name: str
    download: bool = False


class LibriLightPart(PartBase):
    """A part of Libri-Light as published, under <data>/LibriLight/<name>; audio only."""

    source: Literal["librilight"]
    name: str


class SpeakersPart(PartBase):
    """A part that takes some of the speakers of a published list; other parts may take others of the same list."""

    folder: str
    name: str
    ages: tuple[Age, Age] | None = Field(default=None, exclude_if=not_)
    """Only speakers of these years and those between."""
    speakers: PositiveInt | Literal["all", "rest"] = "all"
    """How many of the list's speakers of these ages belong to this part: drawn with the corpus seed, in the parts'
    order."""

    @property
    def takes_all(self) -> bool:
        """Return whether the part takes every speaker of its list."""
        return self.speakers == "all" and self.ages is None

    @model_validator(mode="after")
    def _check_ages(self) -> SpeakersPart:
        if self.ages is not None and self.ages[0] > self.ages[1]:
            raise ValueError(f"ages: {list(self.ages)} must begin with the youngest")
        return self


class ManifestPart(SpeakersPart):
    """Any corpus as Lhotse manifests: <data>/<folder>/recordings_<name>.jsonl.gz and supervisions_<name>.jsonl.gz.

    Ages are told by `age` in the custom field of the supervisions.
    """

    source: Literal["manifests"]
    folder: str = "."


class PublishedPart(SpeakersPart):
    """A part of a corpus that comes as one archive; Lhotse manifests in the folder are read in its stead."""

    name: Literal["train", "test"]
    archive: str | None = Field(default=None, exclude_if=not_)
    """The downloaded archive below <data>, unpacked where the folder is not there; by default under its publisher's
    name."""


class AN4Part(PublishedPart):
    """A list of CMU's AN4: <data>/<folder>/etc/an4_<name>.fileids and .transcription, and wav/ (SPHERE or raw)."""

    source: Literal["an4"]
    folder: str = "an4"


class Speechocean762Part(PublishedPart):
    """A half of speechocean762 (OpenSLR 101): <data>/<folder>/<name>/wav.scp, text, utt2spk, spk2age, and WAVE/."""

    source: Literal["speechocean762"]
    folder: str = "speechocean762"


Part = Annotated[
    SyntheticPart | LibriSpeechPart | LibriLightPart | ManifestPart | AN4Part | Speechocean762Part,
    Field(discriminator="source"),
]


class Corpus(Record):
    """All parts of a scale's corpus and the rules for leaving utterances out."""

    seed: int = 0
    min_duration: Positive = 0.5
    """Seconds; shorter utterances go to quarantine."""
    max_duration: Positive = 30.0
    """Seconds; longer labelled utterances go to quarantine, unlabelled ones are cut into windows of this length."""
    max_quarantined: Fraction = 0.01
    """Share of a part that may be left out before that is an error."""
    shard_utterances: PositiveInt | None = Field(default=None, exclude_if=unset)
    """Store labelled and unlabelled parts in shards of so many utterances, from which training reads as it goes: for
    corpora of more than some hundred thousand utterances. Without it each part is one file that training loads."""
    parts: dict[Name, Part]
    """Those of sets stand last."""

    @property
    def sets(self) -> tuple[Name, ...]:
        """Return the names of the sets, in the order of the config."""
        return tuple(dict.fromkeys(name for part in self.parts.values() for name in part.sets))

    @property
    def sharded(self) -> tuple[Name, ...]:
        """Return the parts that are stored in shards: none, or all that are trained on."""
        if self.shard_utterances is None:
            return ()
        return tuple(name for name, part in self.parts.items() if part.use in ("labelled", "unlabelled"))

    def restricted(self, sets: Collection[Name] = ()) -> Corpus:
        """Return the corpus without the parts of other sets than these, and without their names."""
        kept = {name: part for name, part in self.parts.items() if part.part_set is None or part.part_set in sets}
        parts = {
            name: part.model_copy(update={"also_in": tuple(other for other in part.also_in if other in sets)})
            for name, part in kept.items()
        }
        return self.model_copy(update={"parts": parts})


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
