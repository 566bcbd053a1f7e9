"""Batches for training: bounds, order, resuming, transcripts."""

from __future__ import annotations

import collections
import itertools
import json
from unittest import mock

import numpy as np
import pytest
import torch
from lhotse import CutSet
from lhotse.testing.dummies import dummy_cut

from asr_distill.features.reading import original_id
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.data import (
    LatticeConstraint,
    TrainingData,
    encoder_frames,
    hours_by_part,
    load_training_data,
)
from asr_distill.training.pseudo_labels import read_pseudo_labels

pytestmark = pytest.mark.filterwarnings(
    "ignore:We have exceeded the max_duration constraint during sampling but have only 1 cut:UserWarning"
)


def load(corpus, run, *, pseudo_labels=None):
    tokenizer = Tokenizer.load(corpus.tokenizer)
    labels = [corpus.pseudo_labels] if pseudo_labels is None else pseudo_labels
    return load_training_data(run, corpus=corpus.folder, tokenizer=tokenizer, pseudo_labels=labels)


def epoch_batches(data, epoch):
    """Return the cuts of an epoch's batches, before their features are read, as they come in a long training."""
    with mock.patch.object(data, "_collate", list):
        until = itertools.takewhile(lambda item: item[1] <= epoch, data.batches())
        return [cuts for cuts, found, _ in until if found == epoch]


def epoch_ids(data, epoch):
    return [[cut.id for cut in cuts] for cuts in epoch_batches(data, epoch)]


def invented_cuts(sizes):
    """Return cuts with these numbers of feature frames and tokens."""
    cuts = [dummy_cut(number, duration=frames / 100) for number, (frames, _) in enumerate(sizes)]
    for cut, (_, labels) in zip(cuts, sizes, strict=True):
        cut.custom = {"tokens": [2] * labels}
    return cuts


@pytest.mark.parametrize(("frames", "expected"), [(1, 1), (4, 1), (5, 2), (8, 2), (30, 8)])
def test_encoder_frames_are_rounded_up(frames, expected):
    assert encoder_frames(dummy_cut(0, duration=frames / 100), stack=4) == expected


def test_the_constraint_counts_padded_nodes():
    constraint = LatticeConstraint(max_utterances=3, max_nodes=60, stack=4)
    wide, high, small = invented_cuts([(40, 1), (8, 4), (4, 0)])
    assert [constraint.measure_length(cut) for cut in (wide, high, small)] == [10 * 2, 2 * 5, 1]
    constraint.add(wide)
    assert not constraint.exceeded()
    assert not constraint.close_to_exceeding()
    constraint.add(high)
    assert constraint.nodes(num=2) == 2 * 10 * 5
    assert constraint.exceeded()
    constraint.reset()
    for _ in range(3):
        constraint.add(small)
    assert not constraint.exceeded()
    assert constraint.close_to_exceeding()
    constraint.add(small)
    assert constraint.exceeded()
    assert (constraint.max_utterances, constraint.max_nodes) == (3, 60)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("max_utterances", "max_nodes"), [(1, 10**9), (4, 10**9), (8, 2000), (4, 300), (4, 1)])
def test_every_utterance_once_an_epoch_in_batches_within_bounds(make_run, max_utterances, max_nodes, seed):
    rng = np.random.default_rng(seed)
    cuts = invented_cuts(rng.integers([1, 0], [200, 20], size=(40, 2)).tolist())
    run = make_run(phase={"batch_utterances": max_utterances, "batch_nodes": max_nodes}, seed=seed)
    data = TrainingData(CutSet.from_cuts(cuts), run=run)
    for epoch in (0, 1):
        batches = epoch_batches(data, epoch)
        assert sorted(cut.id for batch in batches for cut in batch) == sorted(cut.id for cut in cuts)
        for batch in batches:
            frames = max(encoder_frames(cut, stack=4) for cut in batch)
            nodes = len(batch) * frames * (max(len(cut.tokens) for cut in batch) + 1)
            assert len(batch) <= max_utterances
            assert nodes <= max_nodes or len(batch) == 1


def test_epochs_differ_and_are_the_same_for_the_same_seed(corpus, make_run):
    data, again = (load(corpus, make_run("hard", phase={"batch_utterances": 4})) for _ in range(2))
    epochs = [epoch_ids(data, epoch) for epoch in range(4)]
    assert epochs == [epoch_ids(again, epoch) for epoch in range(4)]
    assert all(one != other for one, other in itertools.combinations(epochs, 2))
    other_seed = load(corpus, make_run("hard", phase={"batch_utterances": 4}, seed=100))
    assert epoch_ids(other_seed, 0) != epochs[0]


def assert_same(one, other):
    for name, value in vars(one).items():
        same = torch.equal(value, getattr(other, name)) if torch.is_tensor(value) else value == getattr(other, name)
        assert same, name


@pytest.mark.parametrize("rehearsing", [{}, {"rehearsal": {"audio": ["other"], "share": 0.2}}])
def test_batches_go_on_identically_from_any_position(corpus, make_run, rehearsing):
    run = make_run("hard", phase={"batch_utterances": 7}, **rehearsing)
    whole = list(itertools.islice(load(corpus, run).batches(), 17))
    assert whole[-1][1] >= 2  # a few epochs
    for done in (1, 3, 5, 6, 10):
        _, epoch, position = whole[done - 1]
        rest = load(corpus, run).batches(epoch=epoch, position=position)
        for expected, found in zip(whole[done:], rest, strict=False):
            assert_same(expected[0], found[0])
            assert expected[1:] == found[1:]


def test_a_batch_holds_features_and_tokens_side_by_side(corpus, make_run):
    data = load(corpus, make_run(phase={"batch_utterances": 5}))
    tokenizer = Tokenizer.load(corpus.tokenizer)
    expected = {cut.id: cut for cut in data.cuts}
    for ids, (batch, _, _) in zip(epoch_ids(data, 0), data.batches(), strict=False):
        assert batch.features.shape == (len(ids), int(batch.feature_lengths.max()), 6)
        for row, cut_id in enumerate(ids):
            cut = expected[cut_id]
            length, count = int(batch.feature_lengths[row]), int(batch.label_lengths[row])
            assert length == cut.num_frames
            assert torch.equal(batch.features[row, :length], data.reader.read(cut_id))
            assert tokenizer.decode(batch.labels[row, :count].tolist()) == cut.supervisions[0].text
            assert not batch.labels[row, count:].any()


def test_unlabelled_speech_takes_the_teacher_s_words_at_every_speed(corpus, make_run):
    data = load(corpus, make_run("hard"))
    tokenizer = Tokenizer.load(corpus.tokenizer)
    transcripts = read_pseudo_labels([corpus.pseudo_labels])
    assert transcripts.keys() == {"quiet0", "quiet1", "quiet3", "quiet5"}
    quiet = {cut.id: cut for cut in data.cuts if cut.id.startswith("quiet")}
    assert quiet.keys() == {f"{key}{speed}" for key in transcripts for speed in ("", "_sp1.25")}
    for cut in quiet.values():
        assert tokenizer.decode(cut.tokens) == transcripts[original_id(cut)]
        assert cut.supervisions[0].text is None
    assert sum(cut.id.startswith("train") for cut in data.cuts) == 2 * 13


def test_hours_leave_out_copies_and_dropped_utterances(corpus, make_run):
    run = make_run("hard")
    data = load(corpus, run)
    labelled, unlabelled = hours_by_part(run, data=data)
    originals = [cut for cut in data.cuts if "_sp" not in cut.id]
    assert labelled == pytest.approx(sum(cut.duration for cut in originals if cut.id.startswith("t")) / 3600)
    assert unlabelled == pytest.approx(sum(cut.duration for cut in originals if cut.id.startswith("q")) / 3600)
    assert len(originals) == 13 + 4


def test_rehearsed_speech_comes_beside_a_run_s_own_by_turns(corpus, make_run):
    run = make_run("hard", phase={"batch_utterances": 4}, rehearsal={"audio": ["other"], "share": 0.125})
    data = load(corpus, run)
    own = sorted(cut.id for cut in data.cuts)
    assert len(own) == 2 * (13 + 4)
    heard = [[cut for batch in epoch_batches(data, epoch) for cut in batch] for epoch in range(4)]
    rehearsed = []
    for cuts in heard:
        assert sorted(cut.id for cut in cuts if not cut.id.startswith("dev")) == own
        rehearsed += [cut for cut in cuts if cut.id.startswith("dev")]
        assert len(cuts) == len(own) + 5  # a share of 5 / 39
    times = collections.Counter(cut.id for cut in rehearsed)
    assert sorted(times.values()) == [6, 7, 7]  # dev parts have no copies at other speeds
    assert all(cut.tokens for cut in rehearsed)
    assert data.transcripts().keys() >= times.keys()
    assert hours_by_part(run, data=data) == hours_by_part(run, data=load(corpus, make_run("hard")))
    assert [[cut.id for cut in cuts] for cuts in heard] == [
        [cut_id for ids in epoch_ids(load(corpus, run), epoch) for cut_id in ids] for epoch in range(4)
    ]


def test_several_files_of_pseudo_labels_are_read_together(tmp_path):
    paths = []
    for name, kept in (("a", True), ("b", False), ("c", True)):
        paths.append(tmp_path / name)
        paths[-1].write_text(json.dumps({"id": name, "text": name.upper(), "kept": kept}) + "\n")
    assert read_pseudo_labels(paths) == {"a": "A", "c": "C"}


def test_an_empty_pseudo_label_is_an_utterance_without_labels(corpus, make_run, tmp_path):
    lines = [{"id": f"quiet{number}", "text": "", "kept": True} for number in range(6)]
    path = tmp_path / "empty.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = load(corpus, make_run("hard", audio=["unlabelled"]), pseudo_labels=[path])
    batch, _, _ = next(data.batches())
    assert batch.labels.shape == (8, 0)
    assert not batch.label_lengths.any()


def test_a_batch_larger_than_the_data_is_an_error(corpus, make_run):
    load(corpus, make_run(phase={"batch_utterances": 26}))
    message = r"phases\.p\.batch_utterances: 27 is more than the 26 utterances of run; write at most 26"
    with pytest.raises(ValueError, match=message):
        load(corpus, make_run(phase={"batch_utterances": 27}))


def test_nothing_left_to_train_on_is_an_error(corpus, make_run):
    with pytest.raises(ValueError, match="run: no utterance to train on: every pseudo-label was dropped"):
        load(corpus, make_run("hard", audio=["unlabelled"]), pseudo_labels=[])
