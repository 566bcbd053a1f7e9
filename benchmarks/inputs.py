"""Lattices to measure on: their shapes, and random inputs for them.

Layout legend: B batch, T encoder frames, U labels, V vocabulary (blank is 0), H joint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asr_distill.losses.joint import JointInputs, LatticeLengths

SEED = 2022


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How large the lattices of a batch are."""

    name: str
    batch: int
    frames: int
    labels: int
    vocabulary: int
    joint: int
    shortest: float = 1.0
    """Lengths are drawn evenly from this share of the longest to the longest; 1: all are full."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One batch, as a joint network and a loss get it."""

    student: JointInputs
    """Its four tensors collect gradients."""
    teacher: JointInputs
    labels: Tensor
    """(B, U)."""
    lengths: LatticeLengths
    """In the host's memory."""
    device: torch.device

    @property
    def nodes(self) -> int:
        """Nodes that belong to an utterance, padding excluded."""
        return int((self.lengths.frames * (self.lengths.labels + 1)).sum())


def make_example(shape: Shape, *, device: torch.device) -> Example:
    """Return random inputs, the same on every device; logits have a standard deviation of about 1."""
    generator = torch.Generator().manual_seed(SEED)
    student, teacher = (_joint_inputs(shape, generator, device) for _ in range(2))
    for tensor in student.tensors():
        tensor.requires_grad_()
    labels = torch.randint(1, shape.vocabulary, (shape.batch, shape.labels), generator=generator)
    frames, counts = (_lengths(longest, shape, generator) for longest in (shape.frames, shape.labels))
    lengths = LatticeLengths(frames=frames, labels=counts)
    return Example(student=student, teacher=teacher, labels=labels.to(device), lengths=lengths, device=device)


def _joint_inputs(shape: Shape, generator: torch.Generator, device: torch.device) -> JointInputs:
    def draw(*size: int, deviation: float = 1.0) -> Tensor:
        return (deviation * torch.randn(size, generator=generator)).to(device)

    return JointInputs(
        encoder=draw(shape.batch, shape.frames, shape.joint),
        predictor=draw(shape.batch, shape.labels + 1, shape.joint),
        weight=draw(shape.vocabulary, shape.joint, deviation=1.5 * shape.joint**-0.5),
        bias=draw(shape.vocabulary, deviation=0.1),
    )


def _lengths(longest: int, shape: Shape, generator: torch.Generator) -> Tensor:
    """Return (B,) lengths; the first is the longest, so that the tensors have no column that nobody uses."""
    lowest = round(shape.shortest * longest)
    lengths = torch.randint(lowest, longest + 1, (shape.batch,), generator=generator)
    lengths[0] = longest
    return lengths
