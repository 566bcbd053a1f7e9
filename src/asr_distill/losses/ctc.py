"""The auxiliary losses on the encoder's CTC head: on transcripts, or on the teacher's distributions.

Layout legend: B batch, T encoder frames, U labels, V vocabulary (blank is 0).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_distill.losses.joint import LatticeLengths


def ctc(logits: Tensor, *, labels: Tensor, lengths: LatticeLengths) -> Tensor:
    """Return -log P(labels | speech) under CTC (Graves et al. 2006), (B,), from logits (B, T, V) and labels (B, U).

    An utterance with more labels than its frames can carry has no path; it contributes 0 instead of infinity.
    """
    log_probs = torch.log_softmax(logits.float(), dim=-1).transpose(0, 1)
    return F.ctc_loss(log_probs, labels, lengths.frames, lengths.labels, reduction="none", zero_infinity=True)


def frame_divergence(student: Tensor, *, teacher: Tensor, lengths: LatticeLengths, teacher_shift: int = 0) -> Tensor:
    """Return the sum over frames of KL(teacher || student), (B,), from the logits (B, T, V) of two CTC heads.

    The student's frame t learns from the teacher's frame t - teacher_shift; frames without such a partner do not count.
    """
    num_frames = student.shape[1]
    student, teacher = student[:, teacher_shift:], teacher[:, : max(0, num_frames - teacher_shift)]
    student = torch.log_softmax(student.float(), dim=-1)
    teacher = torch.log_softmax(teacher.float(), dim=-1)
    per_frame = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)
    frames = lengths.frames.to(student.device, non_blocking=True)
    valid = torch.arange(student.shape[1], device=student.device) < frames[:, None] - teacher_shift
    return (per_frame * valid).sum(dim=1)
