"""Training data of parts that are stored in shards: drawn as they are read, a few shards at a time, never loaded whole.

Every process of a training draws the same batches from the manifests, which are a thousandth of the data, and reads the
features of its own share of each batch alone. So batches do not depend on how many processes there are, all have the
same number of them, and a training can go on with another number.
"""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lhotse import CutSet
from lhotse.cut import Cut

from asr_distill.experiment import RunRecord
from asr_distill.features.reading import FeatureReader, original_id
from asr_distill.features.shards import INDEX, Shard, read_index
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.data import TrainingData, check_batch, check_pool, log
from asr_distill.training.pseudo_labels import Limits, read_scores, stream_limits

SECTION = 250_000
"""Utterances after which batches are drawn anew: a training that goes on reads no more manifests than these again."""


@dataclass(frozen=True, kw_only=True)
class Transcripts:
    """A teacher's transcripts of one shard, in the order of its utterances."""

    path: Path
    offset: int
    """Byte where the shard's lines begin."""
    limits: Limits
    ties: frozenset[str] = frozenset()
    """Those taken of the utterances at the limit."""

    def read(self) -> Iterator[tuple[str, str | None]]:
        """Yield utterance ids with their transcripts, None where it is not trained on."""
        for _, line, scored in read_scores(self.path, offset=self.offset):
            values = json.loads(line)
            taken = self.limits.take(scored) or values["id"] in self.ties
            yield values["id"], values["text"] if taken else None


@dataclass(frozen=True, kw_only=True)
class TrainingShard:
    """What is trained on of one shard."""

    shard: Shard
    cuts: int
    seconds: float
    """Copies at other speeds left out."""
    transcripts: Transcripts | None = None
    """The teacher's; None: human ones, or none are needed."""

    def read(self) -> Iterator[tuple[Cut, str]]:
        """Yield cuts with what was said.

        Raises:
            ValueError: where the shard is damaged, or the transcripts are of other utterances.
        """
        if self.transcripts is None:
            for cut in self.shard.read():
                yield cut, cut.supervisions[0].text or ""
            return
        lines = self.transcripts.read()
        utterance, text = None, None
        for cut in self.shard.read():
            if original_id(cut) != utterance:
                utterance, text = next(lines, (None, None))
            if original_id(cut) != utterance:
                raise ValueError(
                    f"{self.transcripts.path}: has '{utterance}' where {self.shard.manifest} has '{original_id(cut)}'; "
                    "remove the transcripts and run again"
                )
            if text is not None:
                yield cut, text


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Shards from which batches are drawn: all of them in every pass, in an order of its own, section by section."""

    shards: Sequence[TrainingShard]
    seed: int
    encode: Callable[[str], list[int]]
    sections: int = 1

    def __len__(self) -> int:
        return sum(shard.cuts for shard in self.shards)

    def at(self, epoch: int) -> LazyCuts:
        """Return the cuts of one section of one pass; epochs number them through."""
        number, section = divmod(epoch, self.sections)
        order = list(self.shards)
        random.Random(f"{self.seed}/{number}").shuffle(order)
        return LazyCuts(order[section :: self.sections], encode=self.encode)


class LazyCuts:
    """Cuts with their token ids in place of transcripts, read anew every time they are gone through."""

    def __init__(self, shards: Sequence[TrainingShard], *, encode: Callable[[str], list[int]]):
        self.shards, self.encode = shards, encode

    def __len__(self) -> int:
        return sum(shard.cuts for shard in self.shards)

    def __iter__(self) -> Iterator[Cut]:
        for shard in self.shards:
            for cut, text in shard.read():
                cut.supervisions = []  # thousands wait to be drawn
                cut.custom = (cut.custom or {}) | {"tokens": array("i", self.encode(text))}
                yield cut


class ShardedTrainingData(TrainingData):
    """All utterances of a run in batches, as `TrainingData` has them, but none is in memory before it is drawn.

    An epoch is one section of a pass over all shards.
    """

    def __init__(
        self,
        labelled: Sequence[TrainingShard],
        unlabelled: Sequence[TrainingShard],
        *,
        run: RunRecord,
        encode: Callable[[str], list[int]],
    ):
        self.run = run
        self.labelled, self.unlabelled = labelled, unlabelled
        self.reader = FeatureReader((), cache_hours=0)
        pools = [Pool(shards=shards, seed=run.seed, encode=encode) for shards in (labelled, unlabelled)]
        self.cuts = _in_sections(replace(pools[0], shards=[*labelled, *unlabelled]))
        self.pools = None
        if run.run.recogniser == "transducer" and run.run.labelled_share is not None:
            batch = run.phase.batch_utterances
            share = run.run.labelled_utterances(batch)
            check_pool(run, kind="labelled", found=len(pools[0]), of_batch=share)
            check_pool(run, kind="unlabelled", found=len(pools[1]), of_batch=batch - share)
            self.pools = pools[0], _in_sections(pools[1])

    def transcripts(self) -> dict[str, Sequence[int]]:
        """Return the token ids of every utterance, by its id, for runs that learn from BERT; for others none."""
        if self.run.run.recogniser != "ctc":
            return {}
        whole = LazyCuts(self.cuts.shards, encode=self.cuts.encode)
        return {original_id(cut): cut.tokens for cut in whole}

    def hours(self) -> tuple[float, float]:
        """Return the hours of labelled and of unlabelled speech, copies at other speeds left out."""
        labelled, unlabelled = (sum(s.seconds for s in shards) / 3600 for shards in (self.labelled, self.unlabelled))
        return labelled, unlabelled

    def passes(self, epoch: int) -> int:
        """Return how often all utterances were heard before an epoch; beside labelled ones, all unlabelled ones."""
        return epoch // (self.cuts if self.pools is None else self.pools[1]).sections

    def _heard(self, cuts: Pool, epoch: int) -> CutSet:
        return CutSet(cuts.at(epoch))

    def _size(self, cuts: Pool, epoch: int) -> int:
        return len(cuts.at(epoch))


def in_shards(run: RunRecord, *, corpus: Path) -> bool:
    """Tell whether the parts that a run trains on are stored in shards.

    Raises:
        ValueError: where some are and some are not.
    """
    found = {part: (corpus / part / INDEX).exists() for part in run.heard}
    if any(found.values()) and not all(found.values()):
        wrong = next(part for part, there in found.items() if not there)
        raise ValueError(f"{corpus / wrong}: is not stored in shards as other parts of {run.name} are; prepare it anew")
    return any(found.values())


def load_shards(
    run: RunRecord, *, corpus: Path, tokenizer: Tokenizer | None, pseudo_labels: Sequence[Path]
) -> ShardedTrainingData:
    """Do what `load_training_data` does for parts that are stored in shards.

    Of pseudo-labels a first pass looks at the scores alone; the files follow the order of `run.unlabelled`.

    Raises:
        ValueError: when nothing is left to train on, the batch is larger than the data, or pseudo-labels do not fit.
    """
    labelled = [_whole(shard) for part in run.labelled for shard in read_index(corpus / part)]
    shards = [read_index(corpus / part) for part in run.unlabelled]
    if tokenizer is None:
        unlabelled = [_whole(shard) for part in shards for shard in part]
    else:
        choice = run.run.pseudo_labels if run.run.recogniser == "transducer" else None
        limits = stream_limits(pseudo_labels, choice=choice, where=f"{run.name}: pseudo_labels")
        unlabelled = _transcribed(shards, pseudo_labels, limits=limits)
    encode = tokenizer.encode if tokenizer is not None else lambda _: []
    data = ShardedTrainingData(labelled, unlabelled, run=run, encode=encode)
    check_batch(run, found=len(data.cuts))
    return data


def _in_sections(pool: Pool) -> Pool:
    """Return the pool with sections of at least `SECTION` cuts, where it has so many and shards enough."""
    return replace(pool, sections=max(1, min(len(pool) // SECTION, len(pool.shards))))


def _whole(shard: Shard) -> TrainingShard:
    return TrainingShard(shard=shard, cuts=shard.cuts, seconds=shard.seconds)


def _transcribed(parts: Sequence[Sequence[Shard]], paths: Sequence[Path], *, limits: Limits) -> list[TrainingShard]:
    """Return the shards of parts with what is taken of the teacher's transcripts; those without any are left out."""
    if len(paths) != len(parts):
        raise ValueError(f"pseudo-labels: {len(paths)} files for {len(parts)} parts; give one of each part, in order")
    counted = [count for shards, path in zip(parts, paths, strict=True) for count in _count(shards, path, limits)]
    ties = sorted(tie for _, found in counted for tie in found)[: limits.places]
    chosen = frozenset(utterance for utterance, _ in ties)
    taken = []
    for shard, found in counted:
        mine = {utterance: seconds for utterance, seconds in found if utterance in chosen}
        copies = shard.shard.cuts // shard.shard.utterances
        taken.append(
            replace(
                shard,
                cuts=(shard.cuts + len(mine)) * copies,
                seconds=shard.seconds + sum(mine.values()),
                transcripts=replace(shard.transcripts, ties=frozenset(mine)),
            )
        )
    dropped = sum(shard.shard.cuts for shard in taken) - sum(shard.cuts for shard in taken)
    if dropped:
        log.info("%d unlabelled cuts are left out, because their pseudo-labels were dropped", dropped)
    return [shard for shard in taken if shard.cuts]


def _count(
    shards: Sequence[Shard], path: Path, limits: Limits
) -> Iterator[tuple[TrainingShard, list[tuple[str, float]]]]:
    """Yield each shard with the number of transcripts that are taken, and those that may be: id and seconds."""
    lines = read_scores(path)
    for shard in shards:
        start, taken, seconds, ties = None, 0, 0.0, []
        for _ in range(shard.utterances):
            offset, line, scored = next(lines, (None, None, None))
            if line is None:
                raise ValueError(f"{path}: ends before {shard.manifest}; remove the transcripts and run again")
            start = offset if start is None else start
            if limits.take(scored):
                taken, seconds = taken + 1, seconds + scored.seconds
            elif limits.tie(scored):
                ties.append((json.loads(line)["id"], scored.seconds))
        transcripts = Transcripts(path=path, offset=start, limits=limits)
        yield TrainingShard(shard=shard, cuts=taken, seconds=seconds, transcripts=transcripts), ties
    if next(lines, None) is not None:
        raise ValueError(f"{path}: goes on after {shards[-1].manifest}; remove the transcripts and run again")
