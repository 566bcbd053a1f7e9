"""What a search returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """The best transcript that a search found for one utterance."""

    tokens: tuple[int, ...]
    score: float
    """Natural log of its probability: of its best alignment (greedy), or of all alignments the beam kept."""
    frames: tuple[int, ...] = ()
    """Encoder frame, from 0 where the speech begins, at which each token was emitted; the greedy transducer search
    alone tells."""
