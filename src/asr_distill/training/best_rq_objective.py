"""What self-supervised pre-training minimises: how badly the codes of hidden speech are told (Chiu et al. 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_distill.experiment import SpanMasking
from asr_distill.models.best_rq import BestRQ, mask_spans
from asr_distill.training.objective import Batch


class BestRQObjective(nn.Module):
    """Cross-entropy of the codes at hidden encoder frames, averaged over these frames and over codebooks, in nats.

    Labels are not looked at, and there is no augmentation beside the masks.
    """

    def __init__(self, student: BestRQ, *, masking: SpanMasking | None = None):
        super().__init__()
        self.student = student
        self.masking = SpanMasking() if masking is None else masking

    def forward(self, batch: Batch, *, generator: torch.Generator, ctc_only: bool = False) -> Tensor:
        """Return the loss of a batch; `ctc_only`, for recognisers, changes nothing."""
        student, lengths = self.student, batch.feature_lengths
        clean = student.normalise(batch.features, lengths)
        heard, hidden = mask_spans(clean, lengths, stack=student.size.stack, masking=self.masking, generator=generator)
        logits = student.logits(heard, lengths, hidden)
        return F.cross_entropy(logits.float().flatten(0, 1), student.targets(clean, hidden).flatten())
