"""An invented study of CTC recognisers, with what its searches found and took."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from fake_study import ERROR_RATES, PARTS, FakeStudy, build_fake_study, misheard, study_record, write_lines

from asr_distill.experiment import StudyRecord

DECODERS = {"ctc": "none", "transcript": "cross_entropy", "bert": "bert", "bert_interctc": "bert"}
LAYERS = 3
SEARCHES = ("beam_1", "beam_10", "attention")
AUDIO = 100.0
"""Seconds of each part."""
SECONDS = {"features": 1.0, "encoder": 8.0, "greedy": 1.0, "beam_1": 11.0, "beam_10": 91.0, "attention": 31.0}
"""Of the test parts together, two of them, for a run as fast as the first: end to end 10, 20, 100 and 40."""
BEAM_10 = {"ctc": 71.0, "transcript": 91.0, "bert": 111.0, "bert_interctc": 91.0}
"""But for beam_10, which is 8 to 12 times as slow end to end."""
SLOWNESS = {"ctc": 1.0, "transcript": 1.0, "bert": 1.2, "bert_interctc": 0.8}


def build_fake_ctc(root: Path, *, seeds: tuple[int, ...] = (0,), **claims: object) -> FakeStudy:
    """Write an invented study of CTC recognisers below `root`, with claims beside those of `ctc_record`."""
    fake = build_fake_study(root, seeds=seeds, record=ctc_record(seeds=seeds, **claims))
    rng = np.random.default_rng(1)
    for run in DECODERS:
        for seed in seeds:
            _write_searches(fake, run, seed, rng)
    return fake


def ctc_record(*, seeds: tuple[int, ...] = (0,), **claims: object) -> StudyRecord:
    """Return a study of four CTC recognisers, three of which have a decoder."""
    values = study_record(seeds=seeds).model_dump(mode="json")
    run = {"recogniser": "ctc", "model": "ctc", "phase": "main", "augmentation": "none"}
    runs = {name: run | {"decoder": decoder} for name, decoder in DECODERS.items()}
    runs["bert_interctc"] |= {"intermediate": 1, "interctc": 0.3}
    rows = [{"label": name, "run": name, "printed": "ctc@greedy"} for name in DECODERS]
    rows += [{"label": f"{name}, beam", "run": f"{name}@beam_10", "printed": "ctc@beam_10"} for name in DECODERS]
    rows += [{"label": "bert, decoder", "run": "bert@attention"}, {"label": "quoted", "printed": "ctc@beam_1"}]
    better = {"statement": "BERT helps", "reported": "3 < 4", "conditions": ["clean"]}
    better["comparisons"] = [{"left": "bert", "relation": "<", "right": "ctc"}]
    values |= {"name": "lm_into_ctc", "scale": _scale(values["scale"]), "printed": _printed()}
    values["study"] = {
        "title": "Language models into CTC",
        "paper": "hentschel2024",
        "runs": runs,
        "tables": {"table1": {"caption": "Table 1", "printed": "table1", "rows": rows}},
        "claims": {"B1": better} | claims,
        "figures": {"Plain": ["ctc", "transcript", "bert"], "Intermediate": ["bert_interctc"]},
    }
    return StudyRecord.model_validate(values)


def _scale(scale: dict[str, object]) -> dict[str, object]:
    encoder = {"layers": LAYERS, "dim": 16, "heads": 2, "feed_forward": 32}
    decoder = {"layers": 1, "dim": 16, "heads": 2, "feed_forward": 32}
    language_models = {
        "text": {"source": "grammar", "lines": 100},
        "bert": decoder | {"max_tokens": 32},
        "bert_training": {"steps": 4, "batch_tokens": 64, "learning_rate": 1e-3, "warmup_steps": 1},
    }
    ctc_models = {"ctc": {"encoder": encoder, "decoder": decoder}}
    return scale | {"ctc_models": ctc_models, "language_models": language_models}


def _printed() -> dict[str, object]:
    return {
        "key": "hentschel2024",
        "arxiv": "2401.11700",
        "columns": ["dev_clean", "test_clean", "dev_other", "test_other"],
        "decoders": {"greedy": {"rtf": 0.003}, "beam_1": {"rtf": 0.018}, "beam_10": {"rtf": 0.02}},
        "attention_decoder_rtf": 0.013,
        "tables": {
            "table1": {"ctc": {"greedy": [3.5, 3.6, 8.3, 8.5], "beam_1": [3, 3, 7, 7], "beam_10": [2, 2, 6, 6]}}
        },
    }


def _write_searches(fake: FakeStudy, run: str, seed: int, rng: np.random.Generator) -> None:
    """Write the transcripts of all searches but the greedy one, of the layers, and the times."""
    folder = fake.runs / fake.record.run_folder(run, seed)
    layers = {f"layer_{layer}": 1.0 for layer in range(1, LAYERS)}  # where the head was not trained
    layers |= {"layer_1": 0.3} if run == "bert_interctc" else {}
    for search, rate in (dict.fromkeys(SEARCHES, 0.8 * ERROR_RATES[run]) | layers).items():
        if search == "attention" and DECODERS[run] == "none":
            continue
        references = {part: map(json.loads, path.read_text().splitlines()) for part, path in fake.references.items()}
        lines = [
            {"part": part, "id": line["id"], "text": misheard(line["text"], rng, rate), "score": -1.0}
            for part, reference in references.items()
            for line in reference
        ]
        write_lines(folder / f"searches/{search}.jsonl", lines)
    (folder / "decoding.json").write_text(json.dumps(timing(run, seed=seed)))


def timing(run: str, *, seed: int = 0) -> dict[str, object]:
    """Return decoding.json; the second seed takes twice as long, dev parts take a hundred times as long."""
    took = {name: value for name, value in SECONDS.items() if name != "attention" or DECODERS[run] != "none"}
    took |= {"beam_10": BEAM_10[run]}
    shares = {part: 100.0 if use == "dev" else 0.25 if part == "test-clean" else 0.75 for part, use in PARTS.items()}
    factor = SLOWNESS[run] * (1 + seed)
    parts = [
        {
            "part": part,
            "audio_seconds": AUDIO,
            "seconds": {name: factor * share * seconds for name, seconds in took.items()},
        }
        for part, share in shares.items()
    ]
    return {"method": "ctc", "threads": 1, "device": "cpu", "batch_seconds": 240.0, "parts": parts}
