"""The Triton kernels against whole lattices in float64: interpreted, or compiled where there is a CUDA device."""

from __future__ import annotations

import importlib
import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_reference import arc_probabilities
from torch import Tensor

from asr_distill.losses import lattice as losses
from asr_distill.losses.joint import Arcs, Coefficients, Distillation, JointInputs, Lattice, LatticeLengths
from asr_distill.losses.kernels import PORTABLE, Kernels

pytest.importorskip("triton")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PACKAGE = "asr_distill.losses.kernels"
SIZES = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=3)
VOCABULARIES = st.sampled_from([2, 3, 11])
TEMPERATURES = st.sampled_from([0.5, 1.0, 2.0])
KINDS = (("arcs",), ("arcs", "log_rest"), ("divergence",), ("arcs", "log_rest", "divergence"))


@pytest.fixture(scope="module")
def fused():
    """Return the module, fit for DEVICE."""
    from triton_modules import interpreted, untuned

    if DEVICE.type == "cuda":
        with untuned():
            yield importlib.import_module(f"{PACKAGE}.fused")
    else:
        with interpreted(PACKAGE, "fused") as module:
            yield module


def random_joint(seed, lattice, *, vocabulary, units=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    batch, longest, most = len(lattice.frames), max(lattice.frames), lattice.labels.shape[1]
    shapes = ((batch, longest, units), (batch, most + 1, units), (vocabulary, units), (vocabulary,))
    tensors = [torch.randn(shape, generator=generator).to(DEVICE, dtype) for shape in shapes]
    return JointInputs(**{field.name: x for field, x in zip(fields(JointInputs), tensors, strict=True)})


def random_lattice(seed, sizes, *, vocabulary):
    frames, counts = zip(*sizes, strict=True)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(1, vocabulary, (len(sizes), max(counts)), generator=generator)
    return Lattice(labels=labels.to(DEVICE), frames=frames, counts=counts)


def random_coefficients(seed, lattice, kinds, arcs):
    """Return coefficients of which a third are zero; garbage lies outside the lattices."""
    generator = torch.Generator().manual_seed(seed)
    shape = arcs.blank.shape

    def draw() -> Tensor:
        drawn = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) > 0.3)
        return drawn.to(DEVICE).where(inside(lattice, shape), math.nan)

    found = {name: draw() for name in ("blank", "label", "rest")} if "arcs" in kinds else {}
    if "log_rest" in kinds:
        found["log_rest"] = arcs.rest.float()
    if "divergence" in kinds:
        found["divergence"] = draw()
    return Coefficients(**found)


def inside(lattice, shape):
    """Return which of the places (B, T, U + 1) are nodes."""
    mask = torch.zeros(shape, dtype=torch.bool)
    for b, (frames, count) in enumerate(zip(lattice.frames, lattice.counts, strict=True)):
        mask[b, :frames, : count + 1] = True
    return mask.to(DEVICE)


def next_labels(lattice, shape):
    """Return the label that follows each node, (B, T, U + 1); -1 where none does."""
    following = torch.full(shape, -1, device=DEVICE)
    for b, count in enumerate(lattice.counts):
        following[b, :, :count] = lattice.labels[b, :count]
    return following


def whole_lattice(joint):
    """Return the logits of all nodes, (B, T, U + 1, V), in float64."""
    encoder, predictor, weight, bias = (x.double() for x in joint.tensors())
    return torch.tanh(encoder[:, :, None] + predictor[:, None]) @ weight.t() + bias


def reference_arcs(joint, lattice):
    log_probs = whole_lattice(joint).log_softmax(dim=-1)
    shape, tokens = log_probs.shape[:3], torch.arange(log_probs.shape[3], device=DEVICE)
    following = next_labels(lattice, shape)[..., None]
    others = log_probs.where((tokens != 0) & (tokens != following), -math.inf)
    label = log_probs.where(tokens == following, -math.inf).amax(dim=-1)
    found = (x.where(inside(lattice, shape), 0.0) for x in (log_probs[..., 0], label, others.logsumexp(dim=-1)))
    return Arcs(**dict(zip(("blank", "label", "rest"), found, strict=True)))


def reference_nodes(joint, lattice, coefficients, distillation):
    """Return divergences and gradients: those of the logits by definition, the others by automatic differentiation."""
    joint = JointInputs(**{name: x.double().requires_grad_() for name, x in vars(joint).items()})
    logits = whole_lattice(joint)
    shape = logits.shape[:3]
    nodes = inside(lattice, shape)
    gradient, divergence = torch.zeros_like(logits), None
    if coefficients.blank is not None:
        log_probs = logits.log_softmax(dim=-1)
        if coefficients.log_rest is not None:
            log_probs = log_probs - coefficients.log_rest[..., None]
        rest = coefficients.rest[..., None] * log_probs.exp()
        tokens, following = torch.arange(logits.shape[3], device=DEVICE), next_labels(lattice, shape)[..., None]
        rest = torch.where(tokens == following, coefficients.label[..., None].double(), rest)
        gradient += torch.where(tokens == 0, coefficients.blank[..., None].double(), rest)
    if distillation is not None:
        tau, shift = distillation.student_temperature, distillation.shift
        early = torch.arange(shape[1], device=DEVICE)[:, None] < shift
        nodes_with_teacher = nodes & ~early
        targets = (whole_lattice(distillation.teacher) / distillation.teacher_temperature).log_softmax(dim=-1)
        targets = targets.roll(min(shift, shape[1]), dims=1)
        scaled = (logits / tau).log_softmax(dim=-1)
        divergence = (targets.exp() * (targets - scaled)).sum(dim=-1).where(nodes_with_teacher, 0.0)
        if coefficients.divergence is not None:
            towards = coefficients.divergence[..., None] * (scaled.exp() - targets.exp()) / tau
            gradient += towards.where(nodes_with_teacher[..., None], 0.0)
    gradients = torch.autograd.grad(logits, joint.tensors(), gradient.where(nodes[..., None], 0.0).detach())
    return divergence, gradients


def assert_close(found, expected, **tolerance):
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected.detach().double(), **tolerance)


def assert_all_close(found, expected, *, rtol=1e-4, atol=2e-5):
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, rtol=rtol, atol=atol)


def assert_nodes_match(found, expected, **tolerance):
    assert_close(found[0], expected[0], rtol=1e-4, atol=2e-5)
    assert_all_close(found[1], expected[1], **tolerance)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 999), SIZES, VOCABULARIES, st.sampled_from([3, 9]))
def test_arcs_equal_those_of_the_whole_lattice(fused, seed, sizes, vocabulary, units):
    lattice = random_lattice(seed, sizes, vocabulary=vocabulary)
    joint = random_joint(seed, lattice, vocabulary=vocabulary, units=units)
    expected = reference_arcs(joint, lattice)
    found = fused.arc_log_probs(joint, lattice, rest=True)
    assert_all_close(vars(found).values(), vars(expected).values(), atol=2e-6)
    assert fused.arc_log_probs(joint, lattice).rest is None


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 999), SIZES, VOCABULARIES, st.sampled_from(KINDS), TEMPERATURES, TEMPERATURES,
    st.sampled_from([0, 1, 2, 9]), st.sampled_from([4, 9]),
)  # fmt: skip
def test_nodes_equal_those_of_the_whole_lattice(
    fused, seed, sizes, vocabulary, kinds, student_temperature, teacher_temperature, shift, units
):
    lattice = random_lattice(seed, sizes, vocabulary=vocabulary)
    student = random_joint(seed, lattice, vocabulary=vocabulary)
    distillation = Distillation(
        teacher=random_joint(seed + 1, lattice, vocabulary=vocabulary, units=units),
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
        shift=shift,
    )
    coefficients = random_coefficients(seed, lattice, kinds, reference_arcs(student, lattice))
    found = fused.node_gradients(student, lattice, coefficients, distillation=distillation)
    assert_nodes_match(found, reference_nodes(student, lattice, coefficients, distillation))


@pytest.mark.parametrize("kinds", KINDS)
def test_each_kind_of_coefficient(fused, kinds):
    lattice = random_lattice(5, [(4, 2), (1, 3), (3, 0)], vocabulary=11)
    student, teacher = (random_joint(seed, lattice, vocabulary=11, units=2 + seed) for seed in (3, 7))
    distillation = Distillation(teacher=teacher, teacher_temperature=2.0) if "divergence" in kinds else None
    coefficients = random_coefficients(1, lattice, kinds, reference_arcs(student, lattice))
    divergence, gradients = fused.node_gradients(student, lattice, coefficients, distillation=distillation)
    expected = reference_nodes(student, lattice, coefficients, distillation)
    assert_all_close(gradients, expected[1])
    if distillation is None:
        assert divergence is None
    else:
        assert_close(divergence, expected[0], rtol=1e-4, atol=2e-5)


def test_divergence_alone_needs_no_coefficients(fused):
    lattice = random_lattice(5, [(3, 2), (2, 1)], vocabulary=11)
    student, teacher = (random_joint(seed, lattice, vocabulary=11) for seed in (1, 2))
    distillation = Distillation(teacher=teacher, shift=1)
    expected, _ = reference_nodes(student, lattice, Coefficients(), distillation)
    nothing = Coefficients(blank=torch.tensor(math.nan))  # not looked at
    divergence, gradients = fused.node_gradients(student, lattice, nothing, distillation=distillation, gradients=False)
    assert gradients is None
    assert_close(divergence, expected, rtol=1e-4, atol=2e-5)
    divergence, gradients = fused.node_gradients(student, lattice, Coefficients(), distillation=distillation)
    assert_close(divergence, expected, rtol=1e-4, atol=2e-5)
    assert not any(gradient.any() for gradient in gradients)


def test_a_divergence_needs_a_teacher(fused):
    lattice = random_lattice(5, [(2, 1)], vocabulary=3)
    with pytest.raises(ValueError, match="no teacher"):
        fused.node_gradients(
            random_joint(1, lattice, vocabulary=3), lattice, Coefficients(divergence=torch.ones(1, 2, 2, device=DEVICE))
        )


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_chunks_may_split_utterances_and_frames(fused, monkeypatch, limit):
    lattice = random_lattice(5, [(3, 3), (2, 0), (1, 1)], vocabulary=5)
    student, teacher = (random_joint(seed, lattice, vocabulary=5) for seed in (1, 2))
    expected = reference_arcs(student, lattice)
    coefficients = random_coefficients(1, lattice, KINDS[-1], expected)
    distillation = Distillation(teacher=teacher, shift=1)
    monkeypatch.setattr(fused, "CHUNK_NODES", limit)
    found = fused.arc_log_probs(student, lattice, rest=True)
    assert_all_close(vars(found).values(), vars(expected).values())
    found = fused.node_gradients(student, lattice, coefficients, distillation=distillation)
    assert_nodes_match(found, reference_nodes(student, lattice, coefficients, distillation))


@given(SIZES, st.integers(1, 9))
def test_segments_cover_every_node_once(fused, sizes, limit):
    group_segments = importlib.import_module(f"{PACKAGE}.fused_nodes").group_segments
    frames, counts = zip(*sizes, strict=True)
    seen = []
    for group in group_segments(frames, counts, limit=limit):
        assert [segment.node for segment in group] == [sum(s.nodes for s in group[:i]) for i in range(len(group))]
        assert 0 < sum(segment.nodes for segment in group) <= limit
        assert len({segment.utterance for segment in group}) == len(group)
        for s in group:
            seen += [(s.utterance, s.frame + t, s.row + u) for t in range(s.frames) for u in range(s.rows)]
    every = [(b, t, u) for b, (f, c) in enumerate(sizes) for t in range(f) for u in range(c + 1)]
    assert sorted(seen) == every


def test_blocks_of_nodes_without_coefficients_are_skipped_and_leave_no_trace(fused):
    lattice = random_lattice(5, [(40, 3)] if DEVICE.type == "cpu" else [(400, 3)], vocabulary=9)
    joint = random_joint(1, lattice, vocabulary=9)
    weights = torch.zeros(3, *joint.encoder.shape[:2], 4, device=DEVICE)
    weights[:, :, 10:14] = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    coefficients = Coefficients(**dict(zip(("blank", "label", "rest"), weights, strict=True)))
    _, gradients = fused.node_gradients(joint, lattice, coefficients)
    assert_all_close(gradients, reference_nodes(joint, lattice, coefficients, None)[1])
    untouched = torch.arange(joint.encoder.shape[1], device=DEVICE)
    assert not gradients[0][:, (untouched < 10) | (untouched >= 14)].any()


@pytest.mark.parametrize("rest_only", [False, True])
def test_extreme_logits(fused, rest_only):
    lattice = random_lattice(5, [(3, 2), (2, 3)], vocabulary=9)
    student, teacher = (extreme_joint(seed, lattice, vocabulary=9) for seed in (1, 2))
    if rest_only:  # all but impossible: what is left over is found by its own sum
        student = replace(student, bias=torch.tensor([-1e4] + 8 * [0.0], device=DEVICE))
    expected = reference_arcs(student, lattice)
    found = fused.arc_log_probs(student, lattice, rest=True)
    assert_all_close(vars(found).values(), vars(expected).values(), rtol=1e-6, atol=1e-5)
    coefficients = random_coefficients(1, lattice, KINDS[-1], expected)
    distillation = Distillation(teacher=teacher)
    found = fused.node_gradients(student, lattice, coefficients, distillation=distillation)
    expected = reference_nodes(student, lattice, coefficients, distillation)
    assert_close(found[0], expected[0], rtol=1e-5, atol=1e-4)
    assert_all_close(found[1], expected[1], rtol=1e-3, atol=1e-2)  # weights of thousands


def extreme_joint(seed, lattice, *, vocabulary):
    """Return a joint network with saturated hidden units and whole-numbered logits up to 1e4, exact in float32."""
    joint = random_joint(seed, lattice, vocabulary=vocabulary)
    weight = torch.randint(-3000, 3001, joint.weight.shape, generator=torch.Generator().manual_seed(seed))
    return replace(joint, encoder=joint.encoder.sign() * 50, weight=weight.to(joint.weight), bias=joint.bias.round())


def test_bfloat16_is_accurate_to_its_digits(fused):
    lattice = random_lattice(5, [(4, 2), (2, 3)], vocabulary=11)
    student, teacher = (random_joint(seed, lattice, vocabulary=11, dtype=torch.bfloat16) for seed in (1, 2))
    expected = reference_arcs(student, lattice)
    found = fused.arc_log_probs(student, lattice, rest=True)
    assert_all_close(vars(found).values(), vars(expected).values(), rtol=2e-2, atol=5e-2)
    coefficients = random_coefficients(1, lattice, KINDS[-1], expected)
    distillation = Distillation(teacher=teacher)
    divergence, gradients = fused.node_gradients(student, lattice, coefficients, distillation=distillation)
    expected = reference_nodes(student, lattice, coefficients, distillation)
    assert_close(divergence, expected[0], rtol=2e-2, atol=5e-2)
    for one, other in zip(gradients, expected[1], strict=True):
        assert (one - other).norm() < 0.03 * other.norm()


def test_autocast_asks_for_bfloat16(fused):
    lattice = random_lattice(5, [(2, 2)], vocabulary=11)
    joint = random_joint(1, lattice, vocabulary=11)
    exact = fused.arc_log_probs(joint, lattice).blank
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        mixed = fused.arc_log_probs(joint, lattice).blank
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, exact)
    torch.testing.assert_close(mixed, exact, rtol=2e-2, atol=5e-2)


def test_two_calls_give_the_same_bits(fused):
    lattice = random_lattice(5, [(4, 2), (2, 3)], vocabulary=11)
    student, teacher = (random_joint(seed, lattice, vocabulary=11) for seed in (1, 2))
    coefficients = random_coefficients(1, lattice, KINDS[-1], reference_arcs(student, lattice))
    calls = [
        fused.node_gradients(student, lattice, coefficients, distillation=Distillation(teacher=teacher))
        for _ in range(2)
    ]
    for one, other in zip(*((divergence, *gradients) for divergence, gradients in calls), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("half", [False, True])
def test_lattice_losses_are_those_of_the_portable_kernels(fused, monkeypatch, half):
    lattice = random_lattice(5, [(4, 2), (1, 3), (3, 0)], vocabulary=11)
    student, teacher = (random_joint(seed, lattice, vocabulary=11) for seed in (1, 2))
    lengths = LatticeLengths(frames=torch.tensor(lattice.frames), labels=torch.tensor(lattice.counts))
    accelerated = Kernels(**{name: getattr(fused, name) for name in vars(PORTABLE)})
    found = {}
    for kernels in (PORTABLE, accelerated):
        monkeypatch.setattr(losses, "kernels_for", lambda *_, chosen=kernels: chosen)
        dtype = torch.bfloat16 if half and kernels is accelerated else None
        monkeypatch.setattr(losses, "_half", lambda _, chosen=dtype: chosen)
        inputs = JointInputs(**{name: x.clone().requires_grad_() for name, x in vars(student).items()})
        names = (field.name for field in fields(losses.LatticeWeights))
        result = losses.lattice_losses(
            inputs,
            labels=lattice.labels,
            lengths=lengths,
            weights=losses.LatticeWeights(**{name: 1 + 0.1 * i for i, name in enumerate(names)}),
            teacher=teacher,
            student_temperature=2.0,
            teacher_shift=1,
        )
        result.total.sum().backward()
        found[kernels] = (result.total.detach(), *result.terms.values(), *(x.grad for x in inputs.tensors()))
    for one, other in zip(found[accelerated], found[PORTABLE], strict=True):
        assert (one - other).norm() <= (0.05 if half else 1e-5) * other.norm()


SCORES = st.sampled_from([0.0, 0.0, 1.0, -1.0, 50.0, -800.0, 1e4, -1e4]) | st.floats(-5, 5)


@st.composite
def scored_lattices(draw):
    """Return blank and label scores (B, T, U + 1), NaN outside the lattices, and their frames and labels."""
    frames = draw(st.lists(st.integers(1, 4), min_size=1, max_size=2))
    counts = [draw(st.integers(0, 3)) for _ in frames]
    shape = (2, len(frames), max(frames), max(counts) + 1)
    scores = torch.tensor(draw(st.lists(SCORES, min_size=math.prod(shape), max_size=math.prod(shape))))
    return *unreachable_hidden(scores.double().view(shape), frames, counts), tuple(frames), tuple(counts)


def unreachable_hidden(scores, frames, counts):
    """Return log-probabilities of blank and label for scores (2, B, T, U + 1), NaN where no path leads."""
    blank, label, _ = torch.stack([*scores, torch.zeros_like(scores[0])]).log_softmax(dim=0)
    nodes = inside(Lattice(labels=None, frames=tuple(frames), counts=tuple(counts)), blank.shape).cpu()
    label = label.where(torch.arange(blank.shape[2]) < torch.tensor(counts)[:, None, None], math.nan)
    return blank.where(nodes, math.nan), label.where(nodes, math.nan)


@settings(max_examples=20, deadline=None)
@given(scored_lattices(), st.sampled_from([torch.float32, torch.float64]))
def test_paths_equal_the_sum_over_every_path(fused, lattice, dtype):
    blank, label, frames, counts = lattice
    blank, label = (x.to(DEVICE, dtype) for x in (blank, label))
    total, by_blank, by_label = vars(fused.path_sums(blank, label, frames, counts)).values()
    tolerance = {"rtol": 1e-8, "atol": 1e-8} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
    for b, (t, u) in enumerate(zip(frames, counts, strict=True)):
        expected = arc_probabilities(blank[b].double().cpu(), label[b].double().cpu(), frames=t, labels=u)
        for found, wanted in zip((total[b], by_blank[b], by_label[b]), expected, strict=True):
            assert found.dtype == dtype
            torch.testing.assert_close(found.double().cpu(), wanted, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_long_paths_leave_each_frame_by_a_blank_and_each_row_by_a_label(fused, dtype):
    frames, counts = (37, 20), (4, 2)
    scores = torch.randn(2, 2, 37, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    blank, label = (x.to(DEVICE, dtype) for x in unreachable_hidden(3 * scores, frames, counts))
    total, by_blank, by_label = vars(fused.path_sums(blank, label, frames, counts)).values()
    assert total.isfinite().all()
    tolerance = {"rtol": 0, "atol": 1e-10 if dtype == torch.float64 else 2e-5}
    for b, (t, u) in enumerate(zip(frames, counts, strict=True)):
        torch.testing.assert_close(by_blank[b, :t].sum(dim=1), torch.ones_like(by_blank[b, :t, 0]), **tolerance)
        torch.testing.assert_close(by_label[b, :, :u].sum(dim=0), torch.ones_like(by_label[b, 0, :u]), **tolerance)
        assert not by_blank[b, t:].any()
        assert not by_label[b, :, u:].any()


def test_impossible_and_negligible_arcs_are_never_taken(fused):
    blank = torch.tensor([[[-1.0, -1.0], [-1.0, -1.0]], [[-50.0, -1.0], [-1.0, -1.0]], [[-26.0, -1.0], [-1.0, -1.0]]])
    label = torch.tensor([[[-1.0, 0.0], [-math.inf, 0.0]], [[-1.0, 0.0], [-1.0, 0.0]], [[-1.0, 0.0], [-1.0, 0.0]]])
    total, by_blank, _ = vars(fused.path_sums(blank.to(DEVICE), label.to(DEVICE), (2, 2, 2), (1, 1, 1))).values()
    assert total.isfinite().all()
    assert by_blank[0, 0].tolist() == [0.0, 1.0]
    assert by_blank[1, 0].tolist() == [0.0, 1.0]  # e^-49 < 1e-12
    assert by_blank[2, 0, 0].item() == pytest.approx(math.exp(-25), rel=1e-4)


def test_where_every_path_is_impossible_none_is_taken(fused):
    blank, label = torch.full((2, 2, 2), -1.0, device=DEVICE), torch.full((2, 2, 2), -1.0, device=DEVICE)
    label[0] = -math.inf
    total, by_blank, by_label = vars(fused.path_sums(blank, label, (2, 2), (1, 1))).values()
    assert total[0] == -math.inf
    assert not by_blank[0].any()
    assert not by_label[0].any()
    assert total[1].item() == pytest.approx(math.log(2) - 3)


def test_undefined_scores_stay_undefined(fused):
    blank, label = torch.full((2, 3, 2), -1.0, device=DEVICE), torch.full((2, 3, 2), -1.0, device=DEVICE)
    blank[0, 1, 1] = math.nan
    total, by_blank, _ = vars(fused.path_sums(blank, label, (3, 3), (1, 1))).values()
    assert total[0].isnan()
    assert by_blank[0].isnan().any()
    assert total[1].isfinite()
    assert by_blank[1].isfinite().all()
