"""A small invented study with everything that reporting jobs read, written into a temporary folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd

from asr_distill.experiment import CorpusRecord, StudyRecord, TokenizerRecord

ERROR_RATES = {"teacher": 0.06, "supervised": 0.16, "hard": 0.12, "soft": 0.09, "mixed": 0.12}
ERROR_RATES |= {"ctc": 0.16, "transcript": 0.14, "bert": 0.1, "bert_interctc": 0.08}
ERROR_RATES |= {"weak_teacher": 0.2, "weak_hard": 0.22, "weak_soft": 0.14}
ERROR_RATES |= {f"streaming_{name}": rate for name, rate in (("supervised", 0.2), ("hard", 0.16), ("soft", 0.3))}
ERROR_RATES |= {f"streaming_{name}": rate for name, rate in (("shift_60", 0.2), ("shift_120", 0.05), ("sum", 0.17))}
"""Share of words that each run gets wrong on clean speech; twice as many on other speech."""
PARTS = {"dev-clean": "dev", "dev-other": "dev", "test-clean": "test", "test-other": "test"}
WORDS = [
    "the",
    "sea",
    "is",
    "calm",
    "and",
    "we",
    "see",
    "many",
    "ships",
    "far",
    "from",
    "home",
    "near",
    "a",
    "green",
    "hill",
]
TOKENS = ["▁the", "▁s", "ea", "▁is", "▁c", "al", "m", "▁and", "▁we", "▁se", "e"]


@dataclasses.dataclass(frozen=True)
class FakeStudy:
    """Where the invented study's files lie."""

    root: Path
    record: StudyRecord

    @property
    def study(self) -> Path:
        return self.runs / "report/core/study.yaml"

    @property
    def scale_work(self) -> Path:
        return self.root / "work" / self.record.scale_name

    @property
    def runs(self) -> Path:
        return self.scale_work / self.record.name

    @property
    def results(self) -> Path:
        return self.root / "results" / self.record.scale_name / self.record.name / self.record.selection

    @property
    def references(self) -> dict[str, Path]:
        return {part: self.scale_work / "corpus" / part / "references.jsonl" for part in PARTS}

    @property
    def overview(self) -> Path:
        return self.scale_work / "corpus" / "overview.csv"

    @property
    def illustrations(self) -> Path:
        return self.runs / "illustrations.npz"


def build_fake_study(
    root: Path,
    *,
    seeds: tuple[int, ...] = (0,),
    speakers: int = 12,
    utterances: int = 96,
    rng_seed: int = 0,
    record: StudyRecord | None = None,
) -> FakeStudy:
    """Write an invented study below `root`: that of `study_record`, or another one of the same scale and seeds."""
    fake = FakeStudy(root=root, record=record or study_record(seeds=seeds))
    rng = np.random.default_rng(rng_seed)
    fake.study.parent.mkdir(parents=True)
    fake.study.write_text(fake.record.to_yaml(), encoding="utf-8")
    references = {part: _references(part, rng, speakers=speakers, utterances=utterances) for part in PARTS}
    for part, path in fake.references.items():
        write_lines(path, references[part])
    for run in fake.record.study.runs:
        for seed in seeds:
            _write_run(fake, run, seed, references=references, rng=rng)
    _write_corpus(fake)
    if fake.record.study.lattice is not None:
        _write_illustrations(fake, rng)
    return fake


def study_record(*, seeds: tuple[int, ...] = (0,)) -> StudyRecord:
    """Return a study with a teacher, four students, two groups of runs and claims of all three relations."""
    run = {"model": "small", "phase": "main", "augmentation": "none"}
    runs = {"teacher": run | {"targets": "supervised", "audio": ["labelled"]}}
    runs["supervised"] = runs["teacher"]
    runs |= {name: run | {"targets": name, "teacher": "teacher"} for name in ("hard", "soft", "mixed")}
    study = _study(runs)
    return StudyRecord.model_validate(
        {
            "name": "soft_vs_hard",
            "selection": "core",
            "study": study,
            "scale_name": "fake",
            "scale": _scale(),
            "seeds": seeds,
            "printed": {
                "key": "hwang2022",
                "arxiv": "2210.05793",
                "columns": ["dev_clean", "dev_other", "test_clean", "test_other"],
                "tables": {
                    "table4_self_training": {"e0_hard": [1.3, 2.5, 1.4, 2.7], "w2v_bert_xl": [1.3, 2.6, 1.4, 2.75]}
                },
            },
        }
    )


def _study(runs: dict[str, dict[str, object]]) -> dict[str, object]:
    rows = [{"label": "W2v-BERT XL & co", "printed": "w2v_bert_xl"}]
    rows += [{"label": f"E_{name} <x>", "run": name, "printed": "e0_hard"} for name in runs]
    both = ["clean", "other"]
    return {
        "title": "Soft against hard targets",
        "paper": "hwang2022",
        "runs": runs,
        "tables": {
            "self_training": {
                "caption": "Self-training: 100 % of the rows | one architecture",
                "printed": "table4_self_training",
                "rows": rows,
                "note": "All rows use no augmentation.",
            }
        },
        "claims": {
            "A1": _claim("Soft < hard targets, and soft <= teacher", both, "soft < hard", "soft <= teacher"),
            "A2": _claim("Hard self-training does not beat the teacher", both, "hard not < teacher"),
            "A3": _claim("Hard targets < soft targets", ["other"], "hard < soft"),
            "A4": _claim("Mixing does not beat hard targets", both, "mixed not < hard"),
        },
        "figures": {
            "Self-training": ["teacher", "hard", "soft"],
            "Small student": ["supervised", "hard", "soft", "mixed"],
        },
        "lattice": {"runs": ["teacher", "hard", "soft"], "condition": "clean"},
        "deviations": ["Greedy search; the paper does not say."],
    }


def _claim(statement: str, conditions: list[str], *comparisons: str) -> dict[str, object]:
    parsed = [text.split(" ", 1) for text in comparisons]
    return {
        "statement": statement,
        "reported": "1.3/2.5 against 1.4/2.7 % <b>",
        "conditions": conditions,
        "comparisons": [
            {"left": left, "relation": rest.rsplit(" ", 1)[0], "right": rest.rsplit(" ", 1)[1]} for left, rest in parsed
        ],
    }


def _scale() -> dict[str, object]:
    synthetic = {"source": "synthetic", "accents": ["gmw/en"], "speakers": 4, "utterances": 20}
    uses = {"train-clean": "labelled", "unlab-mixed": "unlabelled", **PARTS}
    return {
        "description": "An invented corpus.",
        "corpus": {"parts": {part: synthetic | {"use": use} for part, use in uses.items()}},
        "tokenizer": {"vocabulary": 32},
        "models": {
            "small": {
                "encoder": {"layers": 2, "dim": 16, "heads": 2, "feed_forward": 32},
                "predictor": {"dim": 16},
                "joint": 16,
            }
        },
        "augmentations": {"none": {}},
        "phases": {"main": {"steps": 400, "batch_utterances": 8, "learning_rate": 0.001, "warmup_steps": 10}},
        "scoring": {"replicates": 400},
        "columns": {part.replace("-", "_"): part for part in PARTS},
        "conditions": {"clean": "test-clean", "other": "test-other"},
        "deviations": ["Speech is synthesised; models are 1,000 times smaller."],
    }


def _references(part: str, rng: np.random.Generator, *, speakers: int, utterances: int) -> list[dict[str, object]]:
    return [
        {
            "id": f"{part}-{number:04d}",
            "speaker": f"{number % speakers:03d}",
            "duration": 3.5,
            "text": " ".join(rng.choice(WORDS, size=rng.integers(4, 14))),
        }
        for number in range(utterances)
    ]


def _write_run(
    fake: FakeStudy, run: str, seed: int, *, references: dict[str, list[dict[str, object]]], rng: np.random.Generator
) -> None:
    folder = fake.runs / fake.record.run_folder(run, seed)
    rate = ERROR_RATES[run]
    lines = [
        {
            "part": part,
            "id": line["id"],
            "text": misheard(line["text"], rng, rate * (1 + ("other" in part))),
            "score": -1.0,
        }
        for part, reference in references.items()
        for line in reference
    ]
    write_lines(folder / "hypotheses.jsonl", lines)
    training = {"run": run, "seed": seed, "targets": fake.record.study.runs[run].targets, "parameters": 1_234_567}
    training |= {"encoder_parameters": 1_000_000, "steps": 400, "effective_batch": 8.0, "hours": 1.25, "seconds": 75.5}
    training |= {"labelled_hours": 0.25, "unlabelled_hours": 1.0, "device": "cpu", "teacher": None}
    (folder / "training.json").write_text(json.dumps(training), encoding="utf-8")
    _write_curve(folder / "curve.csv", rng, rate=rate)
    for job, seconds in (("train", 80.0 + 10 * rng.random()), ("decode", 6.0 + rng.random())):
        _write_benchmark(folder / f"{job}.tsv", seconds)


def misheard(text: str, rng: np.random.Generator, rate: float) -> str:
    words = []
    for word in text.split():
        draw = rng.random()
        if draw < rate * 0.6:
            words.append(str(rng.choice(WORDS)))
        elif draw >= rate * 0.8:
            words.append(word)
        if draw > 1 - rate * 0.2:
            words.append(str(rng.choice(WORDS)))
    return " ".join(words)


def _write_curve(path: Path, rng: np.random.Generator, *, rate: float) -> None:
    steps = np.arange(10, 401, 10)
    fall = np.exp(-steps / 80)
    curve = pd.DataFrame({"step": steps, "seconds": steps * 0.19})
    curve["loss"] = 4 * fall + 0.3 + 0.05 * rng.random(len(steps))
    curve["learning_rate"] = 0.001
    for part, factor in (("dev-clean", 1), ("dev-other", 2)):
        curve[f"wer/{part}"] = np.where(steps % 50 == 0, factor * rate + (1 - factor * rate) * fall, np.nan)
    curve.to_csv(path, index=False)


def _write_benchmark(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "s h:m:s max_rss max_vms max_uss max_pss io_in io_out mean_load cpu_time"
    cells = f"{seconds:.4f} 0:01:20 812.50 2000.00 700.00 710.00 0.00 1.00 99.00 {seconds:.2f}"
    path.write_text(f"{head}\n{cells}\n".replace(" ", "\t"), encoding="utf-8")


def _write_corpus(fake: FakeStudy) -> None:
    parts = fake.record.scale.corpus.parts
    rows = [
        {
            "part": name,
            "use": part.use,
            "utterances": 36,
            "hours": 0.035,
            "speakers": 12,
            "words": 300,
            "quarantined": 0,
        }
        for name, part in parts.items()
    ]
    pd.DataFrame(rows).to_csv(fake.overview, index=False)
    corpus = CorpusRecord(data="/somewhere/else", corpus=fake.record.scale.corpus, features=fake.record.scale.features)
    (fake.scale_work / "corpus.yaml").write_text(corpus.to_yaml(), encoding="utf-8")
    tokenizer = TokenizerRecord(tokenizer=fake.record.scale.tokenizer)
    (fake.scale_work / "tokenizer.yaml").write_text(tokenizer.to_yaml(), encoding="utf-8")
    _write_benchmark(fake.scale_work / "corpus" / "prepare.tsv", 12.0)


def _write_illustrations(fake: FakeStudy, rng: np.random.Generator) -> None:
    frames, labels = 60, len(TOKENS)
    time, mel = np.meshgrid(np.arange(4 * frames), np.arange(80), indexing="ij")
    spectrogram = (
        np.sin(mel / 4 + 3 * np.sin(time / 25)) * np.cos(time / 17) - mel / 40 + 0.3 * rng.normal(size=time.shape)
    )
    arrays: dict[str, np.ndarray] = {
        "spectrogram": spectrogram.astype(np.float32),
        "warped": np.roll(spectrogram, 12, axis=1).astype(np.float32),
        "noised": (spectrogram * rng.normal(1, 0.1, size=80)).astype(np.float32),
        "utterance": np.array("test-clean-0000"),
        "reference": np.array("the sea is calm and we see"),
        "tokens": np.array(TOKENS),
    }
    t, u = np.meshgrid(np.arange(frames), np.arange(labels + 1), indexing="ij")
    for width, run in zip((1.0, 0.5, 2.0), fake.record.study.lattice.runs, strict=True):
        near = np.exp(-(((t - (u + 0.5) * frames / (labels + 1)) / (4 * width)) ** 2))
        arrays[f"{run}/occupancy"] = (near / near.sum(axis=1, keepdims=True)).astype(np.float32)
        arrays[f"{run}/blank"] = (0.9 - 0.7 * near).astype(np.float32)
        arrays[f"{run}/label"] = (0.05 + 0.7 * near).astype(np.float32)
    np.savez(fake.illustrations, **arrays)


def write_lines(path: Path, lines: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
