"""Text for training BERT: held-out lines, batches of lines of similar length, masks, and perplexities.

Layout legend: B lines in a batch, n tokens of the longest with its marks [BOS] and [EOS], V tokens of the recogniser.
A batch is padded with the blank, 0; its real tokens are 1 to V - 1.
"""

from __future__ import annotations

import hashlib
import logging
import math
import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr_distill.experiment import BertTraining, MaskKind
from asr_distill.text.masked_lm import PADDING, MaskedVocabulary, ask_one_by_one, token_logits, units, word_starts
from asr_distill.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from transformers import BertForMaskedLM

log = logging.getLogger(__name__)

MASKED_ONE_BY_ONE = 200
"""Held-out lines whose pseudo-perplexity is measured at the end."""
POOL_BATCHES = 100
"""Batches' worth of lines that are sorted by length together."""
_SHOWN_AS_MASK, _SHOWN_AS_RANDOM = 0.8, 0.1
"""Shares of the tokens to be guessed; the rest is shown as it is (Devlin et al. 2019, sec. 3.1)."""


class TokenLines:
    """Token ids of many lines, one after the other in one array."""

    def __init__(self, tokens: np.ndarray, *, lengths: np.ndarray):
        self.tokens, self.lengths = tokens, lengths
        """All tokens, and how many of them every line has, without marks."""
        self._ends = np.cumsum(lengths)

    @classmethod
    def encode(cls, texts: Iterable[str], *, tokenizer: Tokenizer, max_tokens: int) -> tuple[Self, int]:
        """Return the texts' tokens, and how many texts are left out for having more than `max_tokens`, marks included.

        Texts without any token are left out too.
        """
        tokens, lengths, too_long = array("i"), array("i"), 0
        for text in texts:
            ids = tokenizer.encode(text)
            if len(ids) + 2 > max_tokens:
                too_long += 1
            elif ids:
                tokens.extend(ids)
                lengths.append(len(ids))
        return cls(np.asarray(tokens, dtype=np.int32), lengths=np.asarray(lengths, dtype=np.int64)), too_long

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, line: int) -> np.ndarray:
        """Return a line's tokens without marks, (n,) int32."""
        return self.tokens[self._ends[line] - self.lengths[line] : self._ends[line]]

    def batch(self, lines: Iterable[int], *, vocabulary: MaskedVocabulary) -> Tensor:
        """Return [BOS] tokens [EOS] of some lines, (B, n) int64, padded."""
        framed = [vocabulary.framed(torch.from_numpy(self[line].astype(np.int64))) for line in lines]
        return pad_sequence(framed, batch_first=True, padding_value=PADDING)

    def chosen(self, which: np.ndarray) -> Self:
        """Return the lines for which `which`, (lines,) bool, is true."""
        return type(self)(self.tokens[np.repeat(which, self.lengths)], lengths=self.lengths[which])


def split_text(
    lines: Sequence[str], *, tokenizer: Tokenizer, max_tokens: int, dev_lines: int, seed: int
) -> tuple[TokenLines, HeldOut, int]:
    """Return the lines to train on, those held out, and how many are left out for having more than `max_tokens`.

    Raises:
        ValueError: when that leaves nothing to train on.
    """
    encoded, too_long = TokenLines.encode(lines, tokenizer=tokenizer, max_tokens=max_tokens)
    if not len(encoded):
        raise ValueError(f"max_tokens: {max_tokens} leaves no line: {too_long} of {len(lines)} have more tokens")
    if too_long:
        log.warning("BERT: %d lines of more than max_tokens: %d are left out", too_long, max_tokens)
    training, dev = hold_out(encoded, dev_lines=dev_lines, seed=seed)
    marks = MaskedVocabulary(tokenizer.vocabulary)
    return training, HeldOut(dev, training=training, vocabulary=marks, starts=word_starts(tokenizer)), too_long


def hold_out(lines: TokenLines, *, dev_lines: int, seed: int) -> tuple[TokenLines, TokenLines]:
    """Return the lines to train on and `dev_lines` distinct ones of which no copy is among them.

    Raises:
        ValueError: when that leaves nothing to train on.
    """
    first: dict[bytes, int] = {}
    same = np.fromiter((first.setdefault(lines[n].tobytes(), n) for n in range(len(lines))), np.int64, len(lines))
    if dev_lines >= len(first):
        raise ValueError(
            f"dev_lines: {dev_lines} lines cannot be held out of the text's {len(first)} distinct lines; write at "
            f"most {len(first) - 1}"
        )
    held_out = random.Random(f"{seed} held out").sample(list(first.values()), dev_lines)
    copies = np.isin(same, held_out)
    return lines.chosen(~copies), lines.chosen(copies & (same == np.arange(len(lines))))


def batches(
    lines: TokenLines, *, batch_tokens: int, seed: int, epoch: int = 0, position: int = 0
) -> Iterator[tuple[list[int], int, int]]:
    """Yield batches of line numbers for ever from a position on, each with the epoch and position of the next one."""
    while True:
        for batch in islice(_epoch(lines, batch_tokens=batch_tokens, seed=seed, epoch=epoch), position, None):
            position += 1
            yield batch, epoch, position
        epoch, position = epoch + 1, 0


def mask_tokens(
    inputs: Tensor,
    *,
    vocabulary: MaskedVocabulary,
    mask: MaskKind,
    share: float,
    starts: Tensor,
    generator: torch.Generator,
    always: bool = False,
) -> tuple[Tensor, Tensor]:
    """Choose what is to be guessed; return what BERT is shown, (B, n), and where the guesses are, (B, n).

    Every token (word) is chosen with the probability `share`, and at least one of every line is. Of the chosen tokens
    80 % are shown as [MASK], 10 % as a random token and 10 % as they are; with `always` all are shown as [MASK].
    """
    real = (inputs != PADDING) & (inputs < vocabulary.tokens)
    scores = torch.rand(inputs.shape, generator=generator).gather(1, units(inputs, mask=mask, starts=starts))
    scores = scores.masked_fill(~real, math.inf)  # marks and padding are never chosen
    chosen = real & ((scores < share) | (scores == scores.amin(dim=1, keepdim=True)))
    others = torch.randint(1, vocabulary.tokens, inputs.shape, generator=generator)
    dice = torch.rand(inputs.shape, generator=generator)
    shown_as_mask = chosen if always else chosen & (dice < _SHOWN_AS_MASK)
    shown_as_random = chosen & ~shown_as_mask & (dice < _SHOWN_AS_MASK + _SHOWN_AS_RANDOM)
    return torch.where(shown_as_mask, vocabulary.mask, torch.where(shown_as_random, others, inputs)), chosen


def guess_loss(model: BertForMaskedLM, inputs: Tensor, *, shown: Tensor, chosen: Tensor) -> Tensor:
    """Return -log P of the chosen tokens of `inputs` in what is `shown`, (M,); all are (B, n)."""
    hidden = model.bert(shown, attention_mask=shown != PADDING).last_hidden_state[chosen]
    return F.cross_entropy(token_logits(model, hidden), inputs[chosen] - 1, reduction="none")


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """How well tokens are guessed, beside how well their frequencies alone would do."""

    bert: float
    unigram: float
    """Of the same tokens, by their frequencies in the training text, one added to every count."""
    tokens: int


class HeldOut:
    """Lines that BERT has not seen, and what it makes of them; the masks are the same at every look."""

    def __init__(self, lines: TokenLines, *, training: TokenLines, vocabulary: MaskedVocabulary, starts: Tensor):
        self.lines, self.vocabulary, self.starts = lines, vocabulary, starts
        counts = np.bincount(training.tokens, minlength=vocabulary.tokens)[1:] + 1.0
        self._unigram = torch.tensor(-np.log(counts / counts.sum()))
        """-log P of tokens 1 to V - 1."""

    def summary(self, model: BertForMaskedLM, *, training: BertTraining) -> dict[str, Any]:
        """Return what bert.json tells of these lines: their number, and both perplexities of a BERT in evaluation mode.

        Nothing of how BERT was trained goes into them.
        """
        batch_tokens = training.batch_tokens
        masked = self.masked(model, mask=training.mask, share=training.mask_share, batch_tokens=batch_tokens)
        one_by_one = self.one_by_one(model, lines=MASKED_ONE_BY_ONE, batch_tokens=batch_tokens)
        return {
            "held_out_lines": len(self.lines),
            "held_out_tokens": len(self.lines.tokens),
            "perplexity": {"masked": asdict(masked), "one_by_one": asdict(one_by_one)},
        }

    @torch.inference_mode()
    def masked(self, model: BertForMaskedLM, *, mask: MaskKind, share: float, batch_tokens: int) -> Perplexity:
        """Return the perplexity of a share of the tokens, all shown as [MASK] together."""
        order = np.argsort(self.lines.lengths, kind="stable")
        loss, truth = [], []
        for number, batch in enumerate(_cut(order, lengths=self.lines.lengths, batch_tokens=batch_tokens)):
            inputs = self.lines.batch(batch, vocabulary=self.vocabulary)
            shown, chosen = mask_tokens(
                inputs,
                vocabulary=self.vocabulary,
                mask=mask,
                share=share,
                starts=self.starts,
                generator=torch.Generator().manual_seed(number),
                always=True,
            )
            here = {"shown": shown.to(model.device), "chosen": chosen.to(model.device)}
            loss.append(guess_loss(model, inputs.to(model.device), **here).cpu())
            truth.append(inputs[chosen])
        return self._perplexity(torch.cat(loss), torch.cat(truth))

    def one_by_one(self, model: BertForMaskedLM, *, lines: int, batch_tokens: int) -> Perplexity:
        """Return the pseudo-perplexity (Salazar et al. 2020) of some `lines` lines: every token masked alone."""
        spread = range(0, len(self.lines), max(1, len(self.lines) // lines))[:lines]  # over the whole text
        sample = sorted((self.lines[line].tolist() for line in spread), key=len)
        loss, truth = [], []
        for _, group in groupby(sample, key=len):
            tokens = torch.tensor(list(group), device=model.device)
            each = units(tokens, mask="token", starts=self.starts)
            answers = ask_one_by_one(model, tokens, units=each, batch_tokens=batch_tokens)
            logits = torch.cat([logits for logits, _ in answers])
            loss.append(F.cross_entropy(logits, tokens.flatten() - 1, reduction="none").cpu())
            truth.append(tokens.flatten().cpu())
        return self._perplexity(torch.cat(loss), torch.cat(truth))

    def _perplexity(self, loss: Tensor, truth: Tensor) -> Perplexity:
        bert, unigram = (float(values.double().mean().exp()) for values in (loss, self._unigram[truth - 1]))
        return Perplexity(bert=bert, unigram=unigram, tokens=len(truth))


def text_hash(lines: Iterable[str]) -> str:
    """Return what tells one text from another."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def _epoch(lines: TokenLines, *, batch_tokens: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """Yield an epoch's batches: lines are shuffled, sorted by length in pools, and the pool's batches shuffled."""
    rng = np.random.default_rng([seed, epoch])
    order, lengths = rng.permutation(len(lines)), lines.lengths
    pool = max(1, round(POOL_BATCHES * batch_tokens / (lengths.mean() + 2)))
    for start in range(0, len(order), pool):
        drawn = order[start : start + pool]
        drawn = drawn[np.argsort(lengths[drawn], kind="stable")]
        cut = list(_cut(drawn, lengths=lengths, batch_tokens=batch_tokens))
        for index in rng.permutation(len(cut)):
            yield cut[index]


def _cut(order: np.ndarray, *, lengths: np.ndarray, batch_tokens: int) -> Iterator[list[int]]:
    """Cut lines that are sorted by length into batches of at most `batch_tokens`, marks and padding included."""
    batch: list[int] = []
    for line in order.tolist():
        if batch and (len(batch) + 1) * (lengths[line] + 2) > batch_tokens:
            yield batch
            batch = []
        batch.append(line)
    if batch:
        yield batch
