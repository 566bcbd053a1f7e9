"""Batches with a fixed share of labelled speech: the share, epochs, resuming, bounds."""

from __future__ import annotations

import itertools
from collections import Counter
from unittest import mock

import numpy as np
import pytest
import torch
from lhotse import CutSet, SupervisionSegment
from lhotse.testing.dummies import dummy_cut

from asr_distill.features.reading import original_id
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.data import TrainingData, encoder_frames, load_training_data
from asr_distill.training.loop import Trainer, train

pytestmark = pytest.mark.filterwarnings(
    "ignore:We have exceeded the max_duration constraint during sampling but have only 1 cut:UserWarning"
)


def load(corpus, run):
    tokenizer = Tokenizer.load(corpus.tokenizer)
    return load_training_data(run, corpus=corpus.folder, tokenizer=tokenizer, pseudo_labels=[corpus.pseudo_labels])


def drawn(data, *, epochs):
    """Return the cuts of the batches of the first epochs, epoch by epoch, before their features are read."""
    found = [[] for _ in range(epochs)]
    with mock.patch.object(data, "_collate", list):
        for cuts, epoch, _ in itertools.takewhile(lambda item: item[1] < epochs, data.batches()):
            found[epoch].append(cuts)
    return found


def invented(run, *, labelled, unlabelled, seed):
    """Return training data of cuts of all lengths; those with a transcript are called l<number>."""
    rng = np.random.default_rng(seed)
    cuts = []
    for number in range(labelled + unlabelled):
        text = "YES" if number < labelled else None
        cut = dummy_cut(
            number,
            duration=float(rng.integers(1, 200)) / 100,
            supervisions=[SupervisionSegment(f"s{number}", f"s{number}", 0.0, 0.01, text=text)],
        )
        cut.id = f"{'l' if text else 'u'}{number}"
        cut.custom = {"tokens": [2] * int(rng.integers(0, 20))}
        cuts.append(cut)
    return TrainingData(CutSet.from_cuts(cuts), run=run)


def is_labelled(cut):
    return cut.id.startswith(("l", "train"))


def count_labelled(cuts):
    return sum(map(is_labelled, cuts))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("batch", "share", "labelled"), [(8, 0.5, 4), (8, 0.25, 2), (5, 0.6, 3), (8, 0.9, 7)])
def test_every_whole_batch_has_its_share(make_run, batch, share, labelled, seed):
    run = make_run("hard", labelled_share=share, phase={"batch_utterances": batch}, seed=seed)
    data = invented(run, labelled=31, unlabelled=44, seed=seed)
    total, total_labelled = 0, 0
    for epoch in drawn(data, epochs=3):
        assert max(map(len, epoch)) == batch
        for cuts in epoch:
            if len(cuts) == batch:
                assert count_labelled(cuts) == labelled
            total, total_labelled = total + len(cuts), total_labelled + count_labelled(cuts)
            assert abs(total_labelled - labelled / batch * total) < 2  # smaller batches too, in the long run
    assert total > 3 * 44


@pytest.mark.parametrize(("labelled", "unlabelled"), [(31, 44), (100, 20), (5, 60)])
def test_an_epoch_is_one_pass_over_the_unlabelled_speech_beside_which_the_labelled_is_repeated(
    make_run, labelled, unlabelled
):
    run = make_run("hard", labelled_share=0.5, phase={"batch_utterances": 8})
    data = invented(run, labelled=labelled, unlabelled=unlabelled, seed=1)
    heard = Counter({f"l{number}": 0 for number in range(labelled)})
    for epoch in drawn(data, epochs=4):
        ids = [cut.id for cuts in epoch for cut in cuts]
        quiet = sorted(name for name in ids if name.startswith("u"))
        assert quiet == sorted(f"u{number}" for number in range(labelled, labelled + unlabelled))
        assert len(ids) == 2 * unlabelled
        heard.update(name for name in ids if name.startswith("l"))
        assert max(heard.values()) - min(heard.values()) <= 1
    assert sum(heard.values()) == 4 * unlabelled
    assert len(heard) == labelled


@pytest.mark.parametrize("max_nodes", [300, 2000])
def test_split_batches_stay_within_bounds_and_near_their_share(make_run, max_nodes):
    run = make_run("hard", labelled_share=0.25, phase={"batch_utterances": 8, "batch_nodes": max_nodes})
    data = invented(run, labelled=31, unlabelled=44, seed=2)
    for epoch in drawn(data, epochs=2):
        quiet = [cut.id for cuts in epoch for cut in cuts if not is_labelled(cut)]
        assert sorted(quiet) == sorted(set(quiet))
        assert len(quiet) == 44
        for cuts in epoch:
            frames = max(encoder_frames(cut, stack=4) for cut in cuts)
            nodes = len(cuts) * frames * (max(len(cut.tokens) for cut in cuts) + 1)
            assert nodes <= max_nodes or len(cuts) == 1
            assert len(cuts) <= 8
            assert abs(count_labelled(cuts) - 0.25 * len(cuts)) <= 1
    assert sum(count_labelled(cuts) for cuts in epoch) == pytest.approx(44 / 3, abs=1)


def test_epochs_differ_and_are_the_same_for_the_same_seed(corpus, make_run):
    def ids(seed):
        run = make_run("hard", labelled_share=0.5, phase={"batch_utterances": 4}, seed=seed)
        return [[[cut.id for cut in cuts] for cuts in epoch] for epoch in drawn(load(corpus, run), epochs=4)]

    epochs = ids(0)
    assert epochs == ids(0)
    assert epochs[0] != ids(100)[0]
    assert all(one != other for one, other in itertools.combinations(epochs, 2))


def test_batches_go_on_identically_from_any_position(corpus, make_run):
    run = make_run("mixed", labelled_share=0.4, phase={"batch_utterances": 5})
    whole = list(itertools.islice(load(corpus, run).batches(), 17))
    assert whole[-1][1] >= 4  # epochs
    for done in range(1, 16):
        _, epoch, position = whole[done - 1]
        rest = load(corpus, run).batches(epoch=epoch, position=position)
        for expected, found in zip(whole[done:], rest, strict=False):
            assert expected[1:] == found[1:]
            assert expected[0].utterances == found[0].utterances
            for name in ("features", "feature_lengths", "labels", "label_lengths"):
                assert torch.equal(getattr(expected[0], name), getattr(found[0], name)), name


def test_copies_at_other_speeds_are_of_their_original_s_kind(corpus, make_run):
    run = make_run("hard", labelled_share=0.5, phase={"batch_utterances": 4})
    (epoch,) = drawn(load(corpus, run), epochs=1)
    quiet = [original_id(cut) for cuts in epoch for cut in cuts if not is_labelled(cut)]
    assert Counter(quiet) == dict.fromkeys(("quiet0", "quiet1", "quiet3", "quiet5"), 2)


class PowerCutError(Exception):
    pass


def test_a_training_that_is_killed_goes_on_as_if_it_never_had(corpus, make_run, monkeypatch, tmp_path):
    run = make_run("hard", labelled_share=0.5, phase={"checkpoint_seconds": 1e-9, "batch_utterances": 4})
    train(run, paths=corpus.paths(tmp_path / "undisturbed"))
    record = Trainer._record

    def cut_power(trainer, loss):
        record(trainer, loss)
        if trainer.position.step == 6:
            raise PowerCutError

    monkeypatch.setattr(Trainer, "_record", cut_power)
    with pytest.raises(PowerCutError):
        train(run, paths=corpus.paths(tmp_path / "killed"))
    monkeypatch.setattr(Trainer, "_record", record)
    train(run, paths=corpus.paths(tmp_path / "killed"))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("undisturbed", "killed")]
    assert weights[0] == weights[1]
    pool = make_run("hard", phase={"checkpoint_seconds": 1e-9, "batch_utterances": 4})
    train(pool, paths=corpus.paths(tmp_path / "pool"))
    assert (tmp_path / "pool" / "model.safetensors").read_bytes() != weights[0]


def test_pools_smaller_than_their_share_are_an_error(corpus, make_run):
    load(corpus, make_run("hard", labelled_share=0.4, phase={"batch_utterances": 13}))  # takes all 8
    message = (
        r"^run: labelled_share: every batch takes 9 unlabelled utterances, but there are 8; write another share or"
    )
    with pytest.raises(ValueError, match=message):
        load(corpus, make_run("hard", labelled_share=0.3, phase={"batch_utterances": 13}))
