"""Memory of training jobs, and disk of a whole run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from asr_distill.experiment import BertSize, Features, RunRecord, Scale
from asr_distill.planning import work
from asr_distill.planning.machines import USABLE, is_fast
from asr_distill.planning.speech import Speech
from asr_distill.planning.workload import mean_utterance, pieces_per_word, vocabulary_of

TRAINED_BYTES = 20
"""Of a parameter in training, all float32: weight, gradient, two moments of AdamW, running average."""
SAVED_NUMBERS = 58
"""Kept for the gradients, per encoder frame, layer and dimension, where feed-forwards are four times as wide."""
FAST_BYTES = 2.8
"""Mean bytes of a kept number with bfloat16 products, for normalisations and residuals stay float32; 4 without."""
LATTICE_BYTES = 100
"""Of a lattice node, for all quantities of (B, T, U + 1) that losses keep."""
CLASS_BYTES = 12
"""Of a class of an output layer: logits, log-probabilities and gradient."""
LONGEST = 1.6
"""Length of the utterances of the largest batch, by the mean: batches hold utterances of similar length."""
START_GIGABYTES = 0.8
"""Of a Python process with torch, and what its allocator holds back."""
FEATURE_BYTES_IN_MEMORY, FEATURE_BYTES_ON_DISK = 4, 1.2
"""Of a mel bin of a frame; on disk as lilcom packed them at the scales mini and an4."""
LINE_BYTES = 250
"""Of a pseudo-label in its file."""
NGRAM_BYTES = 80
"""Of a token, at the peak of estimating an n-gram; see text/ngram.py."""
TEXT_BYTES, ARPA_BYTES = 7.2, 15
"""Of a word of text: in its file, packed and unpacked, and, assumed, in the n-gram."""
WORDS_OF_TEXT = {"librispeech-lm-norm.txt.gz": 803e6}
"""LibriSpeech's text for language models (openslr.org, resource 11)."""
WORDS_OF_LINE = 9
"""Of the embedded grammar."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Of one training job, in gigabytes of each GPU, or of the machine's memory where there is none."""

    fixed: float
    """Weights, gradients and optimiser, the teacher; on a CPU the process and its features."""
    utterance: float
    """For each utterance of a batch, kept for the gradients."""
    batch: int
    """Utterances that a GPU has in a step."""
    room: float
    """What may be filled; infinite on a CPU."""

    @property
    def at_once(self) -> int:
        """Return how many utterances of its batch a GPU can take at once; 0 where not even one."""
        fitting = (self.room - self.fixed) / self.utterance
        return int(max(0, min(self.batch, fitting)))

    @property
    def pieces(self) -> int:
        """Return in how many pieces the batch goes through a GPU: gradients are summed over them."""
        return math.ceil(self.batch / max(1, self.at_once))

    @property
    def peak(self) -> float:
        """Return gigabytes."""
        return self.fixed + max(1, math.ceil(self.batch / self.pieces)) * self.utterance


def parameters(run: RunRecord, scale: Scale) -> tuple[int, int]:
    """Return a run's parameters in training: of the recogniser, and of what is thrown away after it."""
    vocabulary, mel_bins = vocabulary_of(run.run.recogniser, scale), run.features.mel_bins
    if run.run.recogniser == "best_rq":
        asked = run.pretraining
        encoder = work.encoder_parameters(run.model.encoder, mel_bins=mel_bins)
        return encoder, (run.model.encoder.dim + 1) * asked.codebooks * asked.codes
    if run.run.recogniser == "ctc":
        decoder = 0
        if run.run.decoder != "none":
            dim = run.model.encoder.dim
            decoder = work.decoder_parameters(run.model.decoder, vocabulary=vocabulary, encoder_dim=dim)
        return work.ctc_parameters(run.model, vocabulary=vocabulary, mel_bins=mel_bins), decoder
    head = (run.model.encoder.dim + 1) * vocabulary
    return work.transducer_parameters(run.model, vocabulary=vocabulary, mel_bins=mel_bins), head


def training_memory(
    run: RunRecord,
    *,
    scale: Scale,
    teacher: int,
    speech: Mapping[str, Speech],
    gigabytes: float,
    sharers: int,
) -> Memory:
    """Return the memory that a training run takes.

    Args:
        run: the run.
        scale: its scale.
        teacher: parameters of the teacher that listens while it trains, or 0.
        speech: of every part.
        gigabytes: of a GPU; 0 without one.
        sharers: GPUs that share each batch.
    """
    fixed = (TRAINED_BYTES * sum(parameters(run, scale)) + 4 * teacher) / 1e9
    if not gigabytes:
        fixed += START_GIGABYTES + _features_in_memory(run, speech=speech)
    return Memory(
        fixed=fixed,
        utterance=_utterance_bytes(run, scale=scale, speech=speech) / 1e9,
        batch=math.ceil(run.phase.batch_utterances / sharers),
        room=USABLE * gigabytes if gigabytes else math.inf,
    )


def _utterance_bytes(run: RunRecord, *, scale: Scale, speech: Mapping[str, Speech]) -> float:
    """Return the bytes that are kept of a long utterance until its gradients are there."""
    vocabulary = vocabulary_of(run.run.recogniser, scale)
    mean = mean_utterance([speech[part] for part in run.heard], vocabulary=vocabulary)
    size = run.model.encoder
    frames = LONGEST * mean.frames(run.features, stack=size.stack)
    rows = LONGEST * mean.labels + 1
    number = FAST_BYTES if is_fast(run.phase) else 4
    kept = number * SAVED_NUMBERS * frames * size.layers * size.dim
    if run.run.recogniser == "transducer":
        return kept + LATTICE_BYTES * frames * rows + CLASS_BYTES * frames * vocabulary
    if run.run.recogniser == "ctc":
        heads = 1 + (max(run.run.intermediate, 1) if run.run.interctc else 0)
        kept += heads * CLASS_BYTES * frames * vocabulary
        if run.run.decoder != "none":
            decoder = run.model.decoder
            row = number * SAVED_NUMBERS * decoder.layers * decoder.dim + CLASS_BYTES * vocabulary
            kept += (1 + run.run.intermediate) * rows * row
    return kept


def _features_in_memory(run: RunRecord, *, speech: Mapping[str, Speech]) -> float:
    """Return the gigabytes of a run's features, where they are few enough to be kept."""
    speeds = run.features.speed_perturbation
    hours = sum(speech[part].hours for part in run.heard) * sum(1 / speed for speed in speeds)
    kept = hours if hours < run.features.cache_hours else 0.0
    return kept * FEATURE_BYTES_IN_MEMORY * _numbers_of_an_hour(run.features) / 1e9


def _numbers_of_an_hour(features: Features) -> float:
    return 3.6e6 / features.frame_shift_ms * features.mel_bins


def disk(scale: Scale, *, speech: Mapping[str, Speech], runs: list[RunRecord]) -> dict[str, float]:
    """Return the gigabytes that a run of a study needs, by what they hold."""
    archives = sum(part.archive_gigabytes for part in speech.values())
    features = sum(
        part.hours * (sum(1 / speed for speed in scale.features.speed_perturbation) if _trains(name, scale) else 1)
        for name, part in speech.items()
    )
    features *= FEATURE_BYTES_ON_DISK * _numbers_of_an_hour(scale.features) / 1e9
    models = [sum(parameters(run, scale)) for run in runs]
    labels = sum(speech[part].utterances for part in scale.parts("unlabelled")) * LINE_BYTES / 1e9
    teachers = len({(run.run.teacher, run.seed) for run in runs if run.run.teacher})
    found = {
        "archives as published": archives,
        "audio, unpacked": archives,
        "features": features,
        "models": 4 * sum(models) / 1e9,
        "a checkpoint of every training": 2 * TRAINED_BYTES * max(models) / 1e9,
        "pseudo-labels": teachers * labels,
    }
    if any(run.run.recogniser == "ctc" for run in runs):
        found["text and n-gram"] = text_words(scale) * (TEXT_BYTES + ARPA_BYTES) / 1e9
        found["BERT's soft labels"] = _soft_labels(scale, speech=speech, runs=runs)
    return {what: gigabytes for what, gigabytes in found.items() if gigabytes >= 0.005}


def text_words(scale: Scale) -> float:
    """Return the words of the text for language models.

    Raises:
        ValueError: for a file that is not known.
    """
    text = scale.language_models.text
    if text.source == "grammar":
        return WORDS_OF_LINE * text.lines
    name = text.path.rpartition("/")[2]
    if name not in WORDS_OF_TEXT:
        raise ValueError(
            f"language_models.text.path: how long '{name}' is is not known; known: {', '.join(WORDS_OF_TEXT)}"
        )
    return WORDS_OF_TEXT[name]


def text_tokens(scale: Scale) -> float:
    """Return the tokens of the text for language models."""
    return text_words(scale) * pieces_per_word(vocabulary_of("ctc", scale))


def _soft_labels(scale: Scale, *, speech: Mapping[str, Speech], runs: list[RunRecord]) -> float:
    """Return the gigabytes of all that BERT says of the transcripts: 8 bytes a kept token, 2 a hidden number."""
    asked = {name for run in runs if run.run.recogniser == "ctc" for name in run.run.soft_labels}
    labelled = [speech[part] for part in scale.parts("labelled")]
    tokens = mean_utterance(labelled, vocabulary=vocabulary_of("ctc", scale)).labels * sum(
        p.utterances for p in labelled
    )
    bert = scale.language_models.bert
    hidden = 2 * bert.dim if isinstance(bert, BertSize) else 0
    each = (8 * scale.language_models.soft_label_top_k + ("hidden" in name) * hidden for name in asked)
    return tokens * sum(each) / 1e9


def _trains(part: str, scale: Scale) -> bool:
    return scale.corpus.parts[part].use in ("labelled", "unlabelled")
