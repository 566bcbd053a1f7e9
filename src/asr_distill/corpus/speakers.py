"""Shares out the speakers of one manifest among the parts that are cut from it."""

from __future__ import annotations

import random
from collections.abc import Mapping

from asr_distill.experiment import Corpus, ManifestPart


def choose_speakers(part: str, *, corpus: Corpus, speakers: Mapping[str, int | None]) -> frozenset[str]:
    """Return the speakers of a part, given those of its manifest.

    The sorted speakers are shuffled once with the corpus seed; the parts that share the manifest take theirs, those of
    their ages, in the order of the config, so no speaker falls to two parts.

    Args:
        part: name of the part.
        corpus: all parts.
        speakers: of the manifest, with their ages in years; None where the manifest does not tell.

    Raises:
        ValueError: where the manifest has fewer speakers than its parts ask for, or lacks an age that is asked for.
    """
    left = sorted(speakers)
    random.Random(corpus.seed).shuffle(left)
    for name, settings in _sharing(part, corpus=corpus).items():
        fitting = [speaker for speaker in left if _fits(speaker, settings, age=speakers[speaker], part=name)]
        wanted = settings.speakers if isinstance(settings.speakers, int) else len(fitting)
        if wanted > len(fitting) or not fitting:
            ages = f" of {settings.ages[0]} to {settings.ages[1]} years" if settings.ages else ""
            raise ValueError(
                f"corpus.parts.{name}.speakers: {settings.speakers} asked for, but of the manifest's {len(speakers)} "
                f"speakers the parts before leave {len(fitting)}{ages}; write less"
            )
        chosen = frozenset(fitting[:wanted])
        if name == part:
            return chosen
        left = [speaker for speaker in left if speaker not in chosen]
    raise AssertionError(f"{part} is no manifest part of this corpus")


def _fits(speaker: str, settings: ManifestPart, *, age: int | None, part: str) -> bool:
    if settings.ages is None:
        return True
    if age is None:
        raise ValueError(
            f"corpus.parts.{part}.ages: the manifest does not tell the age of speaker '{speaker}'; write it as `age`, "
            "whole years, into the custom field of the supervisions, or leave ages out"
        )
    return settings.ages[0] <= age <= settings.ages[1]


def _sharing(part: str, *, corpus: Corpus) -> dict[str, ManifestPart]:
    """Return the parts cut from the same manifest, in the order of the config."""
    own = corpus.parts[part]
    return {
        name: other
        for name, other in corpus.parts.items()
        if isinstance(other, ManifestPart) and (other.folder, other.name) == (own.folder, own.name)
    }
