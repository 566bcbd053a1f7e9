"""Hundreds of damaged audio files and manifests: preparation sets them aside or ends in one line, and never crashes."""

import csv
import gzip
import json
import random
import struct
from collections import Counter

import numpy as np
import pytest
import soundfile

from asr_distill.experiment import CorpusRecord
from asr_distill.features.prepare import prepare

FILES, MANIFESTS, SOUND = 250, 50, 10
RATE = 16000


def record(data, **part):
    return CorpusRecord.model_validate(
        {
            "data": str(data),
            "corpus": {"parts": {"p": {"use": "unlabelled", **part}}, "min_duration": 0.2, "max_quarantined": 1.0},
            "features": {},
        }
    )


def truncated(whole, generator):
    return whole[: generator.randrange(len(whole))]


def flipped(whole, generator):
    """Change some bytes anywhere, the header included."""
    data = bytearray(whole)
    for _ in range(generator.choice((1, 4, 64))):
        data[generator.randrange(len(data))] = generator.randrange(256)
    return bytes(data)


def wrong_header(whole, generator):
    """Change some of the first bytes, where rate, channels and length stand."""
    data = bytearray(whole)
    for _ in range(generator.choice((1, 2, 8))):
        data[generator.randrange(min(44, len(data)))] = generator.randrange(256)
    return bytes(data)


def empty(whole, generator):
    return b""


def other_kind(whole, generator):
    return generator.choice((b"RIFF", b"fLaC", b"OggS", b"<html>not found</html>", b"\x00" * 4096, b"\x80\x04K*."))


def wav(samples, *, claimed):
    """A WAV file of 32-bit floats whose header claims so many bytes of samples."""
    data = np.asarray(samples, dtype="<f4").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, RATE, 4 * RATE, 4, 32)
    return (
        b"RIFF"
        + struct.pack("<I", min(claimed + 36, 2**32 - 1))
        + b"WAVE"
        + form
        + b"data"
        + struct.pack("<I", claimed)
        + data
    )


def not_a_number(whole, generator):
    samples = np.random.default_rng(generator.randrange(1000)).normal(scale=0.1, size=RATE)
    samples[generator.randrange(RATE)] = generator.choice((np.nan, np.inf, -np.inf))
    return wav(samples, claimed=4 * RATE)


def huge(whole, generator):
    """A second of sound whose header promises hours."""
    return wav(np.full(RATE, 0.1), claimed=generator.choice((2**31 - 4, 2**32 - 4, 2**30)))


DAMAGES = (truncated, flipped, wrong_header, empty, other_kind, not_a_number, huge)


def test_damaged_audio_is_set_aside_and_sound_audio_is_kept(tmp_path):
    generator = random.Random(300)
    folder = tmp_path / "data/LibriLight/small"
    samples = np.random.default_rng(0).normal(scale=0.1, size=RATE)
    seeds = {}
    for kind in ("flac", "wav"):
        path = tmp_path / f"seed.{kind}"
        soundfile.write(path, samples, RATE)
        seeds[kind] = path.read_bytes()
    for number in range(FILES + SOUND):
        path = folder / f"speaker{number % 5}" / "book" / f"u{number:03d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = seeds[generator.choice(("flac", "wav"))]
        path.write_bytes(DAMAGES[number % len(DAMAGES)](whole, generator) if number < FILES else whole)
    odd = folder / "speaker0/book/folder.flac"
    odd.mkdir()
    prepare(
        "p",
        record=record(tmp_path / "data", source="librilight", name="small"),
        synthetic=tmp_path,
        output=tmp_path / "out",
    )
    kept = {json.loads(line)["id"] for line in (tmp_path / "out/references.jsonl").read_text().splitlines()}
    assert {f"small/speaker{number % 5}/book/u{number:03d}" for number in range(FILES, FILES + SOUND)} <= kept
    with (tmp_path / "out/quarantine.csv").open(newline="", encoding="utf-8") as file:
        set_aside = list(csv.DictReader(file))
    assert Counter(row["reason"] for row in set_aside)["audio unreadable"] > FILES // 4
    assert kept.isdisjoint(row["id"] for row in set_aside)
    assert not any("\n" in row["detail"] for row in set_aside)
    for number in range(3, FILES, len(DAMAGES)):  # nothing is kept of an empty file
        assert f"small/speaker{number % 5}/book/u{number:03d}" not in kept


def good_manifests(folder):
    folder.mkdir(parents=True)
    recordings, segments = [], []
    for number in range(3):
        soundfile.write(folder / f"r{number}.wav", np.full(RATE, 0.1), RATE)
        source = {"type": "file", "channels": [0], "source": f"r{number}.wav"}
        recordings.append(
            {"id": f"r{number}", "sources": [source], "sampling_rate": RATE, "num_samples": RATE, "duration": 1.0}
        )
        segments.append(
            {"id": f"r{number}", "recording_id": f"r{number}", "start": 0.0, "duration": 1.0, "channel": 0, "text": "A"}
        )
    return {"recordings": recordings, "supervisions": segments}


def spoil_lines(lines, generator):
    """Return lines of JSON of which one is no longer what it should be."""
    line = dict(generator.choice(lines))
    key = generator.choice(list(line))
    match generator.randrange(4):
        case 0:
            del line[key]
        case 1:
            line[key] = generator.choice((None, -1, 1e300, float("nan"), "x", [], {}))
        case 2:
            line[key] = "$(touch broken); `id` ; rm -rf /nothing\n"
        case 3:
            return [*map(json.dumps, lines), json.dumps(line)[: generator.randrange(1, 20)]]
    return [*map(json.dumps, lines), json.dumps(line)]


@pytest.mark.parametrize("seed", range(MANIFESTS))
def test_damaged_manifests_end_in_one_line_or_do_no_harm(tmp_path, seed):
    generator = random.Random(seed)
    folder = tmp_path / "data"
    manifests = good_manifests(folder)
    spoilt = generator.choice(list(manifests))
    for name, lines in manifests.items():
        text = spoil_lines(lines, generator) if name == spoilt else [json.dumps(line) for line in lines]
        data = gzip.compress("".join(f"{line}\n" for line in text).encode("utf-8", "surrogatepass"))
        if name == spoilt and seed % 5 == 0:
            data = (truncated, flipped)[seed % 2](data, generator)
        (folder / f"{name}_n.jsonl.gz").write_bytes(data)
    said = failure(record(folder, source="manifests", name="n"), tmp_path)
    assert "\n" not in said
    assert "_n.jsonl.gz" in said or "corpus.parts.p" in said or (tmp_path / "out/statistics.json").exists()


def failure(settings, folder):
    """Return what the user is told; "" where the part could be prepared."""
    try:
        prepare("p", record=settings, synthetic=folder, output=folder / "out")
    except ValueError as error:
        return str(error)
    return ""


def test_a_manifest_cannot_run_a_command(tmp_path):
    folder = tmp_path / "data"
    manifests = good_manifests(folder)
    mark = tmp_path / "ran"
    manifests["recordings"][0]["sources"][0] |= {"type": "command", "source": f"touch {mark}; cat {folder / 'r0.wav'}"}
    for name, lines in manifests.items():
        (folder / f"{name}_n.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    prepare("p", record=record(folder, source="manifests", name="n"), synthetic=tmp_path, output=tmp_path / "out")
    assert not mark.exists()
    assert "audio not in a file" in (tmp_path / "out/quarantine.csv").read_text(encoding="utf-8")
