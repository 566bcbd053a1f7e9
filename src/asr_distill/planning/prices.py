"""What each job of the workflow would take, from what it does: seconds, and whether it uses a GPU."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asr_distill.experiment import Decoding, PretrainedBert, RunRecord, scored_parts
from asr_distill.experiment.loading import Experiment
from asr_distill.planning import work
from asr_distill.planning.footprint import Memory, parameters, text_words, training_memory
from asr_distill.planning.machines import CORE, Machine, is_fast, several
from asr_distill.planning.speech import Speech
from asr_distill.planning.workload import Workload, bert_step, mean_utterance, training_step, vocabulary_of
from asr_distill.reporting.cost import Job

START_SECONDS = 4.0
"""Of a job that uses torch, until it computes."""
OTHER_SECONDS = 5.0
"""Of a job that makes tables, figures, pages."""
PREPARE_SECONDS, SYNTHESIS_SECONDS = 20.0, 20.0
"""Of an hour of speech, at each speed; recorded were 8 to 68 and 9 to 45."""
SEARCH_FRAME_SECONDS = 50e-6
"""Of an encoder frame in one pass of the beam search with an n-gram, on a core, as recorded at the scale mini."""
TEXT_WORD_SECONDS = 1.5e-6
NGRAM_TOKEN_SECONDS = 4e-6
"""Of estimating a 6-gram, on a core, as recorded at the scale mini."""
KINDS = {
    "synthesize": "Speech",
    "prepare": "Speech",
    "tokenizer": "Text, tokens, n-gram",
    "text": "Text, tokens, n-gram",
    "ngram": "Text, tokens, n-gram",
    "bert": "BERT",
    "soft_labels": "BERT",
    "pretrain": "Training",
    "train": "Training",
    "pseudo_label": "Pseudo-labels",
    "decode": "Transcription",
    "align": "Transcription",
}
"""What rules do, by the beginning of their name; the longest one that fits counts."""
REPORTS = "Reports"
ON_GPU = ("Training", "BERT", "Pseudo-labels", "Transcription")


@dataclass(frozen=True, kw_only=True)
class Priced:
    """A job and what it takes."""

    job: Job
    kind: str
    seconds: float
    gpus: int = 0


@dataclass(frozen=True, kw_only=True)
class Pricing:
    """Prices the jobs of one study on one kind of machine."""

    experiment: Experiment
    speech: Mapping[str, Speech]
    machine: Machine
    """One GPU, or one core."""
    sharers: int = 1
    """GPUs that share the batches of a training."""

    def price(self, jobs: Sequence[Job]) -> list[Priced]:
        """Return what each job takes; jobs of one rule about the same run and part share its speech."""
        alike = Counter(map(_about, jobs))
        return [self._one(job, among=alike[_about(job)]) for job in jobs]

    def memory(self, run: RunRecord) -> Memory:
        """Return the memory of a training."""
        teacher = 0
        if run.run.recogniser == "transducer" and run.run.transducer_weight < 1:
            its = self.experiment.run(run.study, run.run.teacher, seed=run.seed)
            teacher = parameters(its, self.experiment.scale)[0]
        return training_memory(
            run,
            scale=self.experiment.scale,
            teacher=teacher,
            speech=self.speech,
            gigabytes=self.machine.gigabytes,
            sharers=self.sharers,
        )

    def _one(self, job: Job, *, among: int) -> Priced:
        kind = kind_of(job.rule)
        gpus = 0
        if kind in ON_GPU and self.machine.gigabytes:
            gpus = self.sharers if kind == "Training" else 1
        return Priced(job=job, kind=kind, seconds=self._seconds(job, kind) / among + START_SECONDS, gpus=gpus)

    def _seconds(self, job: Job, kind: str) -> float:
        """Return the seconds of a job's own work, its start left out."""
        chosen = job.wildcards
        if kind == "Training":
            return self._training(self._run(chosen))
        if kind == "Transcription":
            return self._transcription(self._run(chosen))
        if kind == "Pseudo-labels":
            return self._search(self._run(chosen), self.speech[chosen["part"]], self.experiment.scale.pseudo_labels)
        if kind == "Speech":
            return self._speech(job)
        if kind == "BERT":
            return self._bert() if job.rule == "bert" else self._soft_labels()
        if job.rule in ("text", "ngram"):
            each = TEXT_WORD_SECONDS if job.rule == "text" else NGRAM_TOKEN_SECONDS
            return each * text_words(self.experiment.scale)
        return OTHER_SECONDS - START_SECONDS

    def _run(self, wildcards: Mapping[str, str]) -> RunRecord:
        return self.experiment.run(wildcards["study"], wildcards["run"], seed=int(wildcards["seed"]))

    def _training(self, run: RunRecord) -> float:
        """Return the seconds of all steps, their batch in as many pieces as the GPU's memory asks for."""
        step = training_step(run, experiment=self.experiment, speech=self.speech)
        pieces = self.memory(run).pieces
        step = dataclasses.replace(step, layers=pieces * step.layers)
        together = several(self.machine, count=self.sharers)
        return run.phase.steps * together.seconds(step, fast=is_fast(run.phase))

    def _transcription(self, run: RunRecord) -> float:
        """Return the seconds of transcribing all dev and test parts of a run, in all ways in which it is searched."""
        scale = self.experiment.scale
        parts = [self.speech[part] for part in scored_parts(run.run, scale)]
        if run.run.recogniser != "ctc":
            return sum(self._search(run, part, scale.decoding) for part in parts)
        frames = 3600e3 / (run.features.frame_shift_ms * run.model.encoder.stack)  # of an hour
        search = scale.language_models.search
        tuned = sum(
            min(1, search.tune_utterances / self.speech[part].utterances) * self.speech[part].hours
            for part in scale.parts("dev")
        )
        tries = len(search.lm_weights) * len(search.insertion_scores) + len(search.beam_size_tokens)
        passes = len(search.beam_sizes) * (sum(part.hours for part in parts) + tries * tuned)
        return sum(self._forward(run, part) for part in parts) + SEARCH_FRAME_SECONDS * frames * passes

    def _search(self, run: RunRecord, part: Speech, settings: Decoding) -> float:
        """Return the seconds of a transducer's search: the encoder, then step after small step for a whole batch."""
        vocabulary = self.experiment.scale.tokenizer.vocabulary
        one = mean_utterance([part], vocabulary=vocabulary)
        batches = 3600 * part.hours / settings.batch_seconds
        steps = batches * (one.frames(run.features, stack=run.model.encoder.stack) + one.labels)
        beams = settings.beam_size if settings.method == "beam" else 1
        return self._forward(run, part) + beams * steps * self.machine.search_seconds

    def _forward(self, run: RunRecord, part: Speech) -> float:
        """Return the seconds of encoding a part."""
        size, vocabulary = run.model.encoder, vocabulary_of(run.run.recogniser, self.experiment.scale)
        frames = mean_utterance([part], vocabulary=vocabulary).frames(run.features, stack=size.stack)
        operations = work.encoder_operations(size, frames=frames, mel_bins=run.features.mel_bins)
        return self.machine.seconds(Workload(operations=part.utterances * operations))

    def _speech(self, job: Job) -> float:
        """Return the seconds of synthesising or preparing speech; both are a core's work."""
        corpus = self.experiment.scale.corpus.parts
        if job.rule.startswith("prepare"):
            part = job.wildcards["part"]
            speeds = self.experiment.scale.features.speed_perturbation
            count = len(speeds) if corpus[part].use in ("labelled", "unlabelled") else 1
            return PREPARE_SECONDS * count * self.speech[part].hours
        part_set = job.wildcards.get("set")
        spoken = (name for name, part in corpus.items() if part.source == "synthetic" and part.part_set == part_set)
        return SYNTHESIS_SECONDS * sum(self.speech[name].hours for name in spoken)

    def _bert(self) -> float:
        settings = self.experiment.scale.language_models
        if isinstance(settings.bert, PretrainedBert):
            return 0.0
        fast = self.machine is not CORE  # BERT trains with bfloat16 products on a GPU
        return settings.bert_training.steps * self.machine.seconds(bert_step(self.experiment.scale), fast=fast)

    def _soft_labels(self) -> float:
        """Return the seconds of asking for every token of every labelled transcript, each in a copy of its line."""
        scale = self.experiment.scale
        labelled = [self.speech[part] for part in scale.parts("labelled")]
        vocabulary, bert = vocabulary_of("ctc", scale), scale.language_models.bert
        if isinstance(bert, PretrainedBert):
            raise ValueError("language_models.bert: the size of a BERT of others is not known before it is there")
        labels = mean_utterance(labelled, vocabulary=vocabulary).labels
        asked = labels * sum(part.utterances for part in labelled)
        operations = work.bert_operations(
            bert, tokens=asked * (labels + 2), length=labels + 2, guessed=asked, vocabulary=vocabulary
        )
        return self.machine.seconds(Workload(operations=operations))


def kind_of(rule: str) -> str:
    """Return what jobs of a rule do; rules that only write results are told by not being known here."""
    fitting = [name for name in KINDS if rule == name or rule.startswith((f"{name}_", f"{name}-"))]
    return KINDS[max(fitting, key=len)] if fitting else REPORTS


def _about(job: Job) -> tuple[str, ...]:
    """Return what tells jobs apart that do different work: what they are about, shards left out."""
    keys = ("study", "run", "seed", "part", "set", "tokens", "mask", "hidden_states", "selection", "sets")
    return (job.rule, *(job.wildcards.get(key, "") for key in keys))
