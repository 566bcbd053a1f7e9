"""An invented study of methods beyond the paper: streaming students that write late, and teachers of two qualities."""

from __future__ import annotations

import json
from pathlib import Path

from fake_study import PARTS, WORDS, FakeStudy, build_fake_study, study_record, write_lines

from asr_distill.experiment import StudyRecord

DELAYS = {"supervised": 100, "hard": 200, "soft": 50, "shift_60": 110, "shift_120": 170, "sum": 60}
"""Milliseconds by which each streaming student is late, and the last speaker 30 more."""
LATE_SPEAKER, MORE = "011", 30
WRONG = "NOISE"
"""Stands for every word that a streaming student has wrong."""
SHARES = {"supervised": 5, "hard": 6, "soft": 3, "shift_60": 7, "shift_120": 19, "sum": 8}
"""Every so manieth word is wrong."""


def methods_record(*, seeds: tuple[int, ...] = (0,)) -> StudyRecord:
    """Return a study of the methods: a table with verdicts and latency, a shift sweep, and weak teachers."""
    values = study_record(seeds=seeds).model_dump(mode="json")
    taught = {"model": "small", "phase": "main", "augmentation": "none"}
    alone = taught | {"targets": "supervised", "audio": ["labelled"]}
    late = {"model": "streaming"}
    runs = {"teacher": alone, "weak_teacher": alone, "supervised": alone}
    runs |= {name: taught | {"targets": name, "teacher": "teacher"} for name in ("hard", "soft", "mixed")}
    runs |= {f"weak_{name}": taught | {"targets": name, "teacher": "weak_teacher"} for name in ("hard", "soft")}
    runs |= {"streaming_supervised": alone | late, "streaming_hard": runs["hard"] | late}
    delays = {"soft": 0, "shift_60": 60, "shift_120": 120}
    runs |= {f"streaming_{name}": runs["soft"] | late | {"teacher_shift_ms": ms} for name, ms in delays.items()}
    runs["streaming_sum"] = runs["soft"] | late | {"soft_losses": {"full_sum": 1}}
    scale = values["scale"]
    scale["models"]["streaming"] = json.loads(json.dumps(scale["models"]["small"]))
    scale["models"]["streaming"]["encoder"] |= {"streaming": True, "right_context": 0}
    values["study"] = {
        "title": "Which distillation",
        "paper": "hwang2022",
        "runs": runs,
        "tables": {"methods": methods_table(), "weak": _weak_table()},
        "figures": {"Small": ["teacher", "supervised", "hard", "soft", "mixed"]},
        "aligned_by": "teacher",
        "shift_sweep": {
            "runs": ["streaming_soft", "streaming_shift_60", "streaming_shift_120"],
            "others": ["streaming_hard", "streaming_supervised", "streaming_sum"],
        },
        "weak_teachers": {"supervised": "supervised", "students": ["hard", "soft", "mixed", "weak_hard", "weak_soft"]},
    }
    return StudyRecord.model_validate(values)


def methods_table() -> dict[str, object]:
    small = {"supervised": "Supervised", "hard": "Hard", "soft": "Soft"}
    late = {name: small.get(name, name) for name in DELAYS}
    rows = [{"label": "Teacher", "run": "teacher"}]
    rows += [{"group": "Small", "label": label, "run": name} for name, label in small.items()]
    rows += [{"group": "Streaming", "label": label, "run": f"streaming_{name}"} for name, label in late.items()]
    rows[2]["printed"] = "table4_self_training/e0_hard"
    order = ["streaming_hard", "streaming_supervised", "streaming_soft"]
    challengers = ["streaming_shift_120", "streaming_sum"]
    verdicts = {"order": order, "challengers": challengers}
    return {"caption": "Methods", "rows": rows, "latency": True, "verdicts": verdicts, "core": True}


def _weak_table() -> dict[str, object]:
    names = ("supervised", "weak_teacher", "weak_hard", "weak_soft", "teacher", "hard", "soft", "mixed")
    return {"caption": "Weak teachers", "rows": [{"label": name, "run": name} for name in names], "core": False}


def build_fake_methods(root: Path, *, seeds: tuple[int, ...] = (0,)) -> FakeStudy:
    """Write the invented study of methods below `root`; the teacher aligns a word every 300 ms."""
    fake = build_fake_study(root, seeds=seeds, record=methods_record(seeds=seeds))
    for seed in seeds:
        spoken = [(part, line) for part in PARTS for line in read_lines(fake.references[part])]
        ends = [_line(part, line["id"], [[word, _end(place)] for place, word in _words(line)]) for part, line in spoken]
        tests = [line for line in ends if line["part"].startswith("test")]
        write_lines(fake.runs / fake.record.run_folder("teacher", seed) / "alignment.jsonl", tests)
        for name in DELAYS:
            _write_streaming(fake, name, seed, spoken)
    return fake


def _write_streaming(fake: FakeStudy, name: str, seed: int, spoken: list[tuple[str, dict]]) -> None:
    """Write hypotheses and emissions of one streaming student; a later seed is 10 ms later."""
    folder = fake.runs / fake.record.run_folder(f"streaming_{name}", seed)
    hypotheses, emissions = [], []
    for part, line in spoken:
        late = DELAYS[name] + MORE * (line["speaker"] == LATE_SPEAKER) + 10 * seed
        number = int(line["id"].rsplit("-", 1)[1])
        said = [
            [WRONG if (number + place) % SHARES[name] == 0 else word, _end(place) + late / 1000]
            for place, word in _words(line)
        ]
        hypotheses.append(_line(part, line["id"], []) | {"text": " ".join(word for word, _ in said), "score": -1.0})
        emissions.append(_line(part, line["id"], said))
    write_lines(folder / "hypotheses.jsonl", hypotheses)
    write_lines(folder / "emissions.jsonl", emissions)


def _line(part: str, name: str, words: list[list[object]]) -> dict[str, object]:
    return {"part": part, "id": name, "words": words}


def _words(line: dict) -> list[tuple[int, str]]:
    assert WRONG not in WORDS
    return list(enumerate(line["text"].upper().split()))


def _end(place: int) -> float:
    return 0.3 * (place + 1)


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
