"""Which of the teacher's transcripts a run trains on."""

from __future__ import annotations

import json
import math

import pytest

from asr_distill.experiment import PseudoLabelChoice
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.data import load_training_data
from asr_distill.training.pseudo_labels import read_pseudo_labels

LINES = {
    # id: (score per token, tokens per second); the median of those that were kept is 4
    "best": (-0.1, 4.0),
    "good": (-0.2, 5.0),
    "fair": (-0.4, 3.0),
    "poor": (-0.9, 4.5),
    "slow": (-0.3, 1.0),
    "dropped": (-0.01, 4.0),
}


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "labels.jsonl", LINES)


def write(path, lines):
    values = [
        {
            "id": name,
            "text": name.upper(),
            "kept": name != "dropped",
            "score_per_token": score,
            "tokens_per_second": rate,
        }
        for name, (score, rate) in lines.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in values), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        ({}, "best good fair poor slow"),
        ({"min_score_per_token": -0.4}, "best good fair slow"),
        ({"min_score_per_token": -0.39}, "best good slow"),
        ({"min_length_ratio": 0.75}, "best good fair poor"),  # 3 tokens per second
        ({"min_length_ratio": 0.76}, "best good poor"),
        ({"max_length_ratio": 1}, "best fair slow"),
        ({"min_length_ratio": 0.5, "max_length_ratio": 1.2}, "best fair poor"),
        ({"keep_share": 0.6}, "best good slow"),
        ({"keep_share": 0.5}, "best good slow"),  # of five: two and a half, rounded up
        ({"keep_share": 0.01}, "best"),
        ({"keep_share": 0.5, "min_length_ratio": 0.5}, "best good"),  # of the four that are long enough
    ],
)
def test_a_run_chooses_among_the_transcripts_that_were_kept(path, choice, left):
    found = read_pseudo_labels([path], choice=PseudoLabelChoice.model_validate(choice))
    assert found == {name: name.upper() for name in left.split()}


def test_without_a_choice_scores_and_lengths_are_not_read(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"id": "a", "text": "A", "kept": true}\n', encoding="utf-8")
    assert read_pseudo_labels([path]) == {"a": "A"}


def test_equal_scores_are_told_apart_by_id_whatever_the_order(tmp_path):
    names = ["d", "a", "c", "b"]
    for order in (names, names[::-1]):
        path = write(tmp_path / "labels.jsonl", dict.fromkeys(order, (-0.5, 2.0)))
        assert set(read_pseudo_labels([path], choice=PseudoLabelChoice(keep_share=0.5))) == {"a", "b"}


def test_the_share_is_of_all_parts_together(tmp_path):
    paths = [
        write(tmp_path / "good", {"a": (-0.1, 2.0), "b": (-0.2, 2.0)}),
        write(tmp_path / "poor", {"c": (-0.3, 2.0), "d": (-0.4, 2.0)}),
    ]
    assert set(read_pseudo_labels(paths, choice=PseudoLabelChoice(keep_share=0.75))) == {"a", "b", "c"}


def test_a_teacher_that_says_nothing_passes_limits_of_length(tmp_path):
    path = write(tmp_path / "silent", {"a": (-0.1, 0.0), "b": (-0.2, 0.0)})
    choice = PseudoLabelChoice(min_length_ratio=0.5, max_length_ratio=2)
    assert set(read_pseudo_labels([path], choice=choice)) == {"a", "b"}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            {"min_score_per_token": -0.05},
            "run: pseudo_labels: none of the teacher's transcripts has a score per token of -0.05 or more; the best of "
            "5 has -0.100; relax min_score_per_token",
        ),
        (
            {"min_length_ratio": 2},
            "run: pseudo_labels: none of the teacher's 5 transcripts has from 8.00 to inf tokens per second; the "
            "median is 4.00; relax min_length_ratio or max_length_ratio",
        ),
    ],
)
def test_a_choice_that_leaves_nothing_is_an_error(path, choice, message):
    with pytest.raises(ValueError, match=r"^run") as error:
        read_pseudo_labels([path], choice=PseudoLabelChoice.model_validate(choice), where="run: pseudo_labels")
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"keep_share": 0}, "greater than 0"),
        ({"keep_share": 1.1}, "less than or equal to 1"),
        ({"min_length_ratio": -0.1}, "greater than or equal to 0"),
        ({"min_length_ratio": 2, "max_length_ratio": 1}, "min_length_ratio: 2.0 is above max_length_ratio"),
    ],
)
def test_choices_that_cannot_be(values, message):
    with pytest.raises(ValueError, match=message):
        PseudoLabelChoice.model_validate(values)


@pytest.mark.parametrize("targets", ["hard", "soft", "mixed"])
def test_training_data_hold_the_chosen_utterances_at_every_speed(corpus, make_run, tmp_path, targets):
    path = write(tmp_path / "labels", {f"quiet{number}": (-0.1 * number, 2.0) for number in range(6)})
    tokenizer = Tokenizer.load(corpus.tokenizer)
    run = make_run(targets, pseudo_labels={"keep_share": 0.5})
    data = load_training_data(run, corpus=corpus.folder, tokenizer=tokenizer, pseudo_labels=[path])
    quiet = {cut.id for cut in data.cuts if cut.id.startswith("quiet")}
    assert quiet == {f"quiet{number}{speed}" for number in range(3) for speed in ("", "_sp1.25")}
    assert sum(cut.id.startswith("train") for cut in data.cuts) == 2 * 13
    everything = make_run(targets, pseudo_labels={"min_score_per_token": math.inf})
    with pytest.raises(ValueError, match=r"^run: pseudo_labels: none of the teacher's transcripts has a score"):
        load_training_data(everything, corpus=corpus.folder, tokenizer=tokenizer, pseudo_labels=[path])
