"""Predictor, joint network, normalisation and parameter count."""

from __future__ import annotations

import pytest
import torch

from asr_distill.experiment import ModelSize
from asr_distill.models.transducer import BLANK, Transducer

VOCABULARY, BINS = 7, 5


def size(**predictor):
    return ModelSize.model_validate(
        {
            "encoder": {"layers": 1, "dim": 8, "heads": 2, "feed_forward": 12, "stack": 2},
            "predictor": {"dim": 6, **predictor},
            "joint": 9,
        }
    )


def transducer(**predictor):
    torch.manual_seed(0)
    return Transducer(size(**predictor), vocabulary=VOCABULARY, mel_bins=BINS).eval()


@pytest.mark.parametrize("units", [None, 11])
@pytest.mark.parametrize("layers", [1, 2])
@torch.inference_mode()
def test_label_by_label_equals_the_whole_transcript(layers, units):
    predictor = transducer(layers=layers, units=units).predictor
    labels = torch.tensor([[3, 1, 1, 6], [2, 5, 4, 1]])
    whole = predictor(labels)
    output, state = predictor.initial_state(batch=2)
    outputs = [output]
    for column in labels.unbind(dim=1):
        output, state = predictor.step(column, state)
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs, dim=1), whole)


@torch.inference_mode()
def test_the_predictor_knows_only_the_labels_before():
    predictor = transducer().predictor
    first, second = predictor(torch.tensor([[3, 1, 4], [3, 2, 4]]))
    assert torch.equal(first[:2], second[:2])
    assert not torch.allclose(first[2], second[2])
    torch.testing.assert_close(predictor(torch.zeros(1, 0, dtype=torch.long))[0], first[:1])


@torch.inference_mode()
def test_the_joint_network_by_hand():
    model = transducer()
    encoder, predictor = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0))
    expected = torch.tanh(encoder + predictor) @ model.joint.output.weight.T + model.joint.output.bias
    torch.testing.assert_close(model.joint(encoder, predictor), expected)
    assert expected.shape == (4, VOCABULARY)
    assert model.joint.predictor.bias is None


@torch.inference_mode()
def test_normalised_features_have_mean_0_and_deviation_1_and_silent_padding():
    model = transducer()
    features = 3 + 2 * torch.randn(2, 400, BINS, generator=torch.Generator().manual_seed(0))
    model.feature_mean.fill_(3.0)
    model.feature_deviation.fill_(2.0)
    lengths = torch.tensor([400, 250])
    normalised = model.normalise(features, lengths)
    assert not normalised[1, 250:].any()
    speech = torch.cat([normalised[0], normalised[1, :250]])
    torch.testing.assert_close(speech.mean(dim=0), torch.zeros(BINS), atol=0.15, rtol=0)
    torch.testing.assert_close(speech.std(dim=0), torch.ones(BINS), atol=0.1, rtol=0)
    torch.testing.assert_close(normalised[0], (features[0] - 3) / 2)


def test_the_ctc_head_does_not_count_as_a_parameter():
    model = transducer()
    head = 8 * VOCABULARY + VOCABULARY
    assert model.num_parameters() == sum(p.numel() for p in model.parameters()) - head
    joint = (8 + 1) * 9 + 6 * 9 + (9 + 1) * VOCABULARY
    predictor = VOCABULARY * 6 + 4 * 6 * (6 + 6 + 2)
    encoder = sum(p.numel() for p in model.encoder.parameters())
    assert model.num_parameters() == joint + predictor + encoder


def test_predictor_dropout_acts_in_training_only():
    predictor = transducer(dropout=0.5).predictor
    labels = torch.full((1, 20), BLANK + 1)
    assert torch.equal(predictor(labels), predictor(labels))
    predictor.train()
    assert not torch.allclose(predictor(labels), predictor(labels))
