from __future__ import annotations

import math

import pytest

from asr_distill.reporting.grid import Column, Grid, escape_latex, escape_markdown, latex, markdown, significant


def grid(**changes: object) -> Grid:
    columns = (
        Column(label="", align="left"),
        Column(label="paper", group="test_clean"),
        Column(label="ours", group="test_clean"),
    )
    values = {
        "name": "t_1",
        "title": "A|B",
        "caption": "50 % & more",
        "columns": columns,
        "rows": (("a_b", "1.3", ""),),
    }
    return Grid(**(values | changes))


def test_markdown() -> None:
    text = markdown(grid(notes=("*starred*",), deviations=("<b>bold</b>",)))
    assert text.splitlines()[0] == r"# A\|B"
    assert r"|  | test\_clean paper | test\_clean ours |" in text
    assert r"| :--- | ---: | ---: |" in text
    assert r"| a\_b | 1.3 | – |" in text
    assert r"- \*starred\*" in text
    assert "Deviations from the paper:\n\n- \\<b\\>bold\\</b\\>" in text
    assert text.endswith("\n")


def test_a_cell_cannot_break_the_table() -> None:
    text = markdown(grid(rows=(("two\nlines | bar", "", ""),)))
    assert r"| two lines \| bar | – | – |" in text.splitlines()


def test_latex() -> None:
    text = latex(grid(notes=("5 %",), deviations=("α ≤ 1",)))
    assert r"\caption{A\textbar{}B. 50 \% \& more}" in text
    assert r"\label{tab:t-1}" in text
    assert r"\multicolumn{2}{c}{test\_clean}" in text
    assert r"\cmidrule(lr){2-3}" in text
    assert r"a\_b & 1.3 & -- \\" in text
    assert r"\item $\alpha$ $\le$ 1" in text
    for environment in ("table*", "tabular", "minipage", "itemize"):
        assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}") > 0


def test_latex_without_shared_headings_or_notes() -> None:
    text = latex(grid(columns=tuple(Column(label=label) for label in "abc")))
    assert "multicolumn" not in text
    assert "itemize" not in text
    assert "a & b & c" in text


def test_escapes() -> None:
    assert escape_latex("\\ { } $ & # % _ ^ ~ < >") == (
        r"\textbackslash{} \{ \} \$ \& \# \% \_ \textasciicircum{} \textasciitilde{} \textless{} \textgreater{}"
    )
    assert escape_latex("[7.4, 8.9]") == "{[}7.4, 8.9{]}"
    assert escape_markdown("`a` $x$ #1 & ~~b~~ \\") == r"\`a\` \$x\$ \#1 \& \~\~b\~\~ \\"


@pytest.mark.parametrize(
    ("number", "digits", "shown"),
    [
        (0.003, 2, "0.0030"),
        (0.0000123, 2, "0.000012"),
        (0.3, 2, "0.30"),
        (1.0, 2, "1.0"),
        (12.34, 2, "12"),
        (630.2, 3, "630"),
        (1234.5, 3, "1234"),
        (0.07500001, 4, "0.07500"),
        (math.nan, 2, ""),
    ],
)
def test_significant_digits_without_exponent(number: float, digits: int, shown: str) -> None:
    assert significant(number, digits=digits) == shown
