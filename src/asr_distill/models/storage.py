"""Models on disk: safetensors, with what is needed to rebuild them in the metadata."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import ValidationError

from asr_distill.experiment import ModelSize
from asr_distill.models.tensor_files import read_tensors, write_tensors
from asr_distill.models.transducer import Transducer


def save_model(model: Transducer, path: Path, *, tokenizer: str) -> None:
    """Write the model atomically; `tokenizer` is the fingerprint of the tokens that it was trained on."""
    metadata = {
        "size": model.size.model_dump(mode="json"),
        "vocabulary": model.vocabulary,
        "mel_bins": model.mel_bins,
        "tokenizer": tokenizer,
    }
    write_tensors(path, model.state_dict(), metadata=metadata)


def load_model(path: Path, *, tokenizer: str, device: torch.device | str = "cpu") -> Transducer:
    """Read a model for inference, in evaluation mode.

    Raises:
        ValueError: when the file is no model of this project or was trained on other tokens than `tokenizer`.
    """
    tensors, metadata = read_tensors(path, kind="transducer", tokenizer=tokenizer)
    try:
        size = ModelSize.model_validate(metadata["size"])
    except ValidationError:
        raise ValueError(f"{path}: was written by another version of asr-distill; delete it and train again") from None
    model = Transducer(size, vocabulary=metadata["vocabulary"], mel_bins=metadata["mel_bins"])
    model.load_state_dict(tensors)
    return model.to(device).eval()
