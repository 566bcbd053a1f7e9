"""Models on disk: safetensors, with what is needed to rebuild them in the metadata."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from asr_distill.experiment import ModelSize
from asr_distill.files import replacing
from asr_distill.models.transducer import Transducer

KEY = "asr_distill"
"""The one key of the metadata: safetensors writes several in random order, and equal models are to be equal files."""


def save_model(model: Transducer, path: Path, *, tokenizer: str) -> None:
    """Write the model atomically; `tokenizer` is the fingerprint of the tokens that it was trained on."""
    metadata = {
        "size": model.size.model_dump(mode="json"),
        "vocabulary": model.vocabulary,
        "mel_bins": model.mel_bins,
        "tokenizer": tokenizer,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={KEY: json.dumps(metadata)})


def load_model(path: Path, *, tokenizer: str, device: torch.device | str = "cpu") -> Transducer:
    """Read a model for inference, in evaluation mode.

    Raises:
        ValueError: when the file is no model of this project or was trained on other tokens than `tokenizer`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not readable as safetensors ({error}); delete it and run again") from None
    if "size" not in metadata:
        raise ValueError(f"{path}: has no model size in its metadata; it was not written by asr-distill")
    if metadata["tokenizer"] != tokenizer:
        raise ValueError(
            f"{path}: was trained on the tokens {metadata['tokenizer']}, not {tokenizer}; "
            "delete the model or restore its tokenizer"
        )
    try:
        size = ModelSize.model_validate(metadata["size"])
    except ValidationError:
        raise ValueError(f"{path}: was written by another version of asr-distill; delete it and train again") from None
    model = Transducer(size, vocabulary=metadata["vocabulary"], mel_bins=metadata["mel_bins"])
    model.load_state_dict(tensors)
    return model.to(device).eval()
