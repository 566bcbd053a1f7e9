"""Soft labels of transcripts: what BERT thinks could stand at every token, found by masking each in turn.

Bai et al. 2019 (Learn Spelling from Teachers) and Hentschel et al. 2024 (arXiv 2401.11700) teach them to recognisers.

Layout legend: P positions (tokens) of all distinct transcripts together, L tokens of one transcript, K tokens kept of
each distribution, V tokens of the recogniser, D dimensions of BERT.

Probabilities are of the softmax over tokens 1 to V - 1: BERT's scores of the blank and of its own special tokens are
left out before, for no transcript holds them. The K highest are kept as they are, so they sum to less than 1.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from asr_distill.experiment import MaskKind
from asr_distill.files import replacing
from asr_distill.progress import Progress
from asr_distill.text.masked_lm import ask_one_by_one, bert_hash, check_length, load_bert, units, word_starts
from asr_distill.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)

KEY = "asr_distill"
"""The one key of the metadata: safetensors writes several in random order, and equal labels are to be equal files."""
BATCH_TOKENS = 2048
"""Tokens in a forward pass, marks included; on one core larger batches are slower, on a GPU they are faster."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SoftLabels:
    """Soft labels by utterance; utterances of one transcript share them."""

    spans: Mapping[str, tuple[int, int]]
    """Utterance id -> its first position and the one after its last."""
    ids: Tensor
    """Most probable tokens, (P, K) int32, the most probable first."""
    probabilities: Tensor
    """Theirs, (P, K) float32."""
    tokens: Tensor
    """What the transcripts say there, (P,) int32."""
    hidden: Tensor | None
    """BERT's last hidden states at the masked places, (P, D) float16, if they were asked for."""
    about: Mapping[str, Any]
    """`tokenizer` (fingerprint), `bert` (hash), `transcripts` (hash of ids and texts in order), `mask` (kind)."""
    source: str = "soft labels"
    """What error messages call them."""

    def __getitem__(self, utterance: str) -> tuple[Tensor, Tensor]:
        """Return an utterance's token ids (L, K) and their probabilities (L, K).

        Raises:
            ValueError: for an utterance that has no soft labels.
        """
        span = self._span(utterance)
        return self.ids[span], self.probabilities[span]

    def hidden_states(self, utterance: str) -> Tensor:
        """Return an utterance's hidden states, (L, D) float16.

        Raises:
            ValueError: for an utterance that has no soft labels, or when they were made without hidden states.
        """
        return self._all_hidden_states()[self._span(utterance)]

    @property
    def hidden_dim(self) -> int:
        """Return D.

        Raises:
            ValueError: when the labels were made without hidden states.
        """
        return self._all_hidden_states().shape[1]

    def check(self, transcripts: Mapping[str, Sequence[int]], *, mask: MaskKind) -> None:
        """Check that the labels are of these very transcripts, token ids by utterance id, asked for by these masks.

        Raises:
            ValueError: naming the first utterance that is missing or whose tokens differ.
        """
        if self.about.get("mask", mask) != mask:
            raise ValueError(f"{self.source}: BERT guessed every {self.about['mask']}, not every {mask}; make it anew")
        for utterance, tokens in transcripts.items():
            if self.tokens[self._span(utterance)].tolist() != list(tokens):
                raise ValueError(
                    f"{self.source}: is of another transcript of utterance '{utterance}' than the one trained on; make "
                    "it anew"
                )

    def top(self, k: int) -> Self:
        """Return the labels as if only the K = `k` most probable tokens had been kept.

        Raises:
            ValueError: when fewer are stored.
        """
        if not 1 <= k <= self.ids.shape[1]:
            raise ValueError(
                f"{self.source}: holds the {self.ids.shape[1]} most probable tokens of every position, not {k}; make "
                f"it with soft_label_top_k: {k} or more, or ask for fewer"
            )
        return replace(self, ids=self.ids[:, :k], probabilities=self.probabilities[:, :k])

    def save(self, path: Path) -> None:
        """Write the labels atomically; the same bytes for the same labels."""
        spans = torch.tensor(list(self.spans.values()), dtype=torch.int64).reshape(-1, 2)
        names = json.dumps(list(self.spans)).encode()  # may be more than the header can hold
        tensors = {
            "ids": self.ids.contiguous(),
            "probabilities": self.probabilities.contiguous(),
            "tokens": self.tokens,
            "spans": spans,
            "utterances": torch.frombuffer(bytearray(names), dtype=torch.uint8),
        }
        if self.hidden is not None:
            tensors["hidden"] = self.hidden
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={KEY: json.dumps(dict(self.about))})

    @classmethod
    def load(cls, path: Path, *, tokenizer: str) -> Self:
        """Read labels made for the tokens of the fingerprint `tokenizer`; needs no BERT. Arrays are mapped, not copied.

        Raises:
            ValueError: when the file holds no soft labels, or those of other tokens.
        """
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {}).get(KEY, "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path}: not readable as safetensors ({error}); delete it and run again") from None
        if not {"ids", "probabilities", "tokens", "spans", "utterances"} <= tensors.keys():
            raise ValueError(f"{path}: holds no soft labels; it was not written by asr-distill")
        if about.get("tokenizer") != tokenizer:
            raise ValueError(
                f"{path}: soft labels are of the tokens {about.get('tokenizer')}, not {tokenizer}; make them anew or "
                "restore their tokenizer"
            )
        utterances = json.loads(bytes(tensors.pop("utterances").numpy()))
        spans = map(tuple, tensors.pop("spans").tolist())
        return cls(
            spans=dict(zip(utterances, spans, strict=True)),
            **({"hidden": None} | tensors),
            about=about,
            source=str(path),
        )

    def _all_hidden_states(self) -> Tensor:
        if self.hidden is None:
            raise ValueError(f"{self.source}: holds no hidden states; make the soft labels with hidden_states")
        return self.hidden

    def _span(self, utterance: str) -> slice:
        if utterance not in self.spans:
            raise ValueError(f"{self.source}: has no utterance '{utterance}' among its {len(self.spans)}; make it anew")
        return slice(*self.spans[utterance])


def soft_labels(
    bert: Path,
    transcripts: Mapping[str, str],
    *,
    tokenizer: Tokenizer,
    top_k: int,
    mask: MaskKind = "token",
    hidden_states: bool = False,
    batch_tokens: int = BATCH_TOKENS,
    device: torch.device | str = "cpu",
) -> SoftLabels:
    """Ask the BERT of the folder `bert` for the soft labels of transcripts, by utterance id.

    With `mask="word"` all tokens of a word are masked at once, so that none can be guessed from the word's others.
    Every distinct transcript is asked for once. The order of the transcripts changes nothing but that of the ids.

    Raises:
        ValueError: when BERT knows other tokens, a transcript is too long for it, or there are fewer than `top_k`
            tokens.
    """
    if not 1 <= top_k < tokenizer.vocabulary:
        raise ValueError(f"top_k: found {top_k}; write 1 to {tokenizer.vocabulary - 1}, the number of tokens but blank")
    started = time.monotonic()
    model = load_bert(bert, tokenizer=tokenizer).to(device)
    tokens = {text: tuple(tokenizer.encode(text)) for text in set(transcripts.values())}
    for utterance, text in transcripts.items():
        check_length(len(tokens[text]), model=model, what=f"utterance '{utterance}'")
    lines = sorted(set(tokens.values()), key=lambda line: (len(line), line))  # whatever the order of the transcripts
    ends = dict(zip(lines, accumulate(map(len, lines)), strict=True))
    answers = _Answers(sum(map(len, lines)), top_k=top_k, dim=model.config.hidden_size if hidden_states else None)
    starts = word_starts(tokenizer)
    with Progress("soft labels", total=len({len(line) for line in lines})) as progress:
        for length, group in groupby((line for line in lines if line), key=len):
            batch = torch.tensor(list(group), device=device)  # (S, n)
            masks = units(batch, mask=mask, starts=starts)
            for logits, hidden in ask_one_by_one(model, batch, units=masks, batch_tokens=batch_tokens):
                answers.add(logits, hidden)
            progress.advance(f"of {length} tokens")
    seconds = time.monotonic() - started
    log.info("%d utterances, %d positions asked for in %.0f s", len(transcripts), len(answers.ids), seconds)
    return SoftLabels(
        spans={
            utterance: (ends[tokens[text]] - len(tokens[text]), ends[tokens[text]])
            for utterance, text in transcripts.items()
        },
        ids=answers.ids,
        probabilities=answers.probabilities,
        tokens=torch.tensor([token for line in lines for token in line], dtype=torch.int32),
        hidden=answers.hidden,
        about={
            "tokenizer": tokenizer.fingerprint,
            "bert": bert_hash(bert),
            "transcripts": transcripts_hash(transcripts),
            "mask": mask,
        },
    )


def transcripts_hash(transcripts: Mapping[str, str]) -> str:
    """Return what tells whether soft labels are of these utterances with these texts in this order."""
    return hashlib.sha256(json.dumps(list(transcripts.items())).encode()).hexdigest()[:16]


class _Answers:
    """Arrays of all positions, filled from their beginning, so that no distribution is kept whole."""

    def __init__(self, positions: int, *, top_k: int, dim: int | None):
        self.ids = torch.zeros(positions, top_k, dtype=torch.int32)
        self.probabilities = torch.zeros(positions, top_k)
        self.hidden = None if dim is None else torch.zeros(positions, dim, dtype=torch.float16)
        self._filled = 0

    def add(self, logits: Tensor, hidden: Tensor) -> None:
        """Take in the logits (M, V - 1) and hidden states (M, D) of the positions that follow."""
        span = slice(self._filled, self._filled + len(logits))
        highest, ids = torch.softmax(logits, dim=-1).topk(self.ids.shape[1], dim=-1)
        self.ids[span] = (ids + 1).to("cpu", torch.int32)  # the first logit is token 1's
        self.probabilities[span] = highest.cpu()
        if self.hidden is not None:
            self.hidden[span] = hidden.to("cpu", torch.float16)
        self._filled = span.stop
