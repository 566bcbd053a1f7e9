"""Every loss on the lattice against whole lattices and lists of all paths, torchaudio and finite differences."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_reference import (
    naive_divergence,
    naive_transducer,
    random_lattice,
    reference_terms,
    tensors,
    whole_lattice,
    with_gradients,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchaudio.functional import rnnt_loss

from asr_distill.losses.checks import NonFiniteError
from asr_distill.losses.joint import BLANK, JointInputs, LatticeLengths
from asr_distill.losses.kernels import portable
from asr_distill.losses.lattice import NEED_TEACHER, LatticeWeights, lattice_losses

TERMS = tuple(field.name for field in fields(LatticeWeights))
ALL = LatticeWeights(**{name: 0.3 + 0.1 * index for index, name in enumerate(TERMS)})
SIZES = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4)), min_size=1, max_size=3)
TEMPERATURES = st.sampled_from([0.5, 1.0, 2.0])
TRANSDUCER, DIVERGENCE = LatticeWeights(transducer=1.0), LatticeWeights(divergence=1.0)
BOTH = LatticeWeights(transducer=0.5, divergence=0.5)


def only(name):
    return LatticeWeights(**{name: 1.0})


def gradients(loss, inputs):
    return torch.autograd.grad(loss, tensors(inputs))


def assert_all_close(found, expected, **tolerance):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 999),
    SIZES,
    st.sampled_from([*map(only, TERMS), BOTH, ALL]),
    TEMPERATURES,
    TEMPERATURES,
    st.integers(0, 3),
    st.sampled_from(["absolute", "squared"]),
)
def test_every_loss_and_gradient_equals_that_of_the_whole_lattice(
    seed, sizes, weights, student_temperature, teacher_temperature, shift, distance
):
    frames, counts = map(list, zip(*sizes, strict=True))
    student, teacher, labels, lengths = random_lattice(seed, frames=frames, labels=counts)
    student = with_gradients(student)
    options = {
        "student_temperature": student_temperature,
        "teacher_temperature": teacher_temperature,
        "teacher_shift": shift,
        "full_sum_distance": distance,
    }
    losses = lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher, weights=weights, **options)
    expected = reference_terms(student, labels=labels, lengths=lengths, teacher=teacher, **options)
    assert set(losses.terms) == set(weights.wanted())
    for name, value in losses.terms.items():
        torch.testing.assert_close(value, expected[name].detach())
    total = sum(getattr(weights, name) * expected[name] for name in weights.wanted())
    torch.testing.assert_close(losses.total, total)
    of_utterances = torch.randn(len(sizes), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = torch.autograd.grad((of_utterances * losses.total).sum(), tensors(student), retain_graph=True)
    assert_all_close(found, torch.autograd.grad((of_utterances * total).sum(), tensors(student), retain_graph=True))
    assert_all_close(gradients(losses.total.sum(), student), gradients(total.sum(), student))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from(["one_best", "teacher_occupancy"]))
def test_a_teacher_whose_paths_are_all_alike_gives_every_node_its_share(frames, count, name):
    """Ties: all arcs of the teacher are equally likely, so any path is a best one."""
    student, teacher, labels, lengths = random_lattice(2, frames=[frames], labels=[count])
    teacher = replace(teacher, weight=torch.zeros_like(teacher.weight), bias=torch.zeros_like(teacher.bias))
    term = lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher, weights=only(name)).terms[name]
    same = replace(student, encoder=torch.zeros_like(student.encoder), predictor=torch.zeros_like(student.predictor))
    flat = lattice_losses(same, labels=labels, lengths=lengths, teacher=teacher, weights=only(name)).terms[name]
    one_node = (torch.tensor(1 / 5).log() - same.bias.log_softmax(0)).mean()
    torch.testing.assert_close(flat, (frames + count) * one_node[None])  # a path visits T + U nodes
    assert term > 0


@pytest.mark.parametrize("weights", [None, (1.0, 1.0, 1.0), (0.3, -2.0, 0.0)])
@pytest.mark.parametrize("name", ["transducer", "divergence", "collapsed", "one_best", "teacher_occupancy", "full_sum"])
def test_gradients_equal_finite_differences(name, weights):
    student, teacher, labels, lengths = random_lattice(3, frames=[3, 1, 4], labels=[2, 3, 0])

    def losses(*inputs):
        found = lattice_losses(
            JointInputs(**dict(zip(("encoder", "predictor", "weight", "bias"), inputs, strict=True))),
            labels=labels,
            lengths=lengths,
            teacher=teacher,
            weights=only(name),
            student_temperature=0.7,
            teacher_temperature=1.3,
            full_sum_distance="squared",
        )
        return found.total if weights is None else (torch.tensor(weights) * found.total).sum()

    assert torch.autograd.gradcheck(losses, tensors(with_gradients(student)))


def test_the_same_loss_can_be_differentiated_twice():
    student, teacher, labels, lengths = random_lattice(5, frames=[4, 2], labels=[1, 3])
    student = with_gradients(student)
    total = lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher, weights=ALL).total
    loss = (torch.tensor([1.5, 0.5]) * total).sum()
    first = torch.autograd.grad(loss, tensors(student), retain_graph=True)
    assert_all_close(first, gradients(loss, student))


def test_value_and_gradient_agree_with_torchaudio():
    student, _, labels, lengths = random_lattice(7, frames=[6, 3, 1], labels=[2, 5, 0], dtype=torch.float32)
    student = with_gradients(student)
    found = lattice_losses(student, labels=labels, lengths=lengths, weights=TRANSDUCER).total
    sizes = (lengths.frames.int(), lengths.labels.int())
    expected = rnnt_loss(whole_lattice(student), labels.int(), *sizes, blank=BLANK, reduction="none")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, naive_transducer(student, labels=labels, lengths=lengths))
    assert_all_close(gradients(found.sum(), student), gradients(expected.sum(), student), rtol=1e-4, atol=1e-5)


def test_fast_emit_scales_the_gradient_of_label_arcs_as_its_paper_says():
    """Yu et al. 2021, eq. 9: beside the transducer loss, gradients through label arcs count 1 + lambda times."""
    student, _, labels, lengths = random_lattice(8, frames=[4], labels=[2])
    student = with_gradients(student)
    log_probs = whole_lattice(student).log_softmax(dim=-1)
    log_probs.retain_grad()
    blank = log_probs[0, ..., BLANK]
    label = torch.stack([log_probs[0, :, 0, labels[0, 0]], log_probs[0, :, 1, labels[0, 1]]], dim=1)
    scale = 0.4
    boosted = label + scale * (label - label.detach())  # the same values, 1.4 times the gradient
    alpha = {}
    for t, u in itertools.product(range(4), range(3)):
        entering = [alpha[t - 1, u] + blank[t - 1, u]] if t else []
        entering += [alpha[t, u - 1] + boosted[t, u - 1]] if u else []
        alpha[t, u] = torch.stack(entering).logsumexp(0) if entering else log_probs.new_zeros(())
    expected = gradients(-(alpha[3, 2] + blank[3, 2]), student)
    weights = LatticeWeights(transducer=1.0, fast_emit=scale)
    found = lattice_losses(student, labels=labels, lengths=lengths, weights=weights).total
    assert_all_close(gradients(found.sum(), student), expected)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 999),
    SIZES,
    st.sampled_from([0.5, 1.0, 3.0]),
    st.sampled_from([name for name in NEED_TEACHER if name != "full_sum"]),
)
def test_divergences_are_positive_and_zero_with_zero_gradient_for_equal_models(seed, sizes, temperature, name):
    frames, counts = map(list, zip(*sizes, strict=True))
    student, teacher, labels, lengths = random_lattice(seed, frames=frames, labels=counts, dtype=torch.float32)
    options = {"labels": labels, "lengths": lengths, "weights": only(name)}
    assert (lattice_losses(student, teacher=teacher, **options).total > 0).all()
    own = with_gradients(student)
    options |= {"student_temperature": temperature, "teacher_temperature": temperature}
    divergence = lattice_losses(own, teacher=student, **options).total
    torch.testing.assert_close(divergence, torch.zeros(len(sizes)), rtol=0, atol=1e-5)
    for gradient in gradients(divergence.sum(), own):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=2e-6)


def test_a_shift_by_all_frames_leaves_nothing_to_learn():
    student, teacher, labels, lengths = random_lattice(9, frames=[3, 2], labels=[1, 2])
    student = with_gradients(student)
    weights = LatticeWeights(divergence=1.0, collapsed=1.0, one_best=1.0, teacher_occupancy=1.0)
    options = {"labels": labels, "lengths": lengths, "teacher": teacher, "weights": weights}
    assert not lattice_losses(student, teacher_shift=3, **options).total.any()
    late = lattice_losses(student, teacher_shift=2, **options).total
    assert late[0] > 0
    assert late[1] == 0


def outcome(student, teacher, labels, lengths, *, weights=ALL, **options):
    """Return all losses and the gradients of a weighted sum of them."""
    student = with_gradients(student)
    losses = lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher, weights=weights, **options)
    loss = (torch.arange(1.0, len(labels) + 1) * losses.total).sum()
    return [losses.total, *losses.terms.values()], gradients(loss, student)


@pytest.mark.parametrize("weights", [ALL, DIVERGENCE])
@pytest.mark.parametrize("elements", [1, 37, 2**40])
def test_the_size_of_the_chunks_changes_nothing(monkeypatch, elements, weights):
    inputs = random_lattice(11, frames=[5, 3], labels=[2, 4])
    expected = outcome(*inputs, weights=weights)
    monkeypatch.setattr(portable, "CHUNK_ELEMENTS", elements)
    for found, right in zip(outcome(*inputs, weights=weights), expected, strict=True):
        assert_all_close(found, right)


def padded(inputs, *, frames, labels, value):
    """Return encoder and predictor with garbage appended."""
    return replace(
        inputs,
        encoder=torch.nn.functional.pad(inputs.encoder, (0, 0, 0, frames), value=value),
        predictor=torch.nn.functional.pad(inputs.predictor, (0, 0, 0, labels), value=value),
    )


@pytest.mark.parametrize("garbage", [0.0, 1e30, float("nan")])
@pytest.mark.parametrize("shift", [0, 1])
def test_padding_changes_nothing(garbage, shift):
    student, teacher, labels, lengths = random_lattice(13, frames=[4, 2], labels=[1, 3])
    for inputs in (student, teacher):
        inputs.encoder[1, 2:] = garbage
        inputs.predictor[0, 2:] = garbage
    values, slopes = outcome(student, teacher, labels, lengths, teacher_shift=shift)
    wide_labels = torch.nn.functional.pad(labels, (0, 3), value=-7)
    wide_labels[0, 1:] = 10**6
    wide = (padded(inputs, frames=2, labels=3, value=garbage) for inputs in (student, teacher))
    wide_values, wide_slopes = outcome(*wide, wide_labels, lengths, teacher_shift=shift)
    assert_all_close(wide_values, values, rtol=1e-14, atol=0)  # sums over (T, U) in another order
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
    whole = lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher, weights=ALL)
    some = lattice_losses(
        taken(student, index),
        labels=labels[index],
        lengths=LatticeLengths(frames=lengths.frames[index], labels=lengths.labels[index]),
        teacher=taken(teacher, index),
        weights=ALL,
    )
    assert_all_close(some.terms.values(), [value[index] for value in whole.terms.values()])


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("weights", [TRANSDUCER, DIVERGENCE, BOTH])
def test_half_precision_gives_float32_losses_near_the_exact_ones(autocast, weights):
    student, teacher, labels, lengths = random_lattice(19, frames=[6, 3], labels=[2, 4], dtype=torch.bfloat16)
    options = {"labels": labels, "lengths": lengths, "weights": weights}
    student = with_gradients(student)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        total = lattice_losses(student, teacher=teacher, **options).total
    assert total.dtype == torch.float32
    slopes = gradients(total.sum(), student)
    assert all(slope.dtype == torch.bfloat16 for slope in slopes)
    full = JointInputs(**{name: value.detach().float() for name, value in vars(student).items()})
    other = JointInputs(**{name: value.float() for name, value in vars(teacher).items()})
    full = with_gradients(full)
    exact = lattice_losses(full, teacher=other, **options).total
    torch.testing.assert_close(total, exact)
    exact_slopes = gradients(exact.sum(), full)
    assert_all_close([g.float() for g in slopes], exact_slopes, rtol=1e-2, atol=1e-2)  # rounded to bfloat16


@pytest.mark.parametrize("size", [50.0, 1e4])
@pytest.mark.parametrize("name", TERMS)
def test_extreme_logits_and_probabilities_that_underflow_give_no_nan(name, size):
    student, teacher, labels, lengths = random_lattice(23, frames=[4, 2], labels=[1, 3], dtype=torch.float32)
    student = replace(student, bias=torch.tensor([0.0, size, -size, 0.0, -size]))
    teacher = replace(teacher, bias=torch.tensor([-size, 0.0, size, 0.0, size]))
    exact, its = (JointInputs(**{k: v.double() for k, v in vars(x).items()}) for x in (student, teacher))
    student, exact = with_gradients(student), with_gradients(exact)
    options = {"labels": labels, "lengths": lengths, "weights": only(name)}
    total = lattice_losses(student, teacher=teacher, **options).total
    expected = reference_terms(exact, labels=labels, lengths=lengths, teacher=its)[name]
    torch.testing.assert_close(total.double(), expected, rtol=1e-3, atol=1e-3)  # float32 has steps of 1e-3 at 1e4
    found = [gradient.double() for gradient in gradients(total.sum(), student)]
    assert_all_close(found, gradients(expected.sum(), exact), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("weights", [DIVERGENCE, BOTH])
def test_sharp_students_of_large_logits_do_not_overflow(weights):
    """Logits that can be exponentiated as they are cannot be any more once they are divided by a temperature."""
    student, teacher, labels, lengths = random_lattice(24, frames=[4, 2], labels=[1, 3], dtype=torch.float32)
    student = replace(student, bias=torch.tensor([0.0, 45.0, -45.0, 0.0, 20.0]))
    exact, its = (JointInputs(**{k: v.double() for k, v in vars(x).items()}) for x in (student, teacher))
    student, exact = with_gradients(student), with_gradients(exact)
    options = {"labels": labels, "lengths": lengths, "weights": weights, "student_temperature": 0.1}
    total = lattice_losses(student, teacher=teacher, **options).total
    expected = lattice_losses(exact, teacher=its, **options).total
    torch.testing.assert_close(total.double(), expected, rtol=1e-4, atol=1e-3)
    found = [gradient.double() for gradient in gradients(total.sum(), student)]
    assert_all_close(found, gradients(expected.sum(), exact), rtol=1e-3, atol=1e-3)


def test_no_gradient_flows_to_the_teacher():
    student, teacher, labels, lengths = random_lattice(29, frames=[3], labels=[2])
    student, teacher = with_gradients(student), with_gradients(teacher)
    lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher, weights=ALL).total.sum().backward()
    assert all(tensor.grad is None for tensor in tensors(teacher))
    assert all(tensor.grad is not None for tensor in tensors(student))


def test_values_alone_are_those_that_come_with_gradients():
    student, teacher, labels, lengths = random_lattice(30, frames=[3, 5], labels=[2, 1])
    options = {"labels": labels, "lengths": lengths, "teacher": teacher, "weights": ALL}
    alone = lattice_losses(student, **options)
    assert not alone.total.requires_grad
    beside = lattice_losses(with_gradients(student), **options)
    assert_all_close(alone.terms.values(), beside.terms.values(), rtol=0, atol=0)


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
@pytest.mark.parametrize("weights", [*map(only, TERMS), ALL])
def test_the_lattice_is_never_held_whole(monkeypatch, weights, uniform):
    frames, count, vocabulary, elements = 30, 12, 150, 2**12
    monkeypatch.setattr(portable, "CHUNK_ELEMENTS", elements)
    inputs = random_lattice(31, frames=[frames] * 3, labels=[count] * 3, vocabulary=vocabulary, dtype=torch.float32)
    student, teacher, labels, lengths = inputs
    student = with_gradients(student)
    of_utterances = torch.tensor([1.0, 1.0, 1.0 if uniform else 0.5])

    def ours():
        losses = lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher, weights=weights)
        return (of_utterances * losses.total).sum()

    nodes = 3 * frames * (count + 1)
    diagonals = 2 * 3 * (frames + count) * (count + 1)
    assert nodes * vocabulary > 10 * diagonals
    assert largest_tensor(ours, student) <= max(elements, diagonals)
    naive = largest_tensor(lambda: naive_divergence(student, teacher=teacher, lengths=lengths).sum(), student)
    assert naive >= nodes * vocabulary  # the probe sees what it should


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictor": (2, 5, 3)}, r"predictor: \(2, 5, 3\) does not fit 2 utterances with labels \(2, 3\)"),
        ({"predictor": (3, 4, 3)}, r"predictor: \(3, 4, 3\) does not fit 2 utterances with labels \(2, 3\)"),
        ({"weight": (5, 7)}, r"student: encoder, predictor, weight and bias do not fit together: .*\(5, 7\), \(5,\)"),
        ({"teacher.encoder": (2, 5, 4)}, r"encoder: the teacher's lattice \(2, 5\) is not the student's \(2, 4\)"),
        ({"teacher.predictor": (2, 3, 4)}, r"predictor: the teacher's lattice \(2, 3\) is not the student's \(2, 4\)"),
        (
            {"teacher.weight": (6, 4), "teacher.bias": (6,)},
            "weight: the teacher has 6 tokens, the student 5",
        ),
        ({"frames": [4, 0]}, "utterance 1: 0 frames and 3 labels; there must be 1 to 4 frames and 0 to 3 labels"),
        ({"frames": [5, 2]}, "utterance 0: 5 frames"),
        ({"counts": [1, -1]}, "utterance 1: 2 frames and -1 labels"),
        ({"counts": [4, 3]}, "utterance 0: 4 frames and 4 labels"),
        ({"tokens": [[1, 0, 0], [1, 0, 2]]}, r"utterance 1: labels \[0\]; they must lie between 1 and 4"),
        ({"tokens": [[5, 1, 1], [1, 1, 2]]}, r"utterance 0: labels \[5\]"),
        ({"tokens": [[-3, 1, 1], [1, 1, 2]]}, r"utterance 0: labels \[-3\]"),
        ({"option.teacher_shift": -1}, "teacher_shift -1"),
        ({"option.student_temperature": 0.0}, r"temperatures 0\.0 and 1\.0"),
        ({"option.teacher": None}, "teacher: divergence, one_best, .* cannot be computed without one"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    student, teacher, labels, lengths = random_lattice(37, frames=[4, 2], labels=[1, 3])
    options = {"teacher": teacher}
    for key, value in change.items():
        if key == "frames":
            lengths = replace(lengths, frames=torch.tensor(value))
        elif key == "counts":
            lengths = replace(lengths, labels=torch.tensor(value))
        elif key == "tokens":
            labels = torch.tensor(value)
        elif key.startswith("option."):
            options[key.removeprefix("option.")] = value
        elif key.startswith("teacher."):
            options["teacher"] = replace(options["teacher"], **{key.removeprefix("teacher."): torch.zeros(value)})
        else:
            student = replace(student, **{key: torch.zeros(value)})
    with pytest.raises(ValueError, match=message):
        lattice_losses(student, labels=labels, lengths=lengths, weights=ALL, **options)


@pytest.mark.parametrize("weights", [TRANSDUCER, DIVERGENCE])
def test_logits_that_are_not_finite_are_an_error_with_their_utterance(weights):
    student, teacher, labels, lengths = random_lattice(41, frames=[4, 2], labels=[1, 3])
    student.encoder[1, 0, 2] = torch.nan
    with pytest.raises(NonFiniteError, match=r"utterance 1: logits are not finite .* 1 values of encoder"):
        lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher, weights=weights)
    student.encoder[1, 0, 2] = 0.0
    student.bias[3] = torch.inf
    with pytest.raises(NonFiniteError, match=r"utterance 0: .* 1 values of bias"):
        lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher, weights=weights)
    student.bias[3] = 0.0
    teacher.encoder[0] = torch.nan
    with pytest.raises(NonFiniteError, match="no values of the student"):
        lattice_losses(student, labels=labels, lengths=lengths, teacher=teacher, weights=DIVERGENCE)
