"""Small random models that talk like trained ones, and the states that they decode."""

from __future__ import annotations

import pytest
import torch

from asr_distill.experiment import ModelSize
from asr_distill.models.transducer import BLANK, Transducer

torch.set_num_threads(1)


@pytest.fixture
def talking_model():
    """Return a function that makes random models whose posteriors are as sharp as those of trained ones."""

    def make(*, seed: int = 0, vocabulary: int = 6, sharpness: float = 12.0, blank: float = 0.0, **encoder):
        size = {
            "encoder": {"layers": 2, "dim": 8, "heads": 2, "feed_forward": 16, "stack": 3, "dropout": 0, **encoder},
            "predictor": {"dim": 8},
            "joint": 8,
        }
        torch.manual_seed(seed)
        model = Transducer(ModelSize.model_validate(size), vocabulary=vocabulary, mel_bins=4).eval()
        with torch.no_grad():
            model.joint.output.weight.mul_(sharpness)
            model.joint.predictor.weight.mul_(4)
            model.predictor.embedding.weight.mul_(2)
            model.joint.output.bias[BLANK] += blank
            model.feature_mean.normal_()
            model.feature_deviation.uniform_(0.5, 2.0)
        return model

    return make


@pytest.fixture
def random_states():
    """Return a function that draws encoder states (B, N, D) with their lengths, garbage behind them."""

    def draw(lengths: list[int], *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        states = torch.randn(len(lengths), max(lengths) + 2, 8, generator=generator)
        for row, length in zip(states, lengths, strict=True):
            row[length:] = 1e3
        return states, torch.tensor(lengths)

    return draw
