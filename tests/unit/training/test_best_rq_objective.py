"""What pre-training minimises: the loss by hand, what it depends on, and that it falls."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch

from asr_distill.experiment import EncoderSize, Phase, SpanMasking
from asr_distill.models.best_rq import BestRQ, mask_spans
from asr_distill.training.best_rq_objective import BestRQObjective
from asr_distill.training.objective import Batch
from asr_distill.training.optimisation import make_optimizer

BINS, STACK = 6, 2
MASKING = SpanMasking(probability=0.05, span=6)


def student(*, quantizer_seed=0, dropout=0.0, codebooks=2):
    size = {"layers": 1, "dim": 16, "heads": 2, "feed_forward": 32, "stack": STACK, "dropout": dropout}
    options = {"quantizer_seed": quantizer_seed, "codebooks": codebooks, "codes": 9, "code_dim": 4}
    torch.manual_seed(1)
    model = BestRQ(EncoderSize.model_validate(size), mel_bins=BINS, **options)
    model.feature_mean.fill_(2.0)
    model.feature_deviation.fill_(3.0)
    return model


@pytest.fixture
def batch():
    features = 2 + 3 * torch.randn(3, 41, BINS, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([41, 20, 5])
    nothing = torch.zeros(3, dtype=torch.long)
    return Batch(features=features, feature_lengths=lengths, labels=nothing[:, None], label_lengths=nothing)


def generator(seed=5):
    return torch.Generator().manual_seed(seed)


def masked(model, batch, *, seed=5):
    clean = model.normalise(batch.features, batch.feature_lengths)
    return mask_spans(clean, batch.feature_lengths, stack=STACK, masking=MASKING, generator=generator(seed))


def loss_of(model, batch, *, seed=5, **options):
    return BestRQObjective(model, masking=MASKING)(batch, generator=generator(seed), **options)


@torch.no_grad()
def test_the_loss_is_the_mean_over_hidden_frames_and_codebooks(batch):
    model = student()
    heard, hidden = masked(model, batch)
    states, _ = model.encoder(heard, batch.feature_lengths)
    losses = []
    for row, length in enumerate(batch.feature_lengths.tolist()):
        clean = (batch.features[row, :length] - 2) / 3
        clean = torch.cat([clean, torch.zeros(length % STACK, BINS)]).view(-1, STACK * BINS)
        for frame in hidden[row].nonzero()[:, 0].tolist():
            probabilities = model.head(states[row, frame]).view(2, 9).softmax(dim=-1)
            for book in range(2):
                code = (clean[frame] @ model.quantizer.projection[book] @ model.quantizer.codebook[book].T).argmax()
                losses.append(-math.log(probabilities[book, code]))
    assert len(losses) == 2 * int(hidden.sum()) > 20
    assert float(loss_of(model, batch)) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_only_hidden_frames_matter(batch):
    model = student()
    _, hidden = masked(model, batch)
    expected = loss_of(model, batch)
    where = {"shown": ~hidden, "hidden": hidden}
    changed = {}
    for name, frames in where.items():
        hook = model.encoder.register_forward_hook(
            lambda _, __, out, frames=frames: (out[0] + frames[:, :, None] * torch.arange(16), out[1])
        )
        changed[name] = loss_of(model, batch)
        hook.remove()
    assert torch.equal(changed["shown"], expected)
    assert not torch.equal(changed["hidden"], expected)


def test_what_is_hidden_is_not_heard_but_asked_about(batch):
    model, heard = student(), []
    _, hidden = masked(model, batch)
    model.encoder.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    loss = loss_of(model, batch)
    behind = hidden.repeat_interleave(STACK, dim=1)[:, :41, None]
    other = dataclasses.replace(batch, features=batch.features + 5 * behind * torch.arange(BINS))
    assert not torch.equal(loss_of(model, other), loss)
    assert torch.equal(heard[0], heard[1])


def test_the_generator_decides_and_labels_do_not(batch):
    model = student()
    loss = loss_of(model, batch)
    assert torch.equal(loss_of(model, batch), loss)
    assert not torch.equal(loss_of(model, batch, seed=6), loss)
    labelled = dataclasses.replace(batch, labels=torch.ones(3, 2).long(), label_lengths=torch.tensor([2, 1, 0]))
    assert torch.equal(loss_of(model, labelled, ctc_only=True), loss)


@pytest.mark.parametrize("precision", ["autocast", "bfloat16 head"])
def test_the_loss_is_float32_where_logits_are_not(batch, precision):
    model = student()
    expected = loss_of(model, batch)
    if precision == "bfloat16 head":
        model.head.register_forward_hook(lambda _, __, out: out.bfloat16())
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        loss = loss_of(model, batch)
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=0.02)


def steps(model, optimizer, batch, *, first, last):
    """Train for some steps and return their losses."""
    objective, losses = BestRQObjective(model, masking=MASKING).train(), []
    for step in range(first, last):
        torch.manual_seed(step)
        loss = objective(batch, generator=generator(step))
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in objective.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.fixture(scope="module")
def phase():
    return Phase(steps=60, batch_utterances=4, learning_rate=1e-2, warmup_steps=0)


def test_the_loss_falls_where_speech_tells_what_is_hidden(phase):
    # Each utterance repeats one frame of its own, so the frames around a span tell what it hides.
    frames = 2 + 3 * torch.randn(4, 1, BINS, generator=torch.Generator().manual_seed(2))
    features, nothing = frames.repeat(1, 40, 1), torch.zeros(4, dtype=torch.long)
    batch = Batch(
        features=features,
        feature_lengths=torch.full((4,), 40),
        labels=nothing[:, None],
        label_lengths=nothing,
    )
    model = student(codebooks=1)
    losses = steps(model, make_optimizer(model, phase=phase), batch, first=0, last=60)
    assert losses[0] == pytest.approx(math.log(9), abs=0.7)
    assert sum(losses[-5:]) / 5 < 0.2


def test_a_resumed_training_goes_on_with_the_same_targets(batch, phase, tmp_path):
    model = student(dropout=0.1)
    quantizer = copy.deepcopy(model.quantizer.state_dict())
    optimizer = make_optimizer(model, phase=phase)
    steps(model, optimizer, batch, first=0, last=3)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    expected = steps(model, optimizer, batch, first=3, last=6)
    for name, tensor in model.quantizer.state_dict().items():
        assert torch.equal(tensor, quantizer[name])
    assert not torch.equal(model.encoder.input.weight, student().encoder.input.weight)

    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = student(dropout=0.1, quantizer_seed=1)  # the seed of whoever resumes does not matter
    assert not torch.equal(resumed.quantizer.codebook, model.quantizer.codebook)
    resumed.load_state_dict(state["model"])
    optimizer = make_optimizer(resumed, phase=phase)
    optimizer.load_state_dict(state["optimizer"])
    assert steps(resumed, optimizer, batch, first=3, last=6) == expected
    assert all(torch.equal(x, model.state_dict()[name]) for name, x in resumed.state_dict().items())
