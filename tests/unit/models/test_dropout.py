"""Dropout by random bytes."""

from __future__ import annotations

import pytest
import torch

from asr_distill.models.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_rate_and_expectation(rate):
    torch.manual_seed(0)
    x = torch.ones(400, 1001)
    result = Dropout(rate)(x)
    rounded = round(256 * rate) / 256
    spread = 4 * (rounded * (1 - rounded) / x.numel()) ** 0.5  # four standard deviations
    assert (result == 0).float().mean().item() == pytest.approx(rounded, abs=spread)
    assert result.mean().item() == pytest.approx(1.0, abs=spread / (1 - rounded))
    assert result.unique().tolist() == pytest.approx([0, 1 / (1 - rounded)])


def test_rows_columns_and_calls_are_independent():
    torch.manual_seed(0)
    dropout, x = Dropout(0.5), torch.ones(64, 4096)
    kept = (dropout(x) != 0).float()
    assert kept.mean(dim=1).sub(0.5).abs().max() < 0.05
    assert kept.mean(dim=0).sub(0.5).abs().max() < 0.35
    correlation = torch.corrcoef(kept) - torch.eye(64)
    assert correlation.abs().max() < 0.1
    assert not torch.equal(kept, (dropout(x) != 0).float())


def test_the_same_seed_gives_the_same_mask():
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(Dropout(0.3)(torch.ones(5, 7)))
    assert torch.equal(*results)


@pytest.mark.parametrize("rate", [0.0, 0.001])
def test_no_rate_does_nothing(rate):
    x = torch.randn(3, 4)
    assert Dropout(rate)(x) is x


def test_evaluation_does_nothing():
    x = torch.randn(3, 4)
    assert Dropout(0.9).eval()(x) is x


def test_rate_one_leaves_nothing():
    assert not Dropout(1.0)(torch.randn(3, 4)).any()


def test_the_gradient_has_the_mask_of_the_value():
    torch.manual_seed(0)
    x = torch.randn(6, 9).transpose(0, 1).requires_grad_()
    result = Dropout(0.5)(x)
    (gradient,) = torch.autograd.grad(result.sum(), x)
    assert torch.equal(gradient == 0, result == 0)
    torch.testing.assert_close(gradient * x, result)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_type_stays(dtype):
    assert Dropout(0.5)(torch.ones(3, 4, dtype=dtype)).dtype == dtype
