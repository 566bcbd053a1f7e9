"""What CTC recognisers minimise, against direct calls of the losses."""

from __future__ import annotations

import pytest
import torch

from asr_distill.experiment import Augmentation, CTCRun, CTCSize
from asr_distill.losses.ctc import ctc
from asr_distill.losses.ctc_alignment import ctc_best_alignment
from asr_distill.losses.joint import LatticeLengths
from asr_distill.losses.language_model import cross_entropy, frame_topk_divergence, hidden_regression, topk_divergence
from asr_distill.models.ctc import CTCModel
from asr_distill.text.soft_labels import SoftLabels
from asr_distill.training.ctc_objective import CTCObjective, padded_soft_labels
from asr_distill.training.objective import Batch

BINS, VOCABULARY, HIDDEN = 6, 7, 5
LABELS = {"a": [1, 2, 3], "b": [4], "c": []}


def model(*, decoder=True, hidden_dim=None):
    size = {"encoder": {"layers": 4, "dim": 8, "heads": 2, "feed_forward": 16, "stack": 2, "dropout": 0}}
    if decoder:
        size["decoder"] = {"layers": 1, "heads": 2, "dim": 8, "feed_forward": 16, "dropout": 0}
    torch.manual_seed(1)
    return CTCModel(CTCSize.model_validate(size), vocabulary=VOCABULARY, mel_bins=BINS, hidden_dim=hidden_dim)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return Batch(
        features=torch.randn(3, 21, BINS, generator=generator),
        feature_lengths=torch.tensor([21, 12, 15]),
        labels=torch.tensor([[1, 2, 3], [4, 0, 0], [0, 0, 0]]),
        label_lengths=torch.tensor([3, 1, 0]),
        utterances=("a", "b", "c"),
    )


@pytest.fixture
def soft_labels():
    generator = torch.Generator().manual_seed(2)
    probabilities, ids = torch.rand(4, VOCABULARY - 1, generator=generator).softmax(dim=1).sort(dim=1, descending=True)
    return SoftLabels(
        spans={"a": (0, 3), "b": (3, 4), "c": (4, 4)},
        ids=(ids + 1).int(),
        probabilities=probabilities,
        tokens=torch.tensor([1, 2, 3, 4], dtype=torch.int32),
        hidden=torch.randn(4, HIDDEN, generator=generator).half(),
        about={},
    )


def objective(student, soft_labels=None, **run):
    run = CTCRun.model_validate({"recogniser": "ctc", "model": "m", "phase": "p", "augmentation": "a", **run})
    return CTCObjective(student, run=run, augmentation=Augmentation(), soft_labels=soft_labels)


def encoded(student, batch, *layers):
    features = student.normalise(batch.features, batch.feature_lengths)
    final, intermediate, frames = student.encode_layers(features, batch.feature_lengths, layers=layers)
    return final, intermediate, LatticeLengths(frames=frames, labels=batch.label_lengths)


def loss_of(objective, batch, **options):
    return objective(batch, generator=torch.Generator().manual_seed(5), **options)


def test_ctc_alone(batch):
    student = model(decoder=False)
    final, _, lengths = encoded(student, batch)
    expected = ctc(student.ctc_head(final), labels=batch.labels, lengths=lengths).sum() / lengths.frames.sum()
    torch.testing.assert_close(loss_of(objective(student), batch), expected)


@pytest.mark.parametrize(("intermediate", "layers"), [(0, [2]), (1, [2]), (3, [1, 2, 3])])
def test_intermediate_ctc_is_a_weighted_mean_over_layers(batch, intermediate, layers):
    student = model(decoder=False)
    final, states, lengths = encoded(student, batch, *layers)
    last, *others = (
        ctc(student.ctc_head(x), labels=batch.labels, lengths=lengths).sum()
        for x in (final, *(states[layer] for layer in layers))
    )
    expected = (0.7 * last + 0.3 * sum(others) / len(others)) / lengths.frames.sum()
    found = loss_of(objective(student, interctc=0.3, intermediate=intermediate), batch)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("decoder", ["cross_entropy", "bert"])
@pytest.mark.parametrize("intermediate", [0, 1])
@pytest.mark.parametrize("interctc", [0.0, 0.3])
def test_the_rows_of_table_1(batch, soft_labels, decoder, intermediate, interctc):
    student = model()
    final, states, lengths = encoded(student, batch, 2)
    run = {"decoder": decoder, "intermediate": intermediate, "interctc": interctc, "alpha": 0.6, "beta": 0.4}
    if decoder == "bert":
        run["knowledge"] = {"top_k": 3, "direction": "forward", "rest": "renormalise", "temperature": 2.0}

    def of_decoder(x):
        logits = student.decoder(x, lengths.frames, batch.labels, batch.label_lengths)
        if decoder == "cross_entropy":
            return cross_entropy(logits, batch.labels, batch.label_lengths).sum()
        ids, probabilities = padded_soft_labels(soft_labels.top(3), batch.utterances, device=x.device)
        options = {"direction": "forward", "rest": "renormalise", "temperature": 2.0}
        return topk_divergence(logits, ids, probabilities, batch.label_lengths, **options).sum()

    of_ctc = [ctc(student.ctc_head(x), labels=batch.labels, lengths=lengths).sum() for x in (final, states[2])]
    beta = 0.4 if intermediate else 0.0
    decoders = (1 - beta) * of_decoder(final) + beta * of_decoder(states[2])
    heads = (1 - interctc) * of_ctc[0] + interctc * of_ctc[1]
    expected = (0.4 * heads + 0.6 * decoders) / lengths.frames.sum()
    made = objective(student, soft_labels, **run)
    torch.testing.assert_close(loss_of(made, batch), expected)
    torch.testing.assert_close(loss_of(made, batch, ctc_only=True), heads / lengths.frames.sum())


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_hidden_states_can_be_learnt_instead(batch, soft_labels, distance):
    student = model(hidden_dim=HIDDEN)
    final, _, lengths = encoded(student, batch)
    hidden = student.hidden_projection(student.decoder.hidden(final, lengths.frames, batch.labels, batch.label_lengths))
    target = torch.zeros(3, 3, HIDDEN)
    target[0], target[1, 0] = soft_labels.hidden[:3].float(), soft_labels.hidden[3].float()
    regression = hidden_regression(hidden, target, batch.label_lengths, distance=distance).sum()
    heads = ctc(student.ctc_head(final), labels=batch.labels, lengths=lengths).sum()
    expected = (0.3 * heads + 0.7 * regression) / lengths.frames.sum()
    run = {"decoder": "bert", "knowledge": {"hidden_states": distance, "top_k": 3}}
    torch.testing.assert_close(loss_of(objective(student, soft_labels, **run), batch), expected)


def test_knowledge_can_be_given_to_the_frames(batch, soft_labels):
    student = model(decoder=False)
    final, _, lengths = encoded(student, batch)
    logits = student.ctc_head(final)
    alignment = ctc_best_alignment(logits.log_softmax(dim=-1).detach(), labels=batch.labels, lengths=lengths)
    ids, probabilities = padded_soft_labels(soft_labels.top(2), batch.utterances, device=logits.device)
    frames = frame_topk_divergence(logits, ids, probabilities, alignment, temperature=3.0).sum()
    heads = ctc(logits, labels=batch.labels, lengths=lengths).sum()
    expected = (0.75 * heads + 0.25 * frames) / lengths.frames.sum()
    made = objective(student, soft_labels, frame_knowledge={"weight": 0.25, "top_k": 2})
    torch.testing.assert_close(loss_of(made, batch), expected)


def test_every_parameter_learns(batch, soft_labels):
    student = model()
    made = objective(student, soft_labels, decoder="bert", intermediate=1, interctc=0.3, knowledge={"top_k": 3})
    loss_of(made, batch).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert {id(p) for p in made.parameters()} == {id(p) for p in student.parameters()}


def test_a_run_that_learns_from_bert_needs_its_labels():
    with pytest.raises(ValueError, match="soft_labels: this run learns from BERT"):
        objective(model(), decoder="bert")
