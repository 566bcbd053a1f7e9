"""How a batch is divided among processes, and in each of them into what fits into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from asr_distill.experiment import Phase

if TYPE_CHECKING:
    from asr_distill.training.objective import Batch

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Share:
    """A part of a batch on which one process computes at a time."""

    batch: Batch
    weight: float
    """Its part of the encoder frames of the whole batch: losses are means over frames, so the loss of the batch is the
    sum of the shares' losses times their weights."""
    number: int = 0
    """Among all shares of the batch. Whatever is random in a share depends on it, not on who computes the share."""


def divide(items: Sequence[T], *, rank: int, world: int, largest: int | None = None) -> list[tuple[int, Sequence[T]]]:
    """Return the shares of one process of `world`, numbered among those of all; every process gets as many.

    Shares are pieces of the batch in its order, of sizes that differ by one at most; some are empty where there are
    fewer items than shares. So many processes with one share each have the same shares as one that takes them in turn.

    Args:
        items: of the whole batch.
        rank: of the process.
        world: number of processes.
        largest: most items in a share; None for any number.
    """
    rounds = 1 if largest is None else -(-len(items) // (world * largest))
    count = world * max(1, rounds)
    bounds = [number * len(items) // count for number in range(count + 1)]
    return [(number, items[bounds[number] : bounds[number + 1]]) for number in range(rank, count, world)]


def check_divisible(phase: Phase, *, world: int, name: str) -> None:
    """Refuse a number of processes among which batches cannot be divided evenly.

    Raises:
        ValueError: naming the phase, the batch, the number of processes and the numbers below it that would do.
    """
    batch = phase.batch_utterances
    if batch % world:
        fitting = [str(number) for number in range(1, min(world, batch) + 1) if batch % number == 0]
        raise ValueError(
            f"phases.{name}.batch_utterances: {batch} cannot be divided evenly among {world} processes; start "
            f"{' or '.join(fitting)}, or write a multiple of {world}"
        )
