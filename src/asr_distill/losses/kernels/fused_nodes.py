# ruff: noqa: N803 (compile-time constants are written in capitals)
"""Chunks of the nodes of a batch of transducer lattices, and the Triton kernels that lead to and from their nodes.

Layout legend: B batch, T encoder frames, U labels, H joint, N nodes of a chunk.
A chunk holds whole frames of one utterance or several, as segments: rectangles of frames by label rows, stored frame
by frame. Where a single frame has more nodes than a chunk may have, segments are pieces of frames. A chunk has at
most one segment of an utterance, so that within a chunk each gradient is written by one program only; chunks follow
one another on the stream, so that gradients add up in a fixed order.

Annotations are not postponed in this module: Triton reads them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from asr_distill.losses.joint import Lattice
from asr_distill.losses.kernels.fused_tuning import INTERPRETED

TABLE_BLOCK = 32 if INTERPRETED else 1024
ACTIVATION_NODES = 16
BLOCK_FRAMES, BLOCK_ROWS, BLOCK_UNITS = (4, 2, 8) if INTERPRETED else (16, 4, 64)
"""Tile of the reduction over frames and label rows."""
FIELDS = tl.constexpr(8)
SIZES = ["num_nodes", "num_frames", "num_rows", "num_labels", "shift"]
"""Arguments that differ from batch to batch: kernels are not compiled anew for those that are multiples of 16."""


class Segment(NamedTuple):
    """Frames by label rows of one utterance; the kernels read these fields in this order."""

    utterance: int
    frame: int
    """The first one."""
    frames: int
    row: int
    """The first one."""
    rows: int
    count: int
    """Labels of the utterance."""
    node: int
    """Position of the first node in the chunk."""
    partial: int
    """Position of the first partial sum in the chunk."""

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.frames * self.rows

    @property
    def partials(self) -> int:
        """Number of partial sums over frames."""
        return -(-self.frames // BLOCK_FRAMES) * self.rows


class Nodes(NamedTuple):
    """What kernels need to know of each node of a chunk, each (N,)."""

    encoder_rows: Tensor
    """Index into the flattened (B, T)."""
    teacher_rows: Tensor
    """Likewise of the teacher's frame; -1 where there is none."""
    predictor_rows: Tensor
    """Index into the flattened (B, U + 1)."""
    places: Tensor
    """Index into the flattened (B, T, U + 1)."""
    tokens: Tensor
    """Next label; -1 in a lattice's last row, where there is none."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Segments that are visited together."""

    nodes: int
    partials: int
    shape: tuple[int, int, int]
    """Number of segments; frames and label rows of the longest and of the widest one."""
    largest: int
    """Nodes of the largest segment."""
    table: Tensor
    """The segments, (segments, 8) int32, on the device."""


def chunks(lattice: Lattice, *, limit: int, device: torch.device) -> list[Chunk]:
    """Divide the nodes of a batch into chunks of at most `limit` nodes, and send the segments' table to the device."""
    groups = list(group_segments(lattice.frames, lattice.counts, limit=limit))
    table = torch.tensor([segment for group in groups for segment in group], dtype=torch.int32)
    if device.type == "cuda":
        table = table.pin_memory().to(device, non_blocking=True)
    return [
        Chunk(
            nodes=sum(segment.nodes for segment in group),
            partials=sum(segment.partials for segment in group),
            shape=(len(group), max(segment.frames for segment in group), max(segment.rows for segment in group)),
            largest=max(segment.nodes for segment in group),
            table=part,
        )
        for group, part in zip(groups, table.split([len(group) for group in groups]), strict=True)
    ]


def group_segments(frames: tuple[int, ...], counts: tuple[int, ...], *, limit: int) -> Iterator[list[Segment]]:
    """Yield the segments of each chunk."""
    group, nodes, partials = [], 0, 0
    for utterance, (num_frames, count) in enumerate(zip(frames, counts, strict=True)):
        for rows in range(0, count + 1, limit):
            width = min(limit, count + 1 - rows)
            frame = 0
            while frame < num_frames:
                room = (limit - nodes) // width
                if room == 0 or (group and group[-1].utterance == utterance):
                    yield group
                    group, nodes, partials = [], 0, 0
                    continue
                taken = min(room, num_frames - frame)
                segment = Segment(utterance, frame, taken, rows, width, count, nodes, partials)
                group.append(segment)
                nodes, partials, frame = nodes + segment.nodes, partials + segment.partials, frame + taken
    yield group


def tabulate(chunk: Chunk, labels: Tensor, *, num_frames: int, shift: int) -> Nodes:
    """List the nodes of a chunk; labels are (B, U), `num_frames` is T."""
    aligned = triton.cdiv(chunk.nodes, 16) * 16  # addresses that are no multiples of 16 bytes compile separately
    table = torch.empty(len(Nodes._fields), aligned, dtype=torch.int64, device=labels.device)
    nodes = Nodes(*table[:, : chunk.nodes])
    grid = (chunk.shape[0], triton.cdiv(chunk.largest, TABLE_BLOCK))
    tabulate_kernel[grid](*nodes, chunk.table, labels, num_frames, labels.shape[1], shift, BLOCK=TABLE_BLOCK)
    return nodes


def activate(
    encoder: Tensor, predictor: Tensor, encoder_rows: Tensor, predictor_rows: Tensor, *, dtype: torch.dtype
) -> Tensor:
    """Return tanh(encoder[row] + predictor[row]) of each node, (N, H), for encoder and predictor (rows, H)."""
    size, units = len(encoder_rows), encoder.shape[1]
    hidden = encoder.new_empty(size, units, dtype=dtype)
    block = min(256, triton.next_power_of_2(units))
    grid = (triton.cdiv(size, ACTIVATION_NODES), triton.cdiv(units, block))
    activation_kernel[grid](
        hidden, encoder, predictor, encoder_rows, predictor_rows, size, H=units, BLOCK_N=ACTIVATION_NODES, BLOCK_H=block
    )
    return hidden


def reduce(
    inner: Tensor, chunk: Chunk, encoder: Tensor, predictor: Tensor, *, totals: tuple[Tensor, Tensor], num_frames: int
) -> None:
    """Add what follows from the gradients for the hidden states to those for encoder and predictor.

    Args:
        inner: gradients for the chunk's hidden states, (N, H) float32.
        chunk: whose nodes these are.
        encoder: (B T, H).
        predictor: (B (U + 1), H).
        totals: the gradients to which is added, float32, shaped like encoder and predictor.
        num_frames: T.
    """
    segments, frames, rows = chunk.shape
    units, num_rows = inner.shape[1], len(predictor) * num_frames // len(encoder)
    block = min(BLOCK_UNITS, triton.next_power_of_2(units))
    partials = inner.new_empty(chunk.partials, units)
    grid = (segments, triton.cdiv(frames, BLOCK_FRAMES), triton.cdiv(units, block))
    blocks = {"BLOCK_T": BLOCK_FRAMES, "BLOCK_U": BLOCK_ROWS, "BLOCK_H": block}
    frame_kernel[grid](
        inner, encoder, predictor, totals[0], partials, chunk.table, num_frames, num_rows,
        H=units, **blocks, num_warps=8,
    )  # fmt: skip
    grid = (segments, triton.cdiv(rows, BLOCK_ROWS), triton.cdiv(units, block))
    row_kernel[grid](partials, totals[1], chunk.table, num_rows, H=units, **blocks)


@triton.jit(do_not_specialize=SIZES)
def tabulate_kernel(
    encoder_rows, teacher_rows, predictor_rows, places, tokens,
    segments, labels, num_frames, num_labels, shift, BLOCK: tl.constexpr,
):  # fmt: skip
    """Fill the table `Nodes`."""
    utterance, frame, frames, row, rows, count, node, _ = read_segment(segments)
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = index < frames * rows
    t = frame + index // rows
    u = row + index % rows
    encoder_row = utterance * num_frames + t
    predictor_row = utterance * (num_labels + 1) + u
    token = tl.load(labels + utterance * num_labels + u, mask=inside & (u < count), other=-1)
    place = encoder_row * (num_labels + 1) + u
    tl.store(encoder_rows + node + index, encoder_row, mask=inside)
    tl.store(teacher_rows + node + index, tl.where(t >= shift, encoder_row - shift, -1), mask=inside)
    tl.store(predictor_rows + node + index, predictor_row, mask=inside)
    tl.store(places + node + index, place, mask=inside)
    tl.store(tokens + node + index, token, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def activation_kernel(
    hidden, encoder, predictor, encoder_rows, predictor_rows, num_nodes,
    H: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """Store tanh(encoder[row] + predictor[row]) of each node; tanh(0) where the encoder's row is -1."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    encoder_row = tl.load(encoder_rows + n, mask=n < num_nodes, other=-1)[:, None]
    predictor_row = tl.load(predictor_rows + n, mask=n < num_nodes, other=0)[:, None]
    known = (encoder_row >= 0) & (h < H)[None, :]
    heard = tl.load(encoder + encoder_row * H + h[None, :], mask=known, other=0.0).to(tl.float32)
    written = tl.load(predictor + predictor_row * H + h[None, :], mask=known, other=0.0).to(tl.float32)
    inside = (n < num_nodes)[:, None] & (h < H)[None, :]
    tl.store(hidden + n[:, None].to(tl.int64) * H + h[None, :], tanh(heard + written), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def frame_kernel(
    inner, encoder, predictor, encoder_gradient, partials, segments, num_frames, num_rows,
    H: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """Take the gradient through tanh; add its sums over label rows to frames, store those over BLOCK_T frames."""
    utterance, frame, frames, row, rows, _, node, partial = read_segment(segments)
    block = tl.program_id(1)
    t = block * BLOCK_T + tl.arange(0, BLOCK_T)
    h = tl.program_id(2) * BLOCK_H + tl.arange(0, BLOCK_H)
    if block * BLOCK_T < frames:
        has_frame = (t < frames)[:, None] & (h < H)[None, :]
        at_frame = (utterance * num_frames + frame + t)[:, None] * H + h[None, :]
        heard = tl.load(encoder + at_frame, mask=has_frame, other=0.0).to(tl.float32)
        total = tl.zeros((BLOCK_T, BLOCK_H), tl.float32)
        start = 0
        while start < rows:
            u = start + tl.arange(0, BLOCK_U)
            has_row = (u < rows)[:, None] & (h < H)[None, :]
            at_row = (utterance * num_rows + row + u)[:, None] * H + h[None, :]
            written = tl.load(predictor + at_row, mask=has_row, other=0.0).to(tl.float32)
            hidden = tanh(heard[:, None, :] + written[None, :, :])
            at_node = (node + t[:, None] * rows + u[None, :])[:, :, None] * H + h[None, None, :]
            inside = has_frame[:, None, :] & has_row[None, :, :]
            gradient = tl.load(inner + at_node, mask=inside, other=0.0) * (1.0 - hidden * hidden)
            total += tl.sum(gradient, axis=1)
            at_partial = (partial + block * rows + u)[:, None] * H + h[None, :]
            tl.store(partials + at_partial, tl.sum(gradient, axis=0), mask=has_row)
            start += BLOCK_U
        total += tl.load(encoder_gradient + at_frame, mask=has_frame, other=0.0)
        tl.store(encoder_gradient + at_frame, total, mask=has_frame)


@triton.jit(do_not_specialize=SIZES)
def row_kernel(
    partials, predictor_gradient, segments, num_rows,
    H: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """Add the sums over blocks of frames to the label rows."""
    utterance, _, frames, row, rows, _, _, partial = read_segment(segments)
    u = tl.program_id(1) * BLOCK_U + tl.arange(0, BLOCK_U)
    h = tl.program_id(2) * BLOCK_H + tl.arange(0, BLOCK_H)
    inside = (u < rows)[:, None] & (h < H)[None, :]
    at_row = (utterance * num_rows + row + u)[:, None] * H + h[None, :]
    total = tl.load(predictor_gradient + at_row, mask=inside, other=0.0)
    end = partial + (frames + BLOCK_T - 1) // BLOCK_T * rows
    while partial < end:
        total += tl.load(partials + (partial + u)[:, None] * H + h[None, :], mask=inside, other=0.0)
        partial += rows
    tl.store(predictor_gradient + at_row, total, mask=inside)


@triton.jit
def read_segment(segments):
    """Return the fields of this program's segment, as 64-bit numbers: they go into offsets."""
    field = segments + tl.program_id(0) * FIELDS
    return (
        tl.load(field).to(tl.int64),
        tl.load(field + 1).to(tl.int64),
        tl.load(field + 2).to(tl.int64),
        tl.load(field + 3).to(tl.int64),
        tl.load(field + 4).to(tl.int64),
        tl.load(field + 5).to(tl.int64),
        tl.load(field + 6).to(tl.int64),
        tl.load(field + 7).to(tl.int64),
    )


@triton.jit
def tanh(x):
    """Return the hyperbolic tangent, accurate to the last digits of 1."""
    decay = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - decay) / (1.0 + decay)
    return tl.where(x < 0, -size, size)
