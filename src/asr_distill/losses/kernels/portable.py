"""The nodes of transducer lattices in plain PyTorch: for CPUs, float64, and wherever Triton is missing.

Layout legend: B batch, T encoder frames, U labels, V vocabulary (blank is 0), H joint, N nodes of a chunk.
All nodes of a batch form one list, whatever utterance they belong to. They are visited a chunk at a time, small enough
to stay in a core's cache; a gradient visits only those nodes on which a loss depends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_distill.losses.joint import BLANK, Arcs, Coefficients, Distillation, JointInputs, Lattice

CHUNK_ELEMENTS = 2**18
"""Logits (or hidden units, where these are more) computed at a time: 1 MiB of float32 stays in second-level caches."""
CHUNK_ELEMENTS_CUDA = 2**26
LARGEST_EXPONENT = 80.0
"""Logits up to this size either way can be exponentiated in float32 as they are: e^80 * 1,000 < 3e38."""

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]


def arc_log_probs(joint: JointInputs, lattice: Lattice, *, rest: bool = False) -> Arcs:
    """Return log P(blank), log P(next label) and, with `rest`, log P(any other token) of all nodes."""
    shape = (*joint.encoder.shape[:2], joint.predictor.shape[1])
    nodes = _Nodes.where(_inside(lattice, shape, device=joint.encoder.device), lattice)
    visitor = _Joint(joint)
    classes = [joint.encoder.new_zeros(shape).view(-1) for _ in range(3 if rest else 2)]
    for chunk in nodes.chunks(visitor.limit):
        _, logits = visitor(chunk)
        blank = logits[:, BLANK].clone()
        label = logits.gather(1, chunk.following)[:, 0]
        normaliser = visitor.log_normaliser(logits)
        label = label.where(chunk.following[:, 0] != BLANK, -torch.inf)
        values = [blank - normaliser, label - normaliser]
        if rest:
            logits[:, BLANK] = -torch.inf
            values.append(logits.scatter_(1, chunk.following, -torch.inf).logsumexp(dim=1) - normaliser)
        for total, value in zip(classes, values, strict=True):
            total.index_copy_(0, chunk.places, value)
    blank, label, *others = (total.view(shape) for total in classes)
    return Arcs(blank=blank, label=label, rest=others[0] if rest else None)


def node_gradients(
    joint: JointInputs,
    lattice: Lattice,
    coefficients: Coefficients,
    *,
    distillation: Distillation | None = None,
    gradients: bool = True,
) -> tuple[Tensor | None, Gradients | None]:
    """Return the divergence of each node, (B, T, U + 1), and the gradients for the joint inputs.

    The divergence, KL(teacher || student), is computed where its coefficient is not 0; it is None without a teacher.
    The gradients, None unless asked for, are those that `coefficients` describe.
    """
    walk = _GradientWalk(joint, coefficients, distillation, gradients=gradients)
    arcs = coefficients.blank is not None
    kl = distillation is not None and coefficients.divergence is not None
    distilled = coefficients.divergence != 0 if kl else None
    if kl:
        walk.visit(_Nodes.where(distilled, lattice), arcs=arcs, kl=True)
    if arcs and gradients:
        touched = (coefficients.rest != 0) | (coefficients.blank != 0) | (coefficients.label != 0)
        walk.visit(_Nodes.where(touched & ~distilled if kl else touched, lattice), arcs=True, kl=False)
    return walk.divergence, walk.gradients


@dataclass(frozen=True)
class _Nodes:
    """A list of nodes."""

    places: Tensor
    """(N,) index into the flattened (B, T, U + 1)."""
    frames: Tensor
    """(N,) index into the flattened (B, T)."""
    rows: Tensor
    """(N,) index into the flattened (B, U + 1)."""
    following: Tensor
    """(N, 1) next label, or blank in a lattice's last row, where there is none."""

    @classmethod
    def where(cls, mask: Tensor, lattice: Lattice) -> _Nodes:
        """List the nodes of a mask (B, T, U + 1) in order."""
        _, num_frames, width = mask.shape
        places = mask.view(-1).nonzero()[:, 0]
        frames = places // width
        rows = (frames // num_frames) * width + places % width
        counts = torch.tensor(lattice.counts, device=mask.device)
        labels = F.pad(lattice.labels, (0, 1))
        labels = labels.where(torch.arange(width, device=mask.device) < counts[:, None], BLANK)
        return cls(places, frames, rows, labels.view(-1)[rows, None])

    def chunks(self, limit: int) -> Iterator[_Nodes]:
        """Yield pieces of at most `limit` nodes, all about equally long."""
        pieces = max(1, -(-len(self.places) // limit))
        if len(self.places):
            for piece in zip(*(x.tensor_split(pieces) for x in vars(self).values()), strict=True):
                yield _Nodes(*piece)


class _Joint:
    """Computes hidden states and logits of listed nodes."""

    def __init__(self, joint: JointInputs, *, temperature: float = 1.0, shift: int = 0):
        self.encoder = joint.encoder.flatten(0, 1)
        self.predictor = joint.predictor.flatten(0, 1)
        self.weight, self.bias = joint.weight, joint.bias
        if temperature != 1:
            self.weight, self.bias = self.weight / temperature, self.bias / temperature
        self.shift = shift
        on_cuda = self.weight.device.type == "cuda"
        elements = CHUNK_ELEMENTS_CUDA if on_cuda else CHUNK_ELEMENTS
        self.limit = max(1, elements // max(self.weight.shape))
        largest = self.bias.abs() + self.weight.abs().sum(dim=1)  # hidden units lie between -1 and 1
        self.bounded = not on_cuda and float(largest.max()) < LARGEST_EXPONENT

    def __call__(self, nodes: _Nodes) -> tuple[Tensor, Tensor]:
        """Return hidden states (N, H) and logits (N, V)."""
        hidden = self.encoder.index_select(0, nodes.frames - self.shift if self.shift else nodes.frames)
        hidden = hidden.add_(self.predictor.index_select(0, nodes.rows)).tanh_()
        return hidden, torch.addmm(self.bias, hidden, self.weight.t())

    def log_normaliser(self, logits: Tensor) -> Tensor:
        """Return the log-sum-exp over the vocabulary, (N,)."""
        return logits.exp().sum(dim=1).log_() if self.bounded else logits.logsumexp(dim=1)


class _GradientWalk:
    """Adds up divergences and gradients over the nodes it visits."""

    def __init__(
        self, joint: JointInputs, coefficients: Coefficients, distillation: Distillation | None, *, gradients: bool
    ):
        self.student, self.joint = _Joint(joint), joint
        self.coefficients = {name: x.view(-1, 1) for name, x in vars(coefficients).items() if x is not None}
        self.gradients = tuple(torch.zeros_like(x) for x in joint.tensors()) if gradients else None
        self.divergence = self.teacher = None
        if distillation is not None:
            self.divergence = joint.encoder.new_zeros(*joint.encoder.shape[:2], joint.predictor.shape[1])
            self.temperature = distillation.student_temperature
            self.teacher = _Joint(
                distillation.teacher, temperature=distillation.teacher_temperature, shift=distillation.shift
            )

    def visit(self, nodes: _Nodes, *, arcs: bool, kl: bool) -> None:
        """Take in the nodes' gradients for their arcs' probabilities, for the divergence, or for both."""
        limit = min(self.student.limit, self.teacher.limit) if kl else self.student.limit
        for chunk in nodes.chunks(limit):
            hidden, logits = self.student(chunk)
            gradient = self._distil(logits, chunk) if kl else None
            if self.gradients is None:
                continue
            if arcs:
                of_arcs = self._arcs(logits, chunk)
                gradient = of_arcs if gradient is None else gradient.add_(of_arcs)
            self._accumulate(gradient, hidden, chunk)

    def _arcs(self, logits: Tensor, nodes: _Nodes) -> Tensor:
        """Return the gradient (N, V) through the probabilities of blank, next label and the rest; spends the logits."""
        blank, label, rest = (
            self.coefficients[name].index_select(0, nodes.places) for name in ("blank", "label", "rest")
        )
        normaliser = self.student.log_normaliser(logits)[:, None]
        if "log_rest" in self.coefficients:
            normaliser += self.coefficients["log_rest"].index_select(0, nodes.places)
        gradient = logits.sub_(normaliser).exp_().mul_(rest)
        label = label.where(nodes.following != BLANK, blank)
        gradient.scatter_(1, nodes.following, label)
        gradient[:, BLANK] = blank[:, 0]
        return gradient

    def _distil(self, logits: Tensor, nodes: _Nodes) -> Tensor | None:
        """Note the divergence of nodes and return its gradient (N, V)."""
        student = torch.log_softmax(logits / self.temperature if self.temperature != 1 else logits, dim=1)
        _, teacher_logits = self.teacher(nodes)
        teacher = torch.log_softmax(teacher_logits, dim=1)
        probabilities = teacher.exp()
        value = teacher.sub_(student).mul_(probabilities).sum(dim=1)
        self.divergence.view(-1).index_copy_(0, nodes.places, value)
        if self.gradients is None:
            return None
        scale = self.coefficients["divergence"].index_select(0, nodes.places).div_(self.temperature)
        return student.exp_().sub_(probabilities).mul_(scale)

    def _accumulate(self, logits: Tensor, hidden: Tensor, nodes: _Nodes) -> None:
        """Add what follows from the gradients of logits (N, V)."""
        encoder, predictor, weight, bias = self.gradients
        weight.addmm_(logits.t(), hidden)
        bias.add_(logits.sum(dim=0))
        inner = torch.ops.aten.tanh_backward(torch.mm(logits, self.joint.weight), hidden)
        encoder.flatten(0, 1).index_add_(0, nodes.frames, inner)
        predictor.flatten(0, 1).index_add_(0, nodes.rows, inner)


def _inside(lattice: Lattice, shape: tuple[int, int, int], *, device: torch.device) -> Tensor:
    """Return which of the places (B, T, U + 1) are nodes."""
    frames, counts = torch.tensor([lattice.frames, lattice.counts], device=device)[:, :, None, None]
    t = torch.arange(shape[1], device=device)[:, None]
    u = torch.arange(shape[2], device=device)
    return (t < frames) & (u <= counts)
