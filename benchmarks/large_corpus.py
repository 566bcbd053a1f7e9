"""`python -m benchmarks.large_corpus --output results/benchmarks`: what a manifest of a million utterances costs.

Manifests, transcripts and tokens are real files; features are made up when they are read. Every row is measured in a
process of its own: most memory, seconds until the first batch, hours of speech drawn in a second of one core's time.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lhotse.features.io import FeaturesReader, register_reader

from asr_distill.decoding import decode
from asr_distill.decoding.hypothesis import Hypothesis
from asr_distill.experiment import PseudoLabels, RunRecord
from asr_distill.features.shards import Shard, read_index, write_index
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.data import load_training_data

SHARD = 2_000
BINS = 8
WORDS = [a + b for a in ("ba", "de", "ki", "lo", "mu", "ne", "po", "ra") for b in ("l", "nd", "rt", "s", "mp", "ck")]
BATCH = 1_024
RANKS = 8

# What eight H100s consume at most while they train a transducer of 0.6 billion parameters on transcripts: 2 operations
# a weight and encoder frame forward and 4 backward, 25 encoder frames a second; 989 * 10^12 a second with bf16 products
# (NVIDIA's data sheet, SXM, dense), half of which is more than what trainings reach.
OPERATIONS_PER_SPEECH_SECOND = 6 * 0.6e9 * 25
EIGHT_H100_HOURS_PER_SECOND = 8 * 0.5 * 989e12 / OPERATIONS_PER_SPEECH_SECOND / 3600

COLUMNS = {
    "stage": "stage",
    "utterances": "utterances",
    "hours": "hours",
    "peak_megabytes": "peak memory, MB",
    "first_batch_seconds": "first batch, s",
    "resume_seconds": "first batch in mid-epoch, s",
    "hours_per_second": "hours of speech a second of one core",
}


@register_reader
class SimulatedFeaturesReader(FeaturesReader):
    """Makes features up; the key is their number of frames."""

    name = "simulated"

    def __init__(self, storage_path: str, *_: object, **__: object):
        self.storage_path = storage_path

    def read(self, key: str, left_offset_frames: int = 0, right_offset_frames: int | None = None) -> np.ndarray:
        """Return silence (T, F)."""
        return np.zeros((int(key), BINS), dtype=np.float32)[left_offset_frames:right_offset_frames]


def main() -> None:
    """Measure and write `large_corpus.csv` and `.md`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_corpus", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the table")
    parser.add_argument(
        "--utterances", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help=f"sizes, multiples of {SHARD}"
    )
    parser.add_argument("--drawn", type=int, default=100_000, help="utterances drawn, or transcribed, in each row")
    parser.add_argument("--stages", nargs="+", choices=("training", "pseudo-labelling"), default=None)
    options = parser.parse_args()
    stages = {"training": measure_training, "pseudo-labelling": measure_pseudo_labelling}
    rows = []
    for utterances in options.utterances:
        with tempfile.TemporaryDirectory() as name:
            corpus = Path(name)
            write_corpus(corpus, utterances)
            for stage in options.stages or stages:
                with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as alone:
                    found = alone.submit(stages[stage], corpus, options.drawn).result()
                rows.append({"stage": stage, "utterances": utterances, **found})
                print(json.dumps(rows[-1]), flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame.to_csv(options.output / "large_corpus.csv", index=False, lineterminator="\n")
    (options.output / "large_corpus.md").write_text(text(frame), encoding="utf-8")


def write_corpus(folder: Path, utterances: int) -> None:
    """Write a part `speech` in shards, transcripts of it, and tokens; utterances of 2 to 22 s, alike in every shard."""
    if utterances < SHARD or utterances % SHARD:
        raise ValueError(f"--utterances: {utterances} is no multiple of {SHARD}; write {SHARD} times a number")
    generator = random.Random(0)
    write_tokens(folder / "tokens.model")
    (folder / "speech" / "shards").mkdir(parents=True)
    seconds = [generator.randrange(200, 2200) / 100 for _ in range(SHARD)]
    keys = [f"large/0000/some_book_of_many_64kb/chapter_{place:04d}" for place in range(SHARD)]
    cuts, lines = (
        "".join(
            json.dumps(values(key, duration, generator)) + "\n" for key, duration in zip(keys, seconds, strict=True)
        )
        for values in (cut_values, label_values)
    )
    shards = []
    with (folder / "labels.jsonl").open("w", encoding="utf-8") as labels:
        for number in range(utterances // SHARD):
            size = {"utterances": SHARD, "cuts": SHARD, "seconds": round(sum(seconds), 2)}
            shards.append(Shard(folder=folder / "speech", number=number, **size))
            book = f"large/{number:04d}/"
            with gzip.open(shards[-1].manifest, "wt", compresslevel=1, encoding="utf-8") as manifest:
                manifest.write(cuts.replace("large/0000/", book))
            labels.write(lines.replace("large/0000/", book))
    write_index(folder / "speech", shards)


def write_tokens(path: Path) -> None:
    """Write word pieces of the made-up language."""
    lines = [" ".join(random.Random(n).choices(WORDS, k=9)) for n in range(200)]
    path.write_bytes(Tokenizer.estimate(lines, vocabulary=60, type="unigram"))


def cut_values(key: str, duration: float, _: random.Random) -> dict[str, Any]:
    """Return an utterance as Lhotse writes it."""
    frames = round(100 * duration)
    features = {
        "type": "log-mel", "num_frames": frames, "num_features": BINS, "frame_shift": 0.01, "sampling_rate": 16000,
        "start": 0, "duration": duration, "storage_type": "simulated", "storage_path": "features.tar",
        "storage_key": str(frames), "recording_id": key, "channels": 0,
    }  # fmt: skip
    supervision = {"id": key, "recording_id": key, "start": 0.0, "duration": duration, "channel": 0, "speaker": "1"}
    return {
        "id": key, "start": 0, "duration": duration, "channel": 0, "supervisions": [supervision],
        "features": features, "type": "MonoCut",
    }  # fmt: skip


def label_values(key: str, duration: float, generator: random.Random) -> dict[str, Any]:
    """Return a teacher's transcript as the transcribing job writes it, 2.5 words a second."""
    words = generator.choices(WORDS, k=round(2.5 * duration))
    tokens = 2 * len(words)
    per_token = round(-generator.expovariate(4), 4)
    return {
        "id": key, "text": " ".join(words), "score": round(per_token * tokens, 4), "score_per_token": per_token,
        "tokens": tokens, "tokens_per_second": round(tokens / duration, 3), "kept": True, "reason": "",
        "duration": duration,
    }  # fmt: skip


def measure_training(corpus: Path, drawn: int) -> dict[str, float]:
    """Draw batches as each of eight processes does: all of them from the manifests, its share with features."""
    started = time.perf_counter()
    tokenizer = Tokenizer.load(corpus / "tokens.model")
    data = load_training_data(run(), corpus=corpus, tokenizer=tokenizer, pseudo_labels=[corpus / "labels.jsonl"])
    collate = data._collate
    data._collate = list  # features are read of a share alone, as in a training of several processes
    batches = data.batches()
    collate(next(batches)[0][::RANKS])
    first = time.perf_counter() - started
    utterances, seconds, drawing = 0, 0.0, 0.0
    while utterances < drawn:
        busy = time.process_time()
        cuts, epoch, position = next(batches)
        drawing += time.process_time() - busy
        collate(cuts[::RANKS])
        utterances, seconds = utterances + len(cuts), seconds + sum(cut.duration for cut in cuts)
    found = {"hours": seconds_of(corpus) / 3600, "peak_megabytes": peak_megabytes(), "first_batch_seconds": first}
    started = time.perf_counter()
    next(data.batches(epoch=epoch, position=position))
    resumed = time.perf_counter() - started
    return found | {"resume_seconds": resumed, "hours_per_second": seconds / 3600 / drawing}


def measure_pseudo_labelling(corpus: Path, drawn: int) -> dict[str, float]:
    """Transcribe the part, or the first of so many blocks, by a teacher that says the same of everything at once."""
    tokenizer = Tokenizer.load(corpus / "tokens.model")
    said = tuple(tokenizer.encode(" ".join(WORDS)))
    first: list[float] = []

    def transcribe(model: None, features: Any, lengths: Any, *, settings: PseudoLabels) -> list[Hypothesis]:
        first.append(time.perf_counter())
        del first[1:]
        return [Hypothesis(said, -1.0)] * len(lengths)

    decode.transcribe = transcribe
    shards = read_index(corpus / "speech")
    jobs = max(1, min(len(shards), len(shards) * SHARD // drawn))
    started, busy = time.perf_counter(), time.process_time()
    decode.pseudo_label(
        None,
        part="speech",
        corpus=corpus,
        tokenizer=tokenizer,
        settings=PseudoLabels(max_tokens_per_second=1e6),
        output=corpus / "said.jsonl",
        block=(0, jobs),
    )
    rate = seconds_of(corpus) / 3600 / jobs / (time.process_time() - busy)
    found = {"hours": seconds_of(corpus) / 3600, "peak_megabytes": peak_megabytes()}
    return found | {"first_batch_seconds": first[0] - started, "hours_per_second": rate}


def run() -> RunRecord:
    """Return a run on the best nine tenths of a teacher's transcripts, none much too short or long."""
    encoder = {"layers": 1, "dim": 8, "heads": 2, "feed_forward": 16, "stack": 4}
    choice = {"keep_share": 0.9, "min_length_ratio": 0.5, "max_length_ratio": 2.0}
    return RunRecord.model_validate(
        {
            "scale": "benchmark",
            "study": "large_corpus",
            "name": "student",
            "seed": 0,
            "run": {
                "model": "m", "phase": "p", "targets": "hard", "teacher": "t", "audio": ["unlabelled"],
                "augmentation": "none", "pseudo_labels": choice,
            },
            "model": {"encoder": encoder, "predictor": {"dim": 8}, "joint": 8},
            "phase": {"steps": 10**6, "batch_utterances": BATCH, "learning_rate": 1e-3, "warmup_steps": 0},
            "features": {"mel_bins": BINS},
            "labelled": [],
            "unlabelled": ["speech"],
            "dev": [],
        }
    )  # fmt: skip


def seconds_of(corpus: Path) -> float:
    """Return how much speech there is."""
    return sum(shard.seconds for shard in read_index(corpus / "speech"))


def peak_megabytes() -> float:
    """Return the most memory that this process has had at any time (10^6 bytes)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6


def text(frame: pd.DataFrame) -> str:
    """Return the table as Markdown, with what it is held against."""
    lines = [" | ".join(COLUMNS.values()), " | ".join("---" for _ in COLUMNS)]
    for row in frame.to_dict("records"):
        cells = [row["stage"], f"{row['utterances']:,}", f"{row['hours']:,.0f}", f"{row['peak_megabytes']:.0f}"]
        rest = ("first_batch_seconds", "resume_seconds", "hours_per_second")
        cells += ["–" if pd.isna(row[name]) else f"{row[name]:.1f}" for name in rest]
        lines.append(" | ".join(cells))
    growth = [
        f"{stage}: {100 * (rows['peak_megabytes'].iloc[-1] / rows['peak_megabytes'].iloc[0] - 1):+.1f} %"
        for stage, rows in frame.groupby("stage", sort=False)
    ]
    notes = [
        f"Growth of memory from {frame['utterances'].min():,} to {frame['utterances'].max():,} utterances: "
        + ", ".join(growth)
        + ".",
        f"Eight H100s consume {EIGHT_H100_HOURS_PER_SECOND:.1f} hours of speech a second at most: 0.6 billion "
        "parameters, 6 operations a weight and encoder frame, 25 frames a second, half of 989 TFLOP/s each.",
        f"Utterances have 2 to 22 seconds; batches {BATCH:,} utterances, of which one of {RANKS} processes reads the "
        "features of its share. The run keeps the best nine tenths of the transcripts.",
    ]
    return "\n".join(
        ["# Large corpora", "", *(f"| {line} |" for line in lines), "", *(f"- {note}" for note in notes), ""]
    )


if __name__ == "__main__":
    main()
