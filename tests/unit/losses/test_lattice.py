"""Transducer loss and lattice distillation against whole lattices, torchaudio and finite differences."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_reference import (
    naive_divergence,
    naive_transducer,
    random_lattice,
    tensors,
    whole_lattice,
    with_gradients,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchaudio.functional import rnnt_loss

from asr_distill.losses import lattice as module
from asr_distill.losses.lattice import JointInputs, LatticeLengths, lattice_losses

SIZES = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4)), min_size=1, max_size=3)
TEMPERATURES = st.sampled_from([0.5, 1.0, 2.0])


def gradients(loss, inputs):
    return torch.autograd.grad(loss, tensors(inputs))


def assert_all_close(found, expected, **tolerance):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), SIZES, TEMPERATURES, TEMPERATURES)
def test_values_and_gradients_equal_those_of_the_whole_lattice(seed, sizes, student_temperature, teacher_temperature):
    frames, counts = map(list, zip(*sizes, strict=True))
    student, teacher, labels, lengths = random_lattice(seed, frames=frames, labels=counts)
    student = with_gradients(student)
    temperatures = {"student_temperature": student_temperature, "teacher_temperature": teacher_temperature}
    losses = lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher, **temperatures)
    transducer = naive_transducer(student, labels=labels, lengths=lengths)
    divergence = naive_divergence(student, teacher=teacher, lengths=lengths, **temperatures)
    torch.testing.assert_close(losses.transducer, transducer)
    torch.testing.assert_close(losses.divergence, divergence)
    weights = torch.randn(2, len(sizes), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = gradients((weights[0] * losses.transducer + weights[1] * losses.divergence).sum(), student)
    assert_all_close(found, gradients((weights[0] * transducer + weights[1] * divergence).sum(), student))


@pytest.mark.parametrize("weights", [None, (1.0, 1.0, 1.0), (0.3, -2.0, 0.0)])
@pytest.mark.parametrize("wanted", ["transducer", "divergence", "both"])
def test_gradients_equal_finite_differences(wanted, weights):
    student, teacher, labels, lengths = random_lattice(3, frames=[3, 1, 4], labels=[2, 3, 0])

    def losses(*inputs):
        found = lattice_losses(
            JointInputs(**dict(zip(("encoder", "predictor", "weight", "bias"), inputs, strict=True))),
            labels=labels,
            lengths=lengths,
            teacher=None if wanted == "transducer" else teacher,
            transducer=wanted != "divergence",
            student_temperature=0.7,
            teacher_temperature=1.3,
        )
        values = [getattr(found, name) for name in ("transducer", "divergence") if wanted in (name, "both")]
        return tuple(values) if weights is None else sum((torch.tensor(weights) * v).sum() for v in values)

    assert torch.autograd.gradcheck(losses, tensors(with_gradients(student)))


@pytest.mark.parametrize("same", [True, False])
def test_the_divergence_alone_has_the_same_gradients_twice_and_beside_the_transducer_loss(same):
    student, teacher, labels, lengths = random_lattice(5, frames=[4, 2], labels=[1, 3])
    student = with_gradients(student)
    weights = torch.tensor([1.5, 1.5 if same else 0.5])
    alone = lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher, transducer=False)
    assert not alone.transducer.any()
    loss = (weights * alone.divergence).sum()
    first = torch.autograd.grad(loss, tensors(student), retain_graph=True)
    second = gradients(loss, student)
    beside = lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher)
    third = gradients((weights * beside.divergence).sum(), student)
    assert_all_close(first, second)
    assert_all_close(first, third)


def test_value_and_gradient_agree_with_torchaudio():
    student, _, labels, lengths = random_lattice(7, frames=[6, 3, 1], labels=[2, 5, 0], dtype=torch.float32)
    student = with_gradients(student)
    found = lattice_losses(student, labels=labels, lengths=lengths).transducer
    sizes = (lengths.frames.int(), lengths.labels.int())
    expected = rnnt_loss(whole_lattice(student), labels.int(), *sizes, blank=module.BLANK, reduction="none")
    torch.testing.assert_close(found, expected)
    assert_all_close(gradients(found.sum(), student), gradients(expected.sum(), student), rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), SIZES, st.sampled_from([0.5, 1.0, 3.0]))
def test_divergence_is_positive_and_zero_with_zero_gradient_for_equal_models(seed, sizes, temperature):
    frames, counts = map(list, zip(*sizes, strict=True))
    student, teacher, labels, lengths = random_lattice(seed, frames=frames, labels=counts, dtype=torch.float32)
    options = {"labels": labels, "lengths": lengths, "transducer": False}
    assert (lattice_losses(student, teacher=teacher, **options).divergence > 0).all()
    own = with_gradients(student)
    options |= {"student_temperature": temperature, "teacher_temperature": temperature}
    divergence = lattice_losses(own, teacher=student, **options).divergence
    torch.testing.assert_close(divergence, torch.zeros(len(sizes)), rtol=0, atol=1e-5)
    for gradient in gradients(divergence.sum(), own):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


def outcome(student, teacher, labels, lengths, **options):
    """Return both losses and the gradients of a weighted sum of them."""
    student = with_gradients(student)
    losses = lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher, **options)
    weights = torch.arange(1.0, len(labels) + 1)
    loss = (weights * (losses.divergence + (losses.transducer if options.get("transducer", True) else 0))).sum()
    return [losses.transducer, losses.divergence], gradients(loss, student)


@pytest.mark.parametrize("transducer", [True, False])
@pytest.mark.parametrize("elements", [1, 37, 2**40])
def test_the_size_of_the_chunks_changes_nothing(monkeypatch, elements, transducer):
    inputs = random_lattice(11, frames=[5, 3], labels=[2, 4])
    expected = outcome(*inputs, transducer=transducer)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", elements)
    for found, right in zip(outcome(*inputs, transducer=transducer), expected, strict=True):
        assert_all_close(found, right)


def padded(inputs, *, frames, labels, value):
    """Return encoder and predictor with garbage appended."""
    return replace(
        inputs,
        encoder=torch.nn.functional.pad(inputs.encoder, (0, 0, 0, frames), value=value),
        predictor=torch.nn.functional.pad(inputs.predictor, (0, 0, 0, labels), value=value),
    )


@pytest.mark.parametrize("garbage", [0.0, 1e30, float("nan")])
def test_padding_changes_nothing(garbage):
    student, teacher, labels, lengths = random_lattice(13, frames=[4, 2], labels=[1, 3])
    for inputs in (student, teacher):
        inputs.encoder[1, 2:] = garbage
        inputs.predictor[0, 2:] = garbage
    values, slopes = outcome(student, teacher, labels, lengths)
    wide_labels = torch.nn.functional.pad(labels, (0, 3), value=-7)
    wide_labels[0, 1:] = 10**6
    wide = (padded(inputs, frames=2, labels=3, value=garbage) for inputs in (student, teacher))
    wide_values, wide_slopes = outcome(*wide, wide_labels, lengths)
    assert_all_close(wide_values, values, rtol=0, atol=0)
    assert_all_close(wide_slopes[2:], slopes[2:], rtol=0, atol=0)
    for found, right in zip(wide_slopes[:2], slopes[:2], strict=True):
        assert torch.equal(found[:, : right.shape[1]], right)
        assert not found[:, right.shape[1] :].any()
    assert not slopes[0][1, 2:].any()
    assert not slopes[1][0, 2:].any()


def taken(inputs, index):
    return replace(inputs, encoder=inputs.encoder[index], predictor=inputs.predictor[index])


@pytest.mark.parametrize("index", [[2, 0, 1], [1], [2, 2]])
def test_an_utterance_has_the_same_losses_in_any_batch(index):
    student, teacher, labels, lengths = random_lattice(17, frames=[4, 2, 5], labels=[1, 3, 2])
    whole = lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher)
    some = lattice_losses(
        taken(student, index),
        labels=labels[index],
        lengths=LatticeLengths(frames=lengths.frames[index], labels=lengths.labels[index]),
        teacher=taken(teacher, index),
    )
    assert_all_close((some.transducer, some.divergence), (whole.transducer[index], whole.divergence[index]))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("transducer", [True, False])
def test_half_precision_gives_float32_losses_near_the_exact_ones(autocast, transducer):
    student, teacher, labels, lengths = random_lattice(19, frames=[6, 3], labels=[2, 4], dtype=torch.bfloat16)
    options = {"labels": labels, "lengths": lengths, "transducer": transducer}
    student = with_gradients(student)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        losses = lattice_losses(student, teacher=teacher, **options)
    assert losses.transducer.dtype == losses.divergence.dtype == torch.float32
    slopes = gradients((losses.transducer + losses.divergence).sum(), student)
    full = JointInputs(**{name: value.detach().float() for name, value in vars(student).items()})
    other = JointInputs(**{name: value.float() for name, value in vars(teacher).items()})
    full = with_gradients(full)
    exact = lattice_losses(full, teacher=other, **options)
    torch.testing.assert_close(losses.transducer, exact.transducer)
    torch.testing.assert_close(losses.divergence, exact.divergence)
    exact_slopes = gradients((exact.transducer + exact.divergence).sum(), full)
    assert_all_close([g.float() for g in slopes], exact_slopes, rtol=1e-2, atol=1e-2)  # rounded to bfloat16


def test_probabilities_that_underflow_give_no_nan():
    student, teacher, labels, lengths = random_lattice(23, frames=[4, 2], labels=[1, 3], dtype=torch.float32)
    student = with_gradients(replace(student, bias=torch.tensor([0.0, 1e4, -1e4, 0.0, -1e4])))
    teacher = replace(teacher, bias=torch.tensor([-1e4, 0.0, 1e4, 0.0, 1e4]))
    losses = lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher)
    assert torch.isfinite(losses.transducer).all()
    assert torch.isfinite(losses.divergence).all()
    assert (losses.divergence > 1e4).all()
    assert all(torch.isfinite(g).all() for g in gradients((losses.transducer + losses.divergence).sum(), student))


def test_no_gradient_flows_to_the_teacher():
    student, teacher, labels, lengths = random_lattice(29, frames=[3], labels=[2])
    student, teacher = with_gradients(student), with_gradients(teacher)
    losses = lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher)
    (losses.transducer + losses.divergence).sum().backward()
    assert all(tensor.grad is None for tensor in tensors(teacher))
    assert all(tensor.grad is not None for tensor in tensors(student))


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation allocates."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.numel = max(self.numel, leaf.untyped_storage().nbytes() // leaf.element_size())
        return result


def largest_tensor(loss, inputs):
    with LargestTensor() as largest:
        gradients(loss(), inputs)
    return largest.numel


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("transducer", [True, False])
def test_the_lattice_is_never_held_whole(monkeypatch, transducer, uniform):
    frames, count, vocabulary, elements = 30, 12, 150, 2**12
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", elements)
    inputs = random_lattice(31, frames=[frames] * 3, labels=[count] * 3, vocabulary=vocabulary, dtype=torch.float32)
    student, teacher, labels, lengths = inputs
    student = with_gradients(student)
    weights = torch.tensor([1.0, 1.0, 1.0 if uniform else 0.5])

    def ours():
        losses = lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher, transducer=transducer)
        return (weights * (losses.transducer + losses.divergence)).sum()

    one_frame, nodes = (count + 1) * vocabulary, 3 * frames * (count + 1)
    bound = max(elements + one_frame, nodes)
    assert nodes * vocabulary > 10 * bound
    assert largest_tensor(ours, student) <= bound
    naive = largest_tensor(lambda: naive_divergence(student, teacher=teacher, lengths=lengths).sum(), student)
    assert naive >= nodes * vocabulary  # the probe sees what it should


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictor": (2, 5, 3)}, r"predictor: \(2, 5, 3\) does not fit labels \(2, 3\)"),
        ({"predictor": (3, 4, 3)}, r"predictor: \(3, 4, 3\) does not fit labels \(2, 3\)"),
        ({"teacher.encoder": (2, 5, 4)}, r"encoder: the teacher's lattice \(2, 5\) is not the student's \(2, 4\)"),
        ({"teacher.predictor": (2, 3, 4)}, r"predictor: the teacher's lattice \(2, 3\) is not the student's \(2, 4\)"),
        ({"teacher.weight": (6, 4)}, "weight: the teacher has 6 tokens, the student 5"),
        ({"frames": [4, 0]}, r"utterance 1: 0 of 4 frames, 3 of 3 labels, outside 1\.\.4: \[\]"),
        ({"frames": [5, 2]}, "utterance 0: 5 of 4 frames"),
        ({"counts": [1, -1]}, "utterance 1: 2 of 4 frames, -1 of 3 labels"),
        ({"counts": [4, 3]}, "utterance 0: 4 of 4 frames, 4 of 3 labels"),
        ({"tokens": [[1, 0, 0], [1, 0, 2]]}, r"utterance 1: .* 3 of 3 labels, outside 1\.\.4: \[0\]"),
        ({"tokens": [[5, 1, 1], [1, 1, 2]]}, r"utterance 0: .* 1 of 3 labels, outside 1\.\.4: \[5\]"),
        ({"tokens": [[-3, 1, 1], [1, 1, 2]]}, r"utterance 0: .* outside 1\.\.4: \[-3\]"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    student, teacher, labels, lengths = random_lattice(37, frames=[4, 2], labels=[1, 3])
    for key, value in change.items():
        if key == "frames":
            lengths = replace(lengths, frames=torch.tensor(value))
        elif key == "counts":
            lengths = replace(lengths, labels=torch.tensor(value))
        elif key == "tokens":
            labels = torch.tensor(value)
        elif key.startswith("teacher."):
            teacher = replace(teacher, **{key.removeprefix("teacher."): torch.zeros(value)})
        else:
            student = replace(student, **{key: torch.zeros(value)})
    with pytest.raises(ValueError, match=message):
        lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher)
