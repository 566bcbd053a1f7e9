"""The training runs of a study: transducers by what a teacher gives them, CTC recognisers by what BERT does.

And encoders that train themselves, for transducers to start from.
"""

from __future__ import annotations

from operator import not_
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from asr_distill.experiment.base import Count, Fraction, Name, Positive, PositiveInt, Record, unset
from asr_distill.experiment.language_models import MaskKind
from asr_distill.experiment.models import Activation

Targets = Literal["supervised", "hard", "soft", "mixed"]
SoftLoss = Literal["divergence", "one_best", "teacher_occupancy", "student_occupancy", "collapsed", "full_sum"]


class PseudoLabelChoice(Record):
    """Which of the teacher's transcripts a run trains on, of those that the scale's pseudo_labels kept.

    The limits come first; the share is of what they leave. Length is measured against the teacher's own median, so that
    a study fits the tokens and speech of every scale.
    """

    min_score_per_token: float | None = None
    """Least mean log-probability of a token, natural log."""
    min_length_ratio: Annotated[float, Field(ge=0)] = 0.0
    """Fewest tokens per second of speech, as a multiple of their median over the transcripts."""
    max_length_ratio: Positive | None = None
    """Most tokens per second of speech, as a multiple of their median over the transcripts."""
    keep_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share that is kept: that with the best score per token. Park et al. 2020 filter by score too, but normalise it
    by a line fitted over length."""

    @model_validator(mode="after")
    def _check(self) -> PseudoLabelChoice:
        if self.max_length_ratio is not None and self.min_length_ratio > self.max_length_ratio:
            raise ValueError(f"min_length_ratio: {self.min_length_ratio} is above max_length_ratio; write less")
        return self


class Rehearsal(Record):
    """Speech with transcripts that a run goes on hearing beside its own, so that it does not forget it."""

    audio: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Sets of parts."""
    share: Annotated[float, Field(gt=0, lt=1)]
    """Its share of the utterances of every epoch: one pass over the run's own speech, beside which as much of the other
    is heard as that takes, each epoch going on where the one before has stopped."""

    def utterances(self, own: int) -> int:
        """Return how many utterances go with so many of the run's own; at least one."""
        return max(1, round(own * self.share / (1 - self.share)))


class Run(Record):
    """One training run of a transducer."""

    recogniser: Literal["transducer"] = "transducer"
    model: str
    """A model role of the scale."""
    phase: str
    """A phase of the scale: the run's budget."""
    targets: Targets
    teacher: str | None = None
    """Another run of the study."""
    initial: str | None = None
    """Another run of the study, from whose encoder the run's starts: one that pre-trains an encoder, or a transducer
    with an encoder of the same size; by default the weights are random."""
    whole_initial: bool = Field(default=False, exclude_if=not_)
    """Whether the run starts from all of `initial`, a transducer of its own size, and not from the encoder alone."""
    alpha: Fraction | None = None
    """Weight of the transducer loss against the divergence; only mixed targets leave a choice."""
    teacher_temperature: Positive = 1.0
    student_temperature: Positive = 1.0
    teacher_shift_ms: Annotated[float, Field(ge=0)] = 0.0
    """Milliseconds by which the teacher's distributions are delayed, rounded to encoder frames; a streaming student
    needs time to decide (Yang et al. 2021: 280 ms)."""
    soft_losses: dict[SoftLoss, Positive] = {"divergence": 1.0}
    """What soft targets mean on the lattice, and with which weights; see `LatticeWeights` in losses/lattice.py."""
    fast_emit: Annotated[float, Field(ge=0)] = 0.0
    """Lambda of FastEmit (Yu et al. 2021), beside the transducer loss."""
    consistency: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the distance between the encoder states of student and teacher (Hwang et al. 2022, Table 14)."""
    audio: tuple[Name, ...] = ("labelled", "unlabelled")
    """labelled, unlabelled: the scale's speech of that use; or sets of the study, beside or instead of them."""
    rehearsal: Rehearsal | None = Field(default=None, exclude_if=unset)
    human_labels: bool = True
    """Whether labelled speech is used with its transcripts; otherwise the teacher transcribes it too."""
    labelled_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the utterances of every batch that come from labelled speech, rounded to whole ones (batch-wise mixing,
    Park et al. 2020): an epoch is one pass over the unlabelled speech, beside which the labelled speech is repeated.
    None: one shuffled pool."""
    pseudo_labels: PseudoLabelChoice | None = None
    """Which of the teacher's transcripts of unlabelled speech are trained on; all by default."""
    augmentation: str
    """An augmentation of the scale: what the student hears."""
    teacher_augmentation: str = "none"
    """What a teacher hears that gives soft targets; its pseudo-labels are always of clean speech."""
    mask_factor: Annotated[float, Field(ge=0)] = 1.0
    """Times the numbers of masks of the augmentation, whose widths stay; rounded."""
    activation: Activation | None = None
    """Of the feed-forward modules, instead of the model role's."""
    steps_factor: Positive = 1.0
    """Times the steps of the phase; a teacher stopped early is a weak one."""
    batch_factor: Positive = 1.0
    """Times the utterances of the phase's batches; rounded."""

    @model_validator(mode="after")
    def _check(self) -> Run:
        if (self.targets == "supervised") != (self.teacher is None):
            need = "must not name a teacher" if self.targets == "supervised" else "need a teacher: name a run"
            raise ValueError(f"teacher: {self.targets} targets {need}")
        if self.targets == "supervised" and "unlabelled" in self.audio:
            raise ValueError("audio: supervised runs have no targets for unlabelled speech; write audio: [labelled]")
        if not self.audio:
            raise ValueError("audio: is empty; write [labelled], [unlabelled] or both")
        if self.teacher is None and not self.human_labels:
            raise ValueError("human_labels: supervised runs learn nothing else; leave it out, or name a teacher")
        two_kinds = set(self.audio) == {"labelled", "unlabelled"} and self.human_labels
        if self.labelled_share is not None and not two_kinds:
            raise ValueError("labelled_share: mixes two kinds of speech; leave it out, or write both as audio")
        if self.labelled_share is not None and self.rehearsal is not None:
            raise ValueError("rehearsal: labelled_share says what batches consist of; leave one of them out")
        taught = self.teacher is not None and (self.audio != ("labelled",) or not self.human_labels)
        if self.pseudo_labels is not None and not taught:
            raise ValueError("pseudo_labels: there are none without unlabelled speech; leave it out, or change audio")
        fixed = {"supervised": 1.0, "hard": 1.0, "soft": 0.0}.get(self.targets)
        if fixed is not None and self.alpha not in (None, fixed):
            raise ValueError(f"alpha: {self.targets} targets mean {fixed}, found {self.alpha}; use targets: mixed")
        if not self.soft_losses:
            raise ValueError("soft_losses: is empty; name at least one loss, as in {divergence: 1}")
        if fixed == 1 and (self.teacher_shift_ms or self.soft_losses != {"divergence": 1.0}):
            raise ValueError(f"soft_losses, teacher_shift_ms: {self.targets} targets have none; use soft or mixed ones")
        if fixed == 1 and (self.consistency or self.teacher_augmentation != "none"):
            raise ValueError(
                f"consistency, teacher_augmentation: no teacher listens with {self.targets} targets; use soft or mixed"
            )
        if fixed == 0 and self.fast_emit:
            raise ValueError("fast_emit: goes with a transducer loss, which soft targets have not; use mixed ones")
        return self

    def labelled_utterances(self, batch: int) -> int:
        """Return how many utterances of a batch come from labelled speech, for a run with a `labelled_share`."""
        return int(self.labelled_share * batch + 0.5)

    @property
    def transducer_weight(self) -> float:
        """Alpha of Hwang et al. 2022: 1 for transcripts, 0 for soft targets, between for a mix (0.5 by default)."""
        fixed = {"supervised": 1.0, "hard": 1.0, "soft": 0.0}.get(self.targets)
        return fixed if fixed is not None else (0.5 if self.alpha is None else self.alpha)


class Knowledge(Record):
    """What is learnt from BERT, and how (Hentschel et al. 2024, sec. 3)."""

    direction: Literal["reverse", "forward"] = "reverse"
    """Reverse is KL(student || BERT), as the paper prints it."""
    rest: Literal["bucket", "renormalise"] = "bucket"
    """What becomes of the tokens that are not among the top K: one further token on both sides, or nothing."""
    top_k: PositiveInt = 10
    temperature: Positive = 1.0
    mask: MaskKind = "token"
    """What BERT was asked to guess at a time."""
    hidden_states: Literal["none", "l2", "cosine"] = "none"
    """Learn BERT's hidden states by regression, instead of its token distributions."""


class FrameKnowledge(Record):
    """BERT's distributions taught to the CTC head itself, at the frames of each label (Futami et al. 2022)."""

    weight: Fraction = 0.5
    """Against the CTC loss."""
    top_k: PositiveInt = 8
    temperature: Positive = 3.0
    mask: MaskKind = "token"


class CTCRun(Record):
    """One training run of a recogniser with a CTC head."""

    recogniser: Literal["ctc"]
    model: str
    """A role among the scale's ctc_models."""
    phase: str
    """A phase of the scale: the run's budget."""
    augmentation: str
    decoder: Literal["none", "cross_entropy", "bert"] = "none"
    """What attention decoders learn while training: nothing (there are none), the transcript, or BERT's knowledge."""
    intermediate: Count = 0
    """M: how many intermediate layers the decoder reads beside the final one: floor(m N / (M + 1)), m = 1..M."""
    alpha: Fraction = 0.7
    """Weight of the decoders' loss against the CTC loss, where there are decoders."""
    beta: Fraction = 0.5
    """Weight of the intermediate layers' decoder loss against the final layer's."""
    interctc: Fraction = 0.0
    """Weight of CTC losses on the intermediate layers, or on the middle one where there are none, against the final
    one; 0.3 in Lee & Watanabe 2021."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of decoders that learn the transcript."""
    knowledge: Knowledge = Knowledge()
    frame_knowledge: FrameKnowledge | None = None

    @model_validator(mode="after")
    def _check(self) -> CTCRun:
        if self.decoder == "none" and self.intermediate and not self.interctc:
            raise ValueError("intermediate: nothing reads intermediate layers; give the run a decoder or interctc")
        if self.decoder != "bert" and self.knowledge != Knowledge():
            raise ValueError(f"knowledge: decoder: {self.decoder} learns nothing of BERT; write decoder: bert")
        if self.decoder == "bert" and self.frame_knowledge is not None:
            raise ValueError("frame_knowledge: is for runs whose decoder does not learn from BERT already")
        if self.decoder == "bert" and self.label_smoothing:
            raise ValueError("label_smoothing: is for decoders that learn the transcript; write decoder: cross_entropy")
        return self

    @property
    def from_bert(self) -> Knowledge | FrameKnowledge | None:
        """Return what is learnt from BERT, by the decoders or by the CTC head."""
        return self.knowledge if self.decoder == "bert" else self.frame_knowledge

    @property
    def soft_labels(self) -> tuple[str, ...]:
        """Return the name of the soft labels that the run needs, if any: how BERT is asked, and for what."""
        if self.from_bert is None:
            return ()
        hidden_states = self.knowledge.hidden_states != "none"
        return (f"{self.from_bert.mask}_hidden_states" if hidden_states else self.from_bert.mask,)

    @property
    def decoder_transcribes(self) -> bool:
        """Whether there is a decoder that learnt to predict tokens."""
        return self.decoder != "none" and self.knowledge.hidden_states == "none"

    @property
    def targets(self) -> Literal["no decoder", "transcript", "BERT"]:
        """Return what decoders learn, by which figures tell runs apart."""
        return {"none": "no decoder", "cross_entropy": "transcript", "bert": "BERT"}[self.decoder]

    @property
    def teacher(self) -> None:
        """No run teaches a CTC recogniser; BERT does."""
        return

    @property
    def audio(self) -> tuple[str, ...]:
        """BERT's knowledge is about transcripts, so all speech is labelled."""
        return ("labelled",)


class PretrainingRun(Record):
    """One self-supervised training of a transducer's encoder, by BEST-RQ (Chiu et al. 2022); it transcribes nothing."""

    recogniser: Literal["best_rq"]
    model: str
    """A model role of the scale, whose encoder is trained."""
    phase: str
    """A phase of the scale: the run's budget."""
    audio: tuple[Literal["labelled", "unlabelled"], ...] = ("labelled", "unlabelled")
    """Transcripts are not used."""

    @model_validator(mode="after")
    def _check(self) -> PretrainingRun:
        if not self.audio:
            raise ValueError("audio: is empty; write [labelled], [unlabelled] or both")
        return self

    @property
    def targets(self) -> Literal["self-supervised"]:
        """Return the kind of target, by which figures tell runs apart."""
        return "self-supervised"

    @property
    def teacher(self) -> None:
        """Speech alone teaches the encoder."""
        return


def recogniser(run: Any) -> str:
    """Return the kind of recogniser that a run, or what may become one, is about."""
    return run.get("recogniser", "transducer") if isinstance(run, dict) else run.recogniser


AnyRun = Annotated[
    Annotated[Run, Tag("transducer")] | Annotated[CTCRun, Tag("ctc")] | Annotated[PretrainingRun, Tag("best_rq")],
    Discriminator(recogniser),
]


def needed_runs(run: AnyRun) -> tuple[str, ...]:
    """Return the other runs of the study that a run needs: its teacher, and the one whose encoder it starts from."""
    initial = run.initial if run.recogniser == "transducer" else None
    return tuple(name for name in (run.teacher, initial) if name is not None)
