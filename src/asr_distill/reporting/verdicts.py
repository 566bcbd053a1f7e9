"""What a table of methods tells: which are best in each group of its rows, and whether some upset the paper's order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pandas as pd

from asr_distill.experiment import StudyRecord, Table
from asr_distill.files import write_csv, write_text
from asr_distill.reporting.claims import shown_p
from asr_distill.reporting.comparisons import COLUMNS, compare_family, in_points, pair_notes, part_error_rate
from asr_distill.reporting.grid import Column, Grid, latex, markdown
from asr_distill.reporting.inputs import read_errors
from asr_distill.reporting.looks import shown_parts
from asr_distill.scoring.verdict import judge_claim

BEST, ORDER, CHALLENGE = "best", "order", "challenge"
"""Questions that comparisons answer."""


def write_verdicts(study: Path, *, errors: Path, output: Path) -> None:
    """Write <output>/<table>_verdicts.csv, .md and .tex for every table that is asked for verdicts.

    Args:
        study: the resolved study.yaml.
        errors: errors.csv.
        output: folder of the tables.
    """
    record = StudyRecord.read(study)
    asked, counted = asked_tables(record), read_errors(errors)
    for name in asked:
        frame = verdicts_frame(record, name, errors=counted)
        write_csv(verdicts_path(output, name), frame)
        grids = verdict_grids(record, name, frame)
        text = "\n".join(markdown(grid, level=1 if grid is grids[0] else 2) for grid in grids)
        write_text(output / f"{name}_verdicts.md", text)
        write_text(output / f"{name}_verdicts.tex", "\n".join(map(latex, grids)))


def asked_tables(study: StudyRecord) -> list[str]:
    """Return the tables that are asked for verdicts."""
    return [name for name, table in study.study.tables.items() if table.verdicts is not None]


def verdicts_path(tables: Path, name: str) -> Path:
    """Return the file of a table's verdicts, in the folder of the tables."""
    return tables / f"{name}_verdicts.csv"


def verdicts_frame(study: StudyRecord, name: str, *, errors: pd.DataFrame) -> pd.DataFrame:
    """Return every comparison that a table's verdicts rest on, a row each: group, question and COLUMNS, as text.

    Questions: "best": does the run with the lowest word error rate of its group (left) beat each other one (right)?
    "order": is each run of the paper's order better than the next? "challenge": does each challenger (left) beat each
    run of the order but the last (right)? p-values are corrected over the methods: over the others of the group, and
    over the challengers of one run; those of the order are the paper's own claim and stay as they are.
    """
    table, rows = study.study.tables[name], []
    groups, (upset, _) = methods(table), _upset_group(table)
    for part in shown_parts(study):
        for group, labels in groups.items():
            best, others = _best_first(list(labels), part, errors=errors)
            found = compare_family(study, [(best, other) for other in others], part, errors=errors)
            rows += [{"group": group, "question": BEST, **row} for row in found]
        for pair in pairwise(table.verdicts.order):
            found = compare_family(study, [pair], part, errors=errors)
            rows += [{"group": upset, "question": ORDER, **row} for row in found]
        for rival in table.verdicts.order[:-1]:
            pairs = [(challenger, rival) for challenger in table.verdicts.challengers]
            found = compare_family(study, pairs, part, errors=errors)
            rows += [{"group": upset, "question": CHALLENGE, **row} for row in found]
    return pd.DataFrame(rows, columns=["group", "question", *COLUMNS])


def methods(table: Table) -> dict[str, dict[str, str]]:
    """Return the runs of each group of a table's rows, two or more: group -> run -> label."""
    groups: dict[str, dict[str, str]] = {}
    for row in table.rows:
        if row.group and row.run is not None:
            groups.setdefault(row.group, {})[row.run] = row.label
    return {group: labels for group, labels in groups.items() if len(labels) > 1}


def verdict_grids(study: StudyRecord, name: str, frame: pd.DataFrame) -> tuple[Grid, Grid]:
    """Return the verdicts of a table for people, from its `verdicts_frame`: the best methods, and the order upset."""
    return _best_grid(study, name, frame[frame["question"] == BEST]), _order_grid(study, name, frame)


def statements(study: StudyRecord, name: str, frame: pd.DataFrame) -> list[str]:
    """Return in words, for each part, whether the paper's order holds, and which challengers beat all but its last."""
    table = study.study.tables[name]
    group, labels = _upset_group(table)
    *rivals, last = table.verdicts.order
    found = []
    for part, own in frame.groupby("part", sort=False):
        order, duels = (own[own["question"] == question] for question in (ORDER, CHALLENGE))
        verdicts = duels.groupby("left", sort=False)["verdict"].agg(judge_claim)
        sides = {
            verdict: "; ".join(labels[run] for run in verdicts.index[verdicts == verdict]) or "none"
            for verdict in ("reproduced", "not reproduced", "inconclusive")
        }
        found.append(
            f"{group}, {part}: the paper's order, {' < '.join(labels[run] for run in (*rivals, last))} (WER), is "
            f"{judge_claim(order['verdict'])} here. Better than {' and '.join(labels[run] for run in rivals)}: "
            f"{sides['reproduced']}. Not better than both: {sides['not reproduced']}. Undecided: "
            f"{sides['inconclusive']}."
        )
    return found


def _upset_group(table: Table) -> tuple[str, dict[str, str]]:
    """Return the group in which an order is challenged, and its runs with their labels."""
    return next((group, labels) for group, labels in methods(table).items() if table.verdicts.order[0] in labels)


def _best_first(runs: list[str], part: str, *, errors: pd.DataFrame) -> tuple[str, list[str]]:
    """Return the run with the lowest word error rate on a part, the first of several, and the others by theirs."""
    best, *others = sorted(runs, key=lambda run: part_error_rate(errors, run, part))
    return best, others


def _best_grid(study: StudyRecord, name: str, frame: pd.DataFrame) -> Grid:
    table = study.study.tables[name]
    groups, rows = methods(table), []
    for (part, group), own in frame.groupby(["part", "group"], sort=False):
        labels, behind = groups[group], own["verdict"] == "reproduced"
        best = own.iloc[0]
        rows.append(
            (
                group,
                part,
                f"{labels[best['left']]}, {float(best['left_wer']):.1f} %",
                "; ".join(_behind(own[~behind], labels)),
                "; ".join(_behind(own[behind], labels)),
            )
        )
    return Grid(
        name=f"{name}-best",
        title=f"{table.caption}: the best methods",
        caption=(
            f"Scale “{study.scale_name}”. By word error rate on each test part; behind each other method what it is "
            "behind, in points, with its interval."
        ),
        columns=(
            Column(label="student", align="left"),
            Column(label="part", align="left"),
            Column(label="best", align="left"),
            Column(label="not told apart from it", align="prose"),
            Column(label="worse", align="prose"),
        ),
        rows=tuple(rows),
        notes=tuple(_best_notes(study, frame)),
    )


def _behind(rows: pd.DataFrame, labels: dict[str, str]) -> Iterator[str]:
    """Yield "Hard targets +3.0 [1.2, 4.9]" for each comparison of the best (left) with another (right)."""
    for row in rows.to_dict("records"):
        yield f"{labels[row['right']]} {in_points(row, sign=-1)}"


def _best_notes(study: StudyRecord, frame: pd.DataFrame) -> Iterator[str]:
    level = f"{100 * (1 - study.scale.scoring.confidence):g} %"
    yield (
        f"Worse: the difference to the best is significant at {level} after Holm's correction for all other methods of "
        "the same student and part; all others are not told apart from it, which does not mean that they are equal."
    )
    yield "The best was chosen on the same test part, so the others are judged a little severely."
    yield from pair_notes(study, frame)


def _order_grid(study: StudyRecord, name: str, frame: pd.DataFrame) -> Grid:
    table, rows = study.study.tables[name], []
    group, labels = _upset_group(table)
    frame = frame[frame["question"] != BEST]
    for row in frame.to_dict("records"):
        compared = f"{labels[row['left']]} < {labels[row['right']]}"
        rates = (f"{float(row[side]):.1f}" for side in ("left_wer", "right_wer"))
        p_values = (shown_p(row[key]) for key in ("p_value", "p_holm"))
        rows.append((compared, row["part"], *rates, in_points(row), row["verdict"], *p_values))
    return Grid(
        name=f"{name}-order",
        title=f"{table.caption}: is the paper's order upset?",
        caption=f"{group}, scale “{study.scale_name}”. Word error rates in percent, differences in points.",
        columns=(
            Column(label="compared", align="left"),
            Column(label="part", align="left"),
            *(Column(label=label) for label in ("left", "right", "left − right")),
            Column(label="verdict", align="left"),
            *(Column(label=label) for label in ("p", "p (Holm)")),
        ),
        rows=tuple(rows),
        notes=(*statements(study, name, frame), *_order_notes(study, frame)),
        deviations=(*study.scale.deviations, *study.study.deviations, *table.deviations),
    )


def _order_notes(study: StudyRecord, frame: pd.DataFrame) -> Iterator[str]:
    yield (
        "Verdicts follow the rule for “left < right” under the claims. Where several methods are held against the same "
        "run, it is reproduced only if p stays low after Holm's correction for all of them. A method upsets the order "
        "if it beats all but its last; the order itself and each method need all their comparisons."
    )
    yield from pair_notes(study, frame)
