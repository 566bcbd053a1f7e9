"""Models on disk: safetensors, with what is needed to rebuild them in the metadata."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from asr_distill.experiment import ModelSize
from asr_distill.files import replacing
from asr_distill.models.transducer import Transducer


def save_model(model: Transducer, path: Path, *, tokenizer: str) -> None:
    """Write the model atomically; `tokenizer` is the fingerprint of the tokens that it was trained on."""
    metadata = {
        "size": model.size.model_dump_json(),
        "vocabulary": str(model.vocabulary),
        "mel_bins": str(model.mel_bins),
        "tokenizer": tokenizer,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_model(path: Path, *, tokenizer: str, device: torch.device | str = "cpu") -> Transducer:
    """Read a model for inference, in evaluation mode.

    Raises:
        ValueError: when the file is no model of this project or was trained on other tokens than `tokenizer`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
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
    size = ModelSize.model_validate_json(metadata["size"])
    model = Transducer(size, vocabulary=int(metadata["vocabulary"]), mel_bins=int(metadata["mel_bins"]))
    model.load_state_dict(tensors)
    return model.to(device).eval()
