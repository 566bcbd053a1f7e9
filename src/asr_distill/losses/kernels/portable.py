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

CHUNK_ELEMENTS = 2**17
"""Logits (or hidden units, where these are more) computed at a time by each thread: half a MiB of float32, of which
three and the hidden units stay in a second-level cache."""
CHUNK_ELEMENTS_CUDA = 2**26
LARGEST_EXPONENT = 60.0
"""Logits up to this size either way can be exponentiated in float32 as they are, and summed with weights up to 120 over
any vocabulary: e^60 is 1e26, the largest number 3e38."""

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]


def arc_log_probs(joint: JointInputs, lattice: Lattice, *, rest: bool = False) -> Arcs:
    """Return log P(blank), log P(next label) and, with `rest`, log P(any other token) of all nodes."""
    visitor = _Joint(joint)
    shape = (*joint.encoder.shape[:2], joint.predictor.shape[1])
    nodes = _Nodes.where(_inside(lattice, shape, device=joint.encoder.device), lattice)
    classes = [visitor.bias.new_zeros(shape).view(-1) for _ in range(3 if rest else 2)]
    for chunk in nodes.chunks(visitor.limit):
        _, logits = visitor(chunk)
        label = logits.gather(1, chunk.following)[:, 0].where(chunk.following[:, 0] != BLANK, -torch.inf)
        values = [logits[:, BLANK].clone(), label]
        if rest:
            others = logits.scatter(1, chunk.following, -torch.inf)
            others[:, BLANK] = -torch.inf
            values.append(others.logsumexp(dim=1))
        normaliser = logits.exp_().sum(dim=1).log_()
        for total, value in zip(classes, values, strict=True):
            total.index_copy_(0, chunk.places, value.sub_(normaliser))
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
    """Computes hidden states and logits of listed nodes, in memory that is used again for every chunk.

    Fresh memory would cost more than the arithmetic: the system hands it out page by page.
    """

    def __init__(self, joint: JointInputs, *, temperature: float = 1.0, shift: int = 0, stretch: float = 1.0):
        """Prepare for logits divided by `temperature`, which the caller will multiply by at most `stretch`."""
        wide = [x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in joint.tensors()]
        self.encoder, self.predictor = wide[0].flatten(0, 1), wide[1].flatten(0, 1)
        self.weight, self.bias = wide[2] / temperature, wide[3] / temperature
        self.shift = shift
        device, (vocabulary, units) = self.weight.device, self.weight.shape
        elements = CHUNK_ELEMENTS_CUDA if device.type == "cuda" else CHUNK_ELEMENTS * torch.get_num_threads()
        self.limit = max(1, elements // max(vocabulary, units))
        room = min(self.limit, len(self.encoder) * len(self.predictor) // len(joint.encoder))
        self.logits = self.weight.new_empty(room, vocabulary)
        self.hidden, self.inner = self.weight.new_empty(2, room, units)
        largest = self.bias.abs() + self.weight.abs().sum(dim=1)  # hidden units lie between -1 and 1
        self.bounded = device.type == "cpu" and stretch * float(largest.max()) < LARGEST_EXPONENT

    def __call__(self, nodes: _Nodes) -> tuple[Tensor, Tensor]:
        """Return hidden states (N, H) and logits (N, V), valid until the next call.

        The logits of a node can be exponentiated: where they might be too large, their maximum is subtracted.
        """
        hidden, inner, logits = (x[: len(nodes.places)] for x in (self.hidden, self.inner, self.logits))
        torch.index_select(self.encoder, 0, nodes.frames - self.shift if self.shift else nodes.frames, out=hidden)
        torch.index_select(self.predictor, 0, nodes.rows, out=inner)
        hidden.add_(inner).tanh_()
        torch.addmm(self.bias, hidden, self.weight.t(), out=logits)
        if not self.bounded:
            logits.sub_(logits.amax(dim=1, keepdim=True))
        return hidden, logits


class _GradientWalk:
    """Adds up divergences and gradients over the nodes it visits."""

    def __init__(
        self, joint: JointInputs, coefficients: Coefficients, distillation: Distillation | None, *, gradients: bool
    ):
        sharpness = 1.0 if distillation is None else 1 / distillation.student_temperature
        self.student = _Joint(joint, stretch=max(1.0, sharpness))
        self.coefficients = {name: x.view(-1, 1) for name, x in vars(coefficients).items() if x is not None}
        self.gradients = None
        if gradients:
            dtype = self.student.bias.dtype
            self.gradients = tuple(torch.zeros_like(x, dtype=dtype) for x in joint.tensors())
        self.divergence = self.teacher = None
        if distillation is not None:
            self.divergence = self.student.bias.new_zeros(*joint.encoder.shape[:2], joint.predictor.shape[1])
            self.temperature = distillation.student_temperature
            self.teacher = _Joint(
                distillation.teacher, temperature=distillation.teacher_temperature, shift=distillation.shift
            )
            self.scratch = torch.empty_like(self.student.logits)

    def visit(self, nodes: _Nodes, *, arcs: bool, kl: bool) -> None:
        """Take in the nodes' gradients for their arcs' probabilities, for the divergence, or for both."""
        limit = min(self.student.limit, self.teacher.limit) if kl else self.student.limit
        arcs = arcs and self.gradients is not None
        apart = arcs and kl and (self.temperature != 1 or "log_rest" in self.coefficients)
        for chunk in nodes.chunks(limit):
            hidden, logits = self.student(chunk)
            of_arcs = self._arcs(logits.clone() if apart else logits, chunk) if apart or not kl else None
            gradient = self._distil(logits, chunk, arcs=arcs and not apart) if kl else of_arcs
            if self.gradients is not None:
                self._accumulate(gradient.add_(of_arcs) if apart else gradient, hidden, chunk)

    def _arcs(self, logits: Tensor, nodes: _Nodes) -> Tensor:
        """Turn logits (N, V) into their gradients through the probabilities of blank, next label and the rest."""
        blank, label, rest = (self._coefficient(name, nodes) for name in ("blank", "label", "rest"))
        if "log_rest" in self.coefficients:
            normaliser = logits.exp().sum(dim=1, keepdim=True).log_().add_(self._coefficient("log_rest", nodes))
            gradient = logits.sub_(normaliser).exp_().mul_(rest)
        else:
            gradient = logits.exp_()
            gradient.mul_(rest.div_(gradient.sum(dim=1, keepdim=True)))
        return _with_classes(gradient, nodes, blank=blank, label=label)

    def _distil(self, student: Tensor, nodes: _Nodes, *, arcs: bool) -> Tensor:
        """Note the divergence of nodes and turn the student's logits (N, V) into their gradients.

        With sums Z of exponentials e, KL = sum of e_T (t - s) / Z_T - log Z_T + log Z_S. With `arcs`, the gradients
        through the probabilities of blank, next label and the rest are added.
        """
        if self.temperature != 1:
            student.div_(self.temperature)
        _, teacher = self.teacher(nodes)
        value = torch.sub(teacher, student, out=self.scratch[: len(student)])
        of_teacher, of_student = (x.exp_().sum(dim=1, keepdim=True) for x in (teacher, student))
        value = value.mul_(teacher).sum(dim=1, keepdim=True).div_(of_teacher)
        value.sub_(of_teacher.log()).add_(of_student.log())
        self.divergence.view(-1).index_copy_(0, nodes.places, value[:, 0])
        if self.gradients is None:
            return student
        scale = self._coefficient("divergence", nodes).div_(self.temperature)
        own, its = scale / of_student, scale / of_teacher
        if not arcs:
            return student.mul_(own).addcmul_(teacher, its, value=-1)
        blank, label, rest = (self._coefficient(name, nodes) for name in ("blank", "label", "rest"))
        blank += own * student[:, :1] - its * teacher[:, :1]
        label += own * student.gather(1, nodes.following) - its * teacher.gather(1, nodes.following)
        gradient = student.mul_(own.add_(rest.div_(of_student))).addcmul_(teacher, its, value=-1)
        return _with_classes(gradient, nodes, blank=blank, label=label)

    def _coefficient(self, name: str, nodes: _Nodes) -> Tensor:
        return self.coefficients[name].index_select(0, nodes.places)

    def _accumulate(self, logits: Tensor, hidden: Tensor, nodes: _Nodes) -> None:
        """Add what follows from the gradients of logits (N, V)."""
        encoder, predictor, weight, bias = self.gradients
        weight.addmm_(logits.t(), hidden)
        bias.add_(logits.sum(dim=0))
        inner = torch.mm(logits, self.student.weight, out=self.student.inner[: len(logits)])
        torch.ops.aten.tanh_backward.grad_input(inner, hidden, grad_input=inner)
        encoder.flatten(0, 1).index_add_(0, nodes.frames, inner)
        predictor.flatten(0, 1).index_add_(0, nodes.rows, inner)


def _with_classes(gradient: Tensor, nodes: _Nodes, *, blank: Tensor, label: Tensor) -> Tensor:
    """Put the gradients (N, 1) of blank and next label in their places in (N, V)."""
    gradient.scatter_(1, nodes.following, label.where(nodes.following != BLANK, blank))
    gradient[:, BLANK] = blank[:, 0]
    return gradient


def _inside(lattice: Lattice, shape: tuple[int, int, int], *, device: torch.device) -> Tensor:
    """Return which of the places (B, T, U + 1) are nodes."""
    frames, counts = torch.tensor([lattice.frames, lattice.counts], device=device)[:, :, None, None]
    t = torch.arange(shape[1], device=device)[:, None]
    u = torch.arange(shape[2], device=device)
    return (t < frames) & (u <= counts)
