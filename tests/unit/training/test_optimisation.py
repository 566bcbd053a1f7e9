"""Learning rate, weight decay and clipping."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from asr_distill.experiment import Phase
from asr_distill.training.optimisation import NORM_DECAY, RelativeClip, learning_rate, make_optimizer


def phase(**changes):
    return Phase(**{"steps": 100, "batch_utterances": 1, "learning_rate": 2.0, "warmup_steps": 9, **changes})


def test_the_learning_rate_rises_stays_and_falls():
    rates = [learning_rate(step, phase=phase(decay_share=0.5)) for step in range(100)]
    assert rates[:3] == pytest.approx([0.2, 0.4, 0.6])
    assert rates[8:51] == pytest.approx([1.8, *[2.0] * 42])
    assert rates[75] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(2.0 / 50)
    assert rates[:51] == sorted(rates[:51])
    assert rates[50:] == sorted(rates[50:], reverse=True)


@pytest.mark.parametrize(
    ("step", "settings", "expected"),
    [
        (0, {"warmup_steps": 0}, 2.0),
        (99, {"decay_share": 0.0}, 2.0),
        (99, {"decay_share": 1.0}, 0.02),
        (0, {"decay_share": 1.0, "warmup_steps": 0}, 2.0),
        (50, {"decay_share": 1.0, "warmup_steps": 99}, 1.0),
    ],
)
def test_the_ends_of_the_schedule(step, settings, expected):
    assert learning_rate(step, phase=phase(**settings)) == pytest.approx(expected)


def test_only_matrices_decay():
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Embedding(4, 3))
    model[2].weight.requires_grad_(False)
    decayed, free = make_optimizer(model, phase=phase(weight_decay=0.3)).param_groups
    assert [p.shape for p in decayed["params"]] == [(3, 2)]
    assert [p.shape for p in free["params"]] == [(3,), (3,), (3,)]
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)


def gradient(norm):
    parameters = [torch.zeros(3), torch.zeros(1)]
    parameters[0].grad, parameters[1].grad = torch.tensor([0.6, 0.0, 0.0]) * norm, torch.tensor([0.8]) * norm
    return parameters


def norm(parameters):
    return torch.cat([p.grad for p in parameters]).norm().item()


def test_clipping_follows_the_usual_norm():
    clip = RelativeClip(2.0)
    first = gradient(1000.0)  # nothing is known yet
    clip(first)
    assert norm(first) == pytest.approx(1000.0)
    assert clip.mean == pytest.approx(1000.0)
    small = gradient(10.0)
    clip(small)
    assert norm(small) == pytest.approx(10.0)
    mean = NORM_DECAY * 1000 + (1 - NORM_DECAY) * 10
    assert clip.mean == pytest.approx(mean)
    large = gradient(1e6)
    clip(large)
    assert norm(large) == pytest.approx(2 * mean, rel=1e-4)
    assert clip.mean == pytest.approx(NORM_DECAY * mean + (1 - NORM_DECAY) * 2 * mean)


def test_outliers_cannot_run_away():
    clip = RelativeClip(2.0)
    clip(gradient(1.0))
    for _ in range(3):
        clip(gradient(1e9))
    assert clip.mean < 1.2


@pytest.mark.parametrize("wrong", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_is_reported_and_forgotten(wrong):
    clip = RelativeClip(2.0)
    assert clip(gradient(3.0)) == pytest.approx(3.0)
    assert not math.isfinite(clip(gradient(wrong)))
    assert clip.mean == pytest.approx(3.0)


def test_a_generator_of_parameters_will_do():
    clip, parameters = RelativeClip(2.0), gradient(3.0)
    clip(p for p in parameters)
    assert clip.mean == pytest.approx(3.0)
