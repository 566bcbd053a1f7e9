"""Transducer loss and distillation over T x (U + 1) x V, in any mix, never holding more than a few nodes' logits.

Layout legend: B batch, T encoder frames, U labels, V vocabulary (blank is 0), H joint.
One visit to every node yields the log-probabilities of its arcs. All that follows from those, sums over paths above
all, is done on (B, T, U + 1), and ends in what each node's logits contribute to the loss. A second visit to the nodes
that contribute anything computes their logits again, beside the teacher's where there is one, and adds up gradients.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr_distill.losses.checks import NonFiniteError, check_labels, check_lengths, check_shapes, refuse
from asr_distill.losses.joint import Arcs, Coefficients, Distillation, JointInputs, Lattice, LatticeLengths
from asr_distill.losses.kernels import Kernels, kernels_for
from asr_distill.losses.paths import Paths, best_path

Distance = Literal["absolute", "squared"]


@dataclass(frozen=True, kw_only=True)
class LatticeWeights:
    """How much each loss counts in the total; a loss of weight 0 is not computed."""

    transducer: float = 0.0
    """-log P(labels | speech), summed over all alignments (Graves 2012, eq. 16)."""
    fast_emit: float = 0.0
    """FastEmit's pull towards early labels (Yu et al. 2021, eq. 9): minus the log-probabilities of label arcs, weighted
    with their posteriors, which count as constants. The paper's lambda times the transducer's weight."""
    divergence: float = 0.0
    """KL(teacher || student) over the whole vocabulary, summed over all nodes (Hwang et al. 2022, eq. 1)."""
    one_best: float = 0.0
    """The same on the nodes of the teacher's best path alone (Yang et al. 2021, sec. 3)."""
    teacher_occupancy: float = 0.0
    """The same on all nodes, weighted with the probability that the teacher's paths visit the node."""
    student_occupancy: float = 0.0
    """The same, weighted with the probability that the student's paths visit the node, which counts as a constant."""
    collapsed: float = 0.0
    """KL(teacher || student) over blank, next label and all else, summed over all nodes (Panchapagesan et al. 2020)."""
    full_sum: float = 0.0
    """Distance between the teacher's and the student's log P(labels | speech) (Zeineldeen et al. 2023, sec. 3.3)."""

    def any(self, *names: str) -> bool:
        """Return whether any of these losses is wanted."""
        return any(getattr(self, name) != 0 for name in names)

    def wanted(self) -> tuple[str, ...]:
        """Return the names of the losses that are wanted."""
        return tuple(field.name for field in fields(self) if self.any(field.name))


NEED_TEACHER = ("divergence", "one_best", "teacher_occupancy", "student_occupancy", "collapsed", "full_sum")
NODE_DIVERGENCES = ("divergence", "one_best", "teacher_occupancy", "student_occupancy")


@dataclass(frozen=True, kw_only=True)
class LatticeLosses:
    """Sums per utterance, in nats."""

    total: Tensor
    """(B,) weighted sum; gradients flow to the student's four tensors."""
    terms: dict[str, Tensor]
    """Each wanted loss by its name in `LatticeWeights`, (B,), not weighted, without gradients."""


def lattice_losses(
    student: JointInputs,
    *,
    labels: Tensor,
    lengths: LatticeLengths,
    weights: LatticeWeights,
    teacher: JointInputs | None = None,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    teacher_shift: int = 0,
    full_sum_distance: Distance = "absolute",
) -> LatticeLosses:
    """Compute any mix of losses on the lattices of a batch.

    Products are computed as `torch.get_float32_matmul_precision` says, or in bfloat16 on CUDA where the inputs are or
    autocast asks for it; softmax and sums in float32 (float64 for float64 inputs).

    Args:
        student: gradients flow to all four tensors.
        labels: (B, U) token ids without blanks, padded with anything.
        lengths: sizes of the lattices, best in the host's memory.
        weights: what is computed, and how much it counts.
        teacher: distribution to learn from, for the same frames and labels; no gradient flows to it.
        student_temperature: divides the student's logits in the divergences over the whole vocabulary.
        teacher_temperature: divides the teacher's logits there.
        teacher_shift: the student's frame t learns from the teacher's frame t - teacher_shift; its first frames, which
            have no such partner, from none. Full sums are not shifted.
        full_sum_distance: between log-likelihoods.

    Raises:
        ValueError: when shapes, lengths, labels or settings do not fit together, naming the utterance and what was
            found; a `NonFiniteError` when logits are not finite. What must be read from a GPU for it is reported by
            the next call, or by `checks.settle`.
    """
    check_shapes(student, teacher=teacher, labels=labels)
    if teacher is None and weights.any(*NEED_TEACHER):
        wanted = ", ".join(name for name in weights.wanted() if name in NEED_TEACHER)
        raise ValueError(f"teacher: {wanted} cannot be computed without one")
    if teacher_shift < 0 or min(student_temperature, teacher_temperature) <= 0:
        raise ValueError(
            f"teacher_shift {teacher_shift}, temperatures {student_temperature} and {teacher_temperature}: "
            "the shift must be 0 or more, temperatures above 0"
        )
    frames, counts = check_lengths(lengths, frames=student.encoder.shape[1], labels=labels.shape[1])
    check_labels(labels, counts, vocabulary=len(student.weight))
    device, half = student.encoder.device, _half(student.weight)
    distillation = None
    if teacher is not None:
        distillation = Distillation(
            teacher=_computable(teacher.tensors(), half=half),
            student_temperature=student_temperature,
            teacher_temperature=teacher_temperature,
            shift=teacher_shift,
        )
    lattice = Lattice(labels=labels.clamp(0, len(student.weight) - 1), frames=frames, counts=counts)
    kernels = kernels_for(device, student.encoder.dtype)
    problem = _Problem(kernels, lattice, weights, distillation, full_sum_distance, half)
    with torch.autocast(device.type, enabled=False):
        total, *values = _LatticeFunction.apply(problem, *student.tensors())
    terms = dict(zip(weights.wanted(), values, strict=True))
    refuse(~torch.isfinite(total.detach()), lambda index: _not_finite(index, student, terms=terms))
    return LatticeLosses(total=total, terms=terms)


class _LatticeFunction(torch.autograd.Function):
    """The losses of a problem; gradients are formed with them, for the memory of a backward pass would be no less."""

    @staticmethod
    def forward(ctx, problem: _Problem, *student: Tensor) -> tuple[Tensor, ...]:
        """Return the total and each wanted loss, all (B,)."""
        solved = problem.solve(_computable(student, half=problem.half), gradients=any(ctx.needs_input_grad))
        ctx.problem, ctx.coefficients, ctx.gradients = problem, solved.coefficients, solved.gradients
        ctx.save_for_backward(*student)
        ctx.mark_non_differentiable(*solved.terms.values())
        return solved.total, *solved.terms.values()

    @staticmethod
    @once_differentiable
    def backward(ctx, weight: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients by the weights (B,) of the utterances."""
        student = ctx.saved_tensors
        encoder, predictor, *shared = ctx.gradients
        if weight.stride() == (0,) or (weight.device.type == "cpu" and bool((weight == weight[0]).all())):
            shared = [gradient * weight[0] for gradient in shared]
        else:  # the output layer's gradients already mix the utterances: form them again
            joint = _computable(student, half=ctx.problem.half)
            with torch.autocast(weight.device.type, enabled=False):
                _, (*_, output_weight, bias) = ctx.problem.gradients(joint, _scaled(ctx.coefficients, weight))
            shared = [output_weight, bias]
        gradients = (encoder * weight[:, None, None], predictor * weight[:, None, None], *shared)
        return None, *(gradient.to(x.dtype) for gradient, x in zip(gradients, student, strict=True))


@dataclass(frozen=True, kw_only=True)
class _Solved:
    total: Tensor
    terms: dict[str, Tensor]
    coefficients: Coefficients
    gradients: tuple[Tensor, ...] | None


@dataclass
class _Derivatives:
    """Derivatives of the total for the log-probabilities of each node's classes, (B, T, U + 1) or 0."""

    blank: Tensor | float = 0.0
    label: Tensor | float = 0.0
    rest: Tensor | float = 0.0


@dataclass(frozen=True)
class _Problem:
    """Everything but the student's tensors."""

    kernels: Kernels
    lattice: Lattice
    weights: LatticeWeights
    distillation: Distillation | None
    distance: Distance
    half: torch.dtype | None
    """Type of the products, where it is not that of the sums."""

    def solve(self, student: JointInputs, *, gradients: bool) -> _Solved:
        """Compute all wanted losses, and gradients where they are wanted."""
        weights = self.weights
        own, its = self._arcs(student)
        paths = self._sums(own) if weights.any("transducer", "fast_emit", "full_sum", "student_occupancy") else None
        teacher_paths = self._sums(its) if weights.any("full_sum", "teacher_occupancy") else None
        values: dict[str, Tensor] = {}
        derivatives = _Derivatives()
        if weights.any("transducer", "fast_emit"):
            self._transducer(own, paths, values, derivatives)
        if weights.any("full_sum"):
            self._full_sum(paths, teacher_paths, values, derivatives)
        if weights.any("collapsed"):
            self._collapsed(own, its, values, derivatives)
        kinds = self._node_weights(student, its, paths, teacher_paths)
        coefficients = self._coefficients(own, derivatives, kinds)
        divergence, formed = None, None
        if gradients or kinds:
            divergence, formed = self.gradients(student, coefficients, gradients=gradients)
        values |= {name: (divergence * kind).sum(dim=(1, 2)) for name, kind in kinds.items()}
        terms = {name: values[name] for name in weights.wanted()}
        zero = student.bias.new_zeros(len(student.encoder))
        total = sum((getattr(weights, name) * value for name, value in terms.items()), zero)
        return _Solved(total=total, terms=terms, coefficients=coefficients, gradients=formed)

    def gradients(
        self, student: JointInputs, coefficients: Coefficients, *, gradients: bool = True
    ) -> tuple[Tensor | None, tuple[Tensor, ...] | None]:
        """Return the nodes' divergences and the gradients that follow from the coefficients."""
        distillation = self.distillation if coefficients.divergence is not None else None
        return self.kernels.node_gradients(
            student, self.lattice, coefficients, distillation=distillation, gradients=gradients
        )

    def _arcs(self, student: JointInputs) -> tuple[Arcs | None, Arcs | None]:
        """Return the arcs of student and teacher where they are needed."""
        weights, rest = self.weights, self.weights.any("collapsed")
        own = its = None
        if weights.any("transducer", "fast_emit", "full_sum", "student_occupancy", "collapsed"):
            own = self.kernels.arc_log_probs(student, self.lattice, rest=rest)
        if weights.any("full_sum", "teacher_occupancy", "one_best", "collapsed"):
            its = self.kernels.arc_log_probs(self.distillation.teacher, self.lattice, rest=rest)
        return own, its

    def _sums(self, arcs: Arcs) -> Paths:
        return self.kernels.path_sums(arcs.blank, arcs.label, self.lattice.frames, self.lattice.counts)

    def _transducer(self, own: Arcs, paths: Paths, values: dict[str, Tensor], derivatives: _Derivatives) -> None:
        weights = self.weights
        values["transducer"] = -paths.log_likelihood
        possible = torch.isfinite(own.label)
        values["fast_emit"] = -(paths.label * own.label.where(possible, 0.0)).sum(dim=(1, 2))
        derivatives.blank = derivatives.blank - weights.transducer * paths.blank
        derivatives.label = derivatives.label - (weights.transducer + weights.fast_emit) * paths.label

    def _full_sum(self, own: Paths, its: Paths, values: dict[str, Tensor], derivatives: _Derivatives) -> None:
        difference = its.log_likelihood - own.log_likelihood
        squared = self.distance == "squared"
        values["full_sum"] = difference.square() if squared else difference.abs()
        slope = -self.weights.full_sum * (2 * difference if squared else difference.sign())[:, None, None]
        derivatives.blank = derivatives.blank + slope * own.blank
        derivatives.label = derivatives.label + slope * own.label

    def _collapsed(self, own: Arcs, its: Arcs, values: dict[str, Tensor], derivatives: _Derivatives) -> None:
        present = self._partnered(own.blank)
        value = 0.0
        for name in ("blank", "label", "rest"):
            student, teacher = getattr(own, name), _later(getattr(its, name), self.distillation.shift)
            probability = teacher.exp().where(present, 0.0)
            possible = (probability > 0) & torch.isfinite(student)
            value = value + (probability * (teacher - student)).where(possible, 0.0)
            slope = -self.weights.collapsed * probability
            setattr(derivatives, name, getattr(derivatives, name) + slope)
        values["collapsed"] = value.sum(dim=(1, 2))

    def _node_weights(
        self, student: JointInputs, its: Arcs | None, paths: Paths | None, teacher_paths: Paths | None
    ) -> dict[str, Tensor]:
        """Return how much each node's divergence counts in each loss that is a sum of them, (B, T, U + 1)."""
        kinds: dict[str, Tensor] = {}
        lattice, weights = self.lattice, self.weights
        if not weights.any(*NODE_DIVERGENCES):
            return kinds
        shift, dtype = self.distillation.shift, student.bias.dtype
        present = self._partnered(student.encoder.new_empty(*student.encoder.shape[:2], student.predictor.shape[1]))
        if weights.any("divergence"):
            kinds["divergence"] = present.to(dtype)
        if weights.any("one_best"):
            path = best_path(its.blank, its.label, lattice.frames, lattice.counts)
            kinds["one_best"] = _later(path.to(dtype), shift) * present
        if weights.any("teacher_occupancy"):
            kinds["teacher_occupancy"] = _later(teacher_paths.occupation(), shift) * present
        if weights.any("student_occupancy"):
            kinds["student_occupancy"] = paths.occupation() * present
        return kinds

    def _partnered(self, like: Tensor) -> Tensor:
        """Return which places (B, T, U + 1) are nodes that have a partner in the teacher's lattice."""
        sizes = torch.tensor([self.lattice.frames, self.lattice.counts])
        frames, counts = sizes.to(like.device, non_blocking=True)[:, :, None, None]
        t = torch.arange(like.shape[1], device=like.device)[:, None]
        u = torch.arange(like.shape[2], device=like.device)
        return (t >= self.distillation.shift) & (t < frames) & (u <= counts)

    def _coefficients(self, own: Arcs | None, derivatives: _Derivatives, kinds: dict[str, Tensor]) -> Coefficients:
        """Turn derivatives for the log-probabilities of classes into what each node's logits contribute."""
        divergence = None
        if kinds:
            divergence = sum(getattr(self.weights, name) * kind for name, kind in kinds.items())
        if own is None:
            return Coefficients(divergence=divergence)
        # d log P(class) / d s[k] = [k in class] p[k] / P(class) - p[k], summed over the classes
        common = -(derivatives.blank + derivatives.label + derivatives.rest)
        if not torch.is_tensor(common):  # only the student's occupation was needed
            return Coefficients(divergence=divergence)
        return Coefficients(
            blank=derivatives.blank + common * own.blank.exp(),
            label=derivatives.label + common * own.label.exp(),
            rest=common if own.rest is None else derivatives.rest + common * own.rest.exp(),
            log_rest=own.rest,
            divergence=divergence,
        )


def _later(x: Tensor, shift: int) -> Tensor:
    """Move (B, T, U + 1) by `shift` frames towards the end; zeros come in."""
    return F.pad(x, (0, 0, min(shift, x.shape[1]), 0))[:, : x.shape[1]] if shift else x


def _scaled(coefficients: Coefficients, weight: Tensor) -> Coefficients:
    """Multiply the coefficients of each utterance by its weight, (B,)."""
    pairs = {name: x for name, x in vars(coefficients).items() if x is not None and name != "log_rest"}
    return replace(coefficients, **{name: x * weight[:, None, None] for name, x in pairs.items()})


def _not_finite(index: int, student: JointInputs, *, terms: dict[str, Tensor]) -> NonFiniteError:
    """Say which of the student's tensors is at fault, or that it is the teacher's."""
    sums = ", ".join(f"{name} {float(value[index])}" for name, value in terms.items())
    own = {"encoder": student.encoder[index], "predictor": student.predictor[index]}
    own |= {"weight": student.weight, "bias": student.bias}
    counts = {name: int((~torch.isfinite(x)).sum()) for name, x in own.items()}
    where = ", ".join(f"{count} values of {name}" for name, count in counts.items() if count)
    return NonFiniteError(
        f"utterance {index}: logits are not finite ({sums}); not finite are {where or 'no values of the student'}"
    )


def _computable(tensors: Iterable[Tensor], *, half: torch.dtype | None) -> JointInputs:
    """Return encoder, predictor, weight and bias of one type to compute with.

    That is `half` for products where it is given, which the bias takes no part in, else float32 (or float64).
    """
    encoder, predictor, weight, bias = (x.detach().contiguous() for x in tensors)
    wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
    return JointInputs(
        encoder=encoder.to(half or wide),
        predictor=predictor.to(half or wide),
        weight=weight.to(half or wide),
        bias=bias.to(wide),
    )


def _half(weight: Tensor) -> torch.dtype | None:
    """Return bfloat16 where the kernels for CUDA shall compute products in it."""
    if weight.device.type != "cuda" or weight.dtype == torch.float64:
        return None
    wanted = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else weight.dtype
    return torch.bfloat16 if wanted == torch.bfloat16 else None
