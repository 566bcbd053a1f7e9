"""Sums over all alignment paths of transducer lattices, and the single best path.

Layout legend: B batch, T frames, U labels, D = T + U diagonals. A path starts at node (0, 0), moves one frame with a
blank or one label up with a label, and leaves node (T - 1, U) with a blank. All nodes with the same t + u lie on one
diagonal and depend only on the diagonal before, so each step of the recursion treats a diagonal of the whole batch,
forwards and backwards at once. In float64: the sums of a long utterance differ from its arcs by many magnitudes.
Inside this module a lattice is (T, U + 1, B), so that what one step touches lies together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Lengths = tuple[int, ...]

NEGLIGIBLE = {torch.float32: 1e-12, torch.float64: 1e-20}
"""Arcs less likely than this count as never taken: far below rounding, they would cost products of denormal numbers."""


@dataclass(frozen=True, kw_only=True)
class Paths:
    """What the paths of a batch of lattices add up to; 0 outside the lattices."""

    log_likelihood: Tensor
    """(B,) log P(labels | speech), summed over all alignments (Graves 2012, eq. 16)."""
    blank: Tensor
    """(B, T, U + 1) posterior probability that a path leaves the node with a blank."""
    label: Tensor
    """(B, T, U + 1) posterior probability that a path leaves the node with the next label."""

    def occupation(self) -> Tensor:
        """Return the probability that a path visits each node, (B, T, U + 1)."""
        return self.blank + self.label


def path_sums(blank: Tensor, label: Tensor, frames: Lengths, counts: Lengths) -> Paths:
    """Sum over all paths, given log P(blank) and log P(next label), each (B, T, U + 1).

    The posteriors are also the gradients of the log-likelihood for the arcs' log-probabilities.
    """
    dtype = blank.dtype
    ends = _ends(frames, counts, device=blank.device)
    blank, label = _inside(blank, label, ends)
    alpha, beta = _forward_backward(blank, label, ends)
    log_likelihood = alpha[ends] + blank[ends]
    after = F.pad(beta, (0, 0, 0, 1, 0, 1), value=-torch.inf)
    after[ends[0] + 1, ends[1], ends[2]] = 0.0  # the blank that ends the utterance
    alpha = alpha - log_likelihood
    smallest = NEGLIGIBLE[dtype]
    by_blank = F.threshold(blank.add_(alpha).add_(after[1:, :-1]).exp_(), smallest, 0.0)
    by_label = F.threshold(label.add_(alpha).add_(after[:-1, 1:]).exp_(), smallest, 0.0)
    by_blank, by_label = (arc.to(dtype).permute(2, 0, 1).contiguous() for arc in (by_blank, by_label))
    return Paths(log_likelihood=log_likelihood.to(dtype), blank=by_blank, label=by_label)


def best_path(blank: Tensor, label: Tensor, frames: Lengths, counts: Lengths) -> Tensor:
    """Return which nodes the most likely single path visits, (B, T, U + 1) of bool.

    Each frame and each label belongs to one arc of the path, so a lattice of T frames and U labels has T + U nodes on
    it. Where two paths are equally likely, the one that emits its labels later is taken.
    """
    t, u, b = ends = _ends(frames, counts, device=blank.device)
    blank, label = _inside(blank, label, ends)
    by_label = _viterbi(blank, label)
    visited = torch.zeros_like(blank, dtype=torch.bool)
    for _ in range(max(f + c for f, c in zip(frames, counts, strict=True)) - 1):
        visited[t, u, b] = True
        up = by_label[t, u, b].long()
        t, u = (t - 1 + up).clamp_min(0), u - up  # a short utterance waits at its first node
    visited[t, u, b] = True
    return visited.permute(2, 0, 1).contiguous()


def _ends(frames: Lengths, counts: Lengths, *, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return frame, label row and utterance of each lattice's last node, each (B,)."""
    ends = torch.tensor([frames, counts, range(len(frames))])
    ends[0] -= 1
    last_frame, last_row, utterance = ends.to(device, non_blocking=True)
    return last_frame, last_row, utterance


def _inside(blank: Tensor, label: Tensor, ends: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Return both as (T, U + 1, B) of float64 in which every arc that leads out of its lattice is impossible."""
    num_frames, width = blank.shape[1:]
    t = torch.arange(num_frames, device=blank.device)[:, None, None]
    u = torch.arange(width, device=blank.device)[:, None]
    before, inside, below, last = t < ends[0], t <= ends[0], u < ends[1], u == ends[1]
    blank, label = (x.permute(1, 2, 0).to(torch.float64, memory_format=torch.contiguous_format) for x in (blank, label))
    has_blank = (before & below) | (inside & last)
    return blank.where(has_blank, -torch.inf), label.where(inside & below, -torch.inf)


def _forward_backward(blank: Tensor, label: Tensor, ends: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Return the log-sums over all paths to each node, without it, and from each node, with it; (T, U + 1, B).

    The backward sums are forward sums over the lattice turned by 180 degrees, where an arc carries the score of the
    node it enters; they are computed as further utterances of the same batch.
    """
    num_frames, width, batch = blank.shape
    sums, sideways, upwards = (_diagonals(num_frames, width, 2 * batch, device=blank.device) for _ in range(3))
    frames = _by_frames(sideways, num_frames)
    frames[1:, :, :batch] = blank[:-1]
    frames[:, :, batch:] = blank.flip(0, 1)
    frames = _by_frames(upwards, num_frames)
    frames[:, 1:, :batch] = label[:, :-1]
    frames[:, :, batch:] = label.flip(0, 1)
    frames = _by_frames(sums, num_frames)  # -inf but for the nodes where paths begin, until a step comes to them
    frames[0, 0, :batch] = 0.0
    frames[num_frames - 1 - ends[0], width - 1 - ends[1], batch + ends[2]] = blank[ends]
    sideways, upwards = sideways.unbind(), upwards[:, 1:].unbind()
    rows, lower_rows, upper_rows = sums.unbind(), sums[:, :-1].unbind(), sums[:, 1:].unbind()
    for d in range(1, len(rows)):
        torch.maximum(rows[d], sideways[d].add_(rows[d - 1]), out=rows[d])  # no arc enters where paths begin
        torch.logaddexp(upper_rows[d], upwards[d].add_(lower_rows[d - 1]), out=upper_rows[d])
    return frames[:, :, :batch], frames[:, :, batch:].flip(0, 1)


def _viterbi(blank: Tensor, label: Tensor) -> Tensor:
    """Return whether the best path to each node enters it by a label, (T, U + 1, B) of bool."""
    num_frames, width, batch = blank.shape
    score, sideways, upwards = (_diagonals(num_frames, width, batch, device=blank.device) for _ in range(3))
    _by_frames(sideways, num_frames)[1:] = blank[:-1]
    _by_frames(upwards, num_frames)[:, 1:] = label[:, :-1]
    score[0, 0] = 0.0
    by_label = torch.zeros_like(score, dtype=torch.bool)
    for d in range(1, len(score)):
        sideways[d].add_(score[d - 1])
        upwards[d, 1:].add_(score[d - 1, :-1])
        torch.ge(upwards[d], sideways[d], out=by_label[d])
        torch.maximum(upwards[d], sideways[d], out=score[d])
    return _by_frames(by_label, num_frames)


def _diagonals(num_frames: int, width: int, batch: int, *, device: torch.device) -> Tensor:
    """Return room for a quantity by diagonals, (D, U + 1, B) with D = T + U, filled with -inf."""
    shape = (num_frames + width - 1, width, batch)
    return torch.full(shape, -torch.inf, dtype=torch.float64, device=device)


def _by_frames(diagonals: Tensor, num_frames: int) -> Tensor:
    """Return a view (T, U + 1, B) of what lies by diagonals: node (t, u) is row u of diagonal t + u."""
    _, width, batch = diagonals.shape
    step = width * batch
    return diagonals.as_strided((num_frames, width, batch), (step, step + batch, 1))
