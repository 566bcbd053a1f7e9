"""Normalisation of transcripts."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_distill.text.normalise import normalise, unspeakable


@given(st.text())
def test_normalising_twice_is_normalising(text):
    assert normalise(normalise(text)) == normalise(text)


@given(st.text())
def test_only_letters_marks_digits_apostrophes_and_single_spaces_remain(text):
    result = normalise(text)
    assert result == " ".join(result.split())
    assert all(character in "' " or unicodedata.category(character)[0] in "LMN" for character in result)


@given(st.text())
def test_result_is_upper_case(text):
    result = normalise(text)
    assert result == unicodedata.normalize("NFKC", result.upper())


@given(st.text(alphabet=st.characters(categories=["Lu", "Ll"]), min_size=1))
def test_letters_survive(text):
    assert unspeakable(normalise(text)) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello,  world!", "HELLO WORLD"),
        ("don\u2019t -- stop", "DON'T STOP"),
        ("well-known \u201cquotes\u201d", "WELL KNOWN QUOTES"),
        ("' a '' b'", "A B'"),
        ("ﬁne caf\u0065\u0301", "FINE CAF\u00c9"),
        ("stra\u00dfe", "STRASSE"),
        ("\t\n", ""),
    ],
)
def test_examples(text, expected):
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "empty"), ("ROOM 101", "digits"), ("\u0301", "without letters"), ("HELLO", None)],
)
def test_unspeakable(text, reason):
    found = unspeakable(text)
    assert (found is None) if reason is None else (reason in found)
