"""Runs held against each other in pairs, beside the claims: on the same utterances, corrected in families."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from asr_distill.experiment import StudyRecord
from asr_distill.reporting.claims import signed
from asr_distill.reporting.scores import generator, percent
from asr_distill.reporting.tables import with_interval
from asr_distill.scoring.significance import FEW_SPEAKERS, Difference, sum_by_speaker, wer_difference
from asr_distill.scoring.verdict import ClaimVerdict, enough_replicates, judge_claims, level, p_values

COLUMNS = [
    *["part", "left", "right", "left_wer", "right_wer", "difference", "low", "high", "confidence", "p_value"],
    *["p_holm", "words", "speakers", "seeds", "replicates", "reason", "verdict"],
]


def compare_family(
    study: StudyRecord, pairs: Sequence[tuple[str, str]], part: str, *, errors: pd.DataFrame
) -> list[dict[str, str]]:
    """Return whether the left run of each pair has the lower word error rate: COLUMNS as text, a row per pair.

    Rates are percent, differences left minus right in points, with the interval of each pair alone. `p_value` is of the
    hypothesis that left is no better, two-sided; `p_holm` and the verdict are corrected for the number of pairs, by
    the rules for claims (scoring/verdict.py).

    Args:
        study: the study.
        pairs: runs, left and right.
        part: where they are compared.
        errors: as `read_errors` returns them.
    """
    scoring = study.scale.scoring
    replicates = enough_replicates(scoring, comparisons=1, claims=len(pairs))
    rows: list[dict[str, str]] = []
    found = {pair: _difference(study, *pair, part, errors=errors, replicates=replicates) for pair in pairs}
    raw = {pair: p_values("<", d, margin=scoring.margin, level=level(scoring)) for pair, d in found.items()}
    judged = judge_claims({pair: [p] for pair, p in raw.items()}, among=len(pairs), level=level(scoring))
    for pair, difference in found.items():
        row = {"part": part, "left": pair[0], "right": pair[1], **_cells(difference)}
        row |= _verdict_cells(judged[pair], p_value=raw[pair].reproduced)
        rows.append(row | {"replicates": str(replicates), "reason": difference.reason})
    return rows


def part_error_rate(errors: pd.DataFrame, run: str, part: str) -> float:
    """Return the word error rate of a run on a part, a fraction, the mean over seeds."""
    return sum_by_speaker(errors[(errors["run"] == run) & (errors["part"] == part)]).wer


def in_points(row: dict[str, Any], *, sign: int = 1) -> str:
    """Return "−3.1 [−4.0, −2.2]" for a row of `compare_family`: left minus right, or the reverse with sign -1."""
    value, *bounds = (sign * float(row[key]) + 0.0 for key in ("difference", "low", "high"))
    shown = with_interval(*(f"{number:.3f}" for number in (value, *sorted(bounds))))
    return signed(shown, positive=value >= 0.05)


def pair_notes(study: StudyRecord, rows: pd.DataFrame) -> Iterator[str]:
    """Yield what the intervals of rows of `compare_family` do and do not cover."""
    confidence = f"{100 * study.scale.scoring.confidence:g} %"
    scope = "test speakers, not training seeds" if len(study.seeds) == 1 else "test speakers and training seeds"
    yield (
        f"Intervals are {confidence} bootstrap intervals of each pair alone, paired; they cover {scope}. p: of the "
        "hypothesis that the first of the two is no better, two-sided, so a reliable loss has a high one."
    )
    yield from (f"n/a: {reason}." for reason in rows["reason"].unique() if reason)
    if ((rows["speakers"].astype(int) < FEW_SPEAKERS) & (rows["reason"] == "")).any():
        yield f"With fewer than {FEW_SPEAKERS} speakers a bootstrap interval is somewhat too short."


def _difference(
    study: StudyRecord, left: str, right: str, part: str, *, errors: pd.DataFrame, replicates: int
) -> Difference:
    scoring, own = study.scale.scoring, errors[errors["part"] == part]
    try:
        return wer_difference(
            own[own["run"] == left],
            own[own["run"] == right],
            rng=generator(scoring.seed, part, left, right),  # as for claims
            replicates=replicates,
            confidence=scoring.confidence,
        )
    except ValueError as error:
        raise ValueError(f"{left} against {right} on {part}: {error}") from None


def _cells(found: Difference) -> dict[str, str]:
    rates = {"left_wer": found.left, "right_wer": found.right, "difference": found.difference}
    rates |= {"low": found.low, "high": found.high}
    counts = {name: str(getattr(found, name)) for name in ("words", "speakers", "seeds")}
    return {name: percent(rate) for name, rate in rates.items()} | {"confidence": f"{found.confidence:g}"} | counts


def _verdict_cells(found: ClaimVerdict, *, p_value: float) -> dict[str, str]:
    p_holm = found.adjusted.reproduced
    return {"p_value": f"{p_value:.4f}", "p_holm": f"{p_holm:.4f}", "verdict": found.verdict}
