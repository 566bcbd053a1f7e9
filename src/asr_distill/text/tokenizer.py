"""Word pieces: a SentencePiece model whose token 0 is the transducer's blank."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import sentencepiece

BLANK = 0
UNKNOWN = 1
_META_PIECES = 2
_ERRORS_ONLY = 2
"""SentencePiece's minloglevel; the errors come as exceptions too."""
_LONGEST_LINE = 1 << 20
"""Bytes; SentencePiece would silently leave out lines above 4,192."""


class Tokenizer:
    """Turns normalised text into token ids and back. Token 0 is `<blank>`, token 1 the unknown; no sentence marks."""

    def __init__(self, model: bytes):
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocabulary: int = self._processor.get_piece_size()
        """Number of tokens, blank and unknown included."""
        self.fingerprint: str = hashlib.sha256(model).hexdigest()[:16]
        """Tells whether two models speak of the same tokens."""

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a model written by `estimate`.

        Raises:
            ValueError: where the file is missing or is no SentencePiece model with the blank at 0.
        """
        try:
            tokenizer = cls(Path(path).read_bytes())
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{path}: not readable as a tokenizer: {error}") from None
        if tokenizer.piece(BLANK) != "<blank>":
            raise ValueError(
                f"{path}: token 0 is '{tokenizer.piece(BLANK)}', not '<blank>'; estimate the tokenizer anew"
            )
        return tokenizer

    @staticmethod
    def estimate(lines: Iterable[str], *, vocabulary: int, type: str) -> bytes:  # noqa: A002 - the config's word
        """Return the serialised model of `vocabulary` tokens for normalised lines: the same bytes for the same lines.

        Raises:
            ValueError: where the text gives too few or needs more tokens, telling the possible number.
        """
        lines = [line for line in lines if line.strip()]
        if not lines:
            raise ValueError("tokenizer: no transcripts to estimate it on; are all labelled parts empty?")
        smallest = len(set("".join(lines)) - {" "}) + 1 + _META_PIECES  # the 1 marks the beginning of a word
        if vocabulary < smallest:
            raise ValueError(
                f"tokenizer.vocabulary: {vocabulary} is too small: the transcripts' characters, the mark of a word's "
                f"beginning, blank and unknown are {smallest} tokens; write at least {smallest}"
            )
        model, largest = _train(lines, vocabulary=vocabulary, type=type)
        if model is None:
            raise ValueError(
                f"tokenizer.vocabulary: {vocabulary} is too large: the transcripts allow at most {largest} tokens of "
                f"type {type}; write {largest} or less"
            )
        return model

    def encode(self, text: str) -> list[int]:
        """Return the token ids of normalised text."""
        return self._processor.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids; blanks vanish."""
        return self._processor.decode([int(token) for token in ids])

    def piece(self, token: int) -> str:
        """Return a token's spelling, in which U+2581 marks the beginning of a word."""
        return self._processor.id_to_piece(token)


def _train(lines: Sequence[str], *, vocabulary: int, type: str) -> tuple[bytes | None, int]:  # noqa: A002
    """Return the model, or None and the largest vocabulary that the text allows."""
    writer = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=writer,
            vocab_size=vocabulary,
            model_type=type,
            pad_id=BLANK,
            pad_piece="<blank>",
            unk_id=UNKNOWN,
            bos_id=-1,
            eos_id=-1,
            character_coverage=1.0,
            normalization_rule_name="identity",
            max_sentence_length=_LONGEST_LINE,
            num_threads=1,
            minloglevel=_ERRORS_ONLY,
        )
    except RuntimeError as error:
        largest = re.search(r"Vocabulary size too high.*<= (\d+)", str(error))
        if largest is None:
            raise
        return None, int(largest[1])
    model = writer.getvalue()
    size = Tokenizer(model).vocabulary  # of type char, SentencePiece silently returns fewer tokens than asked for
    return (model if size == vocabulary else None), size
