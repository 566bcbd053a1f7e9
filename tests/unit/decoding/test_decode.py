"""Transcribing prepared parts: batches, pseudo-labels and their filters, dev sets."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.testing.dummies import dummy_cut

from asr_distill.decoding import decode
from asr_distill.decoding.decode import DevSet, decode_parts, pseudo_label
from asr_distill.decoding.hypothesis import Hypothesis
from asr_distill.experiment import CorpusRecord, Decoding, PseudoLabels
from asr_distill.features.prepare import prepare
from asr_distill.text.tokenizer import Tokenizer

WORDS = ["YES", "NO", "MAYBE SO", "NO NO", "SO", "YES NO"]
DURATIONS = [0.5, 1.0, 0.4, 0.8, 0.6, 0.7]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(Tokenizer.estimate(WORDS * 5, vocabulary=11, type="char"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return the folder of a prepared part `p` with the utterances u0 to u5."""
    folder = tmp_path_factory.mktemp("corpus")
    recordings, segments = [], []
    for number, (text, seconds) in enumerate(zip(WORDS, DURATIONS, strict=True)):
        path = folder / f"u{number}.wav"
        soundfile.write(path, np.random.default_rng(number).normal(scale=0.1, size=int(16000 * seconds)), 16000)
        recordings.append(Recording.from_file(path, recording_id=path.stem))
        segments.append(SupervisionSegment(path.stem, path.stem, 0.0, seconds, speaker=f"s{number}", text=text))
    RecordingSet.from_recordings(recordings).to_file(folder / "recordings_all.jsonl.gz")
    SupervisionSet.from_segments(segments).to_file(folder / "supervisions_all.jsonl.gz")
    record = CorpusRecord.model_validate(
        {
            "data": str(folder),
            "corpus": {
                "parts": {"p": {"source": "manifests", "name": "all", "use": "labelled"}},
                "min_duration": 0.1,
            },
            "features": {"mel_bins": 4, "speed_perturbation": [1.0, 1.1]},
        }
    )
    prepare("p", record=record, synthetic=folder, output=folder / "p")
    return folder


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.1, 30.0), max_size=20), st.floats(1.0, 60.0))
def test_batches_are_bounded_and_complete(durations, seconds):
    cuts = [dummy_cut(number, duration=duration) for number, duration in enumerate(durations)]
    batches = list(decode.batches_of(cuts, seconds=seconds))
    assert sorted(cut.id for batch in batches for cut in batch) == sorted(cut.id for cut in cuts)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(cut.duration for cut in batch) <= seconds
    flat = [cut.duration for batch in batches for cut in batch]
    assert flat == sorted(flat, reverse=True)


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_every_utterance_is_transcribed_once_whatever_the_batches(talking_model, corpus, tokenizer, tmp_path, method):
    model = talking_model(vocabulary=tokenizer.vocabulary)
    found = []
    for seconds in (0.1, 2.0, 240.0):
        chosen = Decoding(method=method, beam_size=3, batch_seconds=seconds)
        decode_parts(model, parts=["p"], corpus=corpus, tokenizer=tokenizer, settings=chosen, output=tmp_path)
        found.append(lines_of(tmp_path / "hypotheses.jsonl"))
    assert [line["id"] for line in found[0]] == [f"u{number}" for number in range(6)]
    assert [[line["text"] for line in lines] for lines in found] == [[line["text"] for line in found[0]]] * 3
    assert any(line["text"] for line in found[0])
    summary = json.loads((tmp_path / "decoding.json").read_text())
    assert summary["method"] == method
    assert summary["parts"][0]["audio_seconds"] == pytest.approx(sum(DURATIONS))


def invent_hypotheses(monkeypatch, tokenizer, *, scores):
    """Let every utterance be transcribed as its number of tokens says, longest first, as batches come."""

    def transcribe(model, features, lengths, *, settings):
        return [Hypothesis((5,) * count, score) for count, score in scores]

    monkeypatch.setattr(decode, "transcribe", transcribe)


def test_pseudo_labels_are_dropped_with_their_reason(monkeypatch, corpus, tokenizer, tmp_path):
    # Longest first: u1 (1.0 s), u3 (0.8 s), u5 (0.7 s), u4 (0.6 s), u0 (0.5 s), u2 (0.4 s)
    scores = [(10, -5.0), (2, -0.2), (7, -70.0), (3, -1.5), (6, -0.6), (0, -0.1)]
    invent_hypotheses(monkeypatch, tokenizer, scores=scores)
    chosen = PseudoLabels(min_tokens=3, max_tokens_per_second=10.0, min_score_per_token=-0.5)
    path = tmp_path / "pseudo.jsonl"
    pseudo_label(None, part="p", corpus=corpus, tokenizer=tokenizer, settings=chosen, output=path)
    lines = {line["id"]: line for line in lines_of(path)}
    assert {key: line["reason"] for key, line in lines.items()} == {
        "u0": "12.0 tokens per second, more than 10.0",
        "u1": "",
        "u2": "0 tokens, fewer than 3",
        "u3": "2 tokens, fewer than 3",
        "u4": "",
        "u5": "score per token -10.000, below -0.5",
    }
    assert all(line["kept"] == (not line["reason"]) for line in lines.values())
    assert list(lines) == sorted(lines)
    expected = {"score": -5.0, "score_per_token": -0.5, "tokens": 10, "tokens_per_second": 10.0}
    assert expected.items() <= lines["u1"].items()
    assert lines["u1"]["text"] == tokenizer.decode((5,) * 10)


def test_without_a_lowest_score_none_is_too_low(monkeypatch, corpus, tokenizer, tmp_path):
    invent_hypotheses(monkeypatch, tokenizer, scores=[(1, -1e6)] * 6)
    path = tmp_path / "pseudo.jsonl"
    pseudo_label(None, part="p", corpus=corpus, tokenizer=tokenizer, settings=PseudoLabels(), output=path)
    assert all(line["kept"] for line in lines_of(path))


def test_nothing_left_is_an_error_and_no_file(monkeypatch, corpus, tokenizer, tmp_path):
    invent_hypotheses(monkeypatch, tokenizer, scores=[(1, -1.0)] * 6)
    path = tmp_path / "pseudo.jsonl"
    with pytest.raises(ValueError, match="p: every one of 6 pseudo-labels was dropped; relax pseudo_labels"):
        pseudo_label(
            None, part="p", corpus=corpus, tokenizer=tokenizer, settings=PseudoLabels(min_tokens=2), output=path
        )
    assert not path.exists()


@pytest.mark.parametrize(("limit", "expected"), [(2, ["u0", "u3"]), (4, ["u0", "u1", "u2", "u3"]), (99, 6)])
def test_a_dev_set_is_spread_over_the_part(corpus, limit, expected):
    chosen = [cut.id for cut in DevSet(["p"], corpus=corpus, limit=limit).cuts["p"]]
    assert chosen == ([f"u{n}" for n in range(expected)] if isinstance(expected, int) else expected)


def test_dev_word_error_rates(monkeypatch, talking_model, corpus, tokenizer):
    texts = {1.0: "NO", 0.8: "NO", 0.7: "YES NO", 0.6: "SO", 0.5: "NO", 0.4: "MAYBE SO"}  # u3 lacks a word, u0 is wrong
    monkeypatch.setattr(
        decode,
        "transcribe",
        lambda model, features, lengths, *, settings: [
            Hypothesis(tuple(tokenizer.encode(text)), 0.0) for text in texts.values()
        ],
    )
    rates = DevSet(["p"], corpus=corpus, limit=99).word_error_rates(None, tokenizer=tokenizer)
    assert rates == pytest.approx({"p": 2 / 9})
