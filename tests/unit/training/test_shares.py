"""Dividing a batch among processes, and in each of them into what fits into memory."""

from __future__ import annotations

import itertools

import pytest
import torch

from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.data import load_training_data
from asr_distill.training.shares import check_divisible, divide


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("largest", [None, 1, 2, 5])
@pytest.mark.parametrize("size", [1, 2, 5, 8, 23])
def test_every_item_is_in_one_share_and_all_processes_have_as_many(world, largest, size):
    items = list(range(size))
    by_process = [divide(items, rank=rank, world=world, largest=largest) for rank in range(world)]
    assert len({len(shares) for shares in by_process}) == 1
    shares = dict(itertools.chain.from_iterable(by_process))
    assert sorted(shares) == list(range(sum(map(len, by_process))))
    assert list(itertools.chain.from_iterable(shares[number] for number in sorted(shares))) == items
    sizes = [len(share) for share in shares.values()]
    assert max(sizes) - min(sizes) <= 1
    assert largest is None or max(sizes) <= largest


def test_several_processes_and_several_turns_divide_alike():
    items = list(range(16))
    turns = dict(divide(items, rank=0, world=1, largest=4))
    assert turns == dict(itertools.chain.from_iterable(divide(items, rank=rank, world=4) for rank in range(4)))


@pytest.mark.parametrize(("world", "largest"), [(1, None), (2, None), (2, 1), (5, None)])
def test_the_shares_of_all_processes_are_the_batches(corpus, make_run, world, largest):
    phase = {"batch_utterances": 10} | ({} if largest is None else {"micro_batch_utterances": largest})
    run = make_run("hard", phase=phase)
    tokenizer = Tokenizer.load(corpus.tokenizer)
    data = load_training_data(run, corpus=corpus.folder, tokenizer=tokenizer, pseudo_labels=[corpus.pseudo_labels])
    taken = [data.shares(epoch=1, position=1, rank=rank, world=world) for rank in range(world)]
    together = zip(data.batches(epoch=1, position=1), *taken, strict=True)
    for (batch, *following), *others in itertools.islice(together, 9):
        assert all(rest == following for _, *rest in others)
        shares = sorted((share for found, *_ in others for share in found), key=lambda share: share.number)
        assert sum(share.weight for share in shares) == pytest.approx(1)
        heard = [name for share in shares if share.weight for name in share.batch.utterances]
        assert tuple(heard) == batch.utterances
        for share in shares:
            assert share.batch.utterances  # even those that count for nothing
            frames = torch.ceil(share.batch.feature_lengths / 4).sum() / torch.ceil(batch.feature_lengths / 4).sum()
            assert share.weight == pytest.approx(float(frames)) or not share.weight


def test_a_batch_that_cannot_be_divided_is_refused(make_run):
    phase = make_run(phase={"batch_utterances": 12}).phase
    for world in (1, 2, 3, 4, 6, 12):
        check_divisible(phase, world=world, name="p")
    for world in (5, 24):
        message = rf"phases\.p\.batch_utterances: 12 cannot be divided evenly among {world} processes; start 1 or 2 or"
        with pytest.raises(ValueError, match=message):
            check_divisible(phase, world=world, name="p")
