"""From the publishers' own archives to parts of a corpus."""

import csv
import functools
import tarfile
import threading

import numpy as np
import pytest
from publishers import pack, raw, speech, sphere, write_an4, write_speechocean

from asr_distill.corpus.adapters import read_speech
from asr_distill.corpus.archives import unpack
from asr_distill.experiment import CorpusRecord
from asr_distill.features.prepare import prepare

AN4 = {
    "labelled": {"use": "labelled", "source": "an4", "name": "train", "speakers": 2},
    "unlabelled": {"use": "unlabelled", "source": "an4", "name": "train", "speakers": "rest"},
    "test": {"use": "test", "source": "an4", "name": "test"},
}
SPEECHOCEAN = {
    "adults": {"use": "labelled", "source": "speechocean762", "name": "train", "ages": [16, 150], "speakers": 2},
    "others": {"use": "dev", "source": "speechocean762", "name": "train", "ages": [16, 150], "speakers": "rest"},
    "children": {"use": "unlabelled", "source": "speechocean762", "name": "train", "ages": [0, 15]},
    "test": {"use": "test", "source": "speechocean762", "name": "test"},
}


def record(data, parts, **corpus):
    return CorpusRecord.model_validate({"data": str(data), "corpus": {"parts": parts, **corpus}, "features": {}})


def read(data, parts):
    return {part: read_speech(part, record=record(data, parts), synthetic=data / "none") for part in parts}


def speakers(speech):
    return {segment.speaker for segment in speech.supervisions}


def rejected(speech):
    return {rejection.id: rejection.reason for rejection in speech.rejected}


# ---------------------------------------------------------------- AN4


@pytest.mark.parametrize(
    ("encode", "suffix"),
    [
        (sphere, ".sph"),
        (functools.partial(sphere, big_endian=True), ".sph"),
        (functools.partial(raw, big_endian=True), ".raw"),
        (functools.partial(raw, big_endian=False), ".raw"),
    ],
)
def test_an4(tmp_path, encode, suffix):
    write_an4(tmp_path / "an4", encode=encode, suffix=suffix)
    parts = read(tmp_path, AN4)
    assert {s.id: (s.speaker, s.text, s.duration) for s in parts["test"].supervisions} == {
        "an251-fcaw-b": ("fcaw", "RUBOUT G M E F THREE NINE", 0.6)
    }
    assert len(speakers(parts["labelled"])) == 2
    assert speakers(parts["labelled"]) | speakers(parts["unlabelled"]) == {"fash", "ffmm", "mgah"}
    assert {s.text for s in parts["labelled"].supervisions} == {"YES", "ERASE C Q Q F"}
    assert not any(part.rejected for part in parts.values())


def test_an4_from_the_archive_to_a_prepared_part(tmp_path):
    corpus = write_an4(tmp_path / "made" / "an4")
    broken = corpus / "wav/an4_clstk/fash/an251-fash-b.sph"
    broken.write_bytes(broken.read_bytes()[:5000])
    (tmp_path / "data").mkdir()
    pack(corpus, tmp_path / "data/an4_sphere.tar.gz")
    parts = {"train": {"use": "labelled", "source": "an4", "name": "train"}}
    chosen = record(tmp_path / "data", parts, min_duration=0.2, max_quarantined=0.5)
    prepare("train", record=chosen, synthetic=tmp_path, output=tmp_path / "out")
    with (tmp_path / "out/quarantine.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert (line["id"], line["reason"]) == ("an251-fash-b", "audio unreadable")
    assert "promises 19200 bytes of samples, 3976 are there" in line["detail"]
    assert len((tmp_path / "out/references.jsonl").read_text().splitlines()) == 5
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"an4", "an4_sphere.tar.gz"}


def test_an4_lists_that_do_not_agree(tmp_path):
    etc = write_an4(tmp_path / "an4") / "etc"
    with (etc / "an4_train.fileids").open("a") as files:
        files.write("an4_clstk/fash/an1-fash-b\nan4_clstk/fash/an2-fash-b\n../../etc/x/an3-fash-b\n")
    with (etc / "an4_train.transcription").open("a") as lines:
        lines.write("<s> GO </s> (an1-fash-b)\n<s> GO </s> (an3-fash-b)\n<s> GO </s> (an4-fash-b)\n")
    parts = {"train": {"use": "labelled", "source": "an4", "name": "train"}}
    assert rejected(read(tmp_path, parts)["train"]) == {
        "an1-fash-b": "audio file missing",
        "an2-fash-b": "transcript missing",
        "an3-fash-b": "audio file missing",
        "an4-fash-b": "audio file missing",
    }
    parts["train"]["use"] = "unlabelled"
    assert "an2-fash-b" in rejected(read(tmp_path, parts)["train"])  # now for want of its file
    with (etc / "an4_train.transcription").open("a") as lines:
        lines.write("<s> GO </s>\n")
    with pytest.raises(ValueError, match=r"an4_train\.transcription: line 10 with text ends in no \(utterance id\)"):
        read(tmp_path, parts)


def test_ages_of_an4_are_not_known(tmp_path):
    write_an4(tmp_path / "an4")
    parts = {"train": {"use": "labelled", "source": "an4", "name": "train", "ages": [16, 150]}}
    with pytest.raises(ValueError, match=r"corpus\.parts\.train\.ages: the age of speaker 'f\w+' is not told; .*"):
        read(tmp_path, parts)


# ---------------------------------------------------------------- speechocean762


def test_speechocean_by_age(tmp_path):
    write_speechocean(tmp_path / "speechocean762")
    parts = read(tmp_path, SPEECHOCEAN)
    assert speakers(parts["adults"]) | speakers(parts["others"]) == {"0100", "0101", "0102"}
    assert len(speakers(parts["adults"])) == 2
    assert speakers(parts["children"]) == {"0001", "0003"}
    assert len(parts["test"].supervisions) == 10
    assert {s.text for s in parts["adults"].supervisions} == {"WE CALL IT BEAR"}
    assert not any(part.rejected for part in parts.values())


def test_speechocean_without_ages(tmp_path):
    half = write_speechocean(tmp_path / "speechocean762", ages=False) / "train"
    with pytest.raises(
        ValueError, match=r"parts\.adults\.ages: the age of speaker '\w+' is not told; write it into"
    ) as e:
        read(tmp_path, SPEECHOCEAN)
    assert str(half / "spk2age") in str(e.value)
    parts = {"train": {"use": "labelled", "source": "speechocean762", "name": "train"}}
    assert len(speakers(read(tmp_path, parts)["train"])) == 5


def test_speechocean_lists_that_do_not_agree(tmp_path):
    half = write_speechocean(tmp_path / "speechocean762") / "train"
    with (half / "wav.scp").open("a") as files:
        files.write(
            "1\tWAVE/none.WAV\n2\tWAVE/SPEAKER0001/000100000.WAV\n3\t/etc/passwd\n4\trm -rf x |\n5\n6\t../x.WAV\n"
        )
    with (half / "text").open("a") as lines:
        lines.write("".join(f"{number}\tYES\n" for number in (1, 3, 4, 5, 6, 7)))
    parts = {"train": {"use": "labelled", "source": "speechocean762", "name": "train"}}
    found = read(tmp_path, parts)["train"]
    assert rejected(found) == {**dict.fromkeys("134567", "audio file missing"), "2": "transcript missing"}
    assert len(found.supervisions) == 10


# ---------------------------------------------------------------- folders and archives


@pytest.mark.parametrize("parts", [AN4, SPEECHOCEAN], ids=["an4", "speechocean762"])
def test_a_missing_corpus_says_where_and_how(tmp_path, parts):
    part, settings = next(iter(parts.items()))
    with pytest.raises(ValueError, match=rf"corpus\.parts\.{part}: .* not found \(see data and .*\); unpack") as error:
        read(tmp_path, parts)
    assert str(tmp_path / settings["source"]) in str(error.value)
    assert ".tar.gz from " in str(error.value)
    (tmp_path / settings["source"]).mkdir()
    with pytest.raises(ValueError, match=rf"corpus\.parts\.{part}: .* not found .*; the folder is not complete"):
        read(tmp_path, parts)


def test_manifests_in_the_folder_come_first(tmp_path):
    folder = write_an4(tmp_path / "an4")
    own = read(tmp_path, {"test": AN4["test"]})["test"]
    for kind in ("recordings", "supervisions"):
        getattr(own, kind).to_file(folder / f"{kind}_test.jsonl.gz")
    for path in (folder / "etc").iterdir():
        path.unlink()
    assert [s.text for s in read(tmp_path, {"test": AN4["test"]})["test"].supervisions] == ["RUBOUT G M E F THREE NINE"]


def test_an_archive_by_another_name(tmp_path):
    pack(write_an4(tmp_path / "made/an4"), tmp_path / "mine.tgz")
    parts = {"test": {**AN4["test"], "archive": "mine.tgz", "folder": "corpora/census"}}
    assert len(read(tmp_path, parts)["test"].supervisions) == 1
    assert (tmp_path / "corpora/census/etc/an4_test.fileids").is_file()


def member(name, *, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        (member("../outside"), "leads out of it"),
        (member("an4/../../outside"), "leads out of it"),
        (member("/tmp/outside"), "leads out of it"),
        (member("an4/wav/a", kind=tarfile.SYMTYPE, target="/etc/passwd"), "is a link to '/etc/passwd'"),
        (member("an4/wav/b", kind=tarfile.LNKTYPE, target="../x"), "is a link to '../x'"),
        (member("an4/wav/c", kind=tarfile.FIFOTYPE), "is no ordinary file"),
    ],
)
def test_an_archive_that_would_write_elsewhere_is_refused(tmp_path, extra, fault):
    archive = pack(write_an4(tmp_path / "made/an4"), tmp_path / "an4_sphere.tar.gz", extra=[extra])
    with pytest.raises(
        ValueError, match=r"corpus\.parts\.labelled: .*an4_sphere\.tar\.gz: refused, its member"
    ) as error:
        read(tmp_path, AN4)
    assert fault in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} == {"made", archive.name, ".an4.lock"}


def test_a_damaged_archive_leaves_nothing_half_done(tmp_path):
    archive = pack(write_an4(tmp_path / "made/an4"), tmp_path / "an4_sphere.tar.gz")
    whole = archive.read_bytes()
    altered = bytearray(whole)
    altered[len(whole) // 2] ^= 0xFF
    for content in (whole[:-20], whole[: len(whole) // 2], bytes(altered), b"<html>not found</html>", b""):
        archive.write_bytes(content)
        with pytest.raises(ValueError, match=r"an4_sphere\.tar\.gz: damaged \(.*\); delete it and get it again"):
            read(tmp_path, AN4)
        assert not (tmp_path / "an4").exists()
        assert not (tmp_path / ".an4.unpacking").exists()
    archive.write_bytes(whole)
    (tmp_path / ".an4.unpacking/an4/etc").mkdir(parents=True)  # of a process that was killed
    assert len(read(tmp_path, AN4)["test"].supervisions) == 1


def test_an_archive_of_something_else(tmp_path):
    pack(write_speechocean(tmp_path / "made/speechocean762"), tmp_path / "an4_sphere.tar.gz")
    with pytest.raises(ValueError, match=r"holds no folder an4/; get the archive from its publisher"):
        read(tmp_path, AN4)


def test_a_folder_that_cannot_be_written(tmp_path):
    pack(write_an4(tmp_path / "made/an4"), tmp_path / "an4_sphere.tar.gz")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"corpus\.parts\.test: .* cannot be unpacked to .*file/an4 .*; make room"):
        read(tmp_path, {"test": {**AN4["test"], "folder": "file/an4"}})


def test_two_that_unpack_at_once_share_one_folder(tmp_path):
    archive = pack(write_an4(tmp_path / "made/an4"), tmp_path / "an4_sphere.tar.gz")
    errors = []

    def run():
        try:
            unpack(archive, inside="an4", folder=tmp_path / "an4")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    first = tmp_path / "an4/wav/an4_clstk/fash/an251-fash-b.sph"
    assert np.array_equal(np.frombuffer(first.read_bytes()[1024:], "<i2"), speech(251))
    assert {path.name for path in tmp_path.iterdir()} == {"made", "an4", archive.name}
