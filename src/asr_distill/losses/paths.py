"""Sums over all alignment paths of transducer lattices: likelihood and occupation probabilities.

Layout legend: B batch, T frames, U labels. A path starts at node (0, 0), moves one frame with a blank or one label up
with a label, and leaves node (T - 1, U) with a blank. The recursion is vectorised along the frames of one label row:
within a row the sum over paths is a cumulative log-sum-exp, so the loop has U steps instead of T + U. Computed in
float64, because the row's prefix sums are subtracted again.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEGLIGIBLE = 1e-20
"""Less likely arcs count as never taken: products of theirs are denormal numbers, which make a CPU ten times slower."""

Lengths = tuple[int, ...]


def log_likelihood(blank: Tensor, label: Tensor, frames: Lengths, labels: Lengths) -> Tensor:
    """Return log P(labels | speech), shape (B,), from log P(blank) and log P(next label), each (B, T, U + 1)."""
    last_frame, last_label = _last(frames, labels, device=blank.device)
    rows = torch.arange(len(frames), device=blank.device)
    alpha = _forward_sums(blank.double(), label.double())
    return (alpha[rows, last_frame, last_label] + blank[rows, last_frame, last_label]).to(blank.dtype)


def path_gradients(blank: Tensor, label: Tensor, frames: Lengths, labels: Lengths) -> tuple[Tensor, Tensor, Tensor]:
    """Return log P(labels | speech), (B,), and the probabilities (B, T, U + 1) of taking each blank and label arc.

    The arc probabilities are the gradient of the log-likelihood for the arcs' log-probabilities.
    """
    last_frame, last_label = _last(frames, labels, device=blank.device)
    dtype, (batch, num_frames, width) = blank.dtype, blank.shape
    rows = torch.arange(batch, device=blank.device)
    t = torch.arange(num_frames, device=blank.device)[None, :, None]
    u = torch.arange(width, device=blank.device)[None, None, :]
    valid = (t <= last_frame[:, None, None]) & (u <= last_label[:, None, None])
    blank, label = (torch.where(valid, x, 0.0).double() for x in (blank, label))

    # Backward sums are forward sums over the lattice turned by 180 degrees.
    turned_t = (last_frame[:, None, None] - t).clamp_min(0)
    turned_u = (last_label[:, None, None] - u).clamp_min(0)
    turned = (rows[:, None, None], turned_t, turned_u)
    alpha = _forward_sums(blank, label)
    beta = _forward_sums(blank[turned], label[turned], leaving=False)[turned]

    log_prob = alpha[rows, last_frame, last_label] + blank[rows, last_frame, last_label]
    total = log_prob[:, None, None]
    after_blank = torch.nn.functional.pad(beta[:, 1:], (0, 0, 0, 1), value=-torch.inf)
    after_blank[rows, last_frame, last_label] = 0.0  # the blank that ends the utterance
    after_label = torch.nn.functional.pad(beta[:, :, 1:], (0, 1), value=-torch.inf)
    has_blank = valid & ((t < last_frame[:, None, None]) | (u == last_label[:, None, None]))
    has_label = valid & (u < last_label[:, None, None])
    by_blank = torch.where(has_blank, alpha + blank + after_blank - total, -torch.inf).exp()
    by_label = torch.where(has_label, alpha + label + after_label - total, -torch.inf).exp()
    by_blank, by_label = (torch.where(arc > NEGLIGIBLE, arc, 0.0).to(dtype) for arc in (by_blank, by_label))
    return log_prob.to(dtype), by_blank, by_label


def _forward_sums(blank: Tensor, label: Tensor, *, leaving: bool = True) -> Tensor:
    """Return the log-sum over all paths from node (0, 0) to each node, (B, T, U + 1).

    With `leaving`, arcs carry the scores of the node they leave; without, of the node they enter, and the first node
    counts its own blank, as in a lattice that is walked backwards.
    """
    batch, _, width = blank.shape
    zero = blank.new_zeros(batch, 1, width)
    steps = torch.cat([zero, blank[:, :-1]], dim=1) if leaving else torch.cat([zero, blank[:, 1:]], dim=1)
    prefix = steps.cumsum(dim=1).permute(2, 0, 1).contiguous()  # (U + 1, B, T)
    label = label.permute(2, 0, 1)
    row = prefix[0] if leaving else prefix[0] + blank[:, :1, 0]
    rows = [row]
    for u in range(1, width):
        entering = row + (label[u - 1] if leaving else label[u])
        row = torch.logcumsumexp(entering - prefix[u], dim=1) + prefix[u]
        rows.append(row)
    return torch.stack(rows, dim=2)


def _last(frames: Lengths, labels: Lengths, *, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.tensor(frames, device=device) - 1, torch.tensor(labels, device=device)
