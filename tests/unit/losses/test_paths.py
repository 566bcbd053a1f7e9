"""Sums over alignment paths against the enumeration of every path."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_reference import arc_probabilities, path_scores, paths

from asr_distill.losses.paths import NEGLIGIBLE, best_path, path_sums

LOGITS = st.sampled_from([0.0, 0.0, 1.0, -1.0, 50.0, -800.0, 1e4, -1e4]) | st.floats(-5, 5)


@st.composite
def lattices(draw):
    """Return blank and label scores (B, T, U + 1), NaN outside the lattices, and their frames and labels."""
    frames = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    labels = [draw(st.integers(0, 3)) for _ in frames]
    shape = (len(frames), max(frames), max(labels) + 1)
    logits = draw(st.lists(LOGITS, min_size=2 * math.prod(shape), max_size=2 * math.prod(shape)))
    blank, label = torch.tensor(logits, dtype=torch.float64).view(2, *shape)
    blank, label, _ = torch.stack([blank, label, torch.zeros(shape)]).log_softmax(dim=0)
    for b, (t, u) in enumerate(zip(frames, labels, strict=True)):
        for scores in (blank, label):
            scores[b, t:] = math.nan
            scores[b, :, u + 1 :] = math.nan
        label[b, :, u] = math.nan  # nothing follows the last label
    return blank, label, tuple(frames), tuple(labels)


@settings(max_examples=80, deadline=None)
@given(lattices())
def test_likelihood_and_arcs_equal_the_sum_over_every_path(lattice):
    blank, label, frames, labels = lattice
    found = path_sums(*lattice)
    for b, (t, u) in enumerate(zip(frames, labels, strict=True)):
        expected, blank_arcs, label_arcs = arc_probabilities(blank[b], label[b], frames=t, labels=u)
        assert found.log_likelihood[b].item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-9)
        torch.testing.assert_close(found.blank[b], blank_arcs, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found.label[b], label_arcs, rtol=1e-8, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(lattices())
def test_every_path_leaves_each_frame_by_a_blank_and_each_row_by_a_label(lattice):
    found = path_sums(*lattice)
    for b, (t, u) in enumerate(zip(*lattice[2:], strict=True)):
        torch.testing.assert_close(found.blank[b, :t].sum(dim=1), torch.ones(t).double(), rtol=0, atol=1e-8)
        torch.testing.assert_close(found.label[b, :, :u].sum(dim=0), torch.ones(u).double(), rtol=0, atol=1e-8)
        assert found.occupation()[b].sum() == pytest.approx(t + u)


@settings(max_examples=80, deadline=None)
@given(lattices())
def test_the_best_path_is_as_likely_as_the_likeliest_of_all_paths(lattice):
    blank, label, frames, labels = lattice
    visited = best_path(*lattice)
    for b, (t, u) in enumerate(zip(frames, labels, strict=True)):
        scored = path_scores(blank[b], label[b], frames=t, labels=u)
        nodes = {tuple(node) for node in visited[b].nonzero().tolist()}
        matching = [float(score) for arcs, score in scored if {(t, u) for t, u, _ in arcs} == nodes]
        assert len(matching) == 1  # it is a path
        assert matching[0] == pytest.approx(max(float(score) for _, score in scored), rel=1e-12, abs=1e-9)
        assert not visited[b, t:].any()
        assert not visited[b, :, u + 1 :].any()


@pytest.mark.parametrize(("frames", "labels"), [(1, 0), (1, 3), (4, 0), (2, 3), (4, 2)])
def test_equal_arcs_count_the_paths(frames, labels):
    number = math.comb(frames - 1 + labels, labels)
    assert len(list(paths(frames, labels))) == number
    half = torch.full((1, frames, labels + 1), math.log(0.5))
    expected = math.log(number) + (frames + labels) * math.log(0.5)
    assert path_sums(half, half, (frames,), (labels,)).log_likelihood.item() == pytest.approx(expected, rel=1e-6)


def test_long_float32_lattices_keep_their_precision():
    frames, labels = 400, 60
    scores = torch.randn(3, 1, frames, labels + 1, generator=torch.Generator().manual_seed(0)).log_softmax(dim=0)
    blank, label = scores[:2]
    found = path_sums(blank, label, (frames,), (labels,))
    assert found.log_likelihood.dtype == found.blank.dtype == found.label.dtype == torch.float32
    exact = path_sums(blank.double(), label.double(), (frames,), (labels,))
    assert found.log_likelihood.item() == pytest.approx(exact.log_likelihood.item(), rel=1e-6)
    torch.testing.assert_close(found.blank.sum(dim=2), torch.ones(1, frames))
    torch.testing.assert_close(found.label, exact.label.float(), rtol=1e-5, atol=1e-6)


def test_arcs_that_are_practically_never_taken_are_zero():
    smallest = NEGLIGIBLE[torch.float32]
    blank = torch.tensor([[[-1e-6, -1e-6], [-1e-6, -1e-6]]])
    label = torch.tensor([[[-1e-6, 0.0], [math.log(smallest) - 1, 0.0]]])
    found = path_sums(blank, label, (2,), (1,))
    assert found.label[0, 1, 0] == 0
    assert found.blank[0, 0, 0] == 0
    assert found.label[0, 0, 0] == 1
