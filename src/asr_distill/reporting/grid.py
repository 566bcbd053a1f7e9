"""A table for people, and its three renderings: Markdown, LaTeX (booktabs), and plain cells for HTML."""

from __future__ import annotations

import dataclasses
import math
import re
from itertools import groupby
from pathlib import Path
from typing import Literal

from asr_distill.files import write_text

NOTHING = "–"
"""Shown where a table has no figure."""

DEVIATIONS = "Deviations from the paper:"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its heading, the heading it shares with its neighbours, and how cells are aligned."""

    label: str
    group: str = ""
    align: Literal["left", "right", "prose"] = "right"
    """"prose" is left-aligned and wraps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """A table as people read it; every cell is text, "" where there is nothing to show."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    """How to read this table."""
    deviations: tuple[str, ...] = ()
    """What was done otherwise than in the paper."""

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), self.name

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """Shared headings and how many columns each spans; "" where a column stands alone."""
        return tuple((group, len(list(columns))) for group, columns in groupby(c.group for c in self.columns))


def write_grid(grid: Grid, *, folder: Path) -> None:
    """Write <name>.md and <name>.tex into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{grid.name}.md", markdown(grid))
    write_text(folder / f"{grid.name}.tex", latex(grid))


def markdown(grid: Grid, *, level: int = 1) -> str:
    """Return a grid as Markdown: heading, caption, table, notes."""
    heads = [escape_markdown(f"{c.group} {c.label}".strip()) for c in grid.columns]
    rules = ["---:" if column.align == "right" else ":---" for column in grid.columns]
    rows = [[escape_markdown(cell or NOTHING) for cell in row] for row in grid.rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows)]
    parts = [f"{'#' * level} {escape_markdown(grid.title)}", escape_markdown(grid.caption), "\n".join(lines)]
    parts.append("\n".join(f"- {escape_markdown(note)}" for note in grid.notes))
    if grid.deviations:
        parts.append("\n".join([f"{DEVIATIONS}\n", *(f"- {escape_markdown(note)}" for note in grid.deviations)]))
    return "\n\n".join(part for part in parts if part) + "\n"


def latex(grid: Grid) -> str:
    r"""Return a grid as a LaTeX table to \input; needs the packages booktabs and graphicx."""
    align = "".join(LATEX_ALIGNMENTS[column.align] for column in grid.columns)
    rows = [" & ".join(escape_latex(cell or NOTHING) for cell in row) + r" \\" for row in grid.rows]
    lines = [
        r"% \usepackage{booktabs,graphicx}",
        r"\begin{table*}[tbp]",
        r"\centering",
        rf"\caption{{{escape_latex(grid.title)}. {escape_latex(grid.caption)}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9]+', '-', grid.name)}}}",
        r"\medskip",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{align}}}",
        r"\toprule",
        *_latex_heads(grid),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}}",
    ]
    if grid.notes or grid.deviations:
        lines += [r"\par\medskip", r"\begin{minipage}{\linewidth}\footnotesize", *_latex_list(grid.notes)]
        lines += [DEVIATIONS, *_latex_list(grid.deviations)] if grid.deviations else []
        lines += [r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table*}", ""])


def _latex_list(notes: tuple[str, ...]) -> list[str]:
    items = [rf"  \item {escape_latex(note)}" for note in notes]
    return [r"\begin{itemize}", *items, r"\end{itemize}"] if items else []


def _latex_heads(grid: Grid) -> list[str]:
    """Return the heading rows: shared headings with a rule under each, then the columns' own."""
    heads = " & ".join(escape_latex(column.label) for column in grid.columns) + r" \\"
    if not any(group for group, _ in grid.groups):
        return [heads]
    cells, rules, first = [], [], 1
    for group, span in grid.groups:
        cells.append(rf"\multicolumn{{{span}}}{{c}}{{{escape_latex(group)}}}" if group else " & ".join([""] * span))
        if group:
            rules.append(rf"\cmidrule(lr){{{first}-{first + span - 1}}}")
        first += span
    return [" & ".join(cells) + r" \\", " ".join(rules), heads]


def run_name(run: str) -> str:
    """Return a run's name for people."""
    return run.replace("_", " ")


def count(number: float) -> str:
    """Return a whole number with thin spaces between thousands; "" when it is missing."""
    return "" if math.isnan(number) else f"{round(number):,}".replace(",", "\u202f")


def plural(number: float, noun: str) -> str:
    """Return "1 speaker" or "12 speakers"."""
    return f"{count(number)} {noun}{'' if round(number) == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Return a duration as people say it: 45 s, 12 min, 3.2 h; a dash for none."""
    if seconds is None:
        return NOTHING
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def significant(number: float, *, digits: int = 2) -> str:
    """Return a positive number with so many significant digits at least, without exponent; "" when it is missing."""
    if math.isnan(number):
        return ""
    return f"{number:.{max(0, digits - 1 - math.floor(math.log10(number)))}f}"


def with_interval(wer: str, low: str, high: str) -> str:
    """Return "8.1 [7.4, 8.9]" for percentages given as text."""
    if not wer:
        return ""
    if "nan" in (low, high):
        return f"{float(wer):.1f} [n/a]"
    return f"{float(wer):.1f} [{float(low):.1f}, {float(high):.1f}]"


def escape_markdown(text: str) -> str:
    """Escape what Markdown would take for markup; line breaks become spaces."""
    return re.sub(r"([\\`*_|<>~$&#])", r"\\\1", re.sub(r"[ \t\r\n]+", " ", text))


LATEX_ALIGNMENTS = {"left": "l", "right": "r", "prose": r"p{0.33\linewidth}"}
LATEX_ESCAPES = {character: f"\\{character}" for character in "{}$&#%_"}
LATEX_ESCAPES |= {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
LATEX_ESCAPES |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "[": "{[}", "]": "{]}"}
LATEX_ESCAPES |= {"–": "--", "—": "---", "“": "``", "”": "''", "‘": "`", "’": "'", "…": r"\dots{}"}
LATEX_ESCAPES |= {"−": "$-$", "×": r"$\times$", "±": r"$\pm$", "≤": r"$\le$", "≥": r"$\ge$", "→": r"$\to$"}
LATEX_ESCAPES |= {"α": r"$\alpha$", "β": r"$\beta$", "·": r"$\cdot$", "\u00a0": "~", "\u202f": r"\,"}


def escape_latex(text: str) -> str:
    """Escape what LaTeX would take for markup, and spell symbols that plain fonts lack."""
    return "".join(LATEX_ESCAPES.get(character, character) for character in re.sub(r"[ \t\r\n]+", " ", text))
