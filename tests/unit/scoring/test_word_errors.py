from __future__ import annotations

import json
from pathlib import Path

import jiwer
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_distill.scoring.word_errors import read_hypotheses, read_references, word_errors


def references(*texts: str, part: str = "test") -> pd.DataFrame:
    return pd.DataFrame([{"part": part, "id": f"u{n}", "speaker": "s", "text": text} for n, text in enumerate(texts)])


def hypotheses(*texts: str, part: str = "test") -> pd.DataFrame:
    return pd.DataFrame([{"part": part, "id": f"u{n}", "text": text, "score": 0.0} for n, text in enumerate(texts)])


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("the sea is calm", "the sea is calm", (4, 0, 0, 0, 0)),
        ("the sea is calm", "the see is calm", (4, 1, 0, 0, 1)),
        ("the sea is calm", "sea is calm now", (4, 0, 1, 1, 2)),
        ("the sea", "", (2, 0, 2, 0, 2)),
        ("", "the sea", (0, 0, 0, 2, 2)),
        ("", "", (0, 0, 0, 0, 0)),
        ("The sea, is CALM.", "the sea is calm", (4, 0, 0, 0, 0)),
    ],
)
def test_counts_by_hand(reference: str, hypothesis: str, counts: tuple[int, ...]) -> None:
    row = word_errors(references(reference), hypotheses(hypothesis)).iloc[0]
    assert tuple(row[["words", "substitutions", "deletions", "insertions", "errors"]]) == counts


texts = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8).map(" ".join)


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=8), st.integers(1, 9))
def test_one_call_equals_a_call_per_utterance(pairs: list[tuple[str, str]], batch_size: int) -> None:
    expected, heard = zip(*pairs, strict=True)
    table = word_errors(references(*expected), hypotheses(*heard), batch_size=batch_size)
    for row, (reference, hypothesis) in zip(table.itertuples(), pairs, strict=True):
        alone = jiwer.process_words(reference.upper(), hypothesis.upper())
        assert (row.substitutions, row.deletions, row.insertions) == (
            alone.substitutions,
            alone.deletions,
            alone.insertions,
        )
        assert row.words == alone.hits + alone.substitutions + alone.deletions
    if table["words"].sum():
        assert table["errors"].sum() / table["words"].sum() == pytest.approx(jiwer.wer(list(expected), list(heard)))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("the sea", "the sea", (7, 0)),
        ("the sea", "the see", (7, 1)),
        ("the sea", "these a", (7, 2)),
        ("The  sea!", "thesea", (7, 1)),
        ("the sea", "", (7, 7)),
        ("", "sea", (0, 3)),
        ("", "", (0, 0)),
    ],
)
def test_characters_by_hand(reference: str, hypothesis: str, counts: tuple[int, ...]) -> None:
    row = word_errors(references(reference), hypotheses(hypothesis), characters=True).iloc[0]
    assert tuple(row[["characters", "character_errors"]]) == counts


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=8), st.integers(1, 9))
def test_characters_beside_words(pairs: list[tuple[str, str]], batch_size: int) -> None:
    expected, heard = zip(*pairs, strict=True)
    known, found = references(*expected), hypotheses(*heard)
    table = word_errors(known, found, characters=True, batch_size=batch_size)
    pd.testing.assert_frame_equal(table.drop(columns=["characters", "character_errors"]), word_errors(known, found))
    if table["characters"].sum():
        rate = table["character_errors"].sum() / table["characters"].sum()
        assert rate == pytest.approx(jiwer.cer(list(expected), list(heard)))


def test_missing_hypothesis_is_all_deletions() -> None:
    table = word_errors(references("the sea", "is calm today"), hypotheses("the sea"))
    assert list(table["deletions"]) == [0, 3]


def test_order_of_hypotheses_does_not_matter() -> None:
    heard = hypotheses("the sea", "was calm")
    expected = references("the sea", "is calm")
    pd.testing.assert_frame_equal(word_errors(expected, heard), word_errors(expected, heard.iloc[::-1]))


def test_same_id_in_two_parts() -> None:
    expected = pd.concat([references("the sea", part="clean"), references("is calm", part="other")])
    heard = pd.concat([hypotheses("is calm", part="other"), hypotheses("the sea", part="clean")])
    assert word_errors(expected, heard)["errors"].sum() == 0


def test_unknown_id() -> None:
    with pytest.raises(ValueError, match=r"1 without a reference, such as 'u1' of test"):
        word_errors(references("the sea"), hypotheses("the sea", "is calm"))


def test_duplicate_id() -> None:
    twice = pd.concat([hypotheses("the sea"), hypotheses("the sea")])
    with pytest.raises(ValueError, match="'u0' of test stands twice"):
        word_errors(references("the sea"), twice)


def test_part_without_hypotheses() -> None:
    expected = pd.concat([references("the sea", part="clean"), references("is calm", part="other")])
    with pytest.raises(ValueError, match="none for the part other"):
        word_errors(expected, hypotheses("the sea", part="clean"))


def test_files_keep_ids_as_text(tmp_path: Path) -> None:
    path = tmp_path / "references.jsonl"
    path.write_text(json.dumps({"id": "0012", "speaker": "007", "duration": 1.0, "text": "the sea"}) + "\n")
    row = read_references({"test": path}).iloc[0]
    assert (row["part"], row["id"], row["speaker"]) == ("test", "0012", "007")


def test_files_with_faults_are_named(tmp_path: Path) -> None:
    path = tmp_path / "hypotheses.jsonl"
    path.write_text('{"part": "test", "id": "a"}\n')
    with pytest.raises(ValueError, match=r"hypotheses\.jsonl: a line lacks text, score"):
        read_hypotheses(path)
    path.write_text("{]\n")
    with pytest.raises(ValueError, match=r"hypotheses\.jsonl:1: no JSON"):
        read_hypotheses(path)
