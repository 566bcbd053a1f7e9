"""Character error rates in the tables of a scale that scores them: columns of their own, after the word error rates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from asr_distill.experiment import Row, StudyRecord
from asr_distill.reporting.grid import Column, with_interval
from asr_distill.reporting.scores import MEAN

FIGURES = ("cer", "cer_low", "cer_high")
Shown = Sequence[tuple[str, str]]
"""Part and column of the paper of every part that a table shows."""


def character_cells(study: StudyRecord, row: Row, shown: Shown, *, scores: pd.DataFrame) -> dict[str, str]:
    """Return the rates of a table's row for machines, keys <part>_<figure>; "" where it has none."""
    if not study.scale.scoring.characters:
        return {}
    means = scores[(scores["run"] == row.run) & (scores["seed"] == MEAN)].set_index("part")
    return {
        f"{column or part}_{figure}": f"{float(means.loc[part, figure]):.3f}" if part in means.index else ""
        for part, column in shown
        for figure in FIGURES
    }


def character_columns(study: StudyRecord, shown: Shown) -> list[Column]:
    """Return the columns for people: of the parts for testing, and of their mean."""
    return [Column(label=part, group="character error rate, ours") for part, _ in _for_people(study, shown)]


def shown_characters(study: StudyRecord, cells: Mapping[str, str], shown: Shown) -> Iterator[str]:
    """Yield the rates of a row for machines as people read them, in the order of `character_columns`."""
    for part, column in _for_people(study, shown):
        yield with_interval(*(cells[f"{column or part}_{figure}"] for figure in FIGURES))


def character_notes(study: StudyRecord) -> list[str]:
    """Return how to read the columns."""
    if not study.scale.scoring.characters:
        return []
    return [
        "Character error rate: edits between the characters of transcript and hypothesis, the spaces between words "
        "included, by characters of the transcript, in percent, with the same kind of interval. The paper has none."
    ]


def _for_people(study: StudyRecord, shown: Shown) -> Shown:
    """Return the parts whose rates people see; machines see those of all parts."""
    if not study.scale.scoring.characters:
        return []
    tests = (MEAN, *study.scale.parts("test", sets=study.scale.corpus.sets))
    return [(part, column) for part, column in shown if part in tests]
