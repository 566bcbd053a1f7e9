"""The claims of a study: what the paper says, what our runs say, and whether that reproduces it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from asr_distill.experiment import StudyRecord
from asr_distill.files import write_csv, write_text
from asr_distill.reporting.decisions import NOT_RUN, decide_claims, headline, is_about_speed
from asr_distill.reporting.grid import Column, Grid, count, latex, markdown, run_name
from asr_distill.reporting.inputs import read_errors
from asr_distill.reporting.real_time import real_time_frame
from asr_distill.reporting.tables import with_interval
from asr_distill.scoring.significance import FEW_SPEAKERS
from asr_distill.scoring.verdict import rules, speed_rules


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
    write_csv(output / "claims.csv", decided)
    text = "\n".join(markdown(grid, level=1 if grid is grids[0] else 2) for grid in grids)
    write_text(output / "claims.md", text)
    write_text(output / "claims.tex", "\n".join(latex(grid) for grid in grids))


def claim_grids(study: StudyRecord, decided: pd.DataFrame) -> tuple[Grid, ...]:
    """Return tables for people, of the rows of `decide_claims`: the claims, and what decides them."""
    timed, run = is_about_speed(decided), decided["claim_verdict"] != NOT_RUN
    grids = [_claims_grid(study, decided), _comparisons_grid(study, decided[run & ~timed])]
    return (*grids, _speed_grid(study, decided[timed])) if timed.any() else tuple(grids)


def _claims_grid(study: StudyRecord, decided: pd.DataFrame) -> Grid:
    totals = [f"{len(claims)} {verdict}" for verdict, claims in headline(decided).items()]
    claims = decided.groupby("claim", sort=False)
    return Grid(
        name=f"{study.name}-claims",
        title=f"Claims: {study.study.title}",
        caption=f"Scale “{study.scale_name}”: {', '.join(totals)}.",
        columns=(
            Column(label="claim", align="left"),
            Column(label="verdict", align="left"),
            *(Column(label=label, align="prose") for label in ("statement", "paper reports", "we measured")),
            *(Column(label=label, group="p (Holm)") for label in ("reproduced", "not reproduced")),
            Column(label="seeds"),
            Column(label="words"),
            Column(label="to decide", align="left"),
        ),
        rows=tuple(_claim_cells(rows) for _, rows in claims),
        notes=tuple(_corrected(decided)),
        deviations=study.deviations,
    )


def _claim_cells(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return what people read of one claim, from its rows."""
    first = rows.iloc[0]
    words = rows.drop_duplicates("part")["words"]
    return (
        *(first[key] for key in ("claim", "claim_verdict", "statement", "reported")),
        _measured(rows),
        *(shown_p(first[key]) for key in ("claim_p_reproduced", "claim_p_refuted")),
        first["seeds"],
        count(sum(int(number) for number in words)) if all(words) else "",
        first["to_decide"],
    )


def _measured(rows: pd.DataFrame) -> str:
    """Return "test-other: self soft 16.6, self hard 20.4", or "beam 1 5.3 times greedy", for one claim."""
    about_speed = is_about_speed(rows)
    parts = []
    for part, own in rows[(rows["part"] != "") & ~about_speed].groupby("part", sort=False):
        rates = {}
        for row in own.to_dict("records"):
            rates |= {row[side]: float(row[f"{side}_wer"]) for side in ("left", "right")}
        parts.append(f"{part}: {', '.join(f'{run_name(run)} {rate:.1f}' for run, rate in rates.items())}")
    for row in rows[about_speed].to_dict("records"):
        parts.append(f"{run_name(row['left'])} {float(row['ratio']):.1f} times {run_name(row['right'])}")
    return "; ".join(parts)


def _corrected(decided: pd.DataFrame) -> Iterator[str]:
    """Yield what the correction for the number of claims changed."""
    claims = decided.drop_duplicates("claim")
    for verdict, own in claims[claims["claim_verdict"] != claims["uncorrected_verdict"]].groupby("uncorrected_verdict"):
        yield f"Inconclusive only because of the number of claims, else {verdict}: {', '.join(own['claim'])}."


def _comparisons_grid(study: StudyRecord, decided: pd.DataFrame) -> Grid:
    left = [Column(label=label, align="left") for label in ("claim", "part", "compared")]
    rates = [Column(label=label) for label in ("left", "right", "left − right", "relative", "level")]
    p_values = [Column(label=label, group="p") for label in ("reproduced", "not reproduced")]
    rest = [Column(label=label) for label in ("words", "speakers", "seeds")]
    return Grid(
        name=f"{study.name}-comparisons",
        title="The comparisons that decide the claims",
        caption="Word error rates in percent; differences in points, with bootstrap intervals paired by speaker.",
        columns=(*left, *rates, Column(label="verdict", align="left"), *p_values, *rest),
        rows=tuple(_comparison_cells(row) for row in decided.to_dict("records")),
        notes=claim_notes(study, decided),
    )


def _comparison_cells(row: dict[str, str]) -> tuple[str, ...]:
    difference, relative = float(row["difference"]), float(row["relative"])
    return (
        row["claim"],
        row["part"],
        f"{run_name(row['left'])} {row['relation'].replace('<=', '≤')} {run_name(row['right'])}",
        f"{float(row['left_wer']):.1f}",
        f"{float(row['right_wer']):.1f}",
        signed(with_interval(row["difference"], row["low"], row["high"]), positive=difference >= 0.05),
        "n/a" if math.isnan(relative) else signed(_relative(row), positive=relative >= 0.5),
        f"{100 * float(row['confidence']):g} %",
        row["verdict"],
        *(shown_p(row[key]) for key in ("p_reproduced", "p_refuted")),
        count(int(row["words"])),
        row["speakers"],
        row["seeds"],
    )


def _relative(row: dict[str, str]) -> str:
    """Return "-8 % [-12, -4]"."""
    relative, low, high = (float(row[key]) for key in ("relative", "relative_low", "relative_high"))
    return f"{relative:.0f} %" + ("" if math.isnan(low) else f" [{low:.0f}, {high:.0f}]")


def _speed_grid(study: StudyRecord, decided: pd.DataFrame) -> Grid:
    left = [Column(label="claim", align="left"), Column(label="compared", align="left")]
    ratios = [Column(label=label, group="ratio of RTF") for label in ("end to end", "search alone")]
    rest = [Column(label=label, group="p") for label in ("reproduced", "not reproduced")]
    rest += [Column(label="recognisers"), Column(label="seeds")]
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
        *(shown_p(row[key]) for key in ("p_reproduced", "p_refuted")),
        row["runs"],
        row["seeds"],
    )


def claim_notes(study: StudyRecord, decided: pd.DataFrame) -> tuple[str, ...]:
    """Return the rules in words, and what the intervals do and do not cover."""
    notes = list(rules(study.scale.scoring, claims=study.num_claims))
    if len(study.seeds) == 1:
        notes.append("One training seed: the intervals cover the test speakers, not the training seeds.")
    else:
        notes.append(
            f"{len(study.seeds)} training seeds: the intervals cover the test speakers and the training seeds."
        )
    notes += [f"n/a: {reason}." for reason in decided["reason"].unique() if reason]
    if ((decided["speakers"].astype(int) < FEW_SPEAKERS) & (decided["reason"] == "")).any():
        notes.append(f"With fewer than {FEW_SPEAKERS} speakers a bootstrap interval is somewhat too short.")
    notes.append(
        "To decide: seeds, or seeds and words together, at which the interval of the difference as observed would "
        "exclude what it must, by its spread over speakers and seeds and at the strictest level of the correction. A "
        "rough guide: even if the difference stays, that size decides about every second time."
    )
    return tuple(notes)


def shown_p(p_value: str) -> str:
    """Return a p-value, given as text, for people; "" for none."""
    if not p_value:
        return ""
    value = float(p_value)
    return "n/a" if math.isnan(value) else (f"{value:.3f}" if value >= 0.001 else "< 0.001")


def signed(text: str, *, positive: bool) -> str:
    """Write minus signs as such, none before a rounded zero, and a plus before a positive number."""
    return ("+" if positive else "") + re.sub(r"-(?!0(\.0)?(?![.\d]))", "−", text).replace("-", "")
