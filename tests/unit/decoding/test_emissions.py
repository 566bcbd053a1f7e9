"""The files from which emission latency is measured: when a streaming model wrote its words, and where words end."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

from asr_distill.decoding.decode import decode_parts
from asr_distill.decoding.forced_alignment import align, write_alignment
from asr_distill.decoding.streaming import StreamingDecoder
from asr_distill.experiment import CorpusRecord, Decoding
from asr_distill.features.prepare import prepare
from asr_distill.features.reading import FeatureReader, read_cuts
from asr_distill.text.normalise import normalise
from asr_distill.text.tokenizer import Tokenizer

WORDS = ["YES", "NO", "MAYBE SO", "NO NO"]
DURATIONS = [0.9, 1.3, 1.1, 0.7]
FRAME = 0.03
"""Seconds of an encoder frame of the talking model, 3 x 10 ms."""


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(Tokenizer.estimate(WORDS * 5, vocabulary=11, type="char"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return the folder of the prepared parts `p` and `q`, which hold the same utterances u0 to u3."""
    folder = tmp_path_factory.mktemp("corpus")
    recordings, segments = [], []
    for number, (text, seconds) in enumerate(zip(WORDS, DURATIONS, strict=True)):
        path = folder / f"u{number}.wav"
        soundfile.write(path, beeps(seconds, rng=np.random.default_rng(number)), 16000)
        recordings.append(Recording.from_file(path, recording_id=path.stem))
        segments.append(SupervisionSegment(path.stem, path.stem, 0.0, seconds, speaker=f"s{number}", text=text))
    RecordingSet.from_recordings(recordings).to_file(folder / "recordings_all.jsonl.gz")
    SupervisionSet.from_segments(segments).to_file(folder / "supervisions_all.jsonl.gz")
    for part in ("p", "q"):
        parts = {part: {"source": "manifests", "name": "all", "use": "test"}}
        values = {"data": str(folder), "corpus": {"parts": parts}, "features": {"mel_bins": 4}}
        prepare(part, record=CorpusRecord.model_validate(values), synthetic=folder, output=folder / part)
    return folder


def beeps(seconds, *, rng):
    """Return tones of a tenth of a second each, louder and softer, for a random model to tell apart."""
    tones = [np.sin(2 * np.pi * rng.uniform(100, 7000) * np.arange(1600) / 16000) for _ in range(round(10 * seconds))]
    return np.concatenate([10 ** rng.uniform(-4, 0) * tone for tone in tones])


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def decoded(model, corpus, tokenizer, output, **settings):
    """Return the lines of hypotheses.jsonl and of emissions.jsonl, None where there is no such file."""
    output.mkdir(exist_ok=True)
    chosen = Decoding(batch_seconds=2.5, **settings)
    decode_parts(model, parts=["q", "p"], corpus=corpus, tokenizer=tokenizer, settings=chosen, output=output)
    files = (output / "hypotheses.jsonl", output / "emissions.jsonl")
    return [lines_of(path) if path.exists() else None for path in files]


def streaming(talking_model, tokenizer):
    return talking_model(seed=34, vocabulary=tokenizer.vocabulary, streaming=True, right_context=0)


def test_words_have_the_time_at_which_they_appear_while_speech_arrives(talking_model, corpus, tokenizer, tmp_path):
    model = streaming(talking_model, tokenizer)
    hypotheses, emissions = decoded(model, corpus, tokenizer, tmp_path)
    assert [(line["part"], line["id"]) for line in emissions] == [(p, f"u{n}") for p in "pq" for n in range(4)]
    texts = {(line["part"], line["id"]): normalise(line["text"]).split() for line in hypotheses}
    assert sum(map(len, texts.values())) > 8
    cuts = {cut.id: cut for cut in read_cuts([corpus / "p"])}
    reader = FeatureReader(cuts.values(), cache_hours=0)
    for line in emissions:
        assert [word for word, _ in line["words"]] == texts[line["part"], line["id"]]
        if line["part"] == "p":
            expected = appearances(model, reader.read(cuts[line["id"]]), tokenizer)
            last = cuts[line["id"]].duration
            assert [seconds for _, seconds in line["words"]] == pytest.approx([min(s, last) for s in expected])


def appearances(model, features, tokenizer):
    """Return when the last token of each word is there, feeding one encoder frame after the other."""
    decoder = StreamingDecoder(model, max_symbols=Decoding().max_symbols_per_frame)
    pieces, there = features.split(3), []
    for number, piece in enumerate(pieces):
        tokens = decoder.accept(piece, last=number == len(pieces) - 1)
        there += [FRAME * (number + 1)] * (len(tokens) - len(there))
    starts = [tokenizer.piece(token).startswith("\u2581") for token in tokens]
    words = [place for place in range(len(tokens)) if place + 1 == len(tokens) or starts[place + 1]]
    return [there[place] for place in words if tokenizer.piece(tokens[place]) != "\u2581"]


def test_only_greedily_decoded_streaming_models_tell_times(talking_model, corpus, tokenizer, tmp_path):
    late = streaming(talking_model, tokenizer)
    whole, beam = talking_model(vocabulary=tokenizer.vocabulary), {"method": "beam", "beam_size": 1}
    for name, model, settings in (("beam", late, beam), ("whole", whole, {})):
        hypotheses, emissions = decoded(model, corpus, tokenizer, tmp_path / name, **settings)
        assert len(hypotheses) == 8
        assert emissions is None


def test_alignments_of_all_parts_stand_in_one_file(talking_model, corpus, tokenizer, tmp_path):
    model = talking_model(vocabulary=tokenizer.vocabulary)
    path = tmp_path / "alignment.jsonl"
    write_alignment(model, parts=["q", "p"], corpus=corpus, tokenizer=tokenizer, output=path)
    expected = dict(align(model, read_cuts([corpus / "p"]), tokenizer=tokenizer))
    lines = lines_of(path)
    assert [(line["part"], line["id"]) for line in lines] == [(p, f"u{n}") for p in "pq" for n in range(4)]
    for line in lines:
        assert line["words"] == [list(pair) for pair in expected[line["id"]]]
        assert [word for word, _ in line["words"]] == WORDS[int(line["id"][1])].split()


def test_the_command_aligns_with_a_stored_model(talking_model, corpus, tokenizer, tmp_path, monkeypatch):
    from asr_distill import cli
    from asr_distill.models.storage import save_model

    monkeypatch.setattr(cli, "start", lambda *_, **__: None)
    token_path, model_path = tmp_path / "tokenizer.model", tmp_path / "model.safetensors"
    token_path.write_bytes(Tokenizer.estimate(WORDS * 5, vocabulary=11, type="char"))
    model = talking_model(vocabulary=tokenizer.vocabulary)
    save_model(model, model_path, tokenizer=tokenizer.fingerprint)
    own, expected = tmp_path / "own.jsonl", tmp_path / "expected.jsonl"
    cli.align(model_path, own, part=["p"], corpus=corpus, tokenizer=token_path)
    with torch.inference_mode():
        write_alignment(model, parts=["p"], corpus=corpus, tokenizer=tokenizer, output=expected)
    assert own.read_text() == expected.read_text()
