"""What a job is given: records with every reference followed, written as YAML beside the job's outputs."""

from __future__ import annotations

from operator import not_
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field

from asr_distill.experiment.base import Name, Record
from asr_distill.experiment.corpora import Corpus, Features, Tokenizer
from asr_distill.experiment.language_models import LanguageModels
from asr_distill.experiment.models import CTCSize, ModelSize
from asr_distill.experiment.parts import scored_parts
from asr_distill.experiment.pretraining import Pretraining
from asr_distill.experiment.runs import AnyRun, Run
from asr_distill.experiment.scale import Augmentation, Decoding, Phase, PseudoLabels, Scale
from asr_distill.experiment.study import Claim, Study, systems, timed_runs

LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER: type = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""libyaml's, where PyYAML was built with it: several times as fast, which every start of the workflow feels."""


class ResolvedRecord(Record):
    """A record that is read from and written to YAML as a whole."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record written by this project."""
        return cls.model_validate(yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER))

    def to_yaml(self) -> str:
        """Return the record as YAML text, the same for the same record."""
        values = self.model_dump(mode="json")
        return yaml.dump(values, Dumper=DUMPER, sort_keys=False, allow_unicode=True, width=120)


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
    augmentation: Augmentation = Augmentation()
    teacher_augmentation: Augmentation = Augmentation()
    """What a teacher hears that gives soft targets."""
    pretraining: Pretraining | None = None
    """What the encoder is asked that the run pre-trains."""
    features: Features
    labelled: tuple[str, ...]
    """Parts with human transcripts that the run trains on."""
    unlabelled: tuple[str, ...]
    """Parts transcribed by the teacher that the run trains on."""
    rehearsed: tuple[str, ...] = Field(default=(), exclude_if=not_)
    """Parts with human transcripts that the run goes on hearing beside these."""
    normalised_by: tuple[str, ...] = ()
    """Parts whose mean and deviation normalise the features: the run's own where none are named."""
    dev: tuple[str, ...]
    """Parts transcribed now and then during training."""

    @property
    def heard(self) -> tuple[str, ...]:
        """All parts that the run trains on."""
        return (*self.labelled, *self.unlabelled, *self.rehearsed)

    @property
    def teacher_shift(self) -> int:
        """Encoder frames by which the teacher's distributions are delayed."""
        if self.run.recogniser != "transducer":
            return 0
        return shift_frames(self.run, self.model, self.features)


def shift_frames(run: Run, model: ModelSize, features: Features) -> int:
    """Return the encoder frames by which a run's teacher is delayed, rounded to the nearest."""
    return round(run.teacher_shift_ms / (model.encoder.stack * features.frame_shift_ms))


class Undecided(Record):
    """A claim of a study that the part reported on cannot decide, for want of runs."""

    claim: Claim
    decided_by: str = ""
    """Smallest part of the study that decides it; empty where none does at this scale."""


class StudyRecord(ResolvedRecord):
    """One study at one scale, or a part of it, with the figures its paper prints."""

    name: str
    selection: str
    """Name of the part of the study that is reported on."""
    study: Study
    """That part alone."""
    undecided: dict[Name, Undecided] = {}
    """The study's other claims."""
    left_out: dict[str, str] = {}
    """Tables and claims of the study that the scale has no speech for, and why."""
    scale_name: str
    scale: Scale
    seeds: tuple[int, ...]
    printed: dict[str, Any]
    """The paper's YAML file."""

    def systems(self) -> dict[str, tuple[Name, str]]:
        """Return everything whose word errors are counted: its name -> run, and file below the run's folder."""
        return systems(self.study, self.scale)

    @property
    def deviations(self) -> tuple[str, ...]:
        """Return what was done otherwise than in the paper: at this scale, in the study, in single tables."""
        of_tables = (text for table in self.study.tables.values() for text in table.deviations)
        return (*self.scale.deviations, *self.study.deviations, *of_tables)

    def scored(self, run: Name) -> tuple[str, ...]:
        """Return the dev and test parts that a run is scored on."""
        return scored_parts(self.study.runs[run], self.scale)

    @property
    def scored_parts(self) -> tuple[str, ...]:
        """Return the dev and then the test parts that any run is scored on."""
        sets = self.scale.corpus.sets
        return (*self.scale.parts("dev", sets=sets), *self.scale.parts("test", sets=sets))

    @property
    def num_claims(self) -> int:
        """Return how many claims of the whole study can be decided at this scale, whichever part is reported on."""
        return len(self.study.claims) + sum(other.decided_by != "" for other in self.undecided.values())

    @property
    def ctc_runs(self) -> tuple[Name, ...]:
        """Return the runs whose recogniser has a CTC head; they are decoded in several ways."""
        return tuple(name for name, run in self.study.runs.items() if run.recogniser == "ctc")

    @property
    def timed_runs(self) -> tuple[Name, ...]:
        """Return the runs whose emission latency is reported, if any table asks for it."""
        return timed_runs(self.study, self.scale) if self.study.measures_latency else ()

    def teacher_shift_ms(self, run: Name) -> float:
        """Return the delay of a run's teacher in milliseconds, as it comes out in whole encoder frames."""
        chosen, features = self.study.runs[run], self.scale.features
        model = self.scale.models[chosen.model]
        return shift_frames(chosen, model, features) * model.encoder.stack * features.frame_shift_ms

    @property
    def uses_language_models(self) -> bool:
        """Whether any run learns from a language model or is decoded with one."""
        return bool(self.ctc_runs)

    @staticmethod
    def run_folder(run: Name, seed: int) -> str:
        """Return where a run lies below the study's work folder."""
        return f"{run}/seed{seed}"
