"""The claims of a study: what the paper says, what our runs say, and whether that reproduces it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd

from asr_distill.experiment import Claim, Comparison, Condition, SpeedComparison, StudyRecord
from asr_distill.reporting.grid import Column, Grid, count, latex, markdown, run_name
from asr_distill.reporting.inputs import read_errors
from asr_distill.reporting.real_time import real_time_frame, search_ratio
from asr_distill.reporting.scores import generator, percent
from asr_distill.reporting.tables import with_interval
from asr_distill.scoring.significance import FEW_SPEAKERS, Difference, wer_difference
from asr_distill.scoring.verdict import interval_confidence, judge, judge_claim, judge_speed, rules, speed_rules


def write_claims(study: Path, *, errors: Path, runs: Path, output: Path) -> None:
    """Decide the claims of a study and write <output>/claims.csv, .md and .tex.

    Args:
        study: the resolved study.yaml.
        errors: errors.csv.
        runs: folder that holds <run>/seed<seed>/decoding.json of CTC runs.
        output: folder of the claims.

    Raises:
        ValueError: when a claim's condition has no words to decide it on, or a run was not timed.
    """
    record = StudyRecord.read(study)
    speeds = real_time_frame(record, runs=runs)
    decided = decide_claims(record, errors=read_errors(errors), speeds=speeds)
    grids = claim_grids(record, decided)
    output.mkdir(parents=True, exist_ok=True)
    decided.to_csv(output / "claims.csv", index=False, lineterminator="\n")
    text = "\n".join(markdown(grid, level=1 if grid is grids[0] else 2) for grid in grids)
    (output / "claims.md").write_text(text, encoding="utf-8")
    (output / "claims.tex").write_text("\n".join(latex(grid) for grid in grids), encoding="utf-8")


CLAIM_COLUMNS = [
    *["claim", "statement", "reported", "condition", "part", "left", "relation", "right", "left_wer", "right_wer"],
    *["difference", "low", "high", "confidence", "relative", "p_value", "margin", "words", "speakers", "seeds"],
    *["replicates", "reason", "verdict", "claim_verdict"],
]
SPEED_COLUMNS = ["ratio", "ratio_alone", "runs"]
"""Follow where a claim is about speed; in its rows low and high bound the ratio, and what is about WER is empty."""


def decide_claims(study: StudyRecord, *, errors: pd.DataFrame, speeds: pd.DataFrame) -> pd.DataFrame:
    """Return one row of text per claim, condition and comparison; rates and bounds are percent, `relative` too.

    A comparison of speed is one row: left and right are searches, `ratio` is how many times as long left takes as
    right, from features to text, and `ratio_alone` the same of the searches alone.
    """
    rows = []
    for name, claim in study.study.claims.items():
        own = [
            _decide(study, name, claim, comparison, condition, errors=errors)
            for condition in _distinct_conditions(study, claim)
            for comparison in claim.comparisons
        ]
        own += [_decide_speed(study, name, claim, comparison, speeds=speeds) for comparison in claim.speed]
        verdict = judge_claim(row["verdict"] for row in own)
        rows += [{**row, "claim_verdict": verdict} for row in own]
    about_speed = any(claim.speed for claim in study.study.claims.values())
    return pd.DataFrame(rows, columns=[*CLAIM_COLUMNS, *(SPEED_COLUMNS if about_speed else [])]).fillna("")


def _distinct_conditions(study: StudyRecord, claim: Claim) -> list[Condition]:
    """Return the claim's conditions, one for each test part: a scale may read two conditions on the same part."""
    by_part = {study.scale.conditions[condition]: condition for condition in reversed(claim.conditions)}
    return list(reversed(by_part.values()))


def claim_grids(study: StudyRecord, decided: pd.DataFrame) -> tuple[Grid, ...]:
    """Return tables for people, of the rows of `decide_claims`: the claims, and what decides them."""
    timed = is_about_speed(decided)
    grids = [_claims_grid(study, decided), _comparisons_grid(study, decided[~timed])]
    return (*grids, _speed_grid(study, decided[timed])) if timed.any() else tuple(grids)


def is_about_speed(decided: pd.DataFrame) -> pd.Series:
    """Return which rows of claims.csv compare speed instead of word error rates."""
    return decided["left_wer"] == ""


def headline(decided: pd.DataFrame) -> dict[str, list[str]]:
    """Return the claims by verdict, every verdict present."""
    claims = decided.drop_duplicates("claim")
    verdicts = ("reproduced", "not reproduced", "inconclusive")
    return {verdict: list(claims[claims["claim_verdict"] == verdict]["claim"]) for verdict in verdicts}


def undecided(study: StudyRecord) -> str:
    """Return a sentence on the claims of the study that this part of it cannot decide."""
    if not study.undecided:
        return ""
    return f" Not decided here, for want of runs: {', '.join(study.undecided)}; `snakemake complete` decides all."


def _decide(
    study: StudyRecord, name: str, claim: Claim, comparison: Comparison, condition: Condition, *, errors: pd.DataFrame
) -> dict[str, str]:
    """Return one row of claims.csv but for the claim's verdict."""
    part, relation = study.scale.conditions[condition], comparison.relation
    found = _measure(study, comparison, part, where=f"claim {name}", errors=errors)
    margin = study.scale.scoring.margin
    return {
        "claim": name,
        "statement": claim.statement,
        "reported": claim.reported,
        "condition": condition,
        "part": part,
        "left": comparison.left,
        "relation": relation,
        "right": comparison.right,
        "left_wer": percent(found.left),
        "right_wer": percent(found.right),
        "difference": percent(found.difference),
        "low": percent(found.low),
        "high": percent(found.high),
        "confidence": f"{found.confidence:g}",
        "relative": percent(found.relative),
        "p_value": "nan" if math.isnan(found.p_value) else f"{found.p_value:.4f}",
        "margin": percent(margin * found.right),
        "words": str(found.words),
        "speakers": str(found.speakers),
        "seeds": str(found.seeds),
        "replicates": str(found.replicates),
        "reason": found.reason,
        "verdict": judge(relation, low=found.low, high=found.high, left=found.left, right=found.right, margin=margin),
    }


def _decide_speed(
    study: StudyRecord, name: str, claim: Claim, comparison: SpeedComparison, *, speeds: pd.DataFrame
) -> dict[str, str]:
    """Return one row of claims.csv on speed but for the claim's verdict."""
    found, alone = (
        search_ratio(speeds, comparison, measure=measure, confidence=study.scale.scoring.confidence)
        for measure in ("end_to_end", "alone")
    )
    return {
        "claim": name,
        "statement": claim.statement,
        "reported": claim.reported,
        "left": comparison.slow,
        "relation": f">= {comparison.at_least:g} x",
        "right": comparison.fast,
        "low": f"{found.low:.3f}",
        "high": f"{found.high:.3f}",
        "confidence": f"{study.scale.scoring.confidence:g}",
        "seeds": str(len(study.seeds)),
        "reason": found.reason,
        "verdict": judge_speed(low=found.low, high=found.high, at_least=comparison.at_least),
        "ratio": f"{found.ratio:.3f}",
        "ratio_alone": f"{alone.ratio:.3f}",
        "runs": str(found.runs),
    }


def _measure(study: StudyRecord, comparison: Comparison, part: str, *, where: str, errors: pd.DataFrame) -> Difference:
    """Compare two runs on one part, with the interval that the relation needs."""
    scoring = study.scale.scoring
    left, right = (
        errors[(errors["run"] == run) & (errors["part"] == part)] for run in (comparison.left, comparison.right)
    )
    try:
        return wer_difference(
            left,
            right,
            rng=generator(scoring.seed, part, comparison.left, comparison.right),
            replicates=scoring.replicates,
            confidence=interval_confidence(comparison.relation, confidence=scoring.confidence),
        )
    except ValueError as error:
        raise ValueError(f"{where}, {comparison.left} against {comparison.right} on {part}: {error}") from None


def _claims_grid(study: StudyRecord, decided: pd.DataFrame) -> Grid:
    claims = decided.drop_duplicates("claim")
    rows = claims[["claim", "claim_verdict", "statement", "reported"]].itertuples(index=False, name=None)
    totals = [f"{len(claims)} {verdict}" for verdict, claims in headline(decided).items()]
    return Grid(
        name=f"{study.name}-claims",
        title=f"Claims: {study.study.title}",
        caption=f"Scale “{study.scale_name}”: {', '.join(totals)}.{undecided(study)}",
        columns=(
            Column(label="claim", align="left"),
            Column(label="verdict", align="left"),
            Column(label="statement", align="prose"),
            Column(label="paper reports", align="prose"),
        ),
        rows=tuple(rows),
        deviations=(*study.scale.deviations, *study.study.deviations),
    )


def _comparisons_grid(study: StudyRecord, decided: pd.DataFrame) -> Grid:
    left = [Column(label=label, align="left") for label in ("claim", "part", "compared")]
    rates = [Column(label=label) for label in ("left", "right", "left − right", "level")]
    rest = [Column(label=label) for label in ("relative", "p", "words", "speakers", "seeds")]
    return Grid(
        name=f"{study.name}-comparisons",
        title="The comparisons that decide the claims",
        caption="Word error rates in percent; differences in points, with bootstrap intervals paired by speaker.",
        columns=(*left, *rates, Column(label="verdict", align="left"), *rest),
        rows=tuple(_comparison_cells(row) for row in decided.to_dict("records")),
        notes=claim_notes(study, decided),
    )


def _comparison_cells(row: dict[str, str]) -> tuple[str, ...]:
    difference, relative, p_value = float(row["difference"]), float(row["relative"]), float(row["p_value"])
    return (
        row["claim"],
        row["part"],
        f"{run_name(row['left'])} {row['relation'].replace('<=', '≤')} {run_name(row['right'])}",
        f"{float(row['left_wer']):.1f}",
        f"{float(row['right_wer']):.1f}",
        signed(with_interval(row["difference"], row["low"], row["high"]), positive=difference >= 0.05),
        f"{100 * float(row['confidence']):g} %",
        row["verdict"],
        "n/a" if math.isnan(relative) else signed(f"{relative:.0f} %", positive=relative >= 0.5),
        "n/a" if math.isnan(p_value) else (f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"),
        count(int(row["words"])),
        row["speakers"],
        row["seeds"],
    )


def _speed_grid(study: StudyRecord, decided: pd.DataFrame) -> Grid:
    left = [Column(label="claim", align="left"), Column(label="compared", align="left")]
    ratios = [Column(label=label, group="ratio of RTF") for label in ("end to end", "search alone")]
    rest = [Column(label="recognisers"), Column(label="seeds")]
    return Grid(
        name=f"{study.name}-speed",
        title="The comparisons of speed that decide the claims",
        caption=(
            "Ratios of real-time factors on the test parts: geometric means over CTC recognisers and training seeds, "
            "with their t-interval."
        ),
        columns=(*left, *ratios, Column(label="level"), Column(label="verdict", align="left"), *rest),
        rows=tuple(_speed_cells(row) for row in decided.to_dict("records")),
        notes=(
            *speed_rules(study.scale.scoring),
            *(f"n/a: {reason}." for reason in decided["reason"].unique() if reason),
            "These are measurements, which vary from run to run.",
        ),
    )


def _speed_cells(row: dict[str, str]) -> tuple[str, ...]:
    factor = row["relation"].removeprefix(">= ").removesuffix(" x")
    return (
        row["claim"],
        f"{run_name(row['left'])} at least {factor} times as long as {run_name(row['right'])}",
        with_interval(row["ratio"], row["low"], row["high"]),
        f"{float(row['ratio_alone']):.1f}",
        f"{100 * float(row['confidence']):g} %",
        row["verdict"],
        row["runs"],
        row["seeds"],
    )


def claim_notes(study: StudyRecord, decided: pd.DataFrame) -> tuple[str, ...]:
    """Return the rules in words, and what the intervals do and do not cover."""
    notes = list(rules(study.scale.scoring))
    if len(study.seeds) == 1:
        notes.append("One training seed: the intervals cover the test speakers, not the training seeds.")
    else:
        notes.append(
            f"{len(study.seeds)} training seeds: the intervals cover the test speakers and the training seeds."
        )
    notes += [f"n/a: {reason}." for reason in decided["reason"].unique() if reason]
    if ((decided["speakers"].astype(int) < FEW_SPEAKERS) & (decided["reason"] == "")).any():
        notes.append(f"With fewer than {FEW_SPEAKERS} speakers a bootstrap interval is somewhat too short.")
    notes.append("p is two-sided, of the hypothesis that both word error rates are equal; no correction across claims.")
    return tuple(notes)


def signed(text: str, *, positive: bool) -> str:
    """Write minus signs as such, none before a rounded zero, and a plus before a positive number."""
    return ("+" if positive else "") + re.sub(r"-(?!0(\.0)?(?![.\d]))", "−", text).replace("-", "")
