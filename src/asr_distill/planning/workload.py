"""What one step of training, and one utterance of decoding, asks of a machine: operations, layers, memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from asr_distill.experiment import Features, Run, RunRecord, Scale, Study
from asr_distill.experiment.loading import Experiment
from asr_distill.planning import work
from asr_distill.planning.speech import Speech

WORDS_PER_SECOND = 2.7
"""Of read speech: 9.4 million words in LibriSpeech's 961 hours."""
PIECES_PER_WORD = ((32, 4.5), (64, 3.5), (256, 2.2), (1024, 1.5), (5000, 1.2), (16000, 1.1))
"""Word pieces of English by size of the vocabulary, assumed; between them the logarithm decides."""
TRAINED = 3
"""Products of a training step by those of its forward pass: with the gradients for inputs and weights."""
TRANSDUCER_PRODUCTS, DIVERGENCE_PRODUCTS = 4, 5
"""Products over all lattice nodes: the student's forward pass, computed again on the way back, and two for the
gradients; the teacher's forward pass beside that where the student learns its distributions."""
CODES_ASKED = 0.33
"""Share of the frames that BEST-RQ hides and asks about: 1 - (1 - 0.01)^40."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Of one step, or of one pass over something."""

    operations: float = 0.0
    """Of matrix products outside lattices."""
    lattice_operations: float = 0.0
    layers: float = 0.0
    """Layers run through, one for a forward pass, three with its gradients: what starting operations costs."""

    def __add__(self, other: Workload) -> Workload:
        return Workload(
            operations=self.operations + other.operations,
            lattice_operations=self.lattice_operations + other.lattice_operations,
            layers=self.layers + other.layers,
        )

    def times(self, factor: float) -> Workload:
        """Return so many times the operations and the layers."""
        return Workload(
            operations=factor * self.operations,
            lattice_operations=factor * self.lattice_operations,
            layers=factor * self.layers,
        )

    def batched(self, utterances: float) -> Workload:
        """Return the work of a batch of such utterances, whose layers run once."""
        operations, lattice = utterances * self.operations, utterances * self.lattice_operations
        return Workload(operations=operations, lattice_operations=lattice, layers=self.layers)


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One of mean length."""

    seconds: float
    labels: float

    def frames(self, features: Features, *, stack: int) -> float:
        """Return its encoder frames."""
        return 1000 * self.seconds / (features.frame_shift_ms * stack)


def mean_utterance(parts: Collection[Speech], *, vocabulary: int) -> Utterance:
    """Return the mean utterance of some parts, with as many labels as read speech of that length has."""
    seconds = 3600 * sum(part.hours for part in parts) / sum(part.utterances for part in parts)
    return Utterance(seconds=seconds, labels=seconds * WORDS_PER_SECOND * pieces_per_word(vocabulary))


def pieces_per_word(vocabulary: int) -> float:
    """Return how many tokens a word takes."""
    sizes, pieces = zip(*PIECES_PER_WORD, strict=True)
    return float(np.interp(np.log(vocabulary), np.log(sizes), pieces))


def vocabulary_of(recogniser: str, scale: Scale) -> int:
    """Return the number of tokens of a kind of recogniser."""
    return (scale.ctc_tokenizer or scale.tokenizer).vocabulary if recogniser == "ctc" else scale.tokenizer.vocabulary


def training_step(run: RunRecord, *, experiment: Experiment, speech: Mapping[str, Speech]) -> Workload:
    """Return the mean work of a step of a training run, looks at the dev sets included."""
    scale, study = experiment.scale, experiment.studies[run.study]
    vocabulary = vocabulary_of(run.run.recogniser, scale)
    heard = mean_utterance([speech[part] for part in run.heard], vocabulary=vocabulary)
    if run.run.recogniser == "ctc":
        one = _ctc(run, heard, vocabulary=vocabulary)
    elif run.run.recogniser == "best_rq":
        one = _best_rq(run, heard)
    else:
        one = _transducer(run, heard, study=study, scale=scale)
    return one.batched(run.phase.batch_utterances)


def _encoder(run: RunRecord, utterance: Utterance) -> Workload:
    """Return the work of a forward pass of a run's encoder."""
    size = run.model.encoder
    frames = utterance.frames(run.features, stack=size.stack)
    operations = work.encoder_operations(size, frames=frames, mel_bins=run.features.mel_bins)
    return Workload(operations=operations, layers=size.layers)


def _transducer(run: RunRecord, utterance: Utterance, *, study: Study, scale: Scale) -> Workload:
    """Return the work of an utterance: encoder and predictor, lattice losses, the teacher's part in them."""
    size, vocabulary = run.model, scale.tokenizer.vocabulary
    frames = utterance.frames(run.features, stack=size.encoder.stack)
    lattices = (1 - run.phase.ctc_weight) > 0
    share = (1 - run.phase.ctc_warmup_share) * lattices
    at = {"frames": frames, "labels": utterance.labels}
    predicted = work.predictor_operations(size.predictor, labels=utterance.labels)
    beside = predicted + work.projection_operations(size, **at)
    head = work.head_operations(size.encoder.dim, rows=frames, classes=vocabulary) * (run.phase.ctc_weight > 0)
    own = Workload(operations=share * beside + head, layers=share * size.predictor.layers)
    node = work.lattice_operations(size, **at, vocabulary=vocabulary)
    student = (_encoder(run, utterance) + own).times(TRAINED)
    total = student + Workload(lattice_operations=share * node * (TRANSDUCER_PRODUCTS if _transduces(run.run) else 0))
    if run.run.transducer_weight == 1:
        return total
    teacher = scale.models[study.runs[run.run.teacher].model].with_activation(study.runs[run.run.teacher].activation)
    its = work.encoder_operations(teacher.encoder, frames=frames, mel_bins=run.features.mel_bins)
    its += share * work.predictor_operations(teacher.predictor, labels=utterance.labels)
    node_of_teacher = work.lattice_operations(teacher, **at, vocabulary=vocabulary)
    divergence = share * (node * (DIVERGENCE_PRODUCTS - 1) + node_of_teacher)
    return total + Workload(operations=its, lattice_operations=divergence, layers=teacher.encoder.layers)


def _transduces(run: Run) -> bool:
    """Return whether the transducer loss is computed alone; beside a divergence it shares the student's products."""
    return run.transducer_weight == 1


def _ctc(run: RunRecord, utterance: Utterance, *, vocabulary: int) -> Workload:
    """Return the work of an utterance: encoder, heads and decoders on the layers that they read."""
    size, chosen = run.model, run.run
    frames = utterance.frames(run.features, stack=size.encoder.stack)
    heads = 1 + (max(chosen.intermediate, 1) if chosen.interctc else 0)
    head = heads * work.head_operations(size.encoder.dim, rows=frames, classes=vocabulary)
    total = _encoder(run, utterance) + Workload(operations=head)
    if chosen.decoder != "none":
        read = 1 + chosen.intermediate
        decoder = work.decoder_operations(
            size.decoder,
            frames=frames,
            labels=utterance.labels,
            vocabulary=vocabulary,
            encoder_dim=size.encoder.dim,
        )
        total += Workload(operations=read * decoder, layers=size.decoder.layers)
    return total.times(TRAINED)


def _best_rq(run: RunRecord, utterance: Utterance) -> Workload:
    """Return the work of an utterance: encoder, and the head on hidden frames; the codes are next to nothing."""
    size, asked = run.model.encoder, run.pretraining
    rows = CODES_ASKED * utterance.frames(run.features, stack=size.stack)
    head = work.head_operations(size.dim, rows=rows, classes=asked.codebooks * asked.codes)
    return (_encoder(run, utterance) + Workload(operations=head)).times(TRAINED)


def bert_step(scale: Scale) -> Workload:
    """Return the work of a step of training BERT."""
    size, training = scale.language_models.bert, scale.language_models.bert_training
    operations = work.bert_operations(
        size,
        tokens=training.batch_tokens,
        length=0.5 * size.max_tokens,
        guessed=training.mask_share * training.batch_tokens,
        vocabulary=vocabulary_of("ctc", scale),
    )
    return Workload(operations=TRAINED * operations, layers=TRAINED * size.layers)
