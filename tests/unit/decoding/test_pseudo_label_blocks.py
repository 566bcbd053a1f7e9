"""Pseudo-labelling of a part in shards by several jobs: the same transcripts as by one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

from asr_distill.decoding import decode
from asr_distill.decoding.decode import merge_pseudo_labels, pseudo_label
from asr_distill.decoding.hypothesis import Hypothesis
from asr_distill.experiment import CorpusRecord, PseudoLabels
from asr_distill.features.prepare import prepare
from asr_distill.features.shards import Shard
from asr_distill.text.tokenizer import Tokenizer

WORDS = ["YES", "NO", "MAYBE SO", "NO NO", "SO", "YES NO"]
ANY = PseudoLabels(min_tokens=0, max_tokens_per_second=1e6, batch_seconds=1.5)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(Tokenizer.estimate(WORDS * 5, vocabulary=11, type="char"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return the folder of the parts `shards` of eleven utterances, three a shard, and `whole`, of the same."""
    folder = tmp_path_factory.mktemp("corpus")
    recordings, segments = [], []
    for number in range(11):
        path = folder / f"u{number:02d}.wav"
        samples = np.random.default_rng(number).normal(scale=0.1, size=16000 * (4 + number * 3 % 7) // 10)
        soundfile.write(path, samples, 16000)
        recordings.append(Recording.from_file(path, recording_id=path.stem))
        segments.append(SupervisionSegment(path.stem, path.stem, 0.0, recordings[-1].duration, speaker="s"))
    RecordingSet.from_recordings(recordings).to_file(folder / "recordings_n.jsonl.gz")
    SupervisionSet.from_segments(segments).to_file(folder / "supervisions_n.jsonl.gz")
    for part, size in (("shards", 3), ("whole", None)):
        rules = {"parts": {part: {"source": "manifests", "name": "n", "use": "unlabelled"}}, "shard_utterances": size}
        rules["min_duration"] = 0.2
        features = {"mel_bins": 4, "speed_perturbation": [1.0, 1.1]}
        record = CorpusRecord.model_validate({"data": str(folder), "corpus": rules, "features": features})
        prepare(part, record=record, synthetic=folder, output=folder / part)
    return folder


def transcribed(model, corpus, tokenizer, output, *, part="shards", block=(0, 1), settings=ANY):
    pseudo_label(model, part=part, corpus=corpus, tokenizer=tokenizer, settings=settings, output=output, block=block)
    return output


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("jobs", [1, 2, 3, 7])
def test_several_jobs_write_what_one_writes(talking_model, corpus, tokenizer, tmp_path, jobs):
    model = talking_model(vocabulary=tokenizer.vocabulary)
    alone = transcribed(model, corpus, tokenizer, tmp_path / "alone.jsonl")
    blocks = [
        transcribed(model, corpus, tokenizer, tmp_path / f"{n}.jsonl", block=(n, jobs)) for n in reversed(range(jobs))
    ]
    merge_pseudo_labels(blocks[::-1], part="shards", output=tmp_path / "merged.jsonl")
    assert (tmp_path / "merged.jsonl").read_bytes() == alone.read_bytes()
    lines = lines_of(alone)
    assert [line["id"] for line in lines] == [f"u{number:02d}" for number in range(11)]
    assert any(line["text"] for line in lines)


def test_a_part_in_one_file_has_the_same_transcripts(talking_model, corpus, tokenizer, tmp_path):
    model = talking_model(vocabulary=tokenizer.vocabulary)
    single = ANY.model_copy(update={"batch_seconds": 0.01})
    sharded, whole = (
        lines_of(transcribed(model, corpus, tokenizer, tmp_path / part, part=part, settings=single))
        for part in ("shards", "whole")
    )
    durations = [line.pop("duration") for line in sharded]
    assert durations == pytest.approx([(4 + number * 3 % 7) / 10 for number in range(11)])
    assert "duration" not in whole[0]
    same = sum(one == other for one, other in zip(sharded, whole, strict=True))
    assert same >= 10  # features are compressed in other pieces, so one token may differ
    assert [line["id"] for line in sharded] == [line["id"] for line in whole]


def test_no_more_than_a_shard_is_read_ahead(monkeypatch, corpus, tokenizer, tmp_path):
    ahead, most, read = 0, 0, Shard.read

    def counting(shard):
        nonlocal ahead, most
        for cut in read(shard):
            ahead, most = ahead + 1, max(most, ahead + 1)
            yield cut

    def transcribe(model, features, lengths, *, settings):
        nonlocal ahead
        ahead -= 2 * len(lengths)  # with the copy at another speed
        return [Hypothesis((5,), -1.0)] * len(lengths)

    monkeypatch.setattr(Shard, "read", counting)
    monkeypatch.setattr(decode, "transcribe", transcribe)
    transcribed(None, corpus, tokenizer, tmp_path / "labels.jsonl")
    assert (ahead, most) == (0, 6)


def test_nothing_kept_is_an_error_of_the_merge(monkeypatch, corpus, tokenizer, tmp_path):
    invented = Hypothesis(tuple(tokenizer.encode("YES")), -1.0)
    monkeypatch.setattr(decode, "transcribe", lambda model, features, lengths, *, settings: [invented] * len(lengths))
    strict = PseudoLabels(min_tokens=99)
    block = transcribed(None, corpus, tokenizer, tmp_path / "0.jsonl", settings=strict)
    with pytest.raises(ValueError, match="shards: every one of 11 pseudo-labels was dropped; relax pseudo_labels"):
        merge_pseudo_labels([block], part="shards", output=tmp_path / "merged.jsonl")
    assert not (tmp_path / "merged.jsonl").exists()
