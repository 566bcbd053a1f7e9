"""Shares out the speakers of one published list among the parts that take from it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from asr_distill.experiment import Corpus, SpeakersPart

MANIFEST_AGES = "as `age`, whole years, into the custom field of the supervisions"


def choose_speakers(
    part: str, *, corpus: Corpus, speakers: Mapping[str, int | None], ages_belong: str = MANIFEST_AGES
) -> frozenset[str]:
    """Return the speakers of a part, given those of its list: of its manifest, or of a publisher's own files.

    The sorted speakers are shuffled once with the corpus seed; the parts that share the list take theirs, those of
    their ages, in the order of the config, so no speaker falls to two parts.

    Args:
        part: name of the part.
        corpus: all parts.
        speakers: of the list, with their ages in years; None where it does not tell.
        ages_belong: where a missing age would have to be written; for the error.

    Raises:
        ValueError: where the list has fewer speakers than its parts ask for, or lacks an age that is asked for.
    """
    left = sorted(speakers)
    random.Random(corpus.seed).shuffle(left)
    for name, settings in _sharing(part, corpus=corpus).items():
        _require_ages(left, settings, ages=speakers, part=name, ages_belong=ages_belong)
        fitting = [speaker for speaker in left if _fits(speakers[speaker], settings)]
        wanted = settings.speakers if isinstance(settings.speakers, int) else len(fitting)
        if wanted > len(fitting) or not fitting:
            ages = f" of {settings.ages[0]} to {settings.ages[1]} years" if settings.ages else ""
            raise ValueError(
                f"corpus.parts.{name}.speakers: {settings.speakers} asked for, but of the list's {len(speakers)} "
                f"speakers the parts before leave {len(fitting)}{ages}; write less"
            )
        chosen = frozenset(fitting[:wanted])
        if name == part:
            return chosen
        left = [speaker for speaker in left if speaker not in chosen]
    raise AssertionError(f"{part} takes no speakers of a list")


def _require_ages(
    speakers: Sequence[str], settings: SpeakersPart, *, ages: Mapping[str, int | None], part: str, ages_belong: str
) -> None:
    unknown = [speaker for speaker in speakers if ages[speaker] is None]
    if settings.ages is not None and unknown:
        raise ValueError(
            f"corpus.parts.{part}.ages: the age of speaker '{unknown[0]}' is not told; write it {ages_belong}, or "
            "leave ages out"
        )


def _fits(age: int | None, settings: SpeakersPart) -> bool:
    return settings.ages is None or settings.ages[0] <= age <= settings.ages[1]


def _sharing(part: str, *, corpus: Corpus) -> dict[str, SpeakersPart]:
    """Return the parts that take speakers of the same list, in the order of the config."""
    own = corpus.parts[part]
    return {
        name: other
        for name, other in corpus.parts.items()
        if isinstance(other, SpeakersPart) and (other.folder, other.name) == (own.folder, own.name)
    }
