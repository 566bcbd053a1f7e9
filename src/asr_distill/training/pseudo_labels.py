"""Which of a teacher's transcripts of unlabelled speech a run trains on."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asr_distill.experiment import PseudoLabelChoice


def read_pseudo_labels(
    paths: Sequence[Path], *, choice: PseudoLabelChoice | None = None, where: str = "pseudo_labels"
) -> dict[str, str]:
    """Return transcripts by utterance id: of those that the transcribing job kept, the ones that are chosen.

    Args:
        paths: what the transcribing jobs wrote, a line per utterance.
        choice: the run's own; without one, all that were kept.
        where: names the run and its key, for errors.

    Raises:
        ValueError: when the choice leaves no transcript.
    """
    lines = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    kept = [line for line in lines if line["kept"]]
    if choice is not None and kept:
        kept = _chosen(kept, choice, where=where)
    return {line["id"]: line["text"] for line in kept}


def _chosen(lines: Sequence[dict[str, Any]], choice: PseudoLabelChoice, *, where: str) -> list[dict[str, Any]]:
    """Return the lines within the limits of length and score, and of these the best share by score per token."""
    median = statistics.median(line["tokens_per_second"] for line in lines)
    shortest = choice.min_length_ratio * median
    longest = math.inf if choice.max_length_ratio is None else choice.max_length_ratio * median
    fitting = [line for line in lines if shortest <= line["tokens_per_second"] <= longest]
    if not fitting:
        raise ValueError(
            f"{where}: none of the teacher's {len(lines)} transcripts has from {shortest:.2f} to {longest:.2f} tokens "
            f"per second; the median is {median:.2f}; relax min_length_ratio or max_length_ratio"
        )
    least = -math.inf if choice.min_score_per_token is None else choice.min_score_per_token
    good = [line for line in fitting if line["score_per_token"] >= least]
    if not good:
        best = max(line["score_per_token"] for line in fitting)
        raise ValueError(
            f"{where}: none of the teacher's transcripts has a score per token of {least:g} or more; the best of "
            f"{len(fitting)} has {best:.3f}; relax min_score_per_token"
        )
    ranked = sorted(good, key=lambda line: (-line["score_per_token"], line["id"]))
    return ranked[: max(1, int(choice.keep_share * len(ranked) + 0.5))]
