"""What one would use instead of ours: losses of other packages, and plain PyTorch over the whole lattice.

Layout legend: B batch, T encoder frames, U labels, V vocabulary (blank is 0), H joint.
Each function takes an `Example` and returns losses (B,); autograd does the rest.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from asr_distill.losses.joint import BLANK, JointInputs
from benchmarks.inputs import Example
from benchmarks.measure import Unavailable

IMPOSSIBLE = -1e30
"""Stands for a log-probability of minus infinity, but has a gradient."""


def whole_lattice(inputs: JointInputs) -> Tensor:
    """Return the logits of all nodes, (B, T, U + 1, V)."""
    hidden = torch.tanh(inputs.encoder[:, :, None] + inputs.predictor[:, None])
    return F.linear(hidden, inputs.weight, inputs.bias).float()


# ---------------------------------------------------------------- transducer loss


def torchaudio_transducer(example: Example) -> Tensor:
    """Return torchaudio's transducer loss; it forms the gradient of the logits within its forward pass."""
    return _torchaudio_loss(whole_lattice(example.student), example)


def plain_transducer(example: Example) -> Tensor:
    """Return the transducer loss by a sum over paths in PyTorch, one anti-diagonal of the lattice at a time."""
    return _plain_loss(whole_lattice(example.student).log_softmax(dim=-1), example)


def speechbrain_transducer(example: Example) -> Tensor:
    """Return SpeechBrain's transducer loss, which exists for CUDA only."""
    if example.device.type != "cuda":
        raise Unavailable("runs on CUDA only")
    module = _installed("speechbrain.integrations.numba.transducer_loss")
    log_probs = whole_lattice(example.student).log_softmax(dim=-1)
    return _tried(module.Transducer.apply, log_probs, example.labels.int(), *_lengths(example), BLANK, "none")


def numba_transducer(example: Example) -> Tensor:
    """Return the transducer loss of warprnnt-numba, of which NeMo and ESPnet carry copies."""
    module = _installed("warprnnt_numba")
    loss = module.RNNTLossNumba(blank=BLANK, reduction="none", clamp=0.0)
    return _tried(loss, whole_lattice(example.student), example.labels.int(), *_lengths(example))


def _torchaudio_loss(logits: Tensor, example: Example) -> Tensor:
    return torchaudio.functional.rnnt_loss(
        logits, example.labels.int(), *_lengths(example), blank=BLANK, reduction="none", fused_log_softmax=True
    )


def _lengths(example: Example) -> tuple[Tensor, Tensor]:
    """Return frames and labels of the utterances, as the compiled losses want them."""
    frames, labels = (x.int().to(example.device) for x in (example.lengths.frames, example.lengths.labels))
    return frames, labels


def _plain_loss(log_probs: Tensor, example: Example) -> Tensor:
    """Return -log P(labels) from log-probabilities (B, T, U + 1, V).

    On anti-diagonal d lie the nodes (t, u) with t + u = d; each is reached from two nodes of the one before:
    alpha[t, u] = alpha[t - 1, u] P(blank | t - 1, u) + alpha[t, u - 1] P(label u | t, u - 1).
    """
    batch, frames, width, _ = log_probs.shape
    blank = _skewed(log_probs[..., BLANK])
    following = example.labels[:, None, :, None].expand(-1, frames, -1, -1)
    label = _skewed(log_probs[:, :, :-1].gather(-1, following)[..., 0])
    alpha = F.pad(log_probs.new_zeros(batch, 1), (0, width - 1), value=IMPOSSIBLE)
    alphas = [alpha]
    for diagonal in range(1, frames + width - 1):
        along = alpha + blank[:, diagonal - 1]
        up = F.pad(alpha[:, :-1] + label[:, diagonal - 1], (1, 0), value=IMPOSSIBLE)
        alpha = torch.logaddexp(along, up)
        alphas.append(alpha)
    last, counts = (x.to(example.device) for x in (example.lengths.frames - 1, example.lengths.labels))
    rows = torch.arange(batch, device=example.device)
    arrived = torch.stack(alphas, dim=1)[rows, last + counts, counts]
    return -(arrived + blank[rows, last + counts, counts])


def _skewed(scores: Tensor) -> Tensor:
    """Return (B, T + W, W) whose row d holds the scores of (t, u) with t + u = d, from scores (B, T, W)."""
    batch, frames, width = scores.shape
    columns = F.pad(scores.transpose(1, 2), (0, width), value=IMPOSSIBLE)  # (B, W, T + W)
    shifted = columns.reshape(batch, -1)[:, : width * (frames + width - 1)].reshape(batch, width, -1)
    return shifted.transpose(1, 2)


# ---------------------------------------------------------------- distillation


def plain_divergence(example: Example) -> Tensor:
    """Return the sum over nodes of KL(teacher || student) over the vocabulary."""
    return _divergence(whole_lattice(example.student).log_softmax(dim=-1), example)


def plain_collapsed(example: Example) -> Tensor:
    """Return the sum over nodes of KL(teacher || student) over blank, next label and all others together."""
    student = _collapse(whole_lattice(example.student).log_softmax(dim=-1), example)
    with torch.no_grad():
        teacher = _collapse(whole_lattice(example.teacher).log_softmax(dim=-1), example)
    nodes = (teacher.exp() * (teacher - student)).sum(dim=-1)
    return (nodes * _valid(example)).sum(dim=(1, 2))


def torchaudio_both(example: Example) -> Tensor:
    """Return torchaudio's transducer loss plus the plain divergence, of the same logits."""
    logits = whole_lattice(example.student)
    return _torchaudio_loss(logits, example) + _divergence(logits.log_softmax(dim=-1), example)


def _divergence(log_probs: Tensor, example: Example) -> Tensor:
    with torch.no_grad():
        teacher = whole_lattice(example.teacher).log_softmax(dim=-1)
    nodes = F.kl_div(log_probs, teacher, reduction="none", log_target=True).sum(dim=-1)
    return (nodes * _valid(example)).sum(dim=(1, 2))


def _collapse(log_probs: Tensor, example: Example) -> Tensor:
    """Return log-probabilities of three classes, (B, T, U + 1, 3); a lattice's last row has no next label."""
    counts = example.lengths.labels.to(example.device)
    following = F.pad(example.labels, (0, 1))[:, None, :, None].expand(-1, log_probs.shape[1], -1, -1)
    blank, label = log_probs[..., BLANK], log_probs.gather(-1, following)[..., 0]
    rows = torch.arange(log_probs.shape[2], device=example.device)
    label = label.masked_fill((rows >= counts[:, None])[:, None], IMPOSSIBLE)
    rest = torch.log1p(-(blank.exp() + label.exp()))
    return torch.stack([blank, label, rest], dim=-1)


def _valid(example: Example) -> Tensor:
    """Return which nodes belong to an utterance, (B, T, U + 1)."""
    frames, width = example.student.encoder.shape[1], example.student.predictor.shape[1]
    inside_frames = torch.arange(frames) < example.lengths.frames[:, None]
    inside_rows = torch.arange(width) <= example.lengths.labels[:, None]
    return (inside_frames[:, :, None] & inside_rows[:, None]).to(example.device)


def _tried(loss: Callable[..., Tensor], *arguments: object) -> Tensor:
    """Call a loss of a package that this machine may lack something for: its failure is a line in the table."""
    try:
        return loss(*arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise Unavailable(f"fails: {type(error).__name__}") from error


def _installed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Unavailable("not installed") from None
