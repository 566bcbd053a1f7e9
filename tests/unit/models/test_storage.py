"""Models on disk."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from asr_distill.experiment import ModelSize
from asr_distill.models.storage import load_model, save_model
from asr_distill.models.transducer import Transducer


@pytest.fixture
def model():
    size = ModelSize.model_validate(
        {
            "encoder": {
                "layers": 2,
                "dim": 8,
                "heads": 2,
                "feed_forward": 12,
                "stack": 2,
                "left_context": 5,
                "streaming": True,
                "right_context": 0,
                "activation": "swish",
            },
            "predictor": {"dim": 6},
            "joint": 9,
        }
    )
    torch.manual_seed(0)
    model = Transducer(size, vocabulary=7, mel_bins=5)
    model.feature_mean.normal_()
    return model.train()


def test_a_loaded_model_is_the_saved_one(tmp_path, model):
    path = tmp_path / "model.safetensors"
    save_model(model, path, tokenizer="abc")
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    loaded = load_model(path, tokenizer="abc")
    assert (loaded.size, loaded.vocabulary, loaded.mel_bins) == (model.size, 7, 5)
    assert not loaded.training
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    assert "feature_mean" in expected


def test_equal_models_are_equal_files(tmp_path, model):
    for name in ("a", "b"):
        save_model(model, tmp_path / name, tokenizer="abc")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_file_tells_what_it_is(tmp_path, model):
    save_model(model, tmp_path / "model.safetensors", tokenizer="abc")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        metadata = " ".join(file.metadata().values())
    assert all(word in metadata for word in ("left_context", "swish", "abc"))


def test_other_tokens_are_refused(tmp_path, model):
    path = tmp_path / "model.safetensors"
    save_model(model, path, tokenizer="abc")
    with pytest.raises(ValueError, match=r"model\.safetensors: was trained on the tokens abc, not xyz; delete"):
        load_model(path, tokenizer="xyz")


@pytest.mark.parametrize("content", [b"", b"no safetensors at all, but longer than a header"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors: not readable as safetensors \(.+\); delete it and run"):
        load_model(path, tokenizer="abc")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.safetensors: not readable"):
        load_model(tmp_path / "absent.safetensors", tokenizer="abc")


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_truncated_files_are_refused(tmp_path, model, share):
    path = tmp_path / "model.safetensors"
    save_model(model, path, tokenizer="abc")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="not readable as safetensors"):
        load_model(path, tokenizer="abc")


def test_safetensors_of_others_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="has no model size in its metadata; it was not written by asr-distill"):
        load_model(path, tokenizer="abc")
