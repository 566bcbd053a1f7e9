"""The ledger of a study's claims: what the paper reports, what our runs measured, and what follows; claims.csv."""

from __future__ import annotations

import dataclasses
import math

import pandas as pd

from asr_distill.experiment import Claim, Comparison, Condition, SpeedComparison, StudyRecord
from asr_distill.reporting.grid import count
from asr_distill.reporting.real_time import search_ratio
from asr_distill.reporting.scores import generator, percent
from asr_distill.scoring.sample_size import Aim, Size, Spread, aim, needed, spread
from asr_distill.scoring.significance import wer_difference
from asr_distill.scoring.verdict import (
    ClaimVerdict,
    PValues,
    enough_replicates,
    interval_confidence,
    judge,
    judge_claims,
    judge_speed,
    level,
    p_values,
    speed_p_values,
)

NOT_RUN = "not run"
"""Verdict on a claim for want of runs."""

CLAIM_COLUMNS = [
    *["claim", "statement", "reported", "condition", "part", "left", "relation", "right", "left_wer", "right_wer"],
    *["difference", "low", "high", "confidence", "relative", "relative_low", "relative_high", "margin"],
    *["p_reproduced", "p_refuted", "words", "speakers", "seeds", "replicates", "reason"],
    *["seeds_needed", "words_needed", "to_decide", "claim_p_reproduced", "claim_p_refuted"],
    *["uncorrected_verdict", "verdict", "claim_verdict"],
]
"""A row is a comparison; what is about the whole claim (claim_*, to_decide, uncorrected_verdict) stands in each of its
rows. seeds_needed and words_needed are on the comparison's own part."""
SPEED_COLUMNS = ["ratio", "ratio_alone", "runs"]
"""Follow where a claim is about speed; in its rows low and high bound the ratio, and what is about WER is empty."""
CLAIM_P_VALUES = ["claim_p_reproduced", "claim_p_refuted"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Decided:
    """One comparison: its cells in claims.csv, and what the claim's verdict rests on."""

    cells: dict[str, str]
    p: PValues
    spread: Spread | None = None
    """None for a comparison of speed."""
    aim: Aim | None = None
    """None where no more data would help."""


def decide_claims(study: StudyRecord, *, errors: pd.DataFrame, speeds: pd.DataFrame) -> pd.DataFrame:
    """Return one row of text per claim, condition and comparison, and one per claim that is not run.

    Rates, bounds and relative differences are percent, differences points. A comparison of speed is one row: left and
    right are searches, `ratio` is how many times as long left takes as right, from features to text, and `ratio_alone`
    the same of the searches alone.

    Raises:
        ValueError: when a claim's condition has no words to decide it on.
    """
    decided = {
        name: [
            *(
                _decide(study, name, claim, comparison, condition, errors=errors)
                for condition, comparison in compared(study, claim)
            ),
            *(_decide_speed(study, name, claim, comparison, speeds=speeds) for comparison in claim.speed),
        ]
        for name, claim in study.study.claims.items()
    }
    verdicts = judge_claims(
        {name: [one.p for one in own] for name, own in decided.items()},
        among=study.num_claims,
        level=level(study.scale.scoring),
    )
    rows = [row for name, own in decided.items() for row in _rows(study, own, verdicts[name])]
    rows += [_not_run(study, name) for name in study.undecided]
    about_speed = any(claim.speed for claim in study.study.claims.values())
    columns = [*CLAIM_COLUMNS, *(SPEED_COLUMNS if about_speed else [])]
    return pd.DataFrame([dict.fromkeys(columns, "") | row for row in rows], columns=columns)


def compared(study: StudyRecord, claim: Claim) -> list[tuple[Condition, Comparison]]:
    """Return a claim's comparisons, one for each test part: a scale may read two conditions on the same part."""
    pairs = reversed(claim.compared())
    by_part = {(study.scale.conditions[condition], comparison): condition for condition, comparison in pairs}
    return [(condition, comparison) for (_, comparison), condition in reversed(by_part.items())]


def is_about_speed(decided: pd.DataFrame) -> pd.Series:
    """Return which rows of claims.csv compare speed instead of word error rates."""
    return decided["relation"].str.startswith(">=")


def headline(decided: pd.DataFrame) -> dict[str, list[str]]:
    """Return the claims by verdict, every verdict present but "not run", which is where there are such claims."""
    claims = decided.drop_duplicates("claim")
    found = {
        verdict: list(claims[claims["claim_verdict"] == verdict]["claim"])
        for verdict in ("reproduced", "not reproduced", "inconclusive", NOT_RUN)
    }
    return {verdict: names for verdict, names in found.items() if names or verdict != NOT_RUN}


def _decide(
    study: StudyRecord, name: str, claim: Claim, comparison: Comparison, condition: Condition, *, errors: pd.DataFrame
) -> _Decided:
    """Compare two runs on the part of a condition."""
    part, scoring, relation = study.scale.conditions[condition], study.scale.scoring, comparison.relation
    left, right = (
        errors[(errors["run"] == run) & (errors["part"] == part)] for run in (comparison.left, comparison.right)
    )
    replicates = enough_replicates(scoring, comparisons=_num_comparisons(study, claim), claims=study.num_claims)
    try:
        found = wer_difference(
            left,
            right,
            rng=generator(scoring.seed, part, comparison.left, comparison.right),
            replicates=replicates,
            confidence=interval_confidence(relation, confidence=scoring.confidence),
        )
    except ValueError as error:
        raise ValueError(f"claim {name}, {comparison.left} against {comparison.right} on {part}: {error}") from None
    p = p_values(relation, found, margin=scoring.margin, level=level(scoring))
    rates = {"left": found.left, "right": found.right, "margin": scoring.margin}
    shares = {"left_wer": found.left, "right_wer": found.right, "margin": scoring.margin * found.right}
    shares |= {key: getattr(found, key) for key in ("difference", "low", "high")}
    shares |= {key: getattr(found, key) for key in ("relative", "relative_low", "relative_high")}
    cells = _claim_cells(name, claim) | {key: percent(share) for key, share in shares.items()}
    cells |= {key: str(getattr(found, key)) for key in ("words", "speakers", "seeds", "replicates")}
    cells |= {
        "condition": condition,
        "part": part,
        "left": comparison.left,
        "relation": relation,
        "right": comparison.right,
        "confidence": f"{found.confidence:g}",
        **_p_cells(p),
        "reason": found.reason,
        "verdict": judge(relation, low=found.low, high=found.high, **rates),
    }
    stands = p.reproduced <= level(scoring)
    return _Decided(cells=cells, p=p, spread=spread(left, right), aim=aim(relation, stands=stands, **rates))


def _decide_speed(
    study: StudyRecord, name: str, claim: Claim, comparison: SpeedComparison, *, speeds: pd.DataFrame
) -> _Decided:
    """Compare two searches."""
    found, alone = (
        search_ratio(speeds, comparison, measure=measure, confidence=study.scale.scoring.confidence)
        for measure in ("end_to_end", "alone")
    )
    p = speed_p_values(found, at_least=comparison.at_least)
    cells = {
        **_claim_cells(name, claim),
        "left": comparison.slow,
        "relation": f">= {comparison.at_least:g} x",
        "right": comparison.fast,
        "low": f"{found.low:.3f}",
        "high": f"{found.high:.3f}",
        "confidence": f"{study.scale.scoring.confidence:g}",
        **_p_cells(p),
        "seeds": str(len(study.seeds)),
        "reason": found.reason,
        "verdict": judge_speed(low=found.low, high=found.high, at_least=comparison.at_least),
        "ratio": f"{found.ratio:.3f}",
        "ratio_alone": f"{alone.ratio:.3f}",
        "runs": str(found.runs),
    }
    return _Decided(cells=cells, p=p)


def _claim_cells(name: str, claim: Claim) -> dict[str, str]:
    return {"claim": name, "statement": claim.statement, "reported": claim.reported}


def _p_cells(p: PValues) -> dict[str, str]:
    return {"p_reproduced": f"{p.reproduced:.6f}", "p_refuted": f"{p.refuted:.6f}"}


def _num_comparisons(study: StudyRecord, claim: Claim) -> int:
    return len(compared(study, claim)) + len(claim.speed)


def _rows(study: StudyRecord, own: list[_Decided], verdict: ClaimVerdict) -> list[dict[str, str]]:
    """Return the rows of one claim, its verdict and what would decide it included."""
    shared = {
        "claim_p_reproduced": f"{verdict.adjusted.reproduced:.6f}",
        "claim_p_refuted": f"{verdict.adjusted.refuted:.6f}",
        "uncorrected_verdict": verdict.uncorrected,
        "claim_verdict": verdict.verdict,
    }
    if verdict.verdict != "inconclusive":
        return [one.cells | shared for one in own]
    sizes = [_size(study, one, comparisons=len(own)) for one in own]
    shared["to_decide"] = _to_decide(study, own, sizes)
    return [one.cells | _size_cells(one, size) | shared for one, size in zip(own, sizes, strict=True)]


def _size(study: StudyRecord, one: _Decided, *, comparisons: int) -> Size | None:
    """Return what would decide a comparison at the strictest level that Holm's correction may ask for."""
    if one.aim is None or one.spread is None:
        return None
    reproduces = one.aim.verdict == "reproduced"
    strictest = level(study.scale.scoring) / study.num_claims / (1 if reproduces else comparisons)
    if (one.p.reproduced if reproduces else one.p.refuted) <= strictest:
        return Size(seeds=one.spread.seeds, words=1.0)
    tail = strictest / 2 if one.cells["relation"] == "<" else strictest
    return needed(one.spread, distance=one.aim.distance, tail=tail)


def _size_cells(one: _Decided, size: Size | None) -> dict[str, str]:
    if size is None:
        return {}
    return {"seeds_needed": str(size.seeds), "words_needed": str(math.ceil(size.words * int(one.cells["words"])))}


def _to_decide(study: StudyRecord, own: list[_Decided], sizes: list[Size | None]) -> str:
    """Return in words what would decide an inconclusive claim: all comparisons, or the first that refutes it."""
    if any(one.spread is None for one in own):
        return "more training seeds or recognisers"
    if any(one.cells["reason"] for one in own):
        return "more test speakers"
    known = list(zip(own, sizes, strict=True))
    refuting = [size for one, size in known if size and one.aim and one.aim.verdict == "not reproduced"]
    if not refuting and any(one.aim is None for one in own):
        return "better recognisers"
    if len(study.seeds) < 2:
        return "at least 2 seeds to tell"
    if refuting:
        return _in_words(min(refuting, key=lambda size: (size.words, size.seeds)), study)
    seeds, words = max(size.seeds for size in sizes), max(size.words for size in sizes)
    return _in_words(Size(seeds=seeds, words=words), study)


def _in_words(size: Size, study: StudyRecord) -> str:
    seeds = f"{count(size.seeds)} seeds"
    if size.words == 1:
        return seeds
    times = f"{math.ceil(10 * size.words) / 10:.1f} times the test words"
    return times if size.seeds == len(study.seeds) else f"{times} and {seeds}"


def _not_run(study: StudyRecord, name: str) -> dict[str, str]:
    """Return the row of a claim that has no runs here, with what would run them."""
    other = study.undecided[name]
    if name in study.left_out:
        to_decide = f"another scale: {study.left_out[name]}"
    else:
        to_decide = f"snakemake {other.decided_by}" if other.decided_by else "no table of the study has its runs"
    verdicts = dict.fromkeys(("uncorrected_verdict", "verdict", "claim_verdict"), NOT_RUN)
    return {**_claim_cells(name, other.claim), "to_decide": to_decide, **verdicts}
