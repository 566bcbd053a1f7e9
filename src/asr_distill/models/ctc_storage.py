"""CTC recognisers on disk: the recogniser in one file, and its attention decoder, where that is kept, in another."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from pydantic import ValidationError

from asr_distill.experiment import CTCSize, DecoderSize, Record
from asr_distill.models.attention_decoder import AttentionDecoder
from asr_distill.models.ctc import CTCModel
from asr_distill.models.tensor_files import read_tensors, write_tensors

RECOGNISER, DECODER = "ctc", "attention decoder"

Size = TypeVar("Size", bound=Record)


def save_ctc(model: CTCModel, path: Path, *, tokenizer: str) -> None:
    """Write what decoding needs, atomically: encoder, CTC head and normalisation, without the attention decoder.

    `tokenizer` is the fingerprint of the tokens that the model was trained on.
    """
    size = CTCSize(encoder=model.size.encoder)
    metadata = {"size": size.model_dump(mode="json"), "mel_bins": model.mel_bins}
    metadata |= {"kind": RECOGNISER, "vocabulary": model.vocabulary, "tokenizer": tokenizer}
    write_tensors(path, model.exported_state(), metadata=metadata)


def load_ctc(path: Path, *, tokenizer: str, device: torch.device | str = "cpu") -> CTCModel:
    """Read a recogniser without attention decoder for inference, in evaluation mode.

    Raises:
        ValueError: when the file is no CTC recogniser of this project or was trained on other tokens than `tokenizer`.
    """
    tensors, metadata = read_tensors(path, kind=RECOGNISER, tokenizer=tokenizer)
    size = _size(path, CTCSize, metadata["size"])
    model = CTCModel(size, vocabulary=metadata["vocabulary"], mel_bins=metadata["mel_bins"])
    model.load_state_dict(tensors)
    return model.to(device).eval()


def save_decoder(decoder: AttentionDecoder, path: Path, *, tokenizer: str) -> None:
    """Write the attention decoder atomically."""
    metadata = {"size": decoder.size.model_dump(mode="json"), "encoder_dim": decoder.encoder_dim}
    metadata |= {"kind": DECODER, "vocabulary": decoder.vocabulary, "tokenizer": tokenizer}
    write_tensors(path, decoder.state_dict(), metadata=metadata)


def load_decoder(path: Path, *, tokenizer: str, device: torch.device | str = "cpu") -> AttentionDecoder:
    """Read an attention decoder for inference, in evaluation mode.

    Raises:
        ValueError: when the file is no such decoder of this project or was trained on other tokens than `tokenizer`.
    """
    tensors, metadata = read_tensors(path, kind=DECODER, tokenizer=tokenizer)
    size = _size(path, DecoderSize, metadata["size"])
    decoder = AttentionDecoder(size, vocabulary=metadata["vocabulary"], encoder_dim=metadata["encoder_dim"])
    decoder.load_state_dict(tensors)
    return decoder.to(device).eval()


def _size(path: Path, record: type[Size], values: object) -> Size:
    try:
        return record.model_validate(values)
    except ValidationError:
        raise ValueError(f"{path}: was written by another version of asr-distill; delete it and train again") from None
