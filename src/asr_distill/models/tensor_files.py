"""Models as safetensors whose metadata says what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from asr_distill.files import replacing

KEY = "asr_distill"
"""The one key of the metadata: safetensors writes several in random order, and equal models are to be equal files."""
UNNAMED = "transducer"
"""The kind of files whose metadata names none."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, Any]) -> None:
    """Write tensors atomically; `metadata` is anything that JSON can hold."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={KEY: json.dumps(metadata)})


def read_tensors(
    path: Path, *, kind: str | tuple[str, ...], tokenizer: str | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a model file, and its metadata, where `kind` always stands.

    Args:
        path: what `write_tensors` wrote.
        kind: of the model, or all kinds that will do.
        tokenizer: fingerprint of its tokens; None where they do not matter.

    Raises:
        ValueError: when the file is no model of this project, holds another kind of model, or one that was trained on
            other tokens than those of the fingerprint `tokenizer`.
    """
    kinds = (kind,) if isinstance(kind, str) else kind
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not readable as safetensors ({error}); delete it and run again") from None
    if "size" not in metadata:
        raise ValueError(f"{path}: has no model size in its metadata; it was not written by asr-distill")
    if (found := metadata.setdefault("kind", UNNAMED)) not in kinds:
        needed = " or ".join(f"'{kind}'" for kind in kinds)
        raise ValueError(f"{path}: holds a model of kind '{found}' where {needed} is needed")
    if tokenizer not in (None, metadata["tokenizer"]):
        raise ValueError(
            f"{path}: was trained on the tokens {metadata['tokenizer']}, not {tokenizer}; "
            "delete the model or restore its tokenizer"
        )
    return tensors, metadata
