"""AdamW, its learning rate over the steps, and clipping relative to the usual size of the gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from asr_distill.experiment import Phase

NORM_DECAY = 0.95
"""Decay of the running mean of gradient norms."""


def make_optimizer(model: nn.Module, *, phase: Phase) -> torch.optim.AdamW:
    """Return AdamW; only matrices are decayed, not biases and normalisations."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": phase.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=phase.learning_rate, betas=(0.9, 0.98), eps=1e-9, fused=True)


def learning_rate(step: int, *, phase: Phase) -> float:
    """Return the learning rate of a step counted from 0: linear up, level, linear down to zero."""
    rising = (step + 1) / (phase.warmup_steps + 1)
    falling = (phase.steps - step) / max(1.0, phase.decay_share * phase.steps)
    return phase.learning_rate * min(1.0, rising, falling)


class RelativeClip:
    """Clips the gradient at a multiple of the running mean of its norm, which is that of all ranks' gradient."""

    def __init__(self, multiple: float):
        self.multiple = multiple
        self.mean = 0.0

    def __call__(self, parameters: Iterable[Tensor]) -> float:
        """Clip in place, return the norm; the mean of the norms takes in what is finite."""
        parameters = list(parameters)
        limit = self.multiple * self.mean if self.mean else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if not math.isfinite(norm):
            return norm
        clipped = min(norm, limit)
        self.mean = NORM_DECAY * self.mean + (1 - NORM_DECAY) * clipped if self.mean else clipped
        return norm
