"""BERT (Devlin et al. 2019) over the recogniser's tokens: made, kept, found again, and asked what a mask hides.

Layout legend: S sequences, n tokens of each, W masked copies, M masked tokens, D dimensions of BERT, V tokens of the
recogniser. BERT's own vocabulary has three more at its end: [BOS], [EOS] and [MASK]; the blank, 0, pads.

Whatever BERT is asked, its answer is a distribution over what a transcript can hold: tokens 1 to V - 1, neither blank
nor specials. Training, perplexities and soft labels all use that one softmax.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from asr_distill.experiment import BertSize, MaskKind
from asr_distill.files import replacing, write_json
from asr_distill.text.tokenizer import BLANK, Tokenizer

if TYPE_CHECKING:
    from transformers import BertForMaskedLM

PADDING = BLANK
ABOUT = "bert.json"
"""Beside transformers' own files; written last."""
_NAMING = 'it names the tokens of a BERT: {"tokenizer": "<fingerprint>"}'
_WORD_MARK = "\u2581"
_INITIAL_DEVIATION = 0.02


@dataclass(frozen=True)
class MaskedVocabulary:
    """Token ids of BERT: those of the recogniser, then the special ones."""

    tokens: int
    """V, blank and unknown included."""

    @property
    def bos(self) -> int:
        """Mark of a line's beginning."""
        return self.tokens

    @property
    def eos(self) -> int:
        """Mark of a line's end."""
        return self.tokens + 1

    @property
    def mask(self) -> int:
        """What stands where a token is to be guessed."""
        return self.tokens + 2

    @property
    def size(self) -> int:
        """Rows of BERT's embedding."""
        return self.tokens + 3

    def framed(self, tokens: Tensor) -> Tensor:
        """Return [BOS] tokens [EOS], (..., n + 2), of sequences (..., n) without padding."""
        ends = tokens.new_empty((*tokens.shape[:-1], 1))
        return torch.cat([ends.fill_(self.bos), tokens, torch.full_like(ends, self.eos)], dim=-1)


def new_bert(size: BertSize, *, vocabulary: MaskedVocabulary) -> BertForMaskedLM:
    """Return BERT with random weights from torch's global generator, in training mode."""
    transformers = _transformers()
    config = transformers.BertConfig(
        vocab_size=vocabulary.size,
        hidden_size=size.dim,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.feed_forward,
        max_position_embeddings=size.max_tokens,
        type_vocab_size=1,
        hidden_dropout_prob=size.dropout,
        attention_probs_dropout_prob=size.dropout,
        initializer_range=_INITIAL_DEVIATION,
        pad_token_id=PADDING,
        bos_token_id=vocabulary.bos,
        eos_token_id=vocabulary.eos,
        attn_implementation="sdpa",
    )
    return transformers.BertForMaskedLM(config).train()


def save_bert(model: BertForMaskedLM, folder: Path, *, tokenizer: str, about: Mapping[str, Any]) -> None:
    """Write `model.safetensors` and `config.json` as transformers do, then `bert.json` with what else is known."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving") as temporary:
        model.save_pretrained(temporary)
        for written in sorted(Path(temporary).iterdir()):
            with replacing(folder / written.name) as path:
                shutil.copyfile(written, path)  # not a move: transformers make files for their owner alone
    write_json(folder / ABOUT, {"tokenizer": tokenizer, **about})


def load_bert(folder: Path, *, tokenizer: Tokenizer) -> BertForMaskedLM:
    """Read a BERT for inference, in evaluation mode: our own, or one that others trained on our tokens.

    The latter needs a `bert.json` that says so, with the tokenizer's fingerprint: {"tokenizer": "0123456789abcdef"}.

    Raises:
        ValueError: when there is none, when it was trained on other tokens, or when weights are missing.
    """
    _check_tokens(folder, tokenizer=tokenizer)
    transformers = _transformers()
    try:
        model, loading = transformers.BertForMaskedLM.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32, attn_implementation="sdpa"
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder}: not readable as a BERT ({reason}); train it or copy it there anew") from None
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(f"{folder}: {len(missing)} weights of BERT are missing, such as {missing[0]}")
    return model.eval()


def bert_hash(folder: Path) -> str:
    """Return what BERT's answers depend on, its weights and its shape, as 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def word_starts(tokenizer: Tokenizer) -> Tensor:
    """Return for each of BERT's token ids whether a word begins with it, (V + 3,); specials are words of their own."""
    starts = [tokenizer.piece(token).startswith(_WORD_MARK) for token in range(tokenizer.vocabulary)]
    special = MaskedVocabulary(tokenizer.vocabulary).size - len(starts)
    return torch.tensor(starts + [True] * special)


def units(tokens: Tensor, *, mask: MaskKind, starts: Tensor) -> Tensor:
    """Return for each token the number of what is masked at once, a token or a word, from 0 in each line: (S, n).

    Args:
        tokens: ids of BERT's vocabulary, (S, n).
        mask: the kind of unit.
        starts: the table from `word_starts`.
    """
    if mask == "token":
        return torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    begins = starts.to(tokens.device)[tokens]
    begins[:, :1] = True
    return begins.cumsum(dim=1) - 1


def token_logits(model: BertForMaskedLM, hidden: Tensor) -> Tensor:
    """Return logits of tokens 1 to V - 1, (M, V - 1), from BERT's last hidden states (M, D)."""
    tokens = MaskedVocabulary(model.config.vocab_size - 3).tokens
    return model.cls(hidden)[:, 1:tokens].float()


@torch.inference_mode()
def ask_one_by_one(
    model: BertForMaskedLM, tokens: Tensor, *, units: Tensor, batch_tokens: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Mask every unit of every line in turn; yield logits (M, V - 1) and last hidden states (M, D), batch by batch.

    All batches together have S x n rows, in the order of `tokens`: a unit's tokens lie side by side and are asked for
    in the same copy of the line.

    Args:
        model: in evaluation mode.
        tokens: lines of one length without marks, (S, n), on the model's device; n > 0.
        units: of these tokens, as the function `units` numbers them.
        batch_tokens: copies of lines are batched up to so many tokens, marks included, but at least one.
    """
    vocabulary = MaskedVocabulary(model.config.vocab_size - 3)
    counts = units[:, -1] + 1
    lines = torch.repeat_interleave(counts)  # (W,)
    unit = torch.arange(len(lines), device=tokens.device) - (counts.cumsum(0) - counts)[lines]
    size = max(1, batch_tokens // (tokens.shape[1] + 2))
    for start in range(0, len(lines), size):
        chosen = lines[start : start + size]
        masked = units[chosen] == unit[start : start + size, None]
        inputs = vocabulary.framed(torch.where(masked, vocabulary.mask, tokens[chosen]))
        hidden = model.bert(inputs).last_hidden_state[:, 1:-1][masked]
        yield token_logits(model, hidden), hidden


def check_length(count: int, *, model: BertForMaskedLM, what: str) -> None:
    """Refuse a line of more tokens than BERT has positions for: a part of it would be another line.

    Raises:
        ValueError: naming the line as `what`.
    """
    longest = model.config.max_position_embeddings - 2
    if count > longest:
        raise ValueError(
            f"{what}: has {count} tokens, but BERT takes {longest} between [BOS] and [EOS]; train it with max_tokens: "
            f"{count + 2} or more, or leave the utterance out"
        )


def _check_tokens(folder: Path, *, tokenizer: Tokenizer) -> None:
    """Check that BERT's tokens are the tokenizer's, before its weights are read."""
    config, about = (read_json(folder / name) for name in ("config.json", ABOUT))
    if "tokenizer" not in about:
        raise ValueError(f"{folder / ABOUT}: names no tokens; {_NAMING}")
    if about["tokenizer"] != tokenizer.fingerprint:
        raise ValueError(
            f"{folder}: BERT was trained on the tokens {about['tokenizer']}, not {tokenizer.fingerprint}; train it "
            "anew or restore its tokenizer"
        )
    expected = MaskedVocabulary(tokenizer.vocabulary).size
    if config.get("model_type") != "bert" or config.get("vocab_size") != expected:
        raise ValueError(
            f"{folder}: config.json describes a {config.get('model_type')} of {config.get('vocab_size')} tokens, not a "
            f"bert of {expected}: the tokenizer's {tokenizer.vocabulary}, then [BOS], [EOS] and [MASK]"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read one of the two JSON files of a BERT.

    Raises:
        ValueError: where it is missing or holds no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = f"; {_NAMING}" if path.name == ABOUT else ""
        raise ValueError(f"{path.parent}: holds no BERT: {path.name} is missing{hint}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: not readable as JSON: holds no object")
    return value


def _transformers() -> ModuleType:
    """Import transformers, which takes seconds, when BERT is needed, and keep its bars and hints off standard error."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers
