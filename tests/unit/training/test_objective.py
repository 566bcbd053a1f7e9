"""What students minimise, against direct calls of the losses."""

from __future__ import annotations

import pytest
import torch

from asr_distill.experiment import Augmentation, ModelSize, Phase, Run
from asr_distill.losses.ctc import ctc, frame_divergence
from asr_distill.losses.joint import LatticeLengths
from asr_distill.losses.lattice import LatticeWeights, lattice_losses
from asr_distill.models.transducer import Transducer
from asr_distill.training import objective as module
from asr_distill.training.objective import Batch, Objective, joint_inputs, state_distance

BINS, VOCABULARY = 6, 5
ALPHA = {"supervised": 1.0, "hard": 1.0, "soft": 0.0, "mixed": 0.3}


def model(seed, *, dim=8):
    encoder = {"layers": 1, "dim": dim, "heads": 2, "feed_forward": 16, "stack": 2, "dropout": 0}
    size = ModelSize.model_validate({"encoder": encoder, "predictor": {"dim": dim, "dropout": 0}, "joint": dim})
    torch.manual_seed(seed)
    made = Transducer(size, vocabulary=VOCABULARY, mel_bins=BINS)
    made.feature_mean.fill_(0.5)
    made.feature_deviation.fill_(2.0)
    return made


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return Batch(
        features=torch.randn(3, 11, BINS, generator=generator),
        feature_lengths=torch.tensor([11, 6, 9]),
        labels=torch.tensor([[1, 2, 3], [4, 0, 0], [0, 0, 0]]),
        label_lengths=torch.tensor([3, 1, 0]),
    )


def objective(
    targets,
    *,
    student=None,
    teacher=None,
    ctc_weight=0.25,
    augmentation=None,
    teacher_augmentation=None,
    teacher_shift=0,
    **run,
):
    supervised = targets == "supervised"
    run = {"audio": ["labelled"], "teacher": None if supervised else "t", "alpha": ALPHA[targets], **run}
    return Objective(
        student or model(1),
        teacher=None if supervised else teacher or model(2, dim=12).eval(),
        run=Run.model_validate({"model": "m", "phase": "p", "targets": targets, "augmentation": "a", **run}),
        phase=Phase(steps=10, batch_utterances=3, learning_rate=1, warmup_steps=1, ctc_weight=ctc_weight),
        augmentation=augmentation or Augmentation(),
        teacher_augmentation=teacher_augmentation,
        teacher_shift=teacher_shift,
    )


def generator():
    return torch.Generator().manual_seed(5)


def parts(student, teacher, batch, **temperatures):
    """Return the four losses of a batch, each summed over utterances, and the number of encoder frames."""
    features = student.normalise(batch.features, batch.feature_lengths)
    states, frames = student.encode(features, batch.feature_lengths)
    teacher_states, _ = teacher.encode(features, batch.feature_lengths)
    lengths = LatticeLengths(frames=frames, labels=batch.label_lengths)
    lattice = lattice_losses(
        joint_inputs(student, states, batch.labels),
        labels=batch.labels,
        lengths=lengths,
        weights=LatticeWeights(transducer=1.0, divergence=1.0),
        teacher=joint_inputs(teacher, teacher_states, batch.labels),
        **temperatures,
    )
    transducer, nodes = lattice.terms["transducer"], lattice.terms["divergence"]
    logits, targets = student.ctc_head(states), teacher.ctc_head(teacher_states)
    divergence = frame_divergence(logits, teacher=targets, lengths=lengths) * (batch.label_lengths + 1)
    transcripts = ctc(logits, labels=batch.labels, lengths=lengths)
    return transducer.sum(), nodes.sum(), transcripts.sum(), divergence.sum(), frames.sum()


@pytest.mark.parametrize("ctc_weight", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("targets", ALPHA)
def test_every_kind_of_targets_weighs_its_losses(batch, targets, ctc_weight):
    student, teacher, alpha = model(1), model(2, dim=12), ALPHA[targets]
    temperatures = {"student_temperature": 0.8, "teacher_temperature": 1.6}
    loss = objective(targets, student=student, teacher=teacher, ctc_weight=ctc_weight, **temperatures)
    transducer, divergence, transcripts, heads, frames = parts(student, teacher, batch, **temperatures)
    lattice = alpha * transducer + (1 - alpha) * divergence
    auxiliary = alpha * transcripts + (1 - alpha) * heads
    expected = ((1 - ctc_weight) * lattice + ctc_weight * auxiliary) / frames
    torch.testing.assert_close(loss(batch, generator=generator()), expected)
    torch.testing.assert_close(loss(batch, generator=generator(), ctc_only=True), auxiliary / frames)


def test_a_run_says_what_soft_targets_mean(batch):
    student, teacher = model(1), model(2, dim=12)
    options = {"soft_losses": {"one_best": 2.0, "collapsed": 0.5}, "teacher_shift": 2, "fast_emit": 0.1}
    loss = objective("mixed", student=student, teacher=teacher, ctc_weight=0.25, **options)
    features = student.normalise(batch.features, batch.feature_lengths)
    states, frames = student.encode(features, batch.feature_lengths)
    teacher_states, _ = teacher.encode(features, batch.feature_lengths)
    lengths = LatticeLengths(frames=frames, labels=batch.label_lengths)
    alpha = ALPHA["mixed"]
    lattice = lattice_losses(
        joint_inputs(student, states, batch.labels),
        labels=batch.labels,
        lengths=lengths,
        weights=LatticeWeights(
            transducer=alpha, fast_emit=0.1 * alpha, one_best=2 * (1 - alpha), collapsed=0.5 * (1 - alpha)
        ),
        teacher=joint_inputs(teacher, teacher_states, batch.labels),
        teacher_shift=2,
    )
    logits, target = student.ctc_head(states), teacher.ctc_head(teacher_states)
    heads = frame_divergence(logits, teacher=target, lengths=lengths, teacher_shift=2) * (batch.label_lengths + 1)
    auxiliary = alpha * ctc(logits, labels=batch.labels, lengths=lengths) + (1 - alpha) * heads
    expected = (0.75 * lattice.total + 0.25 * auxiliary).sum() / frames.sum()
    torch.testing.assert_close(loss(batch, generator=generator()), expected)


@pytest.mark.parametrize("targets", ["soft", "mixed"])
def test_the_teacher_learns_nothing(batch, targets):
    student, teacher = model(1), model(2, dim=12).eval()
    loss = objective(targets, student=student, teacher=teacher)
    known = {id(parameter) for parameter in loss.parameters()}
    assert known == {id(parameter) for parameter in student.parameters()}
    assert not any("teacher" in name for name in loss.state_dict())
    loss(batch, generator=generator()).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert not loss.train()._teacher[0].training


@pytest.mark.parametrize("noisy", [0, 3])
@pytest.mark.parametrize("targets", ["soft", "mixed"])
def test_the_teacher_hears_clean_speech_unless_it_is_told_otherwise(monkeypatch, batch, targets, noisy):
    student, teacher = model(1), model(2, dim=12).eval()
    heard = {}
    for name, listener in (("student", student), ("teacher", teacher)):
        encode = listener.encode
        monkeypatch.setattr(
            listener, "encode", lambda f, n, name=name, encode=encode: (heard.update({name: f}), encode(f, n))[1]
        )
    monkeypatch.setattr(
        module, "augment", lambda features, lengths, *, settings, generator: features + settings.time_masks
    )
    augmentations = {
        "augmentation": Augmentation(time_masks=100),
        "teacher_augmentation": Augmentation(time_masks=noisy) if noisy else None,
    }
    objective(targets, student=student, teacher=teacher, **augmentations)(batch, generator=generator())
    clean = student.normalise(batch.features, batch.feature_lengths)
    assert torch.equal(heard["teacher"], clean + noisy)
    assert torch.equal(heard["student"], clean + 100)


def test_encoder_states_are_compared_over_speech_alone():
    student, teacher = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    frames = torch.tensor([5, 3])
    expected = [sum(float(((student[b, n] - teacher[b, n]) ** 2).mean()) for n in range(frames[b])) for b in range(2)]
    torch.testing.assert_close(state_distance(student, teacher, frames), torch.tensor(expected))
    shifted = [
        sum(float(((student[b, n] - teacher[b, n - 2]) ** 2).mean()) for n in range(2, frames[b])) for b in range(2)
    ]
    torch.testing.assert_close(state_distance(student, teacher, frames, teacher_shift=2), torch.tensor(shifted))


def test_consistency_adds_the_distance_of_encoder_states(batch):
    student, teacher = model(1), model(2).eval()
    without, with_it = (
        objective("soft", student=student, teacher=teacher, consistency=weight)(batch, generator=generator())
        for weight in (0, 0.5)
    )
    clean = student.normalise(batch.features, batch.feature_lengths)
    (own, frames), (its, _) = (m.encode(clean, batch.feature_lengths) for m in (student, teacher))
    added = 0.5 * state_distance(own, its, frames).sum() / frames.sum()
    assert added > 0
    torch.testing.assert_close(with_it - without, added)


def test_the_augmentation_is_the_generator_s(batch):
    loss = objective("supervised", augmentation=Augmentation(frequency_masks=2, frequency_mask_width=3, noise=0.5))
    first, again = (loss(batch, generator=generator()) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, loss(batch, generator=torch.Generator().manual_seed(6)))


def test_a_student_equal_to_its_teacher_has_nothing_to_learn(batch):
    student = model(1)
    loss = objective("soft", student=student, teacher=model(1))(batch, generator=generator())
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("targets", ALPHA)
def test_the_loss_works_in_mixed_precision(batch, targets):
    loss = objective(targets)
    exact = loss(batch, generator=generator())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = loss(batch, generator=generator())
    rounded.backward()
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=0.1)
    assert all(torch.isfinite(p.grad).all() for p in loss.parameters())


def test_soft_targets_without_a_teacher_are_refused():
    with pytest.raises(ValueError, match="teacher: soft targets need the teacher's model"):
        Objective(
            model(1),
            teacher=None,
            run=Run(model="m", phase="p", targets="soft", teacher="t", augmentation="a"),
            phase=Phase(steps=10, batch_utterances=3, learning_rate=1, warmup_steps=1),
            augmentation=Augmentation(),
        )
