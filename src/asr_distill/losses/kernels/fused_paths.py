# ruff: noqa: N803 (compile-time constants are written in capitals)
"""Sums over all alignment paths of transducer lattices on CUDA devices, by Triton.

Layout legend: B batch, T encoder frames, U labels.
Along one label row the log-sum over paths is a first-order linear recurrence in the log semiring, x[t] = (x[t - 1] +
across[t]) (+) entering[t], which a scan solves for all frames at once (Blelloch 1990). One program walks the label
rows of one utterance in one direction; the row before stays in its registers. Sums are added up in float64: those of
a long utterance differ from its arcs by many magnitudes.

Annotations are not postponed in this module: Triton reads them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from asr_distill.losses.paths import NEGLIGIBLE, Paths

NEVER = tl.constexpr(-1e30)
"""Log-probability of the impossible: finite, so that no difference of two becomes NaN."""
SIZES = ["num_frames", "num_rows"]
"""Arguments that differ from batch to batch: kernels are not compiled anew for those that are multiples of 16."""
BLOCK = 32
"""Frames and label rows of a tile of the posteriors."""


def path_sums(blank: Tensor, label: Tensor, frames: tuple[int, ...], counts: tuple[int, ...]) -> Paths:
    """Sum over all paths: log P(labels | speech), and how likely its paths take each arc.

    Args:
        blank: log P(blank), (B, T, U + 1); anything outside the lattices.
        label: log P(next label), (B, T, U + 1); anything outside the lattices and in their last rows.
        frames: of each utterance, 1 to T.
        counts: labels of each utterance, 0 to U.

    Returns:
        (B,), and twice (B, T, U + 1), 0 outside the lattices, of the arguments' type. The posteriors are the gradients
        of the log-likelihood for the arcs' log-probabilities; negligible ones are 0.
    """
    batch, num_frames, num_rows = blank.shape
    sizes = torch.tensor([frames, counts], dtype=torch.int32)
    if blank.is_cuda:
        sizes = sizes.pin_memory().to(blank.device, non_blocking=True)
    by_rows = [x.transpose(1, 2).contiguous() for x in (blank, label)]
    sums = torch.empty(2, batch, num_rows, num_frames, dtype=torch.float64, device=blank.device)
    totals = torch.empty(batch, dtype=torch.float64, device=blank.device)
    arcs = [torch.empty(blank.shape, dtype=blank.dtype, device=blank.device) for _ in range(2)]
    scanned = triton.next_power_of_2(num_frames)
    grid = (batch, triton.cdiv(num_frames, BLOCK), triton.cdiv(num_rows, BLOCK))
    with torch.cuda.device_of(blank):
        sums_kernel[batch, 2](
            *by_rows, sums, totals, sizes, num_frames, num_rows,
            BLOCK_T=scanned, EXACT=blank.dtype == torch.float64, num_warps=min(16, max(1, scanned // 128)),
        )  # fmt: skip
        posterior_kernel[grid](
            *by_rows, sums, totals, sizes, *arcs, num_frames, num_rows, SMALLEST=NEGLIGIBLE[blank.dtype], BLOCK=BLOCK
        )
    return Paths(log_likelihood=totals.to(blank.dtype), blank=arcs[0], label=arcs[1])


@triton.jit(do_not_specialize=SIZES)
def sums_kernel(
    blank, label, sums, totals, sizes, num_frames, num_rows, BLOCK_T: tl.constexpr, EXACT: tl.constexpr
):  # fmt: skip
    """Store the log-sums over all paths to each node, without it, and from each node, with it; (2, B, U + 1, T).

    Blank and label are (B, U + 1, T). The second program of an utterance walks from its last node to its first.
    """
    batch, utterance = tl.num_programs(0).to(tl.int64), tl.program_id(0).to(tl.int64)
    backward = tl.program_id(1)
    last = tl.load(sizes + utterance) - 1
    count = tl.load(sizes + batch + utterance)
    step = tl.arange(0, BLOCK_T)
    t = tl.where(backward == 1, last - step, step)
    inside = step <= last
    # Forwards, arcs lead to a node and carry the score of the node before; backwards, that of the node itself.
    start = tl.where(backward == 1, tl.load(blank + (utterance * num_rows + count) * num_frames + last), 0.0)
    entering = tl.where(step == 0, start.to(tl.float64), NEVER)
    row_sums = entering
    k = 0
    while k <= count:
        u = tl.where(backward == 1, count - k, k)
        row = (utterance * num_rows + u) * num_frames + t
        across = read(blank + row + backward - 1, inside & (step > 0))
        if EXACT:
            _, row_sums = tl.associative_scan((across, entering), 0, follow_exactly)
        else:
            _, row_sums = tl.associative_scan((across, entering), 0, follow)
        tl.store(sums + backward * batch * num_rows * num_frames + row, row_sums, mask=inside)
        entering = row_sums + read(label + row - backward * num_frames, inside & (k < count))
        k += 1
    # Walking backwards, the last sum is that over all paths from the first node to the end.
    total = tl.sum(tl.where(step == last, row_sums, 0.0), axis=0)
    tl.store(totals + utterance, tl.where(total < 0.5 * NEVER, float("-inf"), total), mask=backward == 1)


@triton.jit(do_not_specialize=SIZES)
def posterior_kernel(
    blank, label, sums, totals, sizes, by_blank, by_label, num_frames, num_rows,
    SMALLEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Store the probabilities that a path takes each arc, (B, T, U + 1), from the sums to its ends."""
    batch, utterance = tl.num_programs(0).to(tl.int64), tl.program_id(0).to(tl.int64)
    t = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[:, None]
    u = (tl.program_id(2) * BLOCK + tl.arange(0, BLOCK))[None, :]
    last = tl.load(sizes + utterance) - 1
    count = tl.load(sizes + batch + utterance)
    total = tl.load(totals + utterance)
    total = tl.where(total == float("-inf"), -NEVER, total)  # where every path is impossible, none is taken
    inside = (t <= last) & (u <= count)
    end = (t == last) & (u == count)
    node = (utterance * num_rows + u) * num_frames + t
    before = tl.load(sums + node, mask=inside, other=0.0) - total
    after = sums + batch * num_rows * num_frames + node
    after_blank = tl.load(after + 1, mask=inside & (t < last), other=0.0)
    after_label = tl.load(after + num_frames, mask=inside & (u < count), other=0.0)
    place = (utterance * num_frames + t) * num_rows + u
    stored = (t < num_frames) & (u < num_rows)
    taken = arc(before + read(blank + node, inside) + after_blank, (inside & (t < last)) | end, SMALLEST)
    tl.store(by_blank + place, taken, mask=stored)
    taken = arc(before + read(label + node, inside & (u < count)) + after_label, inside & (u < count), SMALLEST)
    tl.store(by_label + place, taken, mask=stored)


@triton.jit
def arc(score, exists, SMALLEST: tl.constexpr):
    """Return the probability of arcs. NaN stays."""
    probability = tl.exp(tl.where(exists, score, NEVER))
    return tl.where(probability <= SMALLEST, 0.0, probability)


@triton.jit
def read(pointer, mask):
    """Return log-probabilities in float64, with a finite one in the place of -inf."""
    score = tl.load(pointer, mask=mask, other=0.0).to(tl.float64)
    return tl.where(score < NEVER, NEVER, score)


@triton.jit
def follow(across, entering, next_across, next_entering):
    """Chain two steps x -> (x + across) (+) entering; how much the larger term grows is found in float32."""
    score = entering + next_across
    gap = tl.abs(score - next_entering).to(tl.float32)
    grown = tl.log(1.0 + tl.exp(-gap)).to(tl.float64)
    return across + next_across, tl.where(score > next_entering, score, next_entering) + grown


@triton.jit
def follow_exactly(across, entering, next_across, next_entering):
    """Chain two steps in float64 throughout, which takes several times as long."""
    score = entering + next_across
    grown = tl.log(1.0 + tl.exp(-tl.abs(score - next_entering)))
    return across + next_across, tl.where(score > next_entering, score, next_entering) + grown
