"""Where the inputs of a training run lie and its outputs go, and what its checkpoints depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_distill.experiment import RunRecord


@dataclass(frozen=True, kw_only=True)
class TrainingPaths:
    """Where a run's inputs lie and its outputs go."""

    corpus: Path
    """Folder of the prepared parts."""
    tokenizer: Path | None
    """Pre-training of an encoder needs none."""
    teacher: Path | None
    initial: Path | None = None
    """A pre-trained encoder or a transducer, from whose encoder that of the run starts."""
    soft_labels: Path | None = None
    """BERT's, for runs that learn from them."""
    pseudo_labels: Sequence[Path]
    output: Path
    """Folder for model.safetensors or encoder.safetensors, curve.csv, training.json and, until the end, state/."""


def fingerprint(run: RunRecord, *, paths: TrainingPaths) -> str:
    """Return what a checkpoint depends on: the resolved run, tokens, teacher, first encoder and pseudo-labels."""
    split = {"micro_batch_utterances": None, "sharded": False}  # how work is divided may change on the way
    run = run.model_copy(update={"phase": run.phase.model_copy(update=split)})
    digest = hashlib.sha256(run.to_yaml().encode())
    for path in (paths.tokenizer, paths.teacher, paths.initial, paths.soft_labels, *paths.pseudo_labels):
        if path is not None:
            with path.open("rb") as file:  # soft labels may take gigabytes
                digest.update(hashlib.file_digest(file, "sha256").digest())
    for part in (*run.heard, *run.normalised_by):
        digest.update((paths.corpus / part / "statistics.json").read_bytes())
    return digest.hexdigest()
