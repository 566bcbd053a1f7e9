"""What is learnt from BERT, against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_distill.losses.language_model import (
    REST_FLOOR,
    TOKEN_FLOOR,
    combine_layers,
    cross_entropy,
    distillation_layers,
    frame_topk_divergence,
    hidden_regression,
    topk_divergence,
)

VOCABULARY = 6
KINDS = [
    (d, r) for d in ("reverse", "forward") for r in ("bucket", "renormalise", "zero") if (d, r) != ("reverse", "zero")
]


def random(seed, *shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def soft_labels(seed, *shape, k, dtype=torch.float32):
    """Return ids and probabilities (*shape, k) of the k most likely tokens of random distributions over 1 to V - 1."""
    full = (2 * random(seed, *shape, VOCABULARY - 1, dtype=dtype)).softmax(dim=-1)
    probabilities, ids = full.topk(k, dim=-1)
    return ids + 1, probabilities


def normalised(log_weights):
    """Return log-probabilities as floats, scaled to sum to 1."""
    total = torch.tensor(log_weights, dtype=torch.float64).logsumexp(dim=0).item()
    return [weight - total for weight in log_weights]


def slow_divergence(logits, ids, probabilities, *, direction, rest, temperatures):
    """Return the divergence at one place from logits (outputs,), ids (K,) and probabilities (K,)."""
    scores, ids = logits.double().log_softmax(dim=0).tolist(), ids.tolist()
    student = [scores[k] for k in ids]
    bert = [math.log(max(p, TOKEN_FLOOR)) for p in probabilities.tolist()]
    if rest != "renormalise":
        others = [scores[k] for k in range(len(scores)) if k not in ids]
        student.append(torch.tensor(others, dtype=torch.float64).logsumexp(dim=0).item())
    if rest == "bucket":
        bert.append(math.log(max(1 - sum(probabilities.tolist()), REST_FLOOR)))
    student = normalised([score / temperatures[0] for score in student])
    bert = normalised([score / temperatures[1] for score in bert])
    if direction == "reverse":
        return sum(math.exp(p) * (p - q) for p, q in zip(student, bert, strict=True))
    return sum(math.exp(q) * (q - p) for p, q in zip(student, bert, strict=False))  # "zero": no bucket in BERT


def slow_end(logits):
    return -logits.double().log_softmax(dim=0)[-1].item()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    k=st.integers(1, VOCABULARY - 1),
    kind=st.sampled_from(KINDS),
    temperature=st.sampled_from([1.0, 0.5, 3.0]),
)
def test_topk_divergence_equals_a_loop_over_labels(seed, counts, k, kind, temperature):
    direction, rest = kind
    width = max(counts)
    logits = 3 * random(seed, len(counts), width + 1, VOCABULARY + 1)
    ids, probabilities = soft_labels(seed + 1, len(counts), width, k=k)
    options = {"direction": direction, "rest": rest}
    found = topk_divergence(logits, ids, probabilities, torch.tensor(counts), temperature=temperature, **options)
    for b, count in enumerate(counts):
        expected = slow_end(logits[b, count])
        for u in range(count):
            place = (logits[b, u], ids[b, u], probabilities[b, u])
            expected += slow_divergence(*place, temperatures=(temperature, temperature), **options)
        assert found[b].item() == pytest.approx(expected, rel=1e-4, abs=2e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("direction", "rest"), [kind for kind in KINDS if kind[1] != "zero"])
def test_a_student_that_agrees_with_bert_has_nothing_to_learn(direction, rest, temperature):
    ids, probabilities = torch.tensor([[[2, 4]]]), torch.tensor([[[0.6, 0.3]]])
    student = torch.tensor([0.02, 0.01, 0.6, 0.04, 0.3, 0.01, 0.02])  # 0.1 for all others together
    if rest == "renormalise":
        student[[2, 4]] *= 0.1
    logits = torch.stack([student.log(), torch.tensor([-50.0] * 6 + [50.0])])[None].requires_grad_()
    options = {"direction": direction, "rest": rest, "temperature": temperature}
    found = topk_divergence(logits, ids, probabilities, torch.tensor([1]), **options)
    assert found.item() == pytest.approx(0, abs=1e-6)
    found.sum().backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=1e-6)


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_with_all_tokens_it_is_the_divergence_of_whole_distributions(direction):
    ids = torch.arange(1, VOCABULARY).expand(1, 3, -1)
    bert = random(1, 1, 3, VOCABULARY - 1).softmax(dim=-1)
    logits = random(2, 1, 4, VOCABULARY + 1)
    logits[:, :3, [0, -1]] = -1e4  # neither blank nor end
    student = logits[:, :3, 1:-1].softmax(dim=-1)
    above, below = (student, bert) if direction == "reverse" else (bert, student)
    expected = F.kl_div(below.log(), above, reduction="sum") + slow_end(logits[0, 3])
    for rest in ("bucket", "renormalise"):
        if (direction, rest) != ("forward", "bucket"):  # there the student denies the bucket its floor
            found = topk_divergence(logits, ids, bert, torch.tensor([3]), direction=direction, rest=rest)
            assert found.item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("size", [1e4, 2e4])
@pytest.mark.parametrize(("direction", "rest"), KINDS)
def test_topk_divergence_of_extreme_logits_is_finite(direction, rest, size):
    logits = size * torch.tensor([[[0, 1, -1, 0, 0, 0, -1.0], [-1, -1, 1, 0, 0, 0, 1.0], [1, 0, 0, 0, 0, 0, -1.0]]])
    logits.requires_grad_()
    ids, probabilities = torch.tensor([[[1, 2], [1, 3]]]), torch.tensor([[[1.0, 0.0], [0.7, 0.3]]])
    found = topk_divergence(logits, ids, probabilities, torch.tensor([2]), direction=direction, rest=rest)
    options = {"direction": direction, "rest": rest, "temperatures": (1.0, 1.0)}
    places = [slow_divergence(logits[0, u], ids[0, u], probabilities[0, u], **options) for u in range(2)]
    assert found.item() == pytest.approx(sum(places) + slow_end(logits[0, 2]), rel=1e-5)
    found.sum().backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(("direction", "rest"), KINDS)
@pytest.mark.parametrize("k", [1, 3, VOCABULARY - 1])
def test_gradients_of_topk_divergence(direction, rest, k):
    logits = random(3, 2, 3, VOCABULARY + 1, dtype=torch.float64).requires_grad_()
    ids, probabilities = soft_labels(4, 2, 2, k=k, dtype=torch.float64)
    options = {"direction": direction, "rest": rest, "temperature": 2.0}
    assert torch.autograd.gradcheck(
        lambda x: topk_divergence(x, ids, probabilities, torch.tensor([2, 1]), **options), logits
    )


@pytest.mark.parametrize(("direction", "rest"), KINDS)
def test_topk_divergence_ignores_padding(direction, rest):
    logits = random(5, 2, 4, VOCABULARY + 1)
    ids, probabilities = soft_labels(6, 2, 3, k=2)
    counts = torch.tensor([3, 1])
    options = {"direction": direction, "rest": rest}
    expected = topk_divergence(logits, ids, probabilities, counts, **options)
    logits, ids, probabilities = (F.pad(x, (0, 0, 0, 2)) for x in (logits, ids, probabilities))
    logits[1, 2:], ids[1, 1:], probabilities[1, 1:] = 1e4, -1, math.nan
    logits.requires_grad_()
    found = topk_divergence(logits, ids.int(), probabilities, counts, **options)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert not logits.grad[1, 2:].any()
    assert logits.grad[1, :2].any(dim=1).all()
    assert torch.isfinite(logits.grad).all()


def test_without_labels_only_the_end_counts():
    logits = random(7, 2, 1, VOCABULARY + 1).requires_grad_()
    ids, probabilities = torch.zeros(2, 0, 3, dtype=torch.long), torch.zeros(2, 0, 3)
    labels, counts = torch.zeros(2, 0, dtype=torch.long), torch.tensor([0, 0])
    expected = -logits.log_softmax(dim=-1)[:, 0, -1]
    torch.testing.assert_close(topk_divergence(logits, ids, probabilities, counts), expected)
    torch.testing.assert_close(cross_entropy(logits, labels, counts), expected)
    assert not hidden_regression(logits, torch.zeros(2, 0, VOCABULARY + 1), counts).any()
    alignment = torch.full((2, 1), -1)
    frames = frame_topk_divergence(logits, ids, probabilities, alignment)
    assert torch.equal(frames, torch.zeros(2))
    frames.sum().backward()
    assert not logits.grad.any()


@pytest.mark.parametrize("excess", [0.0, 1e-6])
def test_probabilities_that_sum_to_one_leave_the_bucket_its_floor(excess):
    logits = torch.zeros(1, 2, VOCABULARY + 1)
    probabilities = torch.tensor([[[0.75, 0.25 + excess]]])
    found = topk_divergence(logits, torch.tensor([[[1, 2]]]), probabilities, torch.tensor([1]))
    student = [1 / 7, 1 / 7, 5 / 7]
    expected = sum(p * math.log(p / q) for p, q in zip(student, [0.75, 0.25, REST_FLOOR], strict=True))
    assert found.item() == pytest.approx(expected + math.log(7), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    counts=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    k=st.integers(1, VOCABULARY - 1),
    kind=st.sampled_from(KINDS),
    temperatures=st.sampled_from([(1.0, 3.0), (2.0, 1.0)]),
)
def test_frame_divergence_equals_a_loop_over_frames(seed, counts, k, kind, temperatures):
    direction, rest = kind
    width, frames = max(counts), 5
    logits = 3 * random(seed, len(counts), frames, VOCABULARY)
    ids, probabilities = soft_labels(seed + 1, len(counts), width, k=k)
    generator = torch.Generator().manual_seed(seed)
    alignment = torch.stack([torch.randint(-1, count, (frames,), generator=generator) for count in counts])
    found = frame_topk_divergence(
        logits,
        ids,
        probabilities,
        alignment,
        direction=direction,
        rest=rest,
        temperature=temperatures[1],
        student_temperature=temperatures[0],
    )
    for b, row in enumerate(alignment.tolist()):
        expected = 0.0
        for t, u in enumerate(row):
            if u >= 0:
                place = (logits[b, t], ids[b, u], probabilities[b, u])
                expected += slow_divergence(*place, direction=direction, rest=rest, temperatures=temperatures)
        assert found[b].item() == pytest.approx(expected, rel=1e-4, abs=2e-5)


def test_frame_divergence_is_futamis_cross_entropy_less_berts_entropy():
    logits, scores = random(8, 1, 4, VOCABULARY), 4 * random(9, 1, 2, VOCABULARY - 1)
    top, ids = scores.topk(3, dim=-1)
    probabilities = scores.softmax(dim=-1).gather(2, ids)
    found = frame_topk_divergence(logits, ids + 1, probabilities, torch.tensor([[0, 0, -1, 1]]))
    bert = (top / 3.0).softmax(dim=-1)[:, [0, 0, 1]]
    student = logits[:, [0, 1, 3]].log_softmax(dim=-1).gather(2, (ids + 1)[:, [0, 0, 1]])
    torch.testing.assert_close(found[0], -(bert * student).sum() + (bert * bert.log()).sum())


@pytest.mark.parametrize(("direction", "rest"), KINDS)
def test_gradients_of_the_frame_divergence(direction, rest):
    logits = random(10, 2, 4, VOCABULARY, dtype=torch.float64).requires_grad_()
    ids, probabilities = soft_labels(11, 2, 2, k=3, dtype=torch.float64)
    alignment = torch.tensor([[0, -1, 1, 1], [-1, 0, -1, -1]])
    options = {"direction": direction, "rest": rest}
    assert torch.autograd.gradcheck(
        lambda x: frame_topk_divergence(x, ids, probabilities, alignment, **options), logits
    )
    frame_topk_divergence(logits, ids, probabilities, alignment, **options).sum().backward()
    assert torch.equal(logits.grad.any(dim=2), alignment >= 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.lists(st.integers(0, 4), min_size=1, max_size=3), st.sampled_from([0.0, 0.1, 1.0]))
def test_cross_entropy_equals_a_loop_over_labels(seed, counts, smoothing):
    logits = 3 * random(seed, len(counts), max(counts) + 2, VOCABULARY + 1)
    labels = torch.randint(1, VOCABULARY, (len(counts), max(counts) + 1), generator=torch.Generator().manual_seed(seed))
    for b, count in enumerate(counts):
        labels[b, count:], logits[b, count + 1 :] = -1, 1e4
    logits.requires_grad_()
    found = cross_entropy(logits, labels, torch.tensor(counts), smoothing=smoothing)
    found.sum().backward()
    for b, count in enumerate(counts):
        log_probs = logits.detach()[b].double().log_softmax(dim=-1)
        expected = 0.0
        for u, target in enumerate([*labels[b, :count].tolist(), VOCABULARY]):
            shares = [0.0] + [smoothing / VOCABULARY] * VOCABULARY
            shares[target] += 1 - smoothing
            expected -= sum(share * log_probs[u, k].item() for k, share in enumerate(shares))
        assert found[b].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert not logits.grad[b, count + 1 :].any()


def test_cross_entropy_of_extreme_logits():
    logits = torch.tensor([[[1e4, -1e4, 0.0], [0.0, 1e4, -1e4]]]).requires_grad_()
    found = cross_entropy(logits, torch.tensor([[1]]), torch.tensor([1]))
    assert found.item() == pytest.approx(4e4)
    found.sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert torch.autograd.gradcheck(
        lambda x: cross_entropy(x, torch.tensor([[1], [2]]), torch.tensor([1, 0]), smoothing=0.2),
        random(12, 2, 2, 4, dtype=torch.float64).requires_grad_(),
    )


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_hidden_regression_equals_a_loop_over_labels(distance):
    predicted, target = random(13, 2, 4, 5).requires_grad_(), random(14, 2, 3, 5)
    counts = [3, 1]
    target[1, 1:] = math.nan
    found = hidden_regression(predicted, target, torch.tensor(counts), distance=distance)
    for b, count in enumerate(counts):
        expected = 0.0
        for x, y in zip(predicted[b, :count].tolist(), target[b, :count].tolist(), strict=True):
            if distance == "l2":
                expected += sum((i - j) ** 2 for i, j in zip(x, y, strict=True)) / len(x)
            else:
                expected += 1 - sum(i * j for i, j in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y))
        assert found[b].item() == pytest.approx(expected, rel=1e-5)
    found.sum().backward()
    assert predicted.grad[0, :3].any(dim=1).all()
    assert not predicted.grad[0, 3].any()
    assert not predicted.grad[1, 1:].any()
    double = predicted.detach().double().requires_grad_()
    targets = random(14, 2, 3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: hidden_regression(x, targets, torch.tensor(counts), distance=distance), double
    )


def test_losses_are_computed_in_float32():
    logits, labels, counts = (
        random(15, 2, 3, VOCABULARY + 1).bfloat16(),
        torch.tensor([[1, 2], [3, 0]]),
        torch.tensor([2, 1]),
    )
    ids, probabilities = soft_labels(16, 2, 2, k=2)
    hidden = random(17, 2, 2, VOCABULARY + 1).half()
    alignment = torch.tensor([[0, 1, -1], [0, -1, -1]])
    for loss in (
        lambda x: topk_divergence(x, ids, probabilities, counts),
        lambda x: frame_topk_divergence(x, ids, probabilities, alignment),
        lambda x: cross_entropy(x, labels, counts, smoothing=0.1),
        lambda x: hidden_regression(x, hidden, counts),
    ):
        assert loss(logits).dtype == torch.float32
        torch.testing.assert_close(loss(logits), loss(logits.float()))


def test_misfits_are_named():
    logits = random(18, 2, 3, VOCABULARY + 1)
    ids, probabilities = soft_labels(19, 2, 2, k=2)
    counts = torch.tensor([2, 1])
    with pytest.raises(ValueError, match="need one row more"):
        topk_divergence(logits[:, 1:], ids, probabilities, counts)
    with pytest.raises(ValueError, match=r"probabilities \(2, 2, 1\) must be of one shape"):
        topk_divergence(logits, ids, probabilities[:, :, :1], counts)
    with pytest.raises(ValueError, match="name 1 to 5 tokens"):
        topk_divergence(logits, ids.repeat(1, 1, 3), probabilities.repeat(1, 1, 3), counts)
    with pytest.raises(ValueError, match="reverse divergence is infinite"):
        topk_divergence(logits, ids, probabilities, counts, rest="zero")
    with pytest.raises(ValueError, match=r"alignment: \(2, 2\) does not fit logits"):
        frame_topk_divergence(logits, ids, probabilities, torch.zeros(2, 2, dtype=torch.long))


def test_distillation_layers():
    assert distillation_layers(18, 1) == [9]  # Hentschel et al. 2024
    assert distillation_layers(18, 2) == [6, 12]
    assert distillation_layers(7, 2) == [2, 4]
    assert distillation_layers(4, 0) == []
    for layers in range(1, 30):
        assert distillation_layers(layers, layers - 1) == list(range(1, layers))
    for intermediate in (-1, 3):
        with pytest.raises(ValueError, match="an encoder of 3 layers has 0 to 2"):
            distillation_layers(3, intermediate)


def test_layers_are_combined():
    final, first, second = torch.tensor([[1.0, 2.0], [3.0, 5.0], [5.0, 1.0]])
    torch.testing.assert_close(combine_layers(final, [first, second], weight=0.25), torch.tensor([1.75, 2.25]))
    torch.testing.assert_close(combine_layers(final, [first], weight=0.5), torch.tensor([2.0, 3.5]))
    assert combine_layers(final, [], weight=0.5) is final
