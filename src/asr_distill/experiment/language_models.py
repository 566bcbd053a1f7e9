"""The records of language models trained on text alone, whose knowledge recognisers learn from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from asr_distill.experiment.base import Count, Fraction, Positive, PositiveInt, Record
from asr_distill.experiment.texts import AnyText

MaskKind = Literal["token", "word"]
"""What is masked at once: a single token, or all tokens of a word."""


class BertSize(Record):
    """BERT, a bi-directional transformer encoder (Devlin et al. 2019), over the recogniser's tokens."""

    layers: PositiveInt
    heads: PositiveInt
    dim: PositiveInt
    feed_forward: PositiveInt
    max_tokens: Annotated[int, Field(ge=3)]
    """Longest input in tokens, the marks of beginning and end included."""
    dropout: Fraction = 0.1

    @model_validator(mode="after")
    def _check(self) -> BertSize:
        if self.dim % self.heads:
            raise ValueError(f"dim: {self.dim} is no multiple of heads: {self.heads}")
        return self


class PretrainedBert(Record):
    """A BERT that others trained on the recogniser's tokens, after which its vocabulary holds [BOS], [EOS], [MASK]."""

    pretrained: str
    """Folder below that of the real corpora: config.json and model.safetensors as transformers writes them, and a
    bert.json that names the tokens by their tokenizer's fingerprint: {"tokenizer": "0123456789abcdef"}."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_sizes(cls, data: Any) -> Any:
        sizes = sorted(BertSize.model_fields.keys() & data.keys()) if isinstance(data, dict) else []
        if sizes:
            raise ValueError(
                f"pretrained: a BERT read from a folder has a size of its own; remove {', '.join(sizes)}, or remove "
                "pretrained to train one"
            )
        return data


def bert_kind(bert: Any) -> str:
    """Return whether a BERT, or what may become one, is trained here or read from a folder."""
    if isinstance(bert, dict):
        sized = not bert or BertSize.model_fields.keys() & bert.keys()
        return "new_bert" if sized and "pretrained" not in bert else "pretrained_bert"
    return "new_bert" if isinstance(bert, BertSize) else "pretrained_bert"


AnyBert = Annotated[
    Annotated[BertSize, Tag("new_bert")] | Annotated[PretrainedBert, Tag("pretrained_bert")], Discriminator(bert_kind)
]


class BertTraining(Record):
    """The budget of training BERT from random weights: steps, batch, optimisation.

    Of a BERT that others trained only the perplexities are measured: it needs `dev_lines`, `mask`, `mask_share` and
    `batch_tokens`, and the rest is not used.
    """

    steps: PositiveInt
    batch_tokens: PositiveInt
    """Largest batch in tokens, padding and the marks of beginning and end included."""
    learning_rate: Positive
    """Peak of AdamW's learning rate, after a linear warm-up; it then decays linearly to zero."""
    warmup_steps: Count
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    mask: MaskKind = "token"
    """Mask tokens or whole words."""
    mask_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens (words) that are to be guessed; at least one of every line is."""
    dev_lines: PositiveInt = 500
    """Distinct lines held out of the text, on which the perplexities are measured."""
    checkpoint_seconds: Positive = 60.0

    @model_validator(mode="after")
    def _check(self) -> BertTraining:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps: {self.warmup_steps} must be smaller than steps: {self.steps}")
        return self


class Ngram(Record):
    """Token n-gram with modified Kneser-Ney smoothing, for beam search (Hentschel et al. 2024: a 6-gram)."""

    order: PositiveInt = 6
    prune: tuple[Count, ...] = ()
    """Largest count that is dropped, by order from 1 on; the last one holds for all higher orders."""


class LanguageModelSearch(Record):
    """What is tried on the dev sets to fuse the n-gram with a CTC head."""

    lm_weights: tuple[Annotated[float, Field(ge=0)], ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    insertion_scores: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5)
    """Natural log, added for every token."""
    beam_sizes: tuple[PositiveInt, ...] = (1, 10)
    """Hentschel et al. 2024, Table 1."""
    beam_size_tokens: tuple[PositiveInt, ...] = (4, 8, 16)
    """How many of a frame's likeliest tokens may extend a hypothesis, tried once the weights are chosen."""
    tune_utterances: PositiveInt = 100
    """Of each dev set."""

    @model_validator(mode="after")
    def _check(self) -> LanguageModelSearch:
        for name in ("lm_weights", "insertion_scores", "beam_sizes", "beam_size_tokens"):
            if not getattr(self, name):
                raise ValueError(f"{name}: is empty; there is nothing to try on the dev sets; name at least one value")
        return self


class LanguageModels(Record):
    """Language models of a scale and the text that they are trained on."""

    text: AnyText
    bert: AnyBert
    """Trained here, if its size is given, or by others: {pretrained: <folder>}."""
    bert_training: BertTraining
    soft_label_top_k: PositiveInt = 50
    """Tokens kept of each of BERT's distributions; runs use as many of them as they say, or fewer."""
    ngram: Ngram = Ngram()
    search: LanguageModelSearch = LanguageModelSearch()
