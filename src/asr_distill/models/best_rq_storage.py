"""Pre-trained encoders on disk, from which recognisers are initialised."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from asr_distill.experiment import EncoderSize
from asr_distill.models.best_rq import EXPORTED, BestRQ
from asr_distill.models.conformer import Conformer
from asr_distill.models.tensor_files import UNNAMED, read_tensors, write_tensors

ENCODER = "encoder"
NO_TOKENIZER = ""
"""Pre-training knows no tokens."""
FREE = {"dropout"}
"""What may differ between pre-training and what follows: it is no part of the function that was learnt."""


def save_encoder(model: BestRQ, path: Path) -> None:
    """Write encoder and feature statistics atomically, without quantizer and head."""
    metadata = {"kind": ENCODER, "size": model.size.model_dump(mode="json")}
    metadata |= {"mel_bins": model.mel_bins, "tokenizer": NO_TOKENIZER}
    write_tensors(path, model.exported_state(), metadata=metadata)


def load_encoder(path: Path, *, size: EncoderSize, mel_bins: int) -> dict[str, Tensor]:
    """Return encoder and feature statistics, all of them and under the names that they have in a recogniser.

    So `recogniser.load_state_dict(tensors, strict=False)` initialises all of its encoder.

    Args:
        path: what `save_encoder` wrote, or a transducer, whose encoder is returned.
        size: of the encoder to be initialised.
        mel_bins: of its features.

    Raises:
        ValueError: when the file is no such encoder of this project, is damaged, or holds one of another size: naming
            what differs.
    """
    tensors, metadata = read_tensors(path, kind=(ENCODER, UNNAMED), tokenizer=None)
    found = metadata["size"]
    if metadata["kind"] == UNNAMED:
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(EXPORTED)}
        found = found["encoder"]
    found = {**found, "mel_bins": metadata["mel_bins"]}
    needed = {**size.model_dump(mode="json"), "mel_bins": mel_bins}
    other = [key for key in {**needed, **found} if key not in FREE and found.get(key) != needed.get(key)]
    if other:
        differences = ", ".join(f"{key} {found.get(key)} instead of {needed.get(key)}" for key in other)
        raise ValueError(f"{path}: holds an encoder with {differences}; pre-train one of the recogniser's size")
    with torch.device("meta"):
        encoder = Conformer(size, mel_bins=mel_bins).state_dict()
    expected = {f"encoder.{name}": x.shape for name, x in encoder.items()}
    expected |= dict.fromkeys(("feature_mean", "feature_deviation"), (mel_bins,))
    if {name: x.shape for name, x in tensors.items()} != expected:
        raise ValueError(f"{path}: was written by another version of asr-distill; delete it and train again")
    return tensors
