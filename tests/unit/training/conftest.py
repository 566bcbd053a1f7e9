"""A corpus of a few seconds of noise, prepared as real ones are, and runs small enough to train on it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

from asr_distill.experiment import CorpusRecord, ModelSize, RunRecord
from asr_distill.features.prepare import prepare
from asr_distill.features.reading import global_mean_and_std
from asr_distill.models.storage import save_model
from asr_distill.models.transducer import Transducer
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.loop import TrainingPaths

torch.set_num_threads(1)

BINS = 6
WORDS = ["YES", "NO", "MAYBE", "SO", "WHY", "NOT"]
SIZE = {
    "encoder": {"layers": 1, "dim": 8, "heads": 2, "feed_forward": 16, "stack": 4, "dropout": 0.1},
    "predictor": {"dim": 8},
    "joint": 8,
}
AUGMENTATION = {"frequency_masks": 1, "frequency_mask_width": 2, "time_masks": 1, "warp": 0.1, "noise": 0.1}
UTTERANCES = {"train": 13, "quiet": 6, "dev": 3}
"""By part; `train` and `quiet` also have copies at another speed."""


@dataclasses.dataclass(frozen=True)
class TinyCorpus:
    """Where the prepared parts, the tokens, a teacher and its transcripts lie."""

    folder: Path

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokens.model"

    @property
    def teacher(self) -> Path:
        return self.folder / "teacher.safetensors"

    @property
    def pseudo_labels(self) -> Path:
        return self.folder / "pseudo.jsonl"

    def paths(self, output: Path, *, teacher: bool = True) -> TrainingPaths:
        """Return a run's inputs and its folder of outputs."""
        output.mkdir(parents=True, exist_ok=True)
        return TrainingPaths(
            corpus=self.folder,
            tokenizer=self.tokenizer,
            teacher=self.teacher if teacher else None,
            pseudo_labels=[self.pseudo_labels] if teacher else [],
            output=output,
        )


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> TinyCorpus:
    tiny = TinyCorpus(tmp_path_factory.mktemp("tiny"))
    uses = {"train": "labelled", "quiet": "unlabelled", "dev": "dev"}
    record = CorpusRecord.model_validate(
        {
            "data": str(tiny.folder),
            "corpus": {
                "min_duration": 0.2,
                "parts": {part: {"source": "manifests", "name": part, "use": use} for part, use in uses.items()},
            },
            "features": {"mel_bins": BINS, "speed_perturbation": [1.0, 1.25]},
        }
    )
    for part, count in UTTERANCES.items():
        _write_manifests(tiny.folder, part=part, count=count)
        prepare(part, record=record, synthetic=tiny.folder, output=tiny.folder / part)
    tiny.tokenizer.write_bytes(Tokenizer.estimate(WORDS * 5, vocabulary=14, type="char"))
    _write_teacher(tiny)
    lines = [{"id": f"quiet{n}", "text": WORDS[n], "kept": n not in (2, 4)} for n in range(UTTERANCES["quiet"])]
    tiny.pseudo_labels.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tiny


@pytest.fixture(scope="session")
def make_run():
    """Return a function that describes a run: keyword arguments change its targets, phase, augmentation or else."""

    def make(targets="supervised", *, phase=None, augmentation=None, seed=0, name="run", model=SIZE, **run):
        audio = ["labelled"] if targets == "supervised" else ["labelled", "unlabelled"]
        run = {"audio": audio, "teacher": None if targets == "supervised" else "teacher", **run}
        budget = {"steps": 9, "batch_utterances": 8, "learning_rate": 1e-2, "warmup_steps": 2, "ctc_weight": 0.3}
        budget |= {"dev_every": 4, "dev_utterances": 2, "checkpoint_seconds": 1e6, **(phase or {})}
        return RunRecord.model_validate(
            {
                "scale": "tiny",
                "study": "test",
                "name": name,
                "seed": seed,
                "run": {"model": "m", "phase": "p", "targets": targets, "augmentation": "a", **run},
                "model": model,
                "phase": budget,
                "augmentation": AUGMENTATION if augmentation is None else augmentation,
                "features": {"mel_bins": BINS, "speed_perturbation": [1.0, 1.25]},
                "labelled": ["train"] if "labelled" in run["audio"] else [],
                "unlabelled": ["quiet"] if "unlabelled" in run["audio"] else [],
                "rehearsed": ["dev"] if "rehearsal" in run else [],
                "dev": ["dev"],
            }
        )

    return make


def _write_manifests(folder: Path, *, part: str, count: int) -> None:
    rng = np.random.default_rng(count)
    recordings, segments = [], []
    for number in range(count):
        path = folder / f"{part}{number}.wav"
        seconds = 0.3 + 0.05 * int(rng.integers(10))
        soundfile.write(path, rng.normal(scale=0.1, size=round(16000 * seconds)), 16000)
        recordings.append(Recording.from_file(path, recording_id=path.stem))
        text = " ".join(rng.choice(WORDS, size=1 + number % 2))
        segments.append(SupervisionSegment(path.stem, path.stem, 0.0, seconds, speaker=path.stem, text=text))
    RecordingSet.from_recordings(recordings).to_file(folder / f"recordings_{part}.jsonl.gz")
    SupervisionSet.from_segments(segments).to_file(folder / f"supervisions_{part}.jsonl.gz")


def _write_teacher(tiny: TinyCorpus) -> None:
    tokenizer = Tokenizer.load(tiny.tokenizer)
    torch.manual_seed(99)
    teacher = Transducer(ModelSize.model_validate(SIZE), vocabulary=tokenizer.vocabulary, mel_bins=BINS)
    mean, deviation = global_mean_and_std([tiny.folder / "train" / "statistics.json"])
    teacher.feature_mean.copy_(mean)
    teacher.feature_deviation.copy_(deviation)
    save_model(teacher, tiny.teacher, tokenizer=tokenizer.fingerprint)
