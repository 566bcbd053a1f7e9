"""Load config/ into records, hold the references of study and scale against each other, resolve runs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from asr_distill.experiment.base import Record, located, nearest
from asr_distill.experiment.checks import check_listening, check_scale, check_study
from asr_distill.experiment.part_checks import check_columns, check_sets
from asr_distill.experiment.parts import (
    named_sets,
    normalising_parts,
    rehearsed_parts,
    study_sets,
    training_parts,
    without_missing_sets,
)
from asr_distill.experiment.printed import wer_tables
from asr_distill.experiment.resolved import (
    LOADER,
    CorpusRecord,
    DecodingRecord,
    LanguageModelsRecord,
    ResolvedRecord,
    RunRecord,
    StudyRecord,
    TokenizerRecord,
    Undecided,
)
from asr_distill.experiment.runs import Run
from asr_distill.experiment.scale import Augmentation, Scale
from asr_distill.experiment.starts import with_starts
from asr_distill.experiment.study import Claim, Config, Study
from asr_distill.files import write_text

R = TypeVar("R", bound=Record)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """The whole configuration of one call of the workflow, checked."""

    config: Config
    scale: Scale
    studies: dict[str, Study]
    printed: dict[str, dict[str, Any]]
    """The papers' figures by study."""
    claims: dict[str, dict[str, Claim]]
    """All claims by study, those that the scale has no speech for included."""
    left_out: dict[str, dict[str, str]]
    """Tables and claims that the scale has no speech for, and why, by study."""

    def run(self, study: str, name: str, *, seed: int) -> RunRecord:
        """Resolve one run of a study."""
        run, scale = self.studies[study].runs[name], self.scale
        if run.recogniser == "ctc":
            chosen = {"model": scale.ctc_models[run.model], "phase": scale.phases[run.phase]}
            chosen |= {"augmentation": scale.augmentations[run.augmentation]}
        elif run.recogniser == "best_rq":
            chosen = {"model": scale.models[run.model], "phase": scale.phases[run.phase]}
            chosen |= {"pretraining": scale.pretraining}
        else:
            chosen = resolved_choices(run, scale)
        labelled, unlabelled = training_parts(run, scale)
        return RunRecord(
            scale=self.config.scale,
            study=study,
            name=name,
            seed=seed,
            run=run,
            **chosen,
            features=scale.features,
            labelled=labelled,
            unlabelled=unlabelled,
            rehearsed=rehearsed_parts(run, scale),
            normalised_by=normalising_parts(self.studies[study], run, scale),
            dev=scale.parts("dev", sets=named_sets(run)) if run.recogniser != "best_rq" else (),
        )

    def write(self) -> None:
        """Write every resolved record below the work folder, touching only files whose content changes."""
        work = Path(self.config.work) / self.config.scale
        scale = self.scale
        for name, corpus in (("corpus", scale.corpus.restricted()), ("sets", scale.corpus)):
            if name == "corpus" or scale.corpus.sets:
                record = CorpusRecord(data=self.config.data, corpus=corpus, features=scale.features)
                write_if_changed(work / f"{name}.yaml", record)
        for name, tokenizer in scale.tokenizers.items():
            write_if_changed(work / f"{name}.yaml", TokenizerRecord(tokenizer=tokenizer))
        decoding = DecodingRecord(decoding=scale.decoding, pseudo_labels=scale.pseudo_labels)
        write_if_changed(work / "decoding.yaml", decoding)
        if scale.language_models is not None:
            languages = LanguageModelsRecord(data=self.config.data, language_models=scale.language_models)
            write_if_changed(work / "language_models.yaml", languages)
        for name, study in self.studies.items():
            for selection in study.selections():
                write_if_changed(work / name / "report" / selection / "study.yaml", self.record(name, selection))
            for run in study.runs:
                for seed in self.config.seeds:
                    path = work / name / StudyRecord.run_folder(run, seed) / "run.yaml"
                    write_if_changed(path, self.run(name, run, seed=seed))

    def record(self, study: str, selection: str) -> StudyRecord:
        """Resolve the part of a study that is reported on."""
        whole = self.studies[study]
        part, decided_by = whole.restricted(whole.selections()[selection]), whole.decided_by()
        return StudyRecord(
            name=study,
            selection=selection,
            study=part,
            undecided={
                name: Undecided(claim=claim, decided_by=decided_by.get(name, ""))
                for name, claim in self.claims[study].items()
                if name not in part.claims
            },
            scale_name=self.config.scale,
            scale=self.scale.restricted(study_sets(part, self.scale)),
            seeds=self.config.seeds,
            printed=self.printed[study],
            left_out=self.left_out[study],
        )


def resolved_choices(run: Run, scale: Scale) -> dict[str, Record]:
    """Return the scale's model, phase and augmentations as a run of a transducer changes them."""
    phase = scale.phases[run.phase]
    return {
        "model": scale.models[run.model].with_activation(run.activation),
        "phase": phase.multiplied(steps=run.steps_factor, batch=run.batch_factor),
        "augmentation": scale.augmentations[run.augmentation].multiplied(run.mask_factor),
        "teacher_augmentation": scale.augmentations.get(run.teacher_augmentation, Augmentation()),
    }


def load_experiment(values: Mapping[str, Any], *, root: Path) -> Experiment:
    """Load the scale and studies that `values` (config.yaml and --config) choose from the folder `root`/config.

    Raises:
        ValueError: one line naming the file and key that is wrong, what was found and what to write instead.
    """
    config = validated(Config, values, where="config/config.yaml or --config")
    scale_path = _choose(root / "config/scales", config.scale, key="scale")
    scale_values = _merge(read_yaml(scale_path), config.overrides)
    where = _relative(scale_path, root)
    scale = validated(Scale, scale_values, where=where)
    check_scale(scale, where=where)
    check_columns(scale, known=_printed_columns(root), where=where)
    if not config.studies or not config.seeds:
        raise ValueError("config: studies and seeds need at least one entry each, such as studies=[soft_vs_hard]")
    if len(set(config.seeds)) < len(config.seeds):
        raise ValueError(f"config: seeds: {list(config.seeds)} names a seed twice")
    studies, printed, claims, left_out = {}, {}, {}, {}
    for name in _studies(config, scale, root=root):
        path = _choose(root / "config/studies", name, key="studies")
        where = _relative(path, root)
        study = validated(Study, read_yaml(path), where=where)
        with located(_relative(scale_path, root)):
            study = with_starts(study, scale)
        check_sets(study, scale=scale, where=where, scale_where=_relative(scale_path, root))
        check_listening(study, where=where)
        studies[name], left_out[name] = without_missing_sets(study, scale)
        claims[name] = study.claims
        printed[name] = load_printed(root, study.paper)
        check_study(studies[name], scale=scale, printed=printed[name], where=where, scale_name=config.scale)
    return Experiment(config=config, scale=scale, studies=studies, printed=printed, claims=claims, left_out=left_out)


def _studies(config: Config, scale: Scale, *, root: Path) -> tuple[str, ...]:
    """Return the studies that are asked for; by default all that the scale does not leave out."""
    if config.studies == "all":
        known = sorted(path.stem for path in (root / "config/studies").glob("*.yaml"))
        return tuple(name for name in known if name not in scale.studies_left_out)
    for name in config.studies:
        if name in scale.studies_left_out:
            reason = scale.studies_left_out[name]
            raise ValueError(f"studies: '{name}' is left out at the scale '{config.scale}': {reason}")
    return config.studies


def _printed_columns(root: Path) -> set[str]:
    """Return the columns of all papers' tables."""
    papers = [read_yaml(path) for path in sorted((root / "config/papers").glob("*.yaml"))]
    return {column for paper in papers for columns in wer_tables(paper).values() for column in columns}


def load_printed(root: Path, paper: str) -> dict[str, Any]:
    """Return the figures that a paper prints."""
    return read_yaml(_choose(root / "config/papers", paper, key="paper"))


def write_if_changed(path: Path, record: ResolvedRecord) -> None:
    """Write a record unless the file already says the same, so that its time stamp tells of real changes."""
    text = record.to_yaml()
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def validated(record: type[R], values: object, *, where: str) -> R:
    """Validate values as a record.

    Raises:
        ValueError: one line for the first thing that is wrong.
    """
    try:
        return record.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        # pydantic names the branch of the union in the location, YAML does not
        tags = (
            "synthetic",
            "librispeech",
            "librilight",
            "manifests",
            "an4",
            "speechocean762",
            "transducer",
            "ctc",
            "best_rq",
            "new_bert",
            "pretrained_bert",
        )
        location = ".".join(str(part) for part in first["loc"] if part not in tags)
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "union_tag_invalid":
            key = first["ctx"]["discriminator"].strip("'()")
            known = re.findall(r"'(\w+)'", first["ctx"]["expected_tags"])
            message = f"{key}: '{first['ctx']['tag']}' is none{nearest(first['ctx']['tag'], known)}"
        found = first.get("input")
        if first["type"] not in ("value_error", "missing") and not isinstance(found, (dict, list, tuple, Record)):
            message += f", found {found!r}"
        raise ValueError(f"{where}: {location + ': ' if location else ''}{message}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; a key given twice is an error."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected keys and values, found {type(values).__name__}")
    return values


class _UniqueKeyLoader(LOADER):
    """Loader that refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _choose(folder: Path, name: str, *, key: str) -> Path:
    path = folder / f"{name}.yaml"
    if not path.is_file() or path.parent != folder:
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        raise ValueError(f"{key}: '{name}' is not in config/{folder.name}/{nearest(name, known)}")
    return path


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return base with changes laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root))
