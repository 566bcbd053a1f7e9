"""CTC recogniser: intermediate layers, what is shared, what is exported."""

from __future__ import annotations

import pytest
import torch

from asr_distill.experiment import CTCSize
from asr_distill.models.conformer import Conformer
from asr_distill.models.ctc import CTCModel

VOCABULARY, BINS = 7, 5
ENCODER = {"layers": 3, "dim": 8, "heads": 2, "feed_forward": 12, "stack": 2}
DECODER = {"layers": 1, "heads": 2, "dim": 6, "feed_forward": 10}


def recogniser(*, decoder=DECODER, **options):
    torch.manual_seed(0)
    size = CTCSize.model_validate({"encoder": ENCODER, "decoder": decoder})
    return CTCModel(size, vocabulary=VOCABULARY, mel_bins=BINS, **options).eval()


def features(*shape):
    return torch.randn(*shape, BINS, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_intermediate_states_are_those_of_the_encoder_cut_off_there():
    model = recogniser()
    inputs, lengths = features(2, 9), torch.tensor([9, 4])
    expected, frames = model.encode(inputs, lengths)
    states, intermediate, found_frames = model.encode_layers(inputs, lengths, layers=[2, 1])
    assert torch.equal(states, expected)
    assert found_frames.tolist() == frames.tolist() == [5, 2]
    assert list(intermediate) == [2, 1]
    for layers, found in intermediate.items():
        size = model.size.encoder.model_copy(update={"layers": layers})
        shallow = Conformer(size, mel_bins=BINS).eval()
        shallow.load_state_dict({k: model.encoder.state_dict()[k] for k in shallow.state_dict()})
        assert torch.equal(found, shallow(inputs, lengths)[0])
    assert model.encode_layers(inputs, lengths)[1] == {}
    assert torch.equal(model.encode_layers(inputs, lengths, layers=[3])[1][3], expected)


@torch.inference_mode()
def test_the_encoder_stops_at_the_last_layer_asked_for():
    model = recogniser()
    computed = []
    for number, layer in enumerate(model.encoder.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: computed.append(number))
    states, _ = model.encoder.states_after([2], features(1, 4), torch.tensor([4]))
    assert list(states) == [2]
    assert computed == [1, 2]


@pytest.mark.parametrize("layers", [[], [0], [1, 4]])
def test_layers_that_do_not_exist_are_refused(layers):
    with pytest.raises(ValueError, match="name some of the layers 1 to 3"):
        recogniser().encoder.states_after(layers, features(1, 4), torch.tensor([4]))


def test_an_intermediate_loss_trains_the_layers_below():
    model = recogniser()
    states, intermediate, lengths = model.encode_layers(features(1, 6), torch.tensor([6]), layers=[2])
    labels, counts = torch.tensor([[1, 2]]), torch.tensor([2])
    model.decoder(intermediate[2], lengths, labels, counts).square().sum().backward()
    trained = [layer.attention.output.weight.grad is not None for layer in model.encoder.layers]
    assert trained == [True, True, False]
    assert states.shape == intermediate[2].shape


def test_normalised_features_have_silent_padding():
    model = recogniser()
    model.feature_mean.fill_(3.0)
    model.feature_deviation.fill_(2.0)
    inputs = features(2, 6)
    normalised = model.normalise(inputs, torch.tensor([6, 4]))
    torch.testing.assert_close(normalised[0], (inputs[0] - 3) / 2)
    assert not normalised[1, 4:].any()


def test_only_encoder_and_ctc_head_count_and_are_exported():
    bare, full = recogniser(decoder=None), recogniser(hidden_dim=9)
    encoder = sum(p.numel() for p in bare.encoder.parameters())
    assert bare.num_parameters() == full.num_parameters() == encoder + (8 + 1) * VOCABULARY
    decoder = sum(p.numel() for p in full.decoder.parameters())
    assert decoder > (VOCABULARY + 1) * (6 + 6 + 1)
    assert sum(p.numel() for p in full.parameters()) == full.num_parameters() + decoder + (6 + 1) * 9
    assert full.exported_state().keys() == bare.state_dict().keys()
    assert "feature_mean" in full.exported_state()
    bare.load_state_dict(full.exported_state())
    inputs, lengths = features(1, 5), torch.tensor([5])
    assert torch.equal(bare.encode(inputs, lengths)[0], full.encode(inputs, lengths)[0])


def test_hidden_states_come_from_a_decoder():
    with pytest.raises(ValueError, match="hidden_dim: hidden states are an attention decoder's"):
        recogniser(decoder=None, hidden_dim=9)
    model = recogniser(hidden_dim=9)
    states, lengths = model.encode(features(2, 5), torch.tensor([5, 3]))
    hidden = model.decoder.hidden(states, lengths, torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1]))
    assert model.hidden_projection(hidden).shape == (2, 3, 9)
    assert recogniser().hidden_projection is None
