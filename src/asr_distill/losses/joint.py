"""What all lattice losses are computed from, and what is computed at the nodes of a lattice.

Layout legend: B batch, T encoder frames, U labels, V vocabulary (blank is 0), H joint.
The lattice has a node (t, u) for every frame t and every number u of labels emitted so far. At each node the joint
network gives P(k | t, u) over the vocabulary: P(blank) leads to (t + 1, u), P(next label) to (t, u + 1).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

BLANK = 0


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

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return encoder, predictor, weight and bias."""
        return self.encoder, self.predictor, self.weight, self.bias


@dataclass(frozen=True, kw_only=True)
class LatticeLengths:
    """Sizes of the lattices of a batch. Kept in the host's memory, they spare an accelerator a synchronisation."""

    frames: Tensor
    """(B,) encoder frames, at least 1."""
    labels: Tensor
    """(B,) labels, 0 or more."""


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """The nodes of a batch; sizes are known to the host."""

    labels: Tensor
    """(B, U) token ids, on the device of the joint inputs; anything beyond an utterance's labels."""
    frames: tuple[int, ...]
    """Encoder frames of each utterance, 1 to T."""
    counts: tuple[int, ...]
    """Labels of each utterance, 0 to U."""


@dataclass(frozen=True, kw_only=True)
class Arcs:
    """Log-probabilities of the classes a node distinguishes, each (B, T, U + 1); 0 outside the lattices."""

    blank: Tensor
    label: Tensor
    """Of the label that comes next; -inf in the last row of a lattice, where none does."""
    rest: Tensor | None
    """Of all other tokens together; None where it was not asked for."""


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """How a loss depends on the logits s of each node, each (B, T, U + 1), 0 outside the lattices.

    With p the student's distribution at temperature 1, p' and q the student's and the teacher's at theirs, tau the
    student's temperature, the gradient for the logit of token k is g[k] + divergence * (p'[k] - q[k]) / tau, where
    g[blank] = `blank`, g[next label] = `label` (in the last row, where there is no next label, `label` is unused),
    and g[k] = `rest` * p[k] for all other tokens; with `log_rest`, g[k] = `rest` * p[k] / exp(`log_rest`).
    """

    blank: Tensor | None = None
    label: Tensor | None = None
    rest: Tensor | None = None
    """These three are given together, or none of them."""
    log_rest: Tensor | None = None
    """Log-probability of all other tokens together, so that `rest` stays small where they have next to none."""
    divergence: Tensor | None = None
    """Weight of the node's KL(teacher || student)."""


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """From whom, and how, the student learns at each node."""

    teacher: JointInputs
    student_temperature: float = 1.0
    """Divides the student's logits."""
    teacher_temperature: float = 1.0
    """Divides the teacher's logits."""
    shift: int = 0
    """The student's frame t learns from the teacher's frame t - shift, 0 or more; earlier frames from none."""
