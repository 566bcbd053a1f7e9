"""What a student minimises: transducer loss, divergence from a teacher, or a mix, and an auxiliary loss on CTC.

Layout legend: B batch, T feature frames, F mel bins, U labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from asr_distill.experiment import Augmentation, Phase, Run
from asr_distill.features.augment import augment
from asr_distill.losses.ctc import ctc, frame_divergence
from asr_distill.losses.joint import JointInputs, LatticeLengths
from asr_distill.losses.lattice import LatticeWeights, lattice_losses
from asr_distill.models.transducer import Transducer


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Padded utterances. Lengths stay in the host's memory, where the losses check them without waiting for a GPU."""

    features: Tensor
    """(B, T, F) log-mels, not normalised."""
    feature_lengths: Tensor
    """(B,)."""
    labels: Tensor
    """(B, U), padded with 0."""
    label_lengths: Tensor
    """(B,)."""
    utterances: tuple[str, ...] = ()
    """Ids by which soft labels are found, those of the originals for copies at other speeds."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch with features and labels on a device."""
        features, labels = (x.to(device, non_blocking=True) for x in (self.features, self.labels))
        return replace(self, features=features, labels=labels)


class Objective(nn.Module):
    """alpha L_RNNT + (1 - alpha) L_KL (Hwang et al. 2022, eq. 2) and the auxiliary CTC loss, per encoder frame.

    The auxiliary loss is of the run's own kind: CTC on the transcript with weight alpha, and the divergence from the
    teacher's CTC head with weight 1 - alpha, each frame counted for its U + 1 lattice nodes.
    """

    def __init__(
        self,
        student: Transducer,
        *,
        teacher: Transducer | None,
        run: Run,
        phase: Phase,
        augmentation: Augmentation,
        teacher_augmentation: Augmentation | None = None,
        teacher_shift: int = 0,
    ):
        """Build the loss; `teacher_shift` is in encoder frames."""
        super().__init__()
        self.student = student
        self.run, self.phase, self.augmentation = run, phase, augmentation
        self.teacher_augmentation = teacher_augmentation or Augmentation()
        self.teacher_shift = teacher_shift
        self.alpha = run.transducer_weight
        if self.alpha < 1 and teacher is None:
            raise ValueError(f"teacher: {run.targets} targets need the teacher's model")
        self._teacher = (teacher,) if teacher is not None else ()  # hidden from parameters()

    def forward(self, batch: Batch, *, generator: torch.Generator, ctc_only: bool = False) -> Tensor:
        """Return the loss of a batch: its sum over utterances divided by its number of encoder frames."""
        student = self.student
        clean = student.normalise(batch.features, batch.feature_lengths)
        heard = augment(clean, batch.feature_lengths, settings=self.augmentation, generator=generator)
        states, frames = student.encode(heard, batch.feature_lengths)
        lengths = LatticeLengths(frames=frames, labels=batch.label_lengths)
        teacher_states = self._teacher_states(clean, batch.feature_lengths, generator=generator)
        weight = 1.0 if ctc_only else self.phase.ctc_weight
        total = states.new_zeros(())
        if weight < 1:
            total = total + (1 - weight) * self._lattice(batch, states, lengths, teacher_states)
        if weight > 0:
            total = total + weight * self._auxiliary(batch, states, lengths, teacher_states)
        if self.run.consistency:
            distance = state_distance(states, teacher_states, frames, teacher_shift=self.teacher_shift)
            total = total + self.run.consistency * distance.sum()
        return total / frames.sum()

    def _teacher_states(self, clean: Tensor, lengths: Tensor, *, generator: torch.Generator) -> Tensor | None:
        """Return the teacher's encoder states, on clean speech if not told otherwise; both models normalise alike."""
        if self.alpha == 1:
            return None
        heard = augment(clean, lengths, settings=self.teacher_augmentation, generator=generator)
        with torch.no_grad():
            return self._teacher[0].encode(heard, lengths)[0]

    def _lattice(self, batch: Batch, states: Tensor, lengths: LatticeLengths, teacher_states: Tensor | None) -> Tensor:
        teacher = None
        if teacher_states is not None:
            with torch.no_grad():
                teacher = joint_inputs(self._teacher[0], teacher_states, batch.labels)
        losses = lattice_losses(
            joint_inputs(self.student, states, batch.labels),
            labels=batch.labels,
            lengths=lengths,
            weights=self._weights(),
            teacher=teacher,
            teacher_shift=self.teacher_shift,
            student_temperature=self.run.student_temperature,
            teacher_temperature=self.run.teacher_temperature,
        )
        return losses.total.sum()

    def _weights(self) -> LatticeWeights:
        """Return alpha for the transducer loss, and 1 - alpha times the weights of what soft targets mean."""
        soft = {name: (1 - self.alpha) * weight for name, weight in self.run.soft_losses.items()}
        return LatticeWeights(transducer=self.alpha, fast_emit=self.alpha * self.run.fast_emit, **soft)

    def _auxiliary(
        self, batch: Batch, states: Tensor, lengths: LatticeLengths, teacher_states: Tensor | None
    ) -> Tensor:
        logits = self.student.ctc_head(states)
        total = logits.new_zeros(())
        if self.alpha > 0:
            total = total + self.alpha * ctc(logits, labels=batch.labels, lengths=lengths).sum()
        if teacher_states is not None:
            with torch.no_grad():
                target = self._teacher[0].ctc_head(teacher_states)
            divergence = frame_divergence(logits, teacher=target, lengths=lengths, teacher_shift=self.teacher_shift)
            rows = (lengths.labels + 1).to(logits.device, non_blocking=True)
            total = total + (1 - self.alpha) * (divergence * rows).sum()
        return total


def state_distance(student: Tensor, teacher: Tensor, frames: Tensor, *, teacher_shift: int = 0) -> Tensor:
    """Return the squared distance of encoder states (B, N, D), mean over D and summed over the frames: (B,).

    Frame n of the student is compared with frame n - `teacher_shift` of the teacher; its first frames have no partner.

    Args:
        student: of the student's final layer.
        teacher: of the teacher's.
        frames: (B,), how many of the N are speech.
        teacher_shift: frames by which the teacher is delayed.
    """
    own, its = student[:, teacher_shift:].float(), teacher[:, : teacher.shape[1] - teacher_shift].float()
    distances = (own - its).square().mean(dim=2)
    counted = torch.arange(own.shape[1], device=own.device) < (frames.to(own.device) - teacher_shift)[:, None]
    return (distances * counted).sum(dim=1)


def joint_inputs(model: Transducer, states: Tensor, labels: Tensor) -> JointInputs:
    """Return what the joint network is computed from, for encoder states (B, N, D) and labels (B, U)."""
    return JointInputs(
        encoder=model.joint.encoder(states),
        predictor=model.joint.predictor(model.predictor(labels)),
        weight=model.joint.output.weight,
        bias=model.joint.output.bias,
    )
