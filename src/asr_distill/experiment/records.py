"""The records a user writes in config/: one class per YAML section, frozen, unknown keys refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Targets = Literal["supervised", "hard", "soft", "mixed"]
SoftLoss = Literal[
    "divergence", "one_best", "teacher_occupancy", "student_occupancy", "collapsed", "full_sum"
]
Use = Literal["labelled", "unlabelled", "dev", "test"]
Condition = Literal["clean", "other"]
PaperColumn = Literal["dev_clean", "dev_other", "test_clean", "test_other"]
Relation = Literal["<", "<=", "not <"]

PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


def nearest(word: object, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known word nearest to a misspelt one, else the list of known words."""
    known = list(known)
    match = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else f"; known: {', '.join(sorted(known)) or 'none'}"


class Record(BaseModel):
    """Base of all records: immutable, and an unknown key is an error that names the nearest right one."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key '{key}'{nearest(key, cls.model_fields)}")
        return data


# ---------------------------------------------------------------- corpora


class PartBase(Record):
    """One part of a corpus, such as test-clean."""

    use: Use
    """What the part is for; dev and test parts share no speaker with parts of another use."""


class SyntheticPart(PartBase):
    """Speech synthesised on the spot by eSpeak NG, written in LibriSpeech's or Libri-Light's layout."""

    source: Literal["synthetic"]
    layout: Literal["librispeech", "librilight"] = "librispeech"
    condition: Literal["clean", "mixed", "other"] = "clean"
    accents: tuple[str, ...]
    speakers: PositiveInt
    utterances: PositiveInt
    domains: tuple[str, ...] = ("commands", "stories", "news")


class LibriSpeechPart(PartBase):
    """A part of LibriSpeech as published, under <data>/LibriSpeech/<name>."""

    source: Literal["librispeech"]
    name: str
    download: bool = False


class LibriLightPart(PartBase):
    """A part of Libri-Light as published, under <data>/LibriLight/<name>; audio only."""

    source: Literal["librilight"]
    name: str


class ManifestPart(PartBase):
    """Any corpus as Lhotse manifests: <data>/<folder>/recordings_<name>.jsonl.gz and supervisions_<name>.jsonl.gz."""

    source: Literal["manifests"]
    folder: str = "."
    name: str
    speakers: PositiveInt | Literal["all", "rest"] = "all"
    """How many of the manifest's speakers belong to this part: drawn with the corpus seed, in the parts' order."""


Part = Annotated[SyntheticPart | LibriSpeechPart | LibriLightPart | ManifestPart, Field(discriminator="source")]


class Corpus(Record):
    """All parts of a scale's corpus and the rules for leaving utterances out."""

    seed: int = 0
    min_duration: Positive = 0.2
    """Seconds; shorter utterances go to quarantine."""
    max_duration: Positive = 30.0
    """Seconds; longer labelled utterances go to quarantine, unlabelled ones are cut into windows of this length."""
    max_quarantined: Fraction = 0.01
    """Share of a part that may be left out before that is an error."""
    parts: dict[Name, Part]


class Features(Record):
    """Log-mel filter bank energies."""

    sampling_rate: PositiveInt = 16000
    mel_bins: PositiveInt = 80
    """80-dim log-mel input (Hwang et al. 2022, sec. 4)."""
    frame_shift_ms: Positive = 10.0
    frame_length_ms: Positive = 25.0
    speed_perturbation: tuple[Positive, ...] = (1.0,)
    """Speeds at which training speech is stored; 1.0 must be among them."""
    cache_hours: float = 40.0
    """Keep the features of a training job in memory when its audio is shorter than this."""


class Tokenizer(Record):
    """SentencePiece model, estimated on the labelled transcripts."""

    vocabulary: Annotated[int, Field(ge=4)]
    """Number of tokens, blank (index 0) and unknown included."""
    type: Literal["unigram", "bpe", "char"] = "unigram"


# ---------------------------------------------------------------- models and training


class EncoderSize(Record):
    """Conformer encoder."""

    layers: PositiveInt
    dim: PositiveInt
    heads: PositiveInt
    feed_forward: PositiveInt
    kernel: PositiveInt = 5
    """Width of the depthwise convolution in frames (Hwang et al. 2022: 5)."""
    stack: PositiveInt = 4
    """Feature frames stacked into one encoder frame."""
    streaming: bool = False
    """Causal convolution and attention."""
    left_context: PositiveInt = 128
    """Encoder frames that attention sees to the left (Hwang et al. 2022: 128)."""
    right_context: Count = 128
    """Encoder frames that attention sees to the right; must be 0 when streaming."""
    activation: Literal["squared_relu", "swish"] = "squared_relu"
    dropout: Fraction = 0.1

    @model_validator(mode="after")
    def _check(self) -> EncoderSize:
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim: {self.dim} is no multiple of 2 x heads = {2 * self.heads}")
        if self.streaming and self.right_context:
            raise ValueError("right_context: a streaming encoder cannot look ahead; write right_context: 0")
        if not self.streaming and self.kernel % 2 == 0:
            raise ValueError(f"kernel: {self.kernel} has no middle; write an odd number")
        return self


class PredictorSize(Record):
    """LSTM prediction network."""

    layers: PositiveInt = 1
    dim: PositiveInt
    dropout: Fraction = 0.1


class ModelSize(Record):
    """A transducer: encoder, predictor and the width of the joint network."""

    encoder: EncoderSize
    predictor: PredictorSize
    joint: PositiveInt


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


class Phase(Record):
    """The budget of one training run: steps, batch, optimisation."""

    steps: PositiveInt
    batch_utterances: PositiveInt
    batch_nodes: PositiveInt = 10**9
    """Largest batch size in lattice nodes, T x (U + 1) of its longest members times utterances."""
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


class Scoring(Record):
    """Statistics of word error rates."""

    replicates: PositiveInt = 2000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    margin: Positive = 0.05
    """Equivalence margin, as a share of the word error rate on the right of a comparison."""
    seed: int = 0


class Scale(Record):
    """How big: corpora, sizes of the model roles, budgets of the phases."""

    description: str
    corpus: Corpus
    features: Features = Features()
    tokenizer: Tokenizer
    models: dict[Name, ModelSize]
    augmentations: dict[Name, Augmentation]
    phases: dict[Name, Phase]
    pseudo_labels: PseudoLabels = PseudoLabels()
    decoding: Decoding = Decoding()
    scoring: Scoring = Scoring()
    columns: dict[PaperColumn, str]
    """Which part stands in which column of the paper's tables."""
    conditions: dict[Condition, str]
    """Which test part decides claims about "clean" and about "other" speech."""
    deviations: tuple[str, ...] = ()
    """What differs from the papers at this scale; printed beside the tables."""

    def parts(self, use: Use) -> tuple[str, ...]:
        """Return the names of the parts of one use, in the order of the config."""
        return tuple(name for name, part in self.corpus.parts.items() if part.use == use)


# ---------------------------------------------------------------- studies


class Run(Record):
    """One training run of a study."""

    model: str
    """A model role of the scale."""
    phase: str
    """A phase of the scale: the run's budget."""
    targets: Targets
    teacher: str | None = None
    """Another run of the study."""
    alpha: Fraction | None = None
    """Weight of the transducer loss against the divergence; only mixed targets leave a choice."""
    teacher_temperature: Positive = 1.0
    student_temperature: Positive = 1.0
    teacher_shift: Count = 0
    """Encoder frames by which the teacher's distributions are delayed; a streaming student needs time to decide."""
    soft_losses: dict[SoftLoss, Positive] = {"divergence": 1.0}
    """What soft targets mean on the lattice, and with which weights; see `LatticeWeights` in losses/lattice.py."""
    fast_emit: Annotated[float, Field(ge=0)] = 0.0
    """Lambda of FastEmit (Yu et al. 2021), beside the transducer loss."""
    audio: tuple[Literal["labelled", "unlabelled"], ...] = ("labelled", "unlabelled")
    augmentation: str

    @model_validator(mode="after")
    def _check(self) -> Run:
        if (self.targets == "supervised") != (self.teacher is None):
            need = "must not name a teacher" if self.targets == "supervised" else "need a teacher: name a run"
            raise ValueError(f"teacher: {self.targets} targets {need}")
        if self.targets == "supervised" and "unlabelled" in self.audio:
            raise ValueError("audio: supervised runs have no targets for unlabelled speech; write audio: [labelled]")
        if not self.audio:
            raise ValueError("audio: is empty; write [labelled], [unlabelled] or both")
        fixed = {"supervised": 1.0, "hard": 1.0, "soft": 0.0}.get(self.targets)
        if fixed is not None and self.alpha not in (None, fixed):
            raise ValueError(f"alpha: {self.targets} targets mean {fixed}, found {self.alpha}; use targets: mixed")
        if not self.soft_losses:
            raise ValueError("soft_losses: is empty; name at least one loss, as in {divergence: 1}")
        if fixed == 1 and (self.teacher_shift or self.soft_losses != {"divergence": 1.0}):
            raise ValueError(f"soft_losses, teacher_shift: {self.targets} targets have none; use soft or mixed ones")
        if fixed == 0 and self.fast_emit:
            raise ValueError("fast_emit: goes with a transducer loss, which soft targets have not; use mixed ones")
        return self

    @property
    def transducer_weight(self) -> float:
        """Alpha of Hwang et al. 2022: 1 for transcripts, 0 for soft targets, between for a mix (0.5 by default)."""
        fixed = {"supervised": 1.0, "hard": 1.0, "soft": 0.0}.get(self.targets)
        return fixed if fixed is not None else (0.5 if self.alpha is None else self.alpha)


class Row(Record):
    """One row of a table: a run of ours beside a row as printed."""

    label: str
    run: str | None = None
    printed: str | None = None


class Table(Record):
    """One table of a paper."""

    caption: str
    printed: str
    """Key of the table in config/papers/."""
    rows: tuple[Row, ...]
    note: str = ""


class Comparison(Record):
    """Left and right are runs; the relation compares their word error rates."""

    left: str
    relation: Relation
    """"<" lower; "<=" at least as good (within the margin); "not <" not better (within the margin)."""
    right: str


class Claim(Record):
    """A statement of the paper and the comparisons that decide it."""

    statement: str
    reported: str
    """What the paper's own figures say."""
    conditions: tuple[Condition, ...]
    comparisons: tuple[Comparison, ...]


class LatticeFigure(Record):
    """Whose posteriors the lattice figure shows, for the utterance of median length of a test part."""

    runs: tuple[str, ...]
    condition: Condition = "clean"


class Study(Record):
    """What is compared."""

    title: str
    paper: str
    """Key of a file in config/papers/."""
    runs: dict[Name, Run]
    tables: dict[Name, Table]
    claims: dict[Name, Claim] = {}
    figures: dict[str, tuple[str, ...]] = {}
    """Groups of runs for the plots by target kind: panel title -> runs."""
    lattice: LatticeFigure
    deviations: tuple[str, ...] = ()


class Config(Record):
    """config/config.yaml: which scale, studies and seeds, and where things lie."""

    scale: str = "mini"
    studies: tuple[str, ...] = ("soft_vs_hard",)
    seeds: tuple[Count, ...] = (0,)
    data: str = "data"
    """Folder of the real corpora."""
    work: str = "work"
    results: str = "results"
    overrides: dict[str, Any] = {}
    """Merged into the scale, key by key: {phases: {teacher: {steps: 100}}}."""
