"""Adapters from the layouts of published corpora."""

from collections import Counter

import numpy as np
import pytest
import soundfile

from asr_distill.corpus.adapters import librilight, librispeech, read_speech
from asr_distill.experiment import CorpusRecord


def write_audio(path, *, seconds=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(0).normal(scale=0.1, size=int(16000 * seconds)), 16000)


@pytest.fixture
def libri(tmp_path):
    folder = tmp_path / "LibriSpeech" / "train-clean-5"
    chapter = folder / "19" / "198"
    for number in (0, 1, 3):
        write_audio(chapter / f"19-198-000{number}.flac")
    (chapter / "19-198-0004.flac").write_bytes(b"no audio")
    write_audio(chapter / "19-198-0005.flac")
    lines = [
        "19-198-0000 NORTHANGER ABBEY",
        "19-198-0001",
        "19-198-0002 NO SUCH FILE",
        "19-198-0003 A",
        "19-198-0004 B",
    ]
    (chapter / "19-198.trans.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def record(data, **part):
    return CorpusRecord.model_validate({"data": str(data), "corpus": {"parts": {"p": part}}, "features": {}})


def test_librispeech_layout(libri):
    speech = librispeech(libri, part="p", transcribed=True)
    assert {s.id: (s.speaker, s.text, s.duration) for s in speech.supervisions} == {
        "19-198-0000": ("19", "NORTHANGER ABBEY", 0.5),
        "19-198-0001": ("19", "", 0.5),
        "19-198-0003": ("19", "A", 0.5),
    }
    assert {r.id: r.reason for r in speech.rejected} == {
        "19-198-0002": "audio file missing",
        "19-198-0004": "audio unreadable",
        "19-198-0005": "transcript missing",
    }
    assert all("\n" not in r.detail for r in speech.rejected)


def test_librispeech_without_transcripts(libri):
    speech = librispeech(libri, part="p", transcribed=False)
    assert all(s.text is None for s in speech.supervisions)
    assert len(speech.supervisions) == 4
    assert Counter(r.reason for r in speech.rejected) == {"audio unreadable": 1}


def test_librilight_layout(tmp_path):
    folder = tmp_path / "LibriLight" / "small"
    write_audio(folder / "100" / "a_book" / "01.flac")
    write_audio(folder / "101" / "a_book" / "01.flac")
    speech = librilight(folder, part="p")
    assert [(s.id, s.speaker, s.text) for s in speech.supervisions] == [
        ("small/100/a_book/01", "100", None),
        ("small/101/a_book/01", "101", None),
    ]


def test_every_source_is_reached(libri, tmp_path):
    write_audio(tmp_path / "LibriLight" / "small" / "1" / "b" / "c.flac")
    real = record(tmp_path, source="librispeech", name="train-clean-5", use="labelled")
    assert len(read_speech("p", record=real, synthetic=tmp_path / "none").supervisions) == 3
    real = record(tmp_path, source="librilight", name="small", use="unlabelled")
    assert len(read_speech("p", record=real, synthetic=tmp_path / "none").supervisions) == 1
    common = {"source": "synthetic", "use": "unlabelled", "accents": ["gmw/en"], "speakers": 1, "utterances": 1}
    (tmp_path / "s").mkdir()
    libri.parent.rename(tmp_path / "s" / "LibriSpeech")
    (tmp_path / "s" / "LibriSpeech" / "train-clean-5").rename(tmp_path / "s" / "LibriSpeech" / "p")
    write_audio(tmp_path / "s" / "LibriLight" / "p" / "1" / "b" / "c.flac")
    made = record(tmp_path, layout="librispeech", **common)
    assert len(read_speech("p", record=made, synthetic=tmp_path / "s").supervisions) == 4
    made = record(tmp_path, layout="librilight", **common)
    assert len(read_speech("p", record=made, synthetic=tmp_path / "s").supervisions) == 1


@pytest.mark.parametrize(
    ("part", "place", "source"),
    [
        ({"source": "librispeech", "name": "dev-clean", "use": "dev"}, "LibriSpeech/dev-clean", "openslr"),
        ({"source": "librilight", "name": "small", "use": "unlabelled"}, "LibriLight/small", "Libri-Light"),
        ({"source": "manifests", "folder": "f", "name": "n", "use": "dev"}, "f/recordings_n.jsonl.gz", "manifests"),
    ],
)
def test_missing_corpora_say_where_and_how(tmp_path, part, place, source):
    with pytest.raises(ValueError, match=r"corpus\.parts\.p") as error:
        read_speech("p", record=record(tmp_path, **part), synthetic=tmp_path)
    assert str(tmp_path / place) in str(error.value)
    assert source in str(error.value)
    assert "data" in str(error.value)
