"""Parameters and operations counted from sizes alone are those of the models, on PyTorch's meta device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from asr_distill.experiment import BertSize, CTCSize, ModelSize, load_experiment
from asr_distill.models.ctc import CTCModel
from asr_distill.models.transducer import Transducer
from asr_distill.planning import footprint, work
from asr_distill.text.masked_lm import MaskedVocabulary, new_bert, token_logits

ROOT = Path(__file__).parents[3]
BINS, VOCABULARY = 80, 50
ENCODER = {"layers": 3, "dim": 64, "heads": 4, "feed_forward": 192, "kernel": 7, "stack": 4}
SIZES = [
    {"encoder": ENCODER, "predictor": {"dim": 24}, "joint": 40},
    {"encoder": ENCODER, "predictor": {"dim": 24, "layers": 2, "units": 56}, "joint": 40},
    {
        "encoder": ENCODER | {"streaming": True, "right_context": 0, "stack": 6},
        "predictor": {"dim": 32, "layers": 2},
        "joint": 16,
    },
]
DECODERS = [
    {"layers": 2, "heads": 2, "dim": 64, "feed_forward": 96},
    {"layers": 1, "heads": 2, "dim": 32, "feed_forward": 96},
]
BERT = BertSize(layers=2, heads=4, dim=64, feed_forward=128, max_tokens=70)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(build):
    with torch.device("meta"):
        return build()


def operations(run):
    """Return the operations that PyTorch counts: two for a multiplication with its addition."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("values", SIZES)
def test_parameters_of_a_transducer(values):
    size = ModelSize.model_validate(values)
    model = on_meta(lambda: Transducer(size, vocabulary=VOCABULARY, mel_bins=BINS))
    assert work.encoder_parameters(size.encoder, mel_bins=BINS) == count(model.encoder)
    assert work.predictor_parameters(size.predictor, vocabulary=VOCABULARY) == count(model.predictor)
    assert work.transducer_parameters(size, vocabulary=VOCABULARY, mel_bins=BINS) == model.num_parameters()


@pytest.mark.parametrize("decoder", DECODERS)
def test_parameters_of_a_ctc_recogniser(decoder):
    size = CTCSize.model_validate({"encoder": ENCODER, "decoder": decoder})
    model = on_meta(lambda: CTCModel(size, vocabulary=VOCABULARY, mel_bins=BINS))
    assert work.ctc_parameters(size, vocabulary=VOCABULARY, mel_bins=BINS) == model.num_parameters()
    found = work.decoder_parameters(size.decoder, vocabulary=VOCABULARY, encoder_dim=size.encoder.dim)
    assert found == count(model.decoder)


def test_parameters_of_bert():
    model = on_meta(lambda: new_bert(BERT, vocabulary=MaskedVocabulary(VOCABULARY)))
    assert work.bert_parameters(BERT, vocabulary=VOCABULARY) == model.num_parameters()


@pytest.mark.parametrize("name", ["mini", "an4", "librispeech_mini", "librispeech_960"])
def test_parameters_of_the_models_of_our_scales(name):
    scale = load_experiment({"scale": name}, root=ROOT).scale
    for size in scale.models.values():
        vocabulary = scale.tokenizer.vocabulary
        model = on_meta(lambda size=size, v=vocabulary: Transducer(size, vocabulary=v, mel_bins=BINS))
        assert work.transducer_parameters(size, vocabulary=vocabulary, mel_bins=BINS) == model.num_parameters()


@pytest.mark.parametrize("values", SIZES)
def test_operations_of_an_encoder(values):
    size = ModelSize.model_validate(values).encoder
    model = on_meta(lambda: Transducer(ModelSize.model_validate(values), vocabulary=VOCABULARY, mel_bins=BINS))
    frames = 25 * size.stack
    counted = operations(lambda: model.encode(torch.empty(1, frames, BINS, device="meta"), torch.tensor([frames])))
    assert work.encoder_operations(size, frames=25, mel_bins=BINS) == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("values", SIZES)
def test_operations_of_predictor_and_joint(values):
    size = ModelSize.model_validate(values)
    model = on_meta(lambda: Transducer(size, vocabulary=VOCABULARY, mel_bins=BINS))
    labels = torch.zeros(1, 9, dtype=torch.long, device="meta")
    counted = operations(lambda: model.predictor(labels))
    assert work.predictor_operations(size.predictor, labels=9) == pytest.approx(counted, rel=0.01)
    encoder, predictor = (torch.empty(1, *shape, device="meta") for shape in ((8, 1, 64), (1, 10, size.predictor.dim)))
    projected = operations(lambda: (model.joint.encoder(encoder), model.joint.predictor(predictor)))
    assert work.projection_operations(size, frames=8, labels=9) == projected
    at_nodes = operations(lambda: model.joint.output(torch.empty(8, 10, size.joint, device="meta")))
    assert work.lattice_operations(size, frames=8, labels=9, vocabulary=VOCABULARY) == at_nodes


@pytest.mark.parametrize("decoder", DECODERS)
def test_operations_of_an_attention_decoder(decoder):
    size = CTCSize.model_validate({"encoder": ENCODER, "decoder": decoder})
    model = on_meta(lambda: CTCModel(size, vocabulary=VOCABULARY, mel_bins=BINS))
    states, labels = torch.empty(1, 30, 64, device="meta"), torch.zeros(1, 9, dtype=torch.long, device="meta")
    counted = operations(lambda: model.decoder(states, torch.tensor([30]), labels, torch.tensor([9])))
    found = work.decoder_operations(size.decoder, frames=30, labels=9, vocabulary=VOCABULARY, encoder_dim=64)
    assert found == pytest.approx(counted, rel=0.01)


def test_operations_of_bert():
    model = on_meta(lambda: new_bert(BERT, vocabulary=MaskedVocabulary(VOCABULARY)))
    tokens = torch.ones(3, 40, dtype=torch.long, device="meta")
    counted = operations(lambda: token_logits(model, model.bert(tokens).last_hidden_state[:, :6].flatten(0, 1)))
    found = work.bert_operations(BERT, tokens=120, length=40, guessed=18, vocabulary=VOCABULARY)
    assert found == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize(("layers", "dim"), [(2, 256), (4, 512)])
def test_numbers_that_an_encoder_keeps_for_its_gradients(layers, dim):
    wide = {"layers": layers, "dim": dim, "heads": 8, "feed_forward": 4 * dim}
    size = ModelSize.model_validate({"encoder": wide, "predictor": {"dim": 8}, "joint": 8})
    model = on_meta(lambda: Transducer(size, vocabulary=VOCABULARY, mel_bins=BINS)).train()
    parameters = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states, _ = model.encode(torch.empty(1, 800, BINS, device="meta"), torch.tensor([800]))
    assert states.shape == (1, 200, dim)
    numbers = sum(kept.values()) / 4 / (200 * layers * dim)
    assert numbers == pytest.approx(footprint.SAVED_NUMBERS, rel=0.1)
