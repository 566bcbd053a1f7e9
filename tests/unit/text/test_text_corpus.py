"""Text for language models: what is kept, what is counted, what is refused."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_distill.text import grammar, text_corpus
from asr_distill.text.normalise import normalise
from asr_distill.text.text_corpus import file_lines, grammar_lines, prepare_text


def test_lines_are_normalised_in_order_and_repeats_stay():
    kept, counts = prepare_text(["Yes, sir!", "no\n", "  Yes - sir "], exclude=["MAYBE NO"])
    assert kept == ["YES SIR", "NO", "YES SIR"]
    assert (counts.read, counts.kept, counts.overlapping, counts.unspeakable) == (3, 3, 0, {})
    assert counts.words == 5


def test_dev_and_test_transcripts_are_left_out_and_counted(caplog):
    lines = ["the cat sat", "THE CAT SAT.", "the cat sat down", "a dog"]
    with caplog.at_level("INFO"):
        kept, counts = prepare_text(lines, exclude=["The cat sat"], source="books.txt")
    assert kept == ["THE CAT SAT DOWN", "A DOG"]
    assert (counts.read, counts.kept, counts.overlapping) == (4, 2, 2)
    assert "books.txt: 2 of 4 lines are kept (equal to a dev or test transcript: 2)" in caplog.text


def test_what_no_transcript_could_be_is_counted_by_reason():
    kept, counts = prepare_text(["room 101", "", "...", "7 up", "hello"], exclude=[])
    assert kept == ["HELLO"]
    assert counts.unspeakable == {"transcript contains digits": 2, "transcript empty": 2}
    assert counts.read == counts.kept + counts.overlapping + sum(counts.unspeakable.values())


@given(st.text(alphabet=st.sampled_from("AZ' \t\r\nzé1,")))
def test_the_fast_way_is_the_slow_way(text):
    assert text_corpus._normalise_fast(text) == normalise(text)


def test_text_of_another_language_is_refused():
    with pytest.raises(ValueError, match=r"^lm\.txt: has no word in common with the labelled transcripts;") as error:
        prepare_text(["guten morgen"], exclude=["GUTEN TAG"], labelled=["Good morning"], source="lm.txt")
    assert "\n" not in str(error.value)
    prepare_text(["guten morgen"], exclude=["GOOD MORNING"], labelled=["BUENOS DIAS", "Guten Abend"])


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "none of 0 lines"),
        (["1", "good"], "none of 2 lines .*: contains digits: 1, equal to a dev or test transcript: 1"),
    ],
)
def test_text_of_which_nothing_is_left_is_refused(lines, reason):
    with pytest.raises(ValueError, match=reason):
        prepare_text(lines, exclude=["GOOD"])


def test_grammar_lines_are_as_many_as_asked_for_and_follow_the_seed():
    lines = list(grammar_lines(50, seed=1))
    assert len(lines) == 50
    assert lines == list(grammar_lines(50, seed=1)) != list(grammar_lines(50, seed=2))
    assert {
        word for line in grammar_lines(50, seed=1, domains=["news"]) for word in line.split()
    } <= grammar.vocabulary()
    with pytest.raises(ValueError, match="domains"):
        list(grammar_lines(1, seed=0, domains=["poems"]))


@pytest.mark.parametrize("name", ["text.txt", "text.txt.gz"])
def test_files_are_read_line_by_line(tmp_path, name):
    content = "Ünder\r\nthe sea\n\nlast".encode()
    (tmp_path / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith("gz") else content)
    kept, counts = prepare_text(file_lines(tmp_path / name), exclude=["THE"])
    assert kept == ["ÜNDER", "THE SEA", "LAST"]
    assert counts.unspeakable == {"transcript empty": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "holds no text"),
        ("b.txt", b"\n \n", "holds no text"),
        ("c.txt", b"one\ntwo \xff\n", r"line 2: not UTF-8 at byte 5; convert"),
        ("d.txt.gz", b"no gzip", "not readable"),
        ("e.txt.gz", gzip.compress(b"words " * 1000, mtime=0)[:-9], "not readable"),
        ("f.txt.gz", gzip.compress(b"", mtime=0), "holds no text"),
        ("g.txt", None, "not readable"),
    ],
)
def test_unusable_files_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: .*{message}") as error:
        list(file_lines(tmp_path / name))
    assert "\n" not in str(error.value)
