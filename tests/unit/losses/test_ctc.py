"""The auxiliary losses on the CTC head against enumeration and loops."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_distill.losses.ctc import ctc, frame_divergence
from asr_distill.losses.lattice import LatticeLengths

VOCABULARY = 3


def lengths(frames, labels):
    return LatticeLengths(frames=torch.tensor(frames), labels=torch.tensor(labels))


def random_logits(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def collapsed(alignment):
    """Return the labels of an alignment: repetitions once, blanks left out."""
    return [token for token, _ in itertools.groupby(alignment) if token != 0]


def slow_ctc(logits, labels):
    """Return -log of the summed probability of every alignment of one utterance; logits are (T, V)."""
    log_probs = logits.double().log_softmax(dim=-1)
    every = itertools.product(range(VOCABULARY), repeat=len(logits))
    fitting = [torch.stack([log_probs[t, k] for t, k in enumerate(a)]).sum() for a in every if collapsed(a) == labels]
    return -torch.stack(fitting).logsumexp(dim=0).item() if fitting else None


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 999),
    st.lists(
        st.tuples(st.integers(1, 4), st.lists(st.integers(1, VOCABULARY - 1), max_size=3)), min_size=1, max_size=3
    ),
)
def test_ctc_sums_over_every_alignment_and_leaves_out_what_has_none(seed, utterances):
    frames, labels = zip(*utterances, strict=True)
    logits = 3 * random_logits(seed, len(frames), max(frames) + 1, VOCABULARY)
    logits[0, frames[0] :] = 1e4  # padding
    padded = torch.ones(len(frames), 4, dtype=torch.long)
    for row, tokens in zip(padded, labels, strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
    logits.requires_grad_()
    found = ctc(logits, labels=padded, lengths=lengths(frames, [len(tokens) for tokens in labels]))
    found.sum().backward()
    for b, (count, tokens) in enumerate(utterances):
        expected = slow_ctc(logits.detach()[b, :count], tokens)
        assert found[b].item() == pytest.approx(0.0 if expected is None else expected, rel=1e-4, abs=1e-5)
        assert not logits.grad[b, count:].any()
        assert bool(logits.grad[b].any()) == (expected is not None)


def test_ctc_computes_in_float32():
    logits = random_logits(1, 2, 5, VOCABULARY).bfloat16()
    labels, sizes = torch.tensor([[1, 2], [2, 2]]), lengths([5, 4], [2, 1])
    found = ctc(logits, labels=labels, lengths=sizes)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, ctc(logits.float(), labels=labels, lengths=sizes))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 6))
def test_frame_divergence_equals_a_loop_over_frames(seed, frames, shift):
    student, teacher = 5 * random_logits(seed, 2, len(frames), max(frames), VOCABULARY)
    sizes = lengths(frames, [0] * len(frames))
    found = frame_divergence(student, teacher=teacher, lengths=sizes, teacher_shift=shift)
    for b, count in enumerate(frames):
        expected = 0.0
        for t in range(shift, count):
            p, q = teacher[b, t - shift].double().softmax(dim=0), student[b, t].double().softmax(dim=0)
            expected += float((p * (p.log() - q.log())).sum())
        assert found[b].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_frame_divergence_of_equal_heads_is_zero_and_has_no_gradient():
    student = random_logits(2, 2, 4, VOCABULARY).requires_grad_()
    found = frame_divergence(student, teacher=student.detach().clone(), lengths=lengths([4, 3], [0, 0]))
    torch.testing.assert_close(found, torch.zeros(2), rtol=0, atol=1e-6)
    found.sum().backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-6)


def test_frame_divergence_ignores_padding():
    student, teacher = random_logits(3, 2, 2, 5, VOCABULARY)
    sizes = lengths([5, 2], [0, 0])
    student.requires_grad_()
    expected = frame_divergence(student, teacher=teacher, lengths=sizes)
    changed, other = student.detach().clone(), teacher.clone()
    changed[1, 2:], other[1, 2:] = 1e4, -1e4
    torch.testing.assert_close(frame_divergence(changed, teacher=other, lengths=sizes), expected)
    expected.sum().backward()
    assert not student.grad[1, 2:].any()
    assert student.grad[1, :2].any()


def test_frame_divergence_of_underflowing_probabilities_is_finite():
    student, teacher = torch.tensor([[[[1e4, 0.0, -1e4]]], [[[-1e4, 0.0, 1e4]]]])
    found = frame_divergence(student, teacher=teacher, lengths=lengths([1], [0]))
    assert found.item() == pytest.approx(2e4)
