"""Parts in shards: the same as parts in one file, resumed where a job was killed, damaged ones found."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet

from asr_distill.experiment import CorpusRecord
from asr_distill.features import prepare_shards as module
from asr_distill.features import utterances
from asr_distill.features.prepare import prepare
from asr_distill.features.reading import FeatureReader, global_mean_and_std, original_id, read_cuts
from asr_distill.features.shards import read_index

SILENT = 4
"""Number of the utterance that cannot be used."""


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    """Return the folder of eight recordings, u4 silent."""
    folder = tmp_path_factory.mktemp("100% shards")
    recordings, segments = [], []
    for number in range(8):
        path = folder / f"u{number}.wav"
        samples = np.random.default_rng(number).normal(scale=0.1, size=16000 * (3 + number % 3) // 10)
        soundfile.write(path, samples * (number != SILENT), 16000, subtype="FLOAT")
        recordings.append(Recording.from_file(path, recording_id=path.stem))
        segments.append(
            SupervisionSegment(path.stem, path.stem, 0.0, recordings[-1].duration, speaker=f"s{number % 3}", text="YES")
        )
    RecordingSet.from_recordings(recordings).to_file(folder / "recordings_n.jsonl.gz")
    SupervisionSet.from_segments(segments).to_file(folder / "supervisions_n.jsonl.gz")
    return folder


def record(data, *, size=3, use="labelled", bins=6, **rules):
    corpus = {"parts": {"p": {"source": "manifests", "name": "n", "use": use}}, "min_duration": 0.2}
    corpus |= {"max_quarantined": 0.2, "shard_utterances": size, **rules}
    features = {"mel_bins": bins, "speed_perturbation": [1.0, 1.25]}
    return CorpusRecord.model_validate({"data": str(data), "corpus": corpus, "features": features})


def prepared(manifests, output, **settings):
    prepare("p", record=record(manifests, **settings), synthetic=output, output=output)
    return output


@pytest.fixture(scope="module")
def sharded(manifests, tmp_path_factory):
    return prepared(manifests, tmp_path_factory.mktemp("s%d") / "p")


def read_utterances(monkeypatch, manifests, output, **settings):
    """Prepare, and return the utterances whose audio was read."""
    read, load = [], utterances.load_samples
    monkeypatch.setattr(utterances, "load_samples", lambda cut, **rest: read.append(cut.id) or load(cut, **rest))
    prepared(manifests, output, **settings)
    monkeypatch.setattr(utterances, "load_samples", load)
    return read


def test_shards_hold_what_one_file_holds(manifests, sharded, tmp_path):
    whole = prepared(manifests, tmp_path / "whole", size=None)
    assert [(s.number, s.utterances, s.cuts) for s in read_index(sharded)] == [(0, 3, 6), (1, 2, 4), (2, 2, 4)]
    assert read_index(whole) is None
    ours, theirs = list(read_cuts([sharded])), list(read_cuts([whole]))
    assert [cut.id for cut in ours] == [cut.id for cut in theirs]
    for name in ("duration", "supervisions", "num_frames", "custom", "sampling_rate"):
        assert [getattr(cut, name) for cut in ours] == [getattr(cut, name) for cut in theirs]
    readers = [FeatureReader(cuts, cache_hours=0) for cuts in (ours, theirs)]
    for cut in ours:
        one, other = (reader.read(cut.id) for reader in readers)
        np.testing.assert_allclose(one, other, atol=2**-4)
    for name in ("references.jsonl", "quarantine.csv"):
        assert (sharded / name).read_bytes() == (whole / name).read_bytes()
    one, other = (json.loads((folder / "statistics.json").read_text()) for folder in (sharded, whole))
    for key in ("sum", "sum_of_squares"):
        np.testing.assert_allclose(one.pop(key), other.pop(key), rtol=1e-12)
    assert one == other
    assert sum(shard.seconds for shard in read_index(sharded)) / 3600 == pytest.approx(one["hours"], abs=1e-6)
    assert global_mean_and_std([sharded / "statistics.json"])[0].shape == (6,)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Lhotse leaves archives open
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_lhotse_reads_them_sequentially(sharded):
    ours = {cut.id: cut.load_features() for cut in read_cuts([sharded])}
    for cut in CutSet.from_shar(in_dir=sharded / "shards"):
        assert cut.features.storage_type == "memory_lilcom"
        np.testing.assert_array_equal(cut.load_features(), ours.pop(cut.id))
    assert not ours


def test_dev_and_test_parts_stay_in_one_file(manifests, tmp_path):
    output = prepared(manifests, tmp_path / "p", use="dev")
    assert (output / "cuts.jsonl.gz").exists()
    assert read_index(output) is None


def test_long_unlabelled_speech_is_cut_into_windows(manifests, tmp_path):
    output = prepared(manifests, tmp_path / "p", use="unlabelled", max_duration=0.25, max_quarantined=1.0)
    cuts = [cut for cut in read_cuts([output]) if original_id(cut) == cut.id]
    assert [cut.id for cut in cuts][:3] == ["u0-w0000", "u1-w0000", "u2-w0000"]
    assert all(cut.start == 0 and cut.load_features().shape == (cut.num_frames, 6) for cut in cuts)
    assert all(cut.supervisions[0].text is None for cut in cuts)


def read_everything(output):
    reader = FeatureReader((), cache_hours=0)
    return [reader.read(cut) for cut in read_cuts([output])]


class Killed(BaseException):
    pass


def test_a_killed_job_goes_on_with_the_first_shard_that_is_not_complete(monkeypatch, manifests, sharded, tmp_path):
    load = utterances.load_samples

    def until_u5(cut, **rest):
        if cut.id == "u5":
            raise Killed
        return load(cut, **rest)

    output = tmp_path / "p"
    monkeypatch.setattr(utterances, "load_samples", until_u5)
    with pytest.raises(Killed):
        prepared(manifests, output)
    assert not (output / "statistics.json").exists()
    monkeypatch.setattr(utterances, "load_samples", load)
    assert read_utterances(monkeypatch, manifests, output) == ["u3", "u4", "u5", "u6", "u7"]
    for path in sorted((sharded / "shards").glob("*.tar")):
        assert (output / "shards" / path.name).read_bytes() == path.read_bytes()
    for name in ("references.jsonl", "quarantine.csv", "statistics.json", "shards.json"):
        assert (output / name).read_bytes() == (sharded / name).read_bytes()
    assert sorted(path.name for path in output.iterdir()) == sorted([*module.FILES, "shards", "state"])
    assert read_utterances(monkeypatch, manifests, output) == []


def test_other_settings_or_utterances_are_prepared_anew(monkeypatch, manifests, tmp_path):
    output = prepared(manifests, tmp_path / "p")
    assert read_utterances(monkeypatch, manifests, output, max_quarantined=0.3) == []
    assert read_utterances(monkeypatch, manifests, output, min_duration=0.35, max_quarantined=0.6) == [
        "u1",
        "u2",
        "u4",
        "u5",
        "u7",
    ]
    assert [shard.utterances for shard in read_index(output)] == [2, 2]
    assert len(list((output / "shards").iterdir())) == 4
    assert len(read_utterances(monkeypatch, manifests, output, bins=5)) == 8


@pytest.mark.parametrize("name", ["cuts.000001.jsonl.gz", "features.000001.tar"])
def test_a_damaged_shard_is_named_and_alone_prepared_anew(monkeypatch, manifests, tmp_path, name):
    output = prepared(manifests, tmp_path / "p")
    path = output / "shards" / name
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=name):
        read_everything(output)
    assert read_utterances(monkeypatch, manifests, output) == ["u3", "u4", "u5"]
    assert len(read_cuts([output])) == 14


def test_a_missing_manifest_is_named(manifests, tmp_path):
    output = prepared(manifests, tmp_path / "p")
    (output / "shards" / "cuts.000002.jsonl.gz").unlink()
    with pytest.raises(ValueError, match=r"cuts\.000002\.jsonl\.gz: 0 of 4 utterances are readable .*shards\.json"):
        read_cuts([output])


def test_too_many_in_quarantine_are_an_error_that_leaves_the_list_and_the_shards(monkeypatch, manifests, tmp_path):
    output = tmp_path / "p"
    with pytest.raises(ValueError, match="1 of 8 utterances are unusable, most often \\(1\\) for: audio silent"):
        prepared(manifests, output, max_quarantined=0.1)
    assert "u4,audio silent" in (output / "quarantine.csv").read_text()
    assert not (output / "shards.json").exists()
    assert read_utterances(monkeypatch, manifests, output, max_quarantined=0.2) == []


def test_a_shard_without_a_usable_utterance_is_left_out(manifests, tmp_path):
    output = prepared(manifests, tmp_path / "p", size=1)
    assert [shard.number for shard in read_index(output)] == [0, 1, 2, 3, 5, 6, 7]
    assert len(read_cuts([output])) == 14
