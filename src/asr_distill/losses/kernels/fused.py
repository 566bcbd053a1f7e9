"""The nodes of transducer lattices on CUDA devices: products and softmaxes in one, by Triton.

Layout legend: B batch, T encoder frames, U labels, V vocabulary (blank is 0), H joint, N nodes of a chunk.
Nodes are visited in chunks, large enough to fill a device, small enough for its memory. A chunk's hidden states (N, H)
are written once; logits never leave the registers of the kernel that multiplies them, and are multiplied again where a
gradient needs them. Only the gradient for the logits (N, V) of a chunk is written, for the two products that follow
from it, which are left to cuBLAS. The host knows all sizes, so that nothing waits for the device. Two calls give the
same bits as long as they use the same block sizes (see `fused_tuning`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from asr_distill.losses.joint import Arcs, Coefficients, Distillation, JointInputs, Lattice
from asr_distill.losses.kernels.fused_kernels import arcs_kernel, gradient_kernel, normaliser_kernel
from asr_distill.losses.kernels.fused_nodes import Chunk, Nodes, activate, chunks, reduce, tabulate
from asr_distill.losses.kernels.fused_paths import path_sums
from asr_distill.losses.kernels.fused_tuning import BF16, GRADIENT_ROWS, IEEE, TF32

__all__ = ["arc_log_probs", "node_gradients", "path_sums"]

CHUNK_NODES = 2**17
CHUNK_ELEMENTS = 2**27
"""Elements of a chunk's largest matrix, (N, V) or (N, H): a quarter of a GiB of bfloat16."""

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]


def arc_log_probs(joint: JointInputs, lattice: Lattice, *, rest: bool = False) -> Arcs:
    """Return log P(blank), log P(next label) and, with `rest`, the log-probability of all other tokens of each node.

    Args:
        joint: encoder (B, T, H), predictor (B, U + 1, H), weight (V, H) and bias (V,).
        lattice: labels (B, U) and sizes.
        rest: summed in its own log-sum-exp, so that it stays exact where blank and label are near certain.

    Returns:
        (B, T, U + 1) float32 each, 0 outside the lattices; the label's is -inf in the last row of a lattice.
    """
    shape = (*joint.encoder.shape[:2], joint.predictor.shape[1])
    device = joint.encoder.device
    network = _Network.prepare(joint, precision=_precision(joint))
    with torch.cuda.device_of(joint.encoder):
        blank, label = (torch.zeros(shape, device=device) for _ in range(2))
        others = torch.zeros(shape, device=device) if rest else None
        labels = lattice.labels.contiguous()
        for chunk in chunks(lattice, limit=network.limit, device=device):
            nodes = tabulate(chunk, labels, num_frames=shape[1], shift=0)
            hidden = network.hidden(nodes.encoder_rows, nodes.predictor_rows)
            arcs_kernel[lambda meta, size=chunk.nodes: (triton.cdiv(size, meta["BLOCK_N"]),)](
                hidden, network.weight, network.bias, nodes.tokens, nodes.places, blank, label, others, chunk.nodes,
                V=network.vocabulary, H=network.units, REST=rest, PRECISION=network.precision,
            )  # fmt: skip
    return Arcs(blank=blank, label=label, rest=others)


def node_gradients(
    joint: JointInputs,
    lattice: Lattice,
    coefficients: Coefficients,
    *,
    distillation: Distillation | None = None,
    gradients: bool = True,
) -> tuple[Tensor | None, Gradients | None]:
    """Return the divergence of each node, and the gradients for the joint inputs.

    Args:
        joint: the student's encoder (B, T, H), predictor (B, U + 1, H), weight (V, H) and bias (V,).
        lattice: labels (B, U) and sizes.
        coefficients: (B, T, U + 1) each; without `gradients` they are not looked at.
        distillation: the teacher's joint inputs, of the same B, T, U and V, and how the student learns from it.
        gradients: whether gradients are wanted.

    Returns:
        KL(teacher || student) of every node, (B, T, U + 1) float32, 0 outside the lattices and before the shift; None
        without a teacher. The gradients for encoder, predictor, weight and bias, float32, as `Coefficients` defines
        them; None where they are not wanted.

    Raises:
        ValueError: when a divergence has a coefficient but no teacher.
    """
    if not gradients:
        coefficients = Coefficients()
    if coefficients.divergence is not None and distillation is None:
        raise ValueError("coefficients: the divergence has a coefficient, but there is no teacher")
    labels, device = lattice.labels.contiguous(), joint.encoder.device
    walk = _Walk.begin(joint, coefficients, distillation, gradients=gradients)
    if walk.has_arcs or walk.teacher is not None:
        with torch.cuda.device_of(joint.encoder), torch.autocast(device.type, enabled=False):
            for chunk in chunks(lattice, limit=walk.limit, device=device):
                walk.visit(chunk, labels)
    return walk.divergence, walk.gradients


def _precision(joint: JointInputs) -> str:
    """Return how products are to be computed: as the caller computes them elsewhere."""
    device = joint.encoder.device.type
    mixed = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    if mixed or joint.encoder.dtype == torch.bfloat16:
        return BF16
    return IEEE if torch.get_float32_matmul_precision() == "highest" else TF32


@dataclass(frozen=True, kw_only=True)
class _Network:
    """A joint network ready for the kernels."""

    encoder: Tensor
    """(B T, H)."""
    predictor: Tensor
    """(B (U + 1), H)."""
    weight: Tensor
    """(V, H), of the type in which products are computed."""
    bias: Tensor
    """(V,) float32."""
    precision: str

    @classmethod
    def prepare(cls, joint: JointInputs, *, precision: str) -> _Network:
        """Convert what products are computed from, once per batch; the rest is converted as it is read."""
        dtype = torch.bfloat16 if precision == BF16 else torch.float32
        encoder, predictor = (
            x.float() if x.dtype == torch.float64 else x for x in (joint.encoder.detach(), joint.predictor.detach())
        )
        return cls(
            encoder=encoder.flatten(0, 1).contiguous(),
            predictor=predictor.flatten(0, 1).contiguous(),
            weight=joint.weight.detach().to(dtype).contiguous(),
            bias=joint.bias.detach().float().contiguous(),
            precision=precision,
        )

    @property
    def vocabulary(self) -> int:
        return self.weight.shape[0]

    @property
    def units(self) -> int:
        return self.weight.shape[1]

    @property
    def limit(self) -> int:
        """Number of nodes of a chunk."""
        return max(1, min(CHUNK_NODES, CHUNK_ELEMENTS // max(self.weight.shape)))

    def hidden(self, encoder_rows: Tensor, predictor_rows: Tensor) -> Tensor:
        """Return the hidden states of listed nodes, (N, H)."""
        return activate(self.encoder, self.predictor, encoder_rows, predictor_rows, dtype=self.weight.dtype)


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """Adds up divergences and gradients over the chunks it visits."""

    student: _Network
    teacher: _Network | None
    scales: tuple[float, float]
    """What the student's and the teacher's logits are multiplied by."""
    shift: int
    coefficients: Coefficients
    divergence: Tensor | None
    gradients: Gradients | None
    num_frames: int

    @classmethod
    def begin(
        cls, joint: JointInputs, coefficients: Coefficients, distillation: Distillation | None, *, gradients: bool
    ) -> _Walk:
        """Prepare a walk that has added up nothing yet."""
        precision = _precision(joint)
        shape = (*joint.encoder.shape[:2], joint.predictor.shape[1])
        teacher, divergence, scales, shift, totals = None, None, (1.0, 1.0), 0, None
        if distillation is not None:
            teacher = _Network.prepare(distillation.teacher, precision=precision)
            divergence = torch.zeros(shape, device=joint.encoder.device)
            scales = (1 / distillation.student_temperature, 1 / distillation.teacher_temperature)
            shift = distillation.shift
        if gradients:
            totals = tuple(torch.zeros(x.shape, device=x.device) for x in joint.tensors())
        given = {name: x.float().contiguous() for name, x in vars(coefficients).items() if x is not None}
        return cls(
            student=_Network.prepare(joint, precision=precision),
            teacher=teacher,
            scales=scales,
            shift=shift,
            coefficients=Coefficients(**given),
            divergence=divergence,
            gradients=totals,
            num_frames=shape[1],
        )

    @property
    def has_arcs(self) -> bool:
        return self.coefficients.blank is not None

    @property
    def limit(self) -> int:
        """Number of nodes of a chunk."""
        return min(network.limit for network in (self.student, self.teacher) if network is not None)

    def visit(self, chunk: Chunk, labels: Tensor) -> None:
        """Take in the nodes of a chunk."""
        nodes = tabulate(chunk, labels, num_frames=self.num_frames, shift=self.shift)
        hidden = [self.student.hidden(nodes.encoder_rows, nodes.predictor_rows), None]
        if self.teacher is not None:
            hidden[1] = self.teacher.hidden(nodes.teacher_rows, nodes.predictor_rows)
        normalisers = self._normalisers(nodes, hidden)
        if not self.has_arcs and self.coefficients.divergence is None:
            return
        logits = self._logit_gradient(nodes, hidden, normalisers)
        encoder, predictor, weight, _ = self.gradients
        weight.add_(_product(logits.t(), hidden[0]))
        inner = _product(logits, self.student.weight)
        totals = encoder.flatten(0, 1), predictor.flatten(0, 1)
        reduce(inner, chunk, self.student.encoder, self.student.predictor, totals=totals, num_frames=self.num_frames)

    def _normalisers(self, nodes: Nodes, hidden: list[Tensor | None]) -> tuple[Tensor | None, ...]:
        """Note the nodes' divergences; return the log-normalisers of the student as it is, and of both as scaled."""
        size, distil = len(nodes.places), self.teacher is not None
        plain = hidden[0].new_empty(size, dtype=torch.float32) if self.has_arcs and not self._shared else None
        student, teacher = (hidden[0].new_empty(size, dtype=torch.float32) if distil else None for _ in range(2))
        coefficients = self.coefficients
        normaliser_kernel[lambda meta: (triton.cdiv(size, meta["BLOCK_N"]),)](
            plain, student, teacher, self.divergence, *self._operands(hidden), nodes.teacher_rows, nodes.places,
            coefficients.blank, coefficients.label, coefficients.rest, size, *self.scales,
            **self._sizes, PLAIN=plain is not None, DISTIL=distil,
        )  # fmt: skip
        return student if self._shared else plain, student, teacher

    def _logit_gradient(self, nodes: Nodes, hidden: list[Tensor | None], normalisers: tuple) -> Tensor:
        """Return the gradient for the logits, (N, V), and add it to that for the bias."""
        size, vocabulary, coefficients = len(nodes.places), self.student.vocabulary, self.coefficients
        stride = triton.cdiv(vocabulary, 16) * 16  # rows on addresses that tensor cores can read from
        gradient = hidden[0].new_empty(size, stride)
        bias = hidden[0].new_empty(triton.cdiv(size, GRADIENT_ROWS), vocabulary, dtype=torch.float32)
        gradient_kernel[lambda meta: (len(bias) * triton.cdiv(vocabulary, meta["BLOCK_V"]),)](
            gradient, bias, *normalisers, *self._operands(hidden), nodes.teacher_rows, nodes.places, nodes.tokens,
            coefficients.blank, coefficients.label, coefficients.rest, coefficients.log_rest, coefficients.divergence,
            size, stride, *self.scales, **self._sizes,
            ARCS=self.has_arcs, LOG_REST=coefficients.log_rest is not None, DISTIL=coefficients.divergence is not None,
        )  # fmt: skip
        self.gradients[3].add_(bias.sum(dim=0))
        return gradient[:, :vocabulary]

    @property
    def _shared(self) -> bool:
        """Whether the student's scaled distribution is its plain one."""
        return self.teacher is not None and self.scales[0] == 1

    @property
    def _sizes(self) -> dict[str, int | str]:
        student = self.student
        teacher_units = 0 if self.teacher is None else self.teacher.units
        return {"V": student.vocabulary, "H": student.units, "TEACHER_H": teacher_units, "PRECISION": student.precision}

    def _operands(self, hidden: list[Tensor | None]) -> list[Tensor | None]:
        """Return hidden states, weight and bias of the student and of the teacher."""
        networks = zip(hidden, (self.student, self.teacher), strict=True)
        return [x for h, n in networks for x in ((h, n.weight, n.bias) if n is not None else (None,) * 3)]


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return the matrix product in float32, also of bfloat16 operands."""
    if left.dtype == torch.float32:
        return torch.mm(left, right)
    if left.device.type == "cuda":
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.mm(left.float(), right.float())
