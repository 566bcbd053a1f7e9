"""Preparation of a part: checks, quarantine, windows, features, reading."""

import csv
import json

import numpy as np
import pytest
import soundfile
import torch
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

from asr_distill.corpus.overview import overview, quarantine
from asr_distill.experiment import CorpusRecord
from asr_distill.features.prepare import FILES, prepare
from asr_distill.features.reading import FeatureReader, global_mean_and_std, original_id, read_cuts


class CorpusBuilder:
    """Writes a corpus as Lhotse manifests, good and bad utterances alike."""

    def __init__(self, folder):
        self.folder, self.recordings, self.segments = folder, [], []
        folder.mkdir(parents=True)

    def add(self, key, *, seconds=1.0, text="GOOD", samples=None, rate=16000, speaker=None, file=True, **segment):
        if samples is None:
            samples = np.random.default_rng(len(self.recordings)).normal(scale=0.1, size=int(rate * seconds))
        path = self.folder / f"{key}.wav"
        soundfile.write(path, samples, rate, subtype="FLOAT")
        recording = Recording.from_file(path, recording_id=key)
        recording.sources[0].source = path.name
        if not file:
            path.unlink()
        self.recordings.append(recording)
        values = {"start": 0.0, "duration": recording.duration, "speaker": speaker or f"speaker-{key[:4]}", **segment}
        self.segments.append(SupervisionSegment(id=key, recording_id=key, text=text, **values))
        return path

    def write(self, name):
        RecordingSet.from_recordings(self.recordings).to_file(self.folder / f"recordings_{name}.jsonl.gz")
        SupervisionSet.from_segments(self.segments).to_file(self.folder / f"supervisions_{name}.jsonl.gz")


def record(data, *, use="labelled", speeds=(1.0,), **rules):
    part = {"source": "manifests", "name": "n", "use": use}
    return CorpusRecord.model_validate(
        {
            "data": str(data),
            "corpus": {"parts": {"p": part}, "min_duration": 0.2, **rules},
            "features": {"speed_perturbation": list(speeds)},
        }
    )


def add_all_defects(corpus):
    """Return utterance id -> reason."""
    corpus.add("file-missing", file=False)
    corpus.add("garbage").write_bytes(b"this is no audio")
    path = corpus.add("truncated")
    path.write_bytes(path.read_bytes()[: 16000 * 2])
    corpus.add("empty", samples=np.zeros(0))
    corpus.add("nan", samples=np.array([0.1, np.nan] * 8000))
    corpus.add("infinite", samples=np.array([0.1, np.inf] * 8000))
    corpus.add("silent", samples=np.zeros(16000))
    corpus.add("slow-rate", rate=8000)
    corpus.add("stereo", samples=np.ones((16000, 2)) * 0.1)
    corpus.add("short", seconds=0.1)
    corpus.add("long", seconds=3.5)
    corpus.add("outside", duration=2.0)
    corpus.add("no-text", text="  !? ")
    corpus.add("digits", text="ROOM 101")
    corpus.add("null-text", text=None)
    corpus.add("twice", text="FIRST")
    corpus.segments.append(corpus.segments[-1])
    corpus.segments.append(SupervisionSegment(id="orphan", recording_id="none", start=0, duration=1, text="A"))
    corpus.recordings.append(corpus.recordings[-1].with_path_prefix("."))
    corpus.recordings[-1].id = "untranscribed"
    return {
        "file-missing": "audio file missing",
        "garbage": "audio unreadable",
        "truncated": "audio truncated",
        "empty": "audio empty",
        "nan": "audio not finite",
        "infinite": "audio not finite",
        "silent": "audio silent",
        "slow-rate": "wrong sampling rate",
        "stereo": "more than one channel",
        "short": "shorter than min_duration",
        "long": "longer than max_duration",
        "outside": "supervision outside its recording",
        "no-text": "transcript empty",
        "digits": "transcript contains digits",
        "null-text": "transcript missing",
        "twice": "duplicate id",
        "orphan": "recording missing",
        "untranscribed": "transcript missing",
    }


def test_every_defect_is_quarantined_with_its_reason(tmp_path):
    corpus = CorpusBuilder(tmp_path / "data")
    expected = add_all_defects(corpus)
    corpus.add("good", text="Don't stop!")
    corpus.write("n")
    output = tmp_path / "out"
    settings = record(tmp_path / "data", max_quarantined=1.0, max_duration=3.0)
    prepare("p", record=settings, synthetic=tmp_path, output=output)
    with (output / "quarantine.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {row["id"]: row["reason"] for row in rows}
    assert found == expected
    assert all(row["detail"] and "\n" not in row["detail"] for row in rows)
    references = [json.loads(line) for line in (output / "references.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(r["id"], r["text"]) for r in references] == [("good", "DON'T STOP"), ("twice", "FIRST")]
    statistics = json.loads((output / "statistics.json").read_text())
    assert statistics["utterances"] == 2
    assert statistics["words"] == 3
    assert statistics["quarantined"] == len(rows)
    assert sorted(path.name for path in output.iterdir()) == sorted(FILES)


def test_too_many_in_quarantine_are_an_error_that_leaves_the_list(tmp_path):
    corpus = CorpusBuilder(tmp_path / "data")
    for number in range(98):
        corpus.add(f"good-{number}", seconds=0.25)
    corpus.add("bad-1", samples=np.zeros(4000))
    corpus.write("n")
    output = tmp_path / "out"
    prepare("p", record=record(tmp_path / "data", max_quarantined=0.0102), synthetic=tmp_path, output=output)
    corpus.add("bad-2", samples=np.zeros(4000))
    corpus.write("n")
    with pytest.raises(ValueError, match=r"2 of 100 utterances.*\(2\) for: audio silent.*quarantine\.csv") as error:
        prepare("p", record=record(tmp_path / "data"), synthetic=tmp_path, output=output)
    assert str(output) in str(error.value)
    assert [path.name for path in output.iterdir()] == ["quarantine.csv"]


def test_nothing_left_is_an_error(tmp_path):
    corpus = CorpusBuilder(tmp_path / "data")
    corpus.add("bad", samples=np.zeros(4000))
    corpus.write("n")
    with pytest.raises(ValueError, match="nothing is left"):
        prepare("p", record=record(tmp_path / "data", max_quarantined=1.0), synthetic=tmp_path, output=tmp_path / "o")


def test_unlabelled_speech_loses_transcripts_and_is_cut_into_windows(tmp_path):
    corpus = CorpusBuilder(tmp_path / "data")
    corpus.add("long", seconds=2.6, text="ROOM 101")
    corpus.add("rest", seconds=2.1, text=None)
    corpus.add("whole", seconds=1.0)
    corpus.write("n")
    output = tmp_path / "out"
    settings = record(tmp_path / "data", use="unlabelled", max_duration=1.0, max_quarantined=0.2)
    prepare("p", record=settings, synthetic=tmp_path, output=output)
    cuts = list(read_cuts([output]))
    assert [(cut.id, round(cut.start, 6), round(cut.duration, 6)) for cut in cuts] == [
        ("long-w0000", 0.0, 1.0),
        ("long-w0001", 1.0, 1.0),
        ("long-w0002", 2.0, 0.6),
        ("rest-w0000", 0.0, 1.0),
        ("rest-w0001", 1.0, 1.0),
        ("whole", 0.0, 1.0),
    ]
    assert all(cut.supervisions[0].text is None and cut.load_features().shape == (cut.num_frames, 80) for cut in cuts)
    assert list(quarantine({"p": output})["id"]) == ["rest-w0002"]
    assert '"text": null' in (output / "references.jsonl").read_text()


@pytest.fixture
def prepared(tmp_path):
    corpus = CorpusBuilder(tmp_path / "data")
    for number in range(3):
        corpus.add(f"u{number}", seconds=0.5 + 0.333 * number)
    corpus.write("n")
    settings = record(tmp_path / "data", speeds=(0.9, 1.0, 1.1))
    prepare("p", record=settings, synthetic=tmp_path, output=tmp_path / "out")
    return tmp_path / "out"


def test_copies_at_other_speeds(prepared):
    cuts = list(read_cuts([prepared]))
    assert [cut.id for cut in cuts][:4] == ["u0", "u0_sp0.9", "u0_sp1.1", "u1"]
    assert [original_id(cut) for cut in cuts][:4] == ["u0", "u0", "u0", "u1"]
    for cut in cuts:
        assert cut.load_features().shape == (cut.num_frames, 80)
        assert cut.supervisions[0].text == "GOOD"
    assert cuts[1].duration == pytest.approx(cuts[0].duration / 0.9, abs=1e-3)
    assert [cut.id for cut in read_cuts([prepared], originals_only=True)] == ["u0", "u1", "u2"]
    assert json.loads((prepared / "statistics.json").read_text())["utterances"] == 3


def test_the_prepared_folder_can_move(prepared, tmp_path):
    moved = prepared.rename(tmp_path / "moved")
    assert next(iter(read_cuts([moved]))).load_features() is not None


def test_memory_and_disk_give_the_same(prepared):
    cuts = read_cuts([prepared])
    kept, direct = FeatureReader(cuts, cache_hours=1.0), FeatureReader(cuts, cache_hours=0.0)
    for cut in cuts:
        first = kept.read(cut)
        assert first.dtype == torch.float32
        assert torch.equal(first, direct.read(cut))
        assert torch.equal(first, kept.read(cut.id))
        np.testing.assert_allclose(first.numpy(), cut.load_features(), atol=2**-7)
    features, lengths = kept.collate(list(cuts)[:3])
    assert features.shape == (3, int(lengths.max()), 80)
    for row, length, cut in zip(features, lengths, cuts, strict=False):
        assert torch.equal(row[:length], direct.read(cut))
        assert not row[length:].any()


def test_a_missing_store_is_named(prepared):
    cuts = read_cuts([prepared])
    (prepared / "features.lca").unlink()
    with pytest.raises(ValueError, match=r"features\.lca"):
        FeatureReader(cuts, cache_hours=1.0).read("u0")


def test_global_statistics(prepared):
    mean, deviation = global_mean_and_std([prepared / "statistics.json", prepared / "statistics.json"])
    stored = np.concatenate([cut.load_features() for cut in read_cuts([prepared], originals_only=True)])
    np.testing.assert_allclose(mean, stored.mean(axis=0), atol=5e-3)
    np.testing.assert_allclose(deviation, stored.std(axis=0), atol=5e-3)


def test_overview(tmp_path):
    folders = {}
    for part, use, speaker in (("a", "labelled", "s1"), ("b", "unlabelled", "s1"), ("c", "test", "s2")):
        corpus = CorpusBuilder(tmp_path / part / "data")
        corpus.add(f"{part}-1", speaker=speaker, text="TWO WORDS")
        corpus.write("n")
        folders[part] = tmp_path / part / "out"
        settings = record(tmp_path / part / "data", use=use)
        prepare("p", record=settings, synthetic=tmp_path, output=folders[part])
    table = overview(folders).set_index("part")
    assert list(table["words"]) == [2, 0, 2]
    assert list(table["speakers"]) == [1, 1, 1]
    assert quarantine(folders).empty
    statistics = json.loads((folders["c"] / "statistics.json").read_text())
    (folders["c"] / "statistics.json").write_text(json.dumps({**statistics, "speakers": ["s1", "s2"]}))
    with pytest.raises(ValueError, match=r"a \(labelled\) and c \(test\) share 1 speakers, such as s1"):
        overview(folders)
    (folders["c"] / "statistics.json").write_text(json.dumps(statistics))
    (folders["c"] / "references.jsonl").write_text((folders["a"] / "references.jsonl").read_text())
    with pytest.raises(ValueError, match="a and c both contain the utterance 'a-1'"):
        overview(folders)
