"""The figures that a paper prints, as config/papers/ has them: tables, columns, and rows by their keys."""

from __future__ import annotations

from typing import Any

from asr_distill.experiment.study import Table

MEAN = "mean"
"""Column of the mean over the columns that the paper's tables have."""


def wer_tables(printed: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the columns of every table of word error rates that a paper prints."""
    usual = tuple(printed.get("columns", ()))
    others = printed.get("other_tables", {})
    own = {name: tuple(map(str, table["columns"])) for name, table in others.items() if "columns" in table}
    return dict.fromkeys(printed.get("tables", {}), usual) | own


def printed_rows(printed: dict[str, Any], place: str) -> dict[str, Any]:
    """Return the rows of one table of word error rates, as they stand in the file."""
    rows = (printed["tables"] | printed.get("other_tables", {}))[place]
    return {name: row for name, row in rows.items() if name != "columns"}


def columns_of(printed: dict[str, Any], table: Table) -> tuple[str, ...]:
    """Return the columns in which a table shows the paper's figures."""
    return (MEAN,) if table.mean else wer_tables(printed).get(table.printed, tuple(printed["columns"]))


def printed_place(table: Table, key: str) -> tuple[str, str, str]:
    """Return table, row and choice ("" for none) that a row's key names: [<table>/]<row>[@<choice>].

    The choice is a way of decoding, where a row holds several, and a column in a table of means.
    """
    place, _, choice = key.partition("@")
    other, _, name = place.rpartition("/")
    return other or table.printed, name, choice


def printed_row(printed: dict[str, Any], table: Table, key: str) -> dict[str, float]:
    """Return a row as the paper prints it: word error rates by column."""
    place, name, choice = printed_place(table, key)
    row = printed_rows(printed, place)[name]
    figures = row.get("wer", row.get(choice or "greedy")) if isinstance(row, dict) else row
    by_column = dict(zip(wer_tables(printed)[place], figures, strict=True))
    return {MEAN: by_column[choice]} if table.mean else by_column
