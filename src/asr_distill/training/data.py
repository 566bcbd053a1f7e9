"""Batches for training: transcripts of labelled speech, the teacher's transcripts of unlabelled speech, bucketed."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset.sampling import DynamicBucketingSampler
from lhotse.dataset.sampling.base import SamplingConstraint
from torch.nn.utils.rnn import pad_sequence

from asr_distill.experiment import RunRecord
from asr_distill.features.reading import FeatureReader, original_id, read_cuts
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.objective import Batch
from asr_distill.training.pseudo_labels import read_pseudo_labels
from asr_distill.training.shares import Share, divide

log = logging.getLogger(__name__)

NUM_BUCKETS = 8
BUFFER = 20_000
"""Cuts shuffled at a time."""


@dataclass
class LatticeConstraint(SamplingConstraint):
    """Bounds a batch by its number of utterances and by its lattice nodes, padding included."""

    max_utterances: int
    max_nodes: int
    stack: int
    num: int = 0
    frames: int = 0
    labels: int = 0

    def add(self, example: Cut) -> None:
        """Count a cut."""
        self.num += 1
        self.frames = max(self.frames, encoder_frames(example, stack=self.stack))
        self.labels = max(self.labels, len(example.tokens))

    def nodes(self, *, num: int) -> int:
        """Return the padded lattice nodes of `num` utterances as large as the largest so far."""
        return num * self.frames * (self.labels + 1)

    def exceeded(self) -> bool:
        """Tell whether the batch is too large."""
        return self.num > self.max_utterances or self.nodes(num=self.num) > self.max_nodes

    def close_to_exceeding(self) -> bool:
        """Tell whether one more utterance of the same size would be too much."""
        return self.num + 1 > self.max_utterances or self.nodes(num=self.num + 1) > self.max_nodes

    def reset(self) -> None:
        """Start a new batch."""
        self.num = self.frames = self.labels = 0

    def measure_length(self, example: Cut) -> float:
        """Return the lattice nodes of a cut, by which buckets are formed."""
        return encoder_frames(example, stack=self.stack) * (len(example.tokens) + 1)


class TrainingData:
    """All utterances of a run with their token ids, in batches, epoch after epoch, the same order for the same seed.

    They are one shuffled pool; for a run with a `labelled_share` two, of which every batch takes that share of labelled
    utterances, and an epoch is one pass over the unlabelled ones. Rehearsed utterances come beside one pool.

    Raises:
        ValueError: when one of two pools is smaller than what a batch takes of it.
    """

    def __init__(self, cuts: CutSet, *, run: RunRecord, rehearsed: Sequence[Cut] = ()):
        self.cuts, self.run = cuts, run
        self.rehearsed = random.Random(run.seed).sample(rehearsed, len(rehearsed))
        self.reader = FeatureReader(chain(cuts, rehearsed), cache_hours=run.features.cache_hours)
        mixed = run.run.recogniser == "transducer" and run.run.labelled_share is not None
        self.pools = _pools(cuts, run=run) if mixed else None

    def transcripts(self) -> dict[str, Sequence[int]]:
        """Return the token ids of every utterance, by its id; copies at other speeds have the same."""
        return {original_id(cut): cut.tokens for cut in chain(self.cuts, self.rehearsed)}

    def hours(self) -> tuple[float, float]:
        """Return the hours of labelled and of unlabelled speech, copies at other speeds and rehearsed ones left out."""
        hours = {True: 0.0, False: 0.0}
        for cut in self.cuts:
            if original_id(cut) == cut.id:
                hours[_is_labelled(cut)] += cut.duration / 3600
        return hours[True], hours[False]

    def passes(self, epoch: int) -> int:
        """Return how often all utterances were heard before an epoch."""
        return epoch

    def batches(self, *, epoch: int = 0, position: int = 0) -> Iterator[tuple[Batch, int, int]]:
        """Yield batches for ever from a position on, each with the epoch and position of the one that follows it."""
        for cuts, *following in self._from(epoch, position):
            yield self._collate(cuts), *following

    def shares(
        self, *, epoch: int = 0, position: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[list[Share], int, int]]:
        """Yield what one of `world` processes takes of the batches that `batches` would yield, in place of each."""
        phase, stack = self.run.phase, self.run.model.encoder.stack
        for cuts, *following in self._from(epoch, position):
            frames = sum(encoder_frames(cut, stack=stack) for cut in cuts)
            shares = []
            for number, part in divide(cuts, rank=rank, world=world, largest=phase.micro_batch_utterances):
                heard = sum(encoder_frames(cut, stack=stack) for cut in part)
                # without one of its own a process computes on another's utterance, for nothing, to stay in step
                shares.append(Share(batch=self._collate(part or cuts[:1]), weight=heard / frames, number=number))
            yield shares, *following

    def _from(self, epoch: int, position: int) -> Iterator[tuple[Sequence[Cut], int, int]]:
        """Yield the batches from a position on, before their features are read."""
        while True:
            for cuts in islice(self._bounded(self._drawn(epoch)), position, None):
                position += 1
                yield cuts, epoch, position
            epoch, position = epoch + 1, 0

    def _drawn(self, epoch: int) -> Iterator[Sequence[Cut]]:
        """Yield the batches of an epoch, not yet bounded."""
        if self.pools is not None:
            return self._mixed(epoch, *self.pools)
        return iter(self._sampler(self.cuts, utterances=self.run.phase.batch_utterances, epoch=epoch))

    def _mixed(self, epoch: int, labelled: CutSet, unlabelled: CutSet) -> Iterator[list[Cut]]:
        """Yield the batches of an epoch over unlabelled speech, each with its share of labelled utterances."""
        batch = self.run.phase.batch_utterances
        rest = batch - self.run.run.labelled_utterances(batch)
        before = sum(_beside(self._size(unlabelled, past), rest, batch=batch) for past in range(epoch))
        others = self._repeated(labelled, utterances=batch - rest, start=before)
        heard = 0
        for cuts in self._sampler(unlabelled, utterances=rest, epoch=epoch):
            wanted = _beside(heard + len(cuts), rest, batch=batch) - _beside(heard, rest, batch=batch)
            yield _interleaved(list(islice(others, wanted)), list(cuts))
            heard += len(cuts)

    def _repeated(self, cuts: CutSet, *, utterances: int, start: int) -> Iterator[Cut]:
        """Yield utterances for ever from number `start` on, some of similar length together.

        One order goes on through all epochs, pass after pass, so that all are heard equally often.
        """
        first, skipped = divmod(start, len(cuts))
        passes = (self._sampler(cuts, utterances=utterances, epoch=number) for number in count(first))
        return islice(chain.from_iterable(chain.from_iterable(passes)), skipped, None)

    def _bounded(self, batches: Iterable[Sequence[Cut]]) -> Iterator[list[Cut]]:
        """Yield the sampler's batches, split where their last utterance makes them too large: Lhotse keeps it."""
        constraint = self._constraint(utterances=self.run.phase.batch_utterances)
        for cuts in batches:
            batch: list[Cut] = []
            constraint.reset()
            for cut in cuts:
                constraint.add(cut)
                if batch and constraint.exceeded():
                    yield batch
                    batch = []
                    constraint.reset()
                    constraint.add(cut)
                batch.append(cut)
            yield batch

    def _constraint(self, *, utterances: int) -> LatticeConstraint:
        """Return the bounds of so many utterances, with their share of the nodes of a whole batch."""
        phase, stack = self.run.phase, self.run.model.encoder.stack
        nodes = phase.batch_nodes * utterances // phase.batch_utterances
        return LatticeConstraint(max_utterances=utterances, max_nodes=nodes, stack=stack)

    def _sampler(self, cuts: CutSet, *, utterances: int, epoch: int) -> DynamicBucketingSampler:
        """Return batches of at most so many utterances of similar length, each utterance once."""
        cuts = self._heard(cuts, epoch)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are using DynamicBucketingSampler with an eagerly read CutSet")
            sampler = DynamicBucketingSampler(
                cuts,
                constraint=self._constraint(utterances=utterances),
                num_buckets=max(2, min(NUM_BUCKETS, len(cuts) // (2 * utterances))),
                shuffle=True,
                seed=self.run.seed,
                buffer_size=BUFFER,
                world_size=1,
                rank=0,
            )
        sampler.set_epoch(epoch)
        return sampler

    def _heard(self, cuts: CutSet, epoch: int) -> CutSet:
        """Return the utterances of a pool that an epoch goes through."""
        if not self.rehearsed:
            return cuts
        beside = self.run.run.rehearsal.utterances(len(cuts))
        numbers = range(epoch * beside, (epoch + 1) * beside)
        return CutSet.from_cuts(chain(cuts, (self.rehearsed[number % len(self.rehearsed)] for number in numbers)))

    def _size(self, cuts: CutSet, epoch: int) -> int:
        """Return how many these are."""
        return len(cuts)

    def _collate(self, cuts: Sequence[Cut]) -> Batch:
        features, lengths = self.reader.collate(cuts)
        labels = [torch.tensor(cut.tokens, dtype=torch.long) for cut in cuts]
        return Batch(
            features=features,
            feature_lengths=lengths,
            labels=pad_sequence(labels, batch_first=True),
            label_lengths=torch.tensor([len(tokens) for tokens in labels]),
            utterances=tuple(original_id(cut) for cut in cuts),
        )


def load_training_data(
    run: RunRecord, *, corpus: Path, tokenizer: Tokenizer | None, pseudo_labels: Sequence[Path]
) -> TrainingData:
    """Load the run's parts from the prepared corpus and give every utterance its tokens.

    Without a tokenizer all speech is loaded, whether it has a transcript or not, and no utterance has any token.
    Parts that are stored in shards are not loaded, but read as batches are drawn.

    Raises:
        ValueError: when nothing is left to train on, or the batch is larger than the data.
    """
    from asr_distill.training.shards import in_shards, load_shards  # which build upon this module

    if in_shards(run, corpus=corpus):
        return load_shards(run, corpus=corpus, tokenizer=tokenizer, pseudo_labels=pseudo_labels)
    choice = run.run.pseudo_labels if run.run.recogniser == "transducer" else None
    transcripts = read_pseudo_labels(pseudo_labels, choice=choice, where=f"{run.name}: pseudo_labels")
    if tokenizer is None:
        cuts = [(cut, "") for cut in read_cuts(corpus / part for part in run.heard)]
    else:
        cuts = [*_labelled(run.labelled, corpus=corpus), *_unlabelled(run, corpus=corpus, transcripts=transcripts)]
    check_batch(run, found=len(cuts))
    rehearsed = list(_labelled(run.rehearsed, corpus=corpus))
    for cut, text in chain(cuts, rehearsed):
        cut.custom = (cut.custom or {}) | {"tokens": tokenizer.encode(text) if tokenizer is not None else []}
    return TrainingData(CutSet.from_cuts(cut for cut, _ in cuts), run=run, rehearsed=[cut for cut, _ in rehearsed])


def check_batch(run: RunRecord, *, found: int) -> None:
    """Raise ValueError where a run has no utterance, or fewer than a batch takes."""
    if not found:
        raise ValueError(f"{run.name}: no utterance to train on: every pseudo-label was dropped; relax pseudo_labels")
    if found < run.phase.batch_utterances:
        raise ValueError(
            f"phases.{run.run.phase}.batch_utterances: {run.phase.batch_utterances} is more than the {found} "
            f"utterances of {run.name}; write at most {found}"
        )


def check_pool(run: RunRecord, *, kind: str, found: int, of_batch: int) -> None:
    """Raise ValueError where a pool has fewer utterances of a kind than every batch takes of it."""
    if found < max(2, of_batch):
        raise ValueError(
            f"{run.name}: labelled_share: every batch takes {of_batch} {kind} utterances, but there are "
            f"{found}; write another share or smaller phases.{run.run.phase}.batch_utterances"
        )


def encoder_frames(cut: Cut, *, stack: int) -> int:
    """Return the number of encoder frames of a cut."""
    return -(-cut.num_frames // stack)


def hours_by_part(run: RunRecord, *, data: TrainingData) -> tuple[float, float]:
    """Return the hours of labelled and of unlabelled speech trained on, copies at other speeds left out."""
    return data.hours()


def _is_labelled(cut: Cut) -> bool:
    """Return whether there is a human transcript."""
    return bool(cut.supervisions[0].text)


def _pools(cuts: CutSet, *, run: RunRecord) -> tuple[CutSet, CutSet]:
    """Return labelled and unlabelled utterances, copies at other speeds included, that batches are mixed from."""
    batch = run.phase.batch_utterances
    share = run.run.labelled_utterances(batch)
    pools = []
    for kind, of_batch in (("labelled", share), ("unlabelled", batch - share)):
        pool = [cut for cut in cuts if _is_labelled(cut) == (kind == "labelled")]
        check_pool(run, kind=kind, found=len(pool), of_batch=of_batch)
        pools.append(CutSet.from_cuts(pool))
    return pools[0], pools[1]


def _beside(unlabelled: int, rest: int, *, batch: int) -> int:
    """Return how many labelled utterances go with unlabelled ones, of which a batch has `rest`; rounded half up."""
    return (2 * unlabelled * (batch - rest) + rest) // (2 * rest)


def _interleaved(some: Sequence[Cut], others: Sequence[Cut]) -> list[Cut]:
    """Return utterances of two kinds, evenly spread, so that every piece of the batch holds about the same share."""
    placed = [((place + 0.5) / len(cuts), cut) for cuts in (some, others) for place, cut in enumerate(cuts)]
    return [cut for _, cut in sorted(placed, key=lambda pair: pair[0])]


def _labelled(parts: Sequence[str], *, corpus: Path) -> Iterator[tuple[Cut, str]]:
    for cut in read_cuts(corpus / part for part in parts):
        yield cut, cut.supervisions[0].text


def _unlabelled(run: RunRecord, *, corpus: Path, transcripts: Mapping[str, str]) -> Iterator[tuple[Cut, str]]:
    dropped = 0
    for cut in read_cuts(corpus / part for part in run.unlabelled):
        cut.supervisions[0].text = None  # of labelled speech that is heard without its transcripts
        text = transcripts.get(original_id(cut))
        if text is None:
            dropped += 1
        else:
            yield cut, text
    if dropped:
        log.info("%d unlabelled cuts are left out, because their pseudo-labels were dropped", dropped)
