"""Shares out the speakers of one manifest among the parts that are cut from it."""

from __future__ import annotations

import random
from collections.abc import Collection

from asr_distill.experiment import Corpus, ManifestPart


def choose_speakers(part: str, *, corpus: Corpus, speakers: Collection[str]) -> frozenset[str]:
    """Return the speakers of a part, given those of its manifest.

    The sorted speakers are shuffled once with the corpus seed; the parts that share the manifest take theirs in the
    order of the config, so no speaker falls to two parts.

    Raises:
        ValueError: where the manifest has fewer speakers than its parts ask for.
    """
    shuffled = sorted(speakers)
    random.Random(corpus.seed).shuffle(shuffled)
    taken = 0
    for name, settings in _sharing(part, corpus=corpus).items():
        left = len(shuffled) - taken
        wanted = settings.speakers if isinstance(settings.speakers, int) else left
        if wanted > left or left == 0:
            raise ValueError(
                f"corpus.parts.{name}.speakers: {settings.speakers} asked for, but of the manifest's {len(shuffled)} "
                f"speakers the parts before leave {left}; write less"
            )
        if name == part:
            return frozenset(shuffled[taken : taken + wanted])
        taken += wanted
    raise AssertionError(f"{part} is no manifest part of this corpus")


def _sharing(part: str, *, corpus: Corpus) -> dict[str, ManifestPart]:
    """Return the parts cut from the same manifest, in the order of the config."""
    own = corpus.parts[part]
    return {
        name: other
        for name, other in corpus.parts.items()
        if isinstance(other, ManifestPart) and (other.folder, other.name) == (own.folder, own.name)
    }
