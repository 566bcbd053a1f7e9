"""CTC recognisers and attention decoders on disk."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from asr_distill.experiment import CTCSize, ModelSize
from asr_distill.models.ctc import CTCModel
from asr_distill.models.ctc_storage import load_ctc, load_decoder, save_ctc, save_decoder
from asr_distill.models.storage import save_model
from asr_distill.models.tensor_files import KEY
from asr_distill.models.transducer import Transducer

ENCODER = {"layers": 2, "dim": 8, "heads": 2, "feed_forward": 12, "stack": 2, "activation": "swish"}


@pytest.fixture
def model():
    decoder = {"layers": 1, "heads": 2, "dim": 6, "feed_forward": 10}
    torch.manual_seed(0)
    model = CTCModel(
        CTCSize.model_validate({"encoder": ENCODER, "decoder": decoder}), vocabulary=7, mel_bins=5, hidden_dim=4
    )
    model.feature_mean.normal_()
    return model.train()


def equal(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_a_loaded_recogniser_is_the_saved_one_without_decoder(tmp_path, model):
    path = tmp_path / "model.safetensors"
    save_ctc(model, path, tokenizer="abc")
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    loaded = load_ctc(path, tokenizer="abc")
    assert (loaded.size.encoder, loaded.vocabulary, loaded.mel_bins) == (model.size.encoder, 7, 5)
    assert loaded.decoder is None
    assert not loaded.training
    assert equal(loaded.state_dict(), model.exported_state())
    assert sum(p.numel() for p in loaded.parameters()) == model.num_parameters()


def test_a_loaded_decoder_is_the_saved_one(tmp_path, model):
    path = tmp_path / "decoder.safetensors"
    save_decoder(model.decoder, path, tokenizer="abc")
    loaded = load_decoder(path, tokenizer="abc")
    assert (loaded.size, loaded.vocabulary, loaded.encoder_dim) == (model.decoder.size, 7, 8)
    assert not loaded.training
    assert equal(loaded.state_dict(), model.decoder.state_dict())


def test_equal_models_are_equal_files(tmp_path, model):
    for name in ("a", "b"):
        save_ctc(model, tmp_path / name, tokenizer="abc")
        save_decoder(model.decoder, tmp_path / f"decoder_{name}", tokenizer="abc")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "decoder_a").read_bytes() == (tmp_path / "decoder_b").read_bytes()


def test_other_kinds_of_models_are_refused(tmp_path, model):
    save_ctc(model, tmp_path / "ctc", tokenizer="abc")
    save_decoder(model.decoder, tmp_path / "decoder", tokenizer="abc")
    size = ModelSize.model_validate({"encoder": ENCODER, "predictor": {"dim": 6}, "joint": 9})
    save_model(Transducer(size, vocabulary=7, mel_bins=5), tmp_path / "transducer", tokenizer="abc")
    for name, kind in (("decoder", "attention decoder"), ("transducer", "transducer")):
        with pytest.raises(ValueError, match=f"{name}: holds a model of kind '{kind}' where 'ctc' is needed"):
            load_ctc(tmp_path / name, tokenizer="abc")
    with pytest.raises(ValueError, match="holds a model of kind 'ctc' where 'attention decoder' is needed"):
        load_decoder(tmp_path / "ctc", tokenizer="abc")


@pytest.mark.parametrize("load", [load_ctc, load_decoder])
def test_other_files_are_refused(tmp_path, model, load):
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match=r"model\.safetensors: not readable as safetensors \(.+\); delete it and run"):
        load(path, tokenizer="abc")
    save_file({"weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="has no model size in its metadata; it was not written by asr-distill"):
        load(path, tokenizer="abc")
    if load is load_ctc:
        save_ctc(model, path, tokenizer="abc")
    else:
        save_decoder(model.decoder, path, tokenizer="abc")
    with pytest.raises(ValueError, match=r"model\.safetensors: was trained on the tokens abc, not xyz; delete"):
        load(path, tokenizer="xyz")
    kind = "ctc" if load is load_ctc else "attention decoder"
    about = {"size": {"layers": 1, "width": 2}, "kind": kind, "tokenizer": "abc"}
    save_file({"weight": torch.zeros(2)}, path, metadata={KEY: json.dumps(about)})
    with pytest.raises(ValueError, match="was written by another version of asr-distill; delete it and train again"):
        load(path, tokenizer="abc")
