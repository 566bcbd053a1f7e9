"""The figures that papers print: tables with columns of their own, ways of decoding, means."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_distill.experiment import Table, columns_of, printed_row, read_yaml

ROOT = Path(__file__).parents[3]
HWANG, HENTSCHEL = (read_yaml(ROOT / f"config/papers/{name}.yaml") for name in ("hwang2022", "hentschel2024"))


def table(printed, **values):
    return Table(caption="", printed=printed, rows=(), **values)


@pytest.mark.parametrize(
    ("printed", "chosen", "key", "expected"),
    [
        (
            HWANG,
            table("table4_self_training"),
            "e1_soft",
            {"dev_clean": 1.3, "dev_other": 2.4, "test_clean": 1.4, "test_other": 2.6},
        ),
        (
            HWANG,
            table("table7_domain_shift"),
            "e10_hard",
            {"voice_search": 4.3, "medium_form": 4.4, "youtube": 7.9},
        ),
        (HWANG, table("table12_batch_size", mean=True), "soft@1024", {"mean": 1.98}),
        (HWANG, table("table12_batch_size", mean=True), "hard@256", {"mean": 2.0}),
        (
            HENTSCHEL,
            table("table1"),
            "ctc@beam_10",
            {"dev_clean": 2.53, "test_clean": 2.79, "dev_other": 6.5, "test_other": 6.56},
        ),
    ],
)
def test_a_row_has_a_figure_for_every_column_of_its_table(printed, chosen, key, expected):
    assert printed_row(printed, chosen, key) == expected
    assert columns_of(printed, chosen) == tuple(expected)


def test_a_row_may_stand_in_another_table():
    row = printed_row(HWANG, table(""), "table6_small_streaming/e5_hard")
    assert row == {"dev_clean": 4.0, "dev_other": 9.4, "test_clean": 4.4, "test_other": 8.6}
    assert columns_of(HWANG, table("")) == tuple(row)
