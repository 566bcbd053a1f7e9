"""Block sizes among which Triton chooses by trial for the kernels that multiply matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from triton import Config, knobs

INTERPRETED = bool(knobs.runtime.interpret)
"""Whether kernels run in Triton's interpreter, on CPU tensors, instead of being compiled."""
BF16, TF32, IEEE = "bf16", "tf32", "ieee"
"""How products are computed: from bfloat16 operands, or from float32 ones, rounded to ten bits or in full."""
GRADIENT_ROWS = 16 if INTERPRETED else 128
"""Nodes to a block of the gradient kernel, whatever its other sizes: it stores one partial sum for each block."""

Blocks = tuple[int, int, int, int]
"""Nodes and tokens of a tile, warps, and stages of the software pipeline."""

DEPTHS = {BF16: 64, TF32: 32, IEEE: 16}
"""Joint units of a tile: 128 bytes of operands for tensor cores."""
TENSOR_CORE_BLOCKS: tuple[Blocks, ...] = (
    (128, 128, 8, 3),
    (128, 256, 8, 3),
    (128, 64, 8, 4),
    (64, 128, 4, 4),
    (64, 256, 8, 3),
)
BLOCKS = {BF16: TENSOR_CORE_BLOCKS, TF32: TENSOR_CORE_BLOCKS, IEEE: ((128, 64, 8, 2), (128, 32, 4, 2), (64, 64, 4, 2))}
"""Candidates by precision; the first is what is used where a choice by trial is not wanted."""
LARGEST_PAIR = 128 * 128
"""Tile of which registers hold two: the student's and the teacher's."""


def product_configs(*, rows: int | None = None) -> list[Config]:
    """Return all candidates, or those with the given number of nodes to a block; a single one for the interpreter."""
    if INTERPRETED:
        return [Config({"BLOCK_N": GRADIENT_ROWS, "BLOCK_V": 8, "BLOCK_H": 4})]
    return [
        Config({"BLOCK_N": n, "BLOCK_V": v, "BLOCK_H": DEPTHS[precision]}, num_warps=warps, num_stages=stages)
        for precision, candidates in BLOCKS.items()
        for n, v, warps, stages in candidates
        if rows is None or n == rows
    ]


def tuned(key: list[str], *, rows: int | None = None) -> Callable[[Any], Any]:
    """Return a decorator that lets a kernel choose among the candidates once for each value of the `key` arguments.

    A kernel is tuned on its first arguments; the result is kept on disk with the compiled kernels.
    """
    return triton.autotune(
        product_configs(rows=rows), key=key, prune_configs_by={"early_config_prune": prune}, cache_results=True
    )


def prune(
    configs: list[Config],
    named_args: dict[str, Any],
    *,
    PRECISION: str,  # noqa: N803
    DISTIL: bool = False,  # noqa: N803
    **_: Any,
) -> list[Config]:
    """Keep the candidates meant for a precision, and for two products at once where there is a teacher.

    Trials end differently from machine to machine, and sums in other blocks round differently: where PyTorch is asked
    for deterministic algorithms, the first candidate is taken without a trial.
    """
    suitable = [
        config
        for config in configs
        if config.kwargs["BLOCK_H"] == DEPTHS[PRECISION]
        and not (DISTIL and config.kwargs["BLOCK_N"] * config.kwargs["BLOCK_V"] > LARGEST_PAIR)
    ]
    return suitable[:1] if torch.are_deterministic_algorithms_enabled() else suitable
