"""Transducer loss and lattice distillation over T x (U + 1) x V, never held for more than a few frames at a time.

Layout legend: B batch, T encoder frames, U labels, V vocabulary (blank is 0), H joint.
The lattice has a node (t, u) for every frame t and every number u of labels emitted so far. At each node the joint
network gives P(k | t, u) over the vocabulary. Forward and backward pass visit the nodes of one utterance a few frames
at a time; only quantities of size (B, T, U + 1) are kept, and the backward pass computes the rest again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr_distill.losses.paths import log_likelihood, path_gradients

BLANK = 0
CHUNK_ELEMENTS = 2**18
"""Logits computed at a time: 1 MiB of float32, so that a chunk stays in the second-level cache of a CPU core."""
CHUNK_ELEMENTS_CUDA = 2**26


@dataclass(frozen=True, kw_only=True)
class JointInputs:
    """What a joint network is computed from: P(. | t, u) = softmax(weight tanh(encoder[t] + predictor[u]) + bias)."""

    encoder: Tensor
    """(B, T, H), projected."""
    predictor: Tensor
    """(B, U + 1, H), projected."""
    weight: Tensor
    """(V, H)."""
    bias: Tensor
    """(V,)."""


@dataclass(frozen=True, kw_only=True)
class LatticeLengths:
    """Sizes of the lattices of a batch."""

    frames: Tensor
    """(B,) encoder frames, at least 1."""
    labels: Tensor
    """(B,) labels, 0 or more."""


@dataclass(frozen=True, kw_only=True)
class LatticeLosses:
    """Sums per utterance, (B,), in nats."""

    transducer: Tensor
    """-log P(labels | speech), summed over all alignments (Graves 2012, eq. 16)."""
    divergence: Tensor
    """Sum over all nodes of KL(teacher || student) over the whole vocabulary (Hwang et al. 2022, eq. 1)."""


def lattice_losses(
    student: JointInputs,
    *,
    labels: Tensor,
    lengths: LatticeLengths,
    teacher: JointInputs | None = None,
    transducer: bool = True,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> LatticeLosses:
    """Compute the transducer loss and, given a teacher, the node-wise divergence in one pass over the lattice.

    Args:
        student: gradients flow to all four tensors.
        labels: (B, U) token ids without blanks, padded with anything.
        lengths: sizes of the utterances' lattices.
        teacher: distribution to learn from, on the same lattice; no gradient flows to it.
        transducer: whether the transducer loss is wanted; zeros are returned where not.
        student_temperature: divides the student's logits in the divergence.
        teacher_temperature: divides the teacher's logits in the divergence.

    Raises:
        ValueError: when shapes, lengths or labels do not fit together.
    """
    check_lattice(student, labels=labels, lengths=lengths, teacher=teacher)
    options = Options(
        frames=tuple(lengths.frames.tolist()),
        labels=tuple(lengths.labels.tolist()),
        transducer=transducer,
        temperatures=(student_temperature, teacher_temperature),
    )
    inputs = (student.encoder, student.predictor, student.weight, student.bias)
    others = (None,) * 4 if teacher is None else (teacher.encoder, teacher.predictor, teacher.weight, teacher.bias)
    with torch.autocast(labels.device.type, enabled=False):
        sums = LatticeFunction.apply(options, labels, *(_full_precision(x) for x in (*inputs, *others)))
    return LatticeLosses(transducer=sums[0], divergence=sums[1])


def check_lattice(
    student: JointInputs, *, labels: Tensor, lengths: LatticeLengths, teacher: JointInputs | None
) -> None:
    """Check that shapes, lengths and labels fit together.

    Raises:
        ValueError: naming the utterance and the offending values.
    """
    batch, frames, _ = student.encoder.shape
    vocabulary = student.weight.shape[0]
    if student.predictor.shape[:2] != (batch, labels.shape[1] + 1):
        raise ValueError(f"predictor: {tuple(student.predictor.shape)} does not fit labels {tuple(labels.shape)}")
    if teacher is not None:
        for name in ("encoder", "predictor"):
            own, its = getattr(student, name).shape[:2], getattr(teacher, name).shape[:2]
            if own != its:
                raise ValueError(f"{name}: the teacher's lattice {tuple(its)} is not the student's {tuple(own)}")
        if teacher.weight.shape[0] != vocabulary:
            raise ValueError(f"weight: the teacher has {teacher.weight.shape[0]} tokens, the student {vocabulary}")
    bad = (lengths.frames < 1) | (lengths.frames > frames) | (lengths.labels < 0) | (lengths.labels > labels.shape[1])
    beyond = torch.arange(labels.shape[1], device=labels.device) >= lengths.labels[:, None]
    wrong = ((labels <= BLANK) | (labels >= vocabulary)) & ~beyond
    bad = bad | wrong.any(dim=1)
    if bad.any():
        first = int(bad.nonzero()[0, 0])
        raise ValueError(
            f"utterance {first}: {int(lengths.frames[first])} of {frames} frames, "
            f"{int(lengths.labels[first])} of {labels.shape[1]} labels, outside 1..{vocabulary - 1}: "
            f"{labels[first][wrong[first]].tolist()}"
        )


@dataclass(frozen=True, kw_only=True)
class Options:
    """What LatticeFunction needs beside tensors."""

    frames: tuple[int, ...]
    labels: tuple[int, ...]
    transducer: bool
    temperatures: tuple[float, float]


class LatticeFunction(torch.autograd.Function):
    """Both losses with a hand-written backward pass.

    The divergence needs no sum over paths. Where it is wanted alone, its gradient for a weight of one is formed in the
    forward pass, and the backward pass only scales it, as long as all utterances weigh the same.
    """

    @staticmethod
    def forward(ctx, options: Options, labels: Tensor, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return (2, B) sums: transducer loss and divergence."""
        lattice = _Lattice(options, labels, tensors)
        needs_gradient = any(ctx.needs_input_grad[2:6])
        early = needs_gradient and not options.transducer
        gradients = lattice.zero_gradients() if early else None
        blank, label, divergence = lattice.forward(gradients)
        likelihood = divergence.new_zeros(lattice.batch)
        node_gradients = ()
        if options.transducer:
            if needs_gradient:
                likelihood, *node_gradients = path_gradients(blank, label, options.frames, options.labels)
            else:
                likelihood = log_likelihood(blank, label, options.frames, options.labels)
        ctx.options, ctx.early = options, gradients
        ctx.save_for_backward(labels, *tensors, *node_gradients)
        return -likelihood, divergence

    @staticmethod
    @once_differentiable
    def backward(ctx, transducer_weight: Tensor, divergence_weight: Tensor) -> tuple[Tensor | None, ...]:
        """Return gradients for the student's four tensors."""
        labels, *saved = ctx.saved_tensors
        if ctx.early is not None and bool((divergence_weight == divergence_weight[0]).all()):
            gradients = [gradient.mul_(divergence_weight[0]) for gradient in ctx.early]
            ctx.early = None
        else:
            lattice = _Lattice(ctx.options, labels, saved[:8])
            gradients = lattice.zero_gradients()
            lattice.backward(gradients, saved[8:], transducer_weight, divergence_weight)
        return (None, None, *gradients, None, None, None, None)


class _Lattice:
    """Walks over the nodes of a batch, a few frames of one utterance at a time."""

    def __init__(self, options: Options, labels: Tensor, tensors: tuple[Tensor | None, ...] | list[Tensor | None]):
        self.options, self.labels = options, labels
        self.student, self.teacher = tensors[:4], tensors[4:]
        self.batch = labels.shape[0]
        self.distil = self.teacher[0] is not None

    def zero_gradients(self) -> list[Tensor]:
        return [torch.zeros_like(tensor) for tensor in self.student]

    def chunks(self) -> Iterator[tuple[int, slice, int]]:
        """Yield (utterance, frames, labels + 1)."""
        device = self.student[0].device.type
        limit = CHUNK_ELEMENTS_CUDA if device == "cuda" else CHUNK_ELEMENTS
        vocabulary = self.student[2].shape[0]
        for index, (frames, labels) in enumerate(zip(self.options.frames, self.options.labels, strict=True)):
            step = max(1, limit // ((labels + 1) * vocabulary))
            for start in range(0, frames, step):
                yield index, slice(start, min(start + step, frames)), labels + 1

    def forward(self, gradients: list[Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return log P(blank) and log P(next label), (B, T, U + 1), and the divergence (B,).

        Adds the divergence's gradients for a weight of one to `gradients` where given.
        """
        encoder, predictor = self.student[:2]
        shape = (self.batch, encoder.shape[1], predictor.shape[1])
        blank, label = encoder.new_zeros(shape), encoder.new_zeros(shape)
        divergence = encoder.new_zeros(self.batch)
        for index, frames, width in self.chunks():
            hidden, logits = _joint(self.student, index, frames, width)
            if self.options.transducer:
                log_probs = torch.log_softmax(logits, dim=-1)
                rows = (index, frames, slice(0, width))
                blank[rows] = log_probs[:, BLANK].view(-1, width)
                label[rows] = log_probs.gather(1, self._next_labels(index, frames, width)).view(-1, width)
            if self.distil:
                value, difference = self._divergence(logits, index, frames, width)
                divergence[index] += value
                if gradients is not None:
                    self._add_gradients(gradients, difference, hidden, index, frames, width)
        return blank, label, divergence

    def backward(
        self, gradients: list[Tensor], nodes: list[Tensor], transducer_weight: Tensor, divergence_weight: Tensor
    ) -> None:
        """Compute the lattice again and add all gradients."""
        for index, frames, width in self.chunks():
            hidden, logits = _joint(self.student, index, frames, width)
            gradient = torch.zeros_like(logits)
            if self.options.transducer:
                rows = (index, frames, slice(0, width))
                blank, label = (-transducer_weight[index] * node[rows].reshape(-1, 1) for node in nodes)
                gradient.add_(torch.softmax(logits, dim=-1).mul_(-(blank + label)))
                gradient[:, BLANK] += blank[:, 0]
                gradient.scatter_add_(1, self._next_labels(index, frames, width), label)
            if self.distil:
                _, difference = self._divergence(logits, index, frames, width)
                gradient.add_(difference.mul_(divergence_weight[index]))
            self._add_gradients(gradients, gradient, hidden, index, frames, width)

    def _next_labels(self, index: int, frames: slice, width: int) -> Tensor:
        """Return the label that leaves each node, (nodes, 1); at the last one, where there is none, blank."""
        following = torch.nn.functional.pad(self.labels[index, : width - 1], (0, 1), value=BLANK)
        return following.repeat(frames.stop - frames.start)[:, None]

    def _divergence(self, logits: Tensor, index: int, frames: slice, width: int) -> tuple[Tensor, Tensor]:
        """Return the summed divergence of the chunk's nodes and its gradient for the student's logits (nodes, V)."""
        student_temperature, teacher_temperature = self.options.temperatures
        _, teacher_logits = _joint(self.teacher, index, frames, width)
        student = torch.log_softmax(logits / student_temperature, dim=-1)
        teacher = torch.log_softmax(teacher_logits / teacher_temperature, dim=-1)
        probabilities = teacher.exp()
        value = torch.dot(probabilities.flatten(), teacher.sub_(student).flatten())
        return value, student.exp_().sub_(probabilities).div_(student_temperature)

    def _add_gradients(
        self, gradients: list[Tensor], logits: Tensor, hidden: Tensor, index: int, frames: slice, width: int
    ) -> None:
        """Add the gradients that follow from those of the logits (nodes, V)."""
        encoder, predictor, weight, bias = gradients
        weight.addmm_(logits.t(), hidden)
        bias.add_(logits.sum(dim=0))
        inner = torch.mm(logits, self.student[2]).mul_(1 - hidden.square())
        inner = inner.view(-1, width, hidden.shape[1])
        encoder[index, frames] += inner.sum(dim=1)
        predictor[index, :width] += inner.sum(dim=0)


def _joint(tensors: tuple[Tensor, ...] | list[Tensor], index: int, frames: slice, width: int) -> tuple[Tensor, Tensor]:
    """Return hidden states (nodes, H) and logits (nodes, V) of a few frames of one utterance."""
    encoder, predictor, weight, bias = tensors
    hidden = torch.tanh_(encoder[index, frames, None] + predictor[index, None, :width]).view(-1, encoder.shape[2])
    return hidden, torch.addmm(bias, hidden, weight.t())


def _full_precision(tensor: Tensor | None) -> Tensor | None:
    """Softmax and sums want float32; float64 stays for the sake of exact checks."""
    return tensor.float() if tensor is not None and tensor.dtype in (torch.float16, torch.bfloat16) else tensor
