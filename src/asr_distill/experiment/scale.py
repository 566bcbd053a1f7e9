"""How big: corpora, sizes of the model roles, budgets of the phases, decoding and statistics."""

from __future__ import annotations

from collections.abc import Collection
from operator import not_
from typing import Annotated, Literal

from pydantic import Field, model_validator

from asr_distill.experiment.base import (
    Condition,
    Count,
    Fraction,
    Name,
    PaperColumn,
    Positive,
    PositiveInt,
    Record,
    Use,
    unset,
)
from asr_distill.experiment.corpora import Corpus, Features, Tokenizer
from asr_distill.experiment.language_models import LanguageModels
from asr_distill.experiment.models import CTCSize, ModelSize
from asr_distill.experiment.pretraining import Pretraining


class Augmentation(Record):
    """SpecAugment and FreqAug on the log-mel spectrogram (Hwang et al. 2022, sec. 5.4)."""

    frequency_masks: Count = 0
    frequency_mask_width: Count = 27
    time_masks: Count = 0
    time_mask_width: Count = 40
    time_mask_share: Fraction = 1.0
    """No time mask is wider than this share of the utterance."""
    warp: Fraction = 0.0
    """FreqWarp's g: the anchor moves by at most this share of the bins (paper: 0.75)."""
    noise: Annotated[float, Field(ge=0)] = 0.0
    """FreqNoise's largest standard deviation (paper: 0.14)."""

    def multiplied(self, factor: float) -> Augmentation:
        """Return the same augmentation with `factor` times as many masks, rounded half up."""
        masks = {name: int(getattr(self, name) * factor + 0.5) for name in ("frequency_masks", "time_masks")}
        return self.model_copy(update=masks)


class Phase(Record):
    """The budget of one training run: steps, batch, optimisation."""

    steps: PositiveInt
    batch_utterances: PositiveInt
    batch_nodes: PositiveInt = 10**9
    """Largest batch size in lattice nodes, T x (U + 1) of its longest members times utterances."""
    micro_batch_utterances: PositiveInt | None = Field(default=None, exclude_if=not_)
    """Most utterances that a process computes on at a time, for want of memory; gradients of a whole batch are added
    up before a step. Where it is left out, a process takes its share of the batch at once."""
    sharded: bool = Field(default=False, exclude_if=not_)
    """Spread weights, gradients and optimiser over the processes (FSDP2), for models too large for one GPU."""
    learning_rate: Positive
    """Peak of AdamW's learning rate, after a linear warm-up; it decays linearly to zero over the last steps."""
    warmup_steps: Count
    decay_share: Fraction = 0.5
    """Share of the steps over which the learning rate decays."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: Positive = 2.0
    """Largest norm of the gradient, as a multiple of its running mean: the losses compared differ in size."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the exponential moving average of the weights, which is what is evaluated and kept."""
    ctc_weight: Fraction = 0.0
    """Weight of the auxiliary CTC loss on the encoder; its targets are of the run's own kind."""
    ctc_warmup_share: Fraction = 0.0
    """Share of the steps in which the auxiliary CTC loss alone trains the encoder."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """How float32 matrices are multiplied, in PyTorch's words: high allows TF32 on a GPU, medium bfloat16 products
    with float32 sums, on a CPU too (twice as fast on those with AMX, and slower on those without)."""
    dev_every: PositiveInt = 200
    """Steps between two looks at the dev sets."""
    dev_utterances: PositiveInt = 100
    """Utterances of each dev set looked at during training."""
    checkpoint_seconds: Positive = 60.0

    def multiplied(self, *, steps: float, batch: float) -> Phase:
        """Return the phase with so many times its steps and its utterances in a batch, at least one of each.

        Raises:
            ValueError: when the warm-up would not end.
        """
        values = self.model_dump()
        values["steps"] = max(1, round(steps * self.steps))
        values["batch_utterances"] = max(1, int(batch * self.batch_utterances + 0.5))
        return Phase.model_validate(values)

    @model_validator(mode="after")
    def _check(self) -> Phase:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps: {self.warmup_steps} must be smaller than steps: {self.steps}")
        return self


class Decoding(Record):
    """Search for the best transcript."""

    method: Literal["greedy", "beam"] = "greedy"
    beam_size: PositiveInt = 4
    max_symbols_per_frame: PositiveInt = 4
    batch_seconds: Positive = 240.0


class PseudoLabels(Decoding):
    """How a teacher transcribes unlabelled speech, and which lines are dropped."""

    min_tokens: Count = 1
    min_score_per_token: float | None = None
    """Natural log; drop hypotheses whose mean token log-probability is lower."""
    max_tokens_per_second: Positive = 30.0
    jobs: PositiveInt = Field(default=1, exclude=True)
    """Jobs that share the work on each part that is stored in shards (corpus.shard_utterances). Transcripts do not
    depend on it, so no job's record holds it."""


class Scoring(Record):
    """Statistics of word error rates."""

    characters: bool = Field(default=False, exclude_if=not_)
    """Report character error rates beside word error rates: for open vocabularies, where few words come out whole."""
    replicates: PositiveInt = 2000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    margin: Positive = 0.05
    """Equivalence margin, as a share of the word error rate on the right of a comparison."""
    seed: int = 0


class Start(Record):
    """What transducers start from that would start from random weights: transcripts of other speech.

    For each size of transducer there is one more run, start_<model role> or start_<model role>_<activation>, that is
    trained on that speech alone.
    """

    audio: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Sets of parts with transcripts, for training."""
    phase: str
    augmentation: str
    whole: bool = Field(default=False, exclude_if=not_)
    """Whether they start from all of it, and not from its encoder alone."""
    rehearsed: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.0, exclude_if=not_)
    """Share of that speech in what they hear from then on; see `Rehearsal`. Runs with a labelled_share hear none."""


class Scale(Record):
    """How big: corpora, sizes of the model roles, budgets of the phases."""

    description: str
    corpus: Corpus
    features: Features = Features()
    tokenizer: Tokenizer
    ctc_tokenizer: Tokenizer | None = Field(default=None, exclude_if=unset)
    """Of CTC recognisers and of language models, where they have other tokens than transducers."""
    models: dict[Name, ModelSize]
    """Roles of transducers."""
    ctc_models: dict[Name, CTCSize] = {}
    """Roles of recognisers with a CTC head."""
    language_models: LanguageModels | None = None
    """Those that CTC recognisers learn from and are decoded with."""
    augmentations: dict[Name, Augmentation]
    phases: dict[Name, Phase]
    start: Start | None = Field(default=None, exclude_if=unset)
    pretraining: Pretraining = Pretraining()
    """What self-supervised encoders are asked."""
    pseudo_labels: PseudoLabels = PseudoLabels()
    decoding: Decoding = Decoding()
    scoring: Scoring = Scoring()
    columns: dict[PaperColumn, str]
    """Which part stands in which column of the papers' tables."""
    conditions: dict[Condition, str]
    """Which test part decides claims about a kind of speech, such as "clean" and "other"."""
    studies_left_out: dict[Name, str] = {}
    """Studies that are not run at this scale, and why."""
    deviations: tuple[str, ...] = ()
    """What differs from the papers at this scale; printed beside the tables."""

    def parts(self, use: Use, *, sets: Collection[Name] = ()) -> tuple[str, ...]:
        """Return the names of the parts of one use that belong to no set, or to one of these; in the config's order."""
        return tuple(name for name, part in self.corpus.restricted(sets).parts.items() if part.use == use)

    @property
    def tokenizers(self) -> dict[str, Tokenizer]:
        """Return the kinds of tokens by the name of their files: tokenizer, and ctc_tokenizer where there is one."""
        own = {} if self.ctc_tokenizer is None else {"ctc_tokenizer": self.ctc_tokenizer}
        return {"tokenizer": self.tokenizer} | own

    def restricted(self, sets: Collection[Name]) -> Scale:
        """Return the scale without the parts of other sets than these, and what it says about them."""
        corpus = self.corpus.restricted(sets)
        shown = {
            name: {key: part for key, part in places.items() if part in corpus.parts}
            for name, places in (("columns", self.columns), ("conditions", self.conditions))
        }
        return self.model_copy(update={"corpus": corpus, **shown})
