"""What a job is given: records with every reference followed, written as YAML beside the job's outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import yaml

from asr_distill.experiment.base import Name, Record
from asr_distill.experiment.corpora import Corpus, Features, Tokenizer
from asr_distill.experiment.language_models import LanguageModels
from asr_distill.experiment.models import CTCSize, ModelSize
from asr_distill.experiment.runs import AnyRun
from asr_distill.experiment.scale import Augmentation, Decoding, Phase, PseudoLabels, Scale
from asr_distill.experiment.study import Study, systems


class ResolvedRecord(Record):
    """A record that is read from and written to YAML as a whole."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record written by this project."""
        return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))

    def to_yaml(self) -> str:
        """Return the record as YAML text, the same for the same record."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


class CorpusRecord(ResolvedRecord):
    """Everything that decides the prepared corpus of a scale."""

    data: str
    corpus: Corpus
    features: Features


class TokenizerRecord(ResolvedRecord):
    """Everything that decides the tokens of a scale, beside the transcripts."""

    tokenizer: Tokenizer


class DecodingRecord(ResolvedRecord):
    """How the models of a scale are decoded."""

    decoding: Decoding
    pseudo_labels: PseudoLabels


class LanguageModelsRecord(ResolvedRecord):
    """Everything that decides the language models of a scale, beside tokens and transcripts."""

    data: str
    language_models: LanguageModels


class RunRecord(ResolvedRecord):
    """One training run with one seed."""

    scale: str
    study: str
    name: str
    seed: int
    run: AnyRun
    model: ModelSize | CTCSize
    phase: Phase
    augmentation: Augmentation
    teacher_augmentation: Augmentation = Augmentation()
    """What a teacher hears that gives soft targets."""
    features: Features
    labelled: tuple[str, ...]
    """Parts with human transcripts that the run trains on."""
    unlabelled: tuple[str, ...]
    """Parts transcribed by the teacher that the run trains on."""
    dev: tuple[str, ...]

    @property
    def teacher_shift(self) -> int:
        """Encoder frames by which the teacher's distributions are delayed."""
        if self.run.recogniser != "transducer":
            return 0
        return round(self.run.teacher_shift_ms / (self.model.encoder.stack * self.features.frame_shift_ms))


class StudyRecord(ResolvedRecord):
    """One study at one scale, or a part of it, with the figures its paper prints."""

    name: str
    selection: str
    """Name of the part of the study that is reported on."""
    study: Study
    """That part alone."""
    undecided: tuple[str, ...] = ()
    """Claims of the study that the part cannot decide, for want of runs."""
    scale_name: str
    scale: Scale
    seeds: tuple[int, ...]
    printed: dict[str, Any]
    """The paper's YAML file."""

    def systems(self) -> dict[str, tuple[Name, str]]:
        """Return everything whose word errors are counted: its name -> run, and file below the run's folder."""
        return systems(self.study, self.scale)

    @property
    def ctc_runs(self) -> tuple[Name, ...]:
        """Return the runs whose recogniser has a CTC head; they are decoded in several ways."""
        return tuple(name for name, run in self.study.runs.items() if run.recogniser == "ctc")

    @property
    def uses_language_models(self) -> bool:
        """Whether any run learns from a language model or is decoded with one."""
        return bool(self.ctc_runs)

    @staticmethod
    def run_folder(run: Name, seed: int) -> str:
        """Return where a run lies below the study's work folder."""
        return f"{run}/seed{seed}"
