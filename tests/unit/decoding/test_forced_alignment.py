"""Forced alignment against enumeration and torchaudio, on bursts of noise, and with what follows from it."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import torchaudio
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

from asr_distill.decoding.decode import transcribe
from asr_distill.decoding.forced_alignment import align, ctc_alignment, transducer_alignment
from asr_distill.decoding.word_times import emission_times, write_word_times
from asr_distill.experiment import CorpusRecord, Decoding
from asr_distill.features.prepare import prepare
from asr_distill.features.reading import FeatureReader, read_cuts
from asr_distill.losses.joint import LatticeLengths
from asr_distill.scoring.latency import latency_summary, read_word_times, word_latencies
from asr_distill.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer(Tokenizer.estimate(["YES", "NO", "MAYBE SO"] * 5, vocabulary=11, type="char"))
RATE = 16_000


@pytest.fixture
def prepared(tmp_path):
    """Return a function that prepares utterances of noise: transcript, seconds, and start and end of bursts."""

    def make(*utterances):
        recordings, segments = [], []
        for number, (text, seconds, bursts) in enumerate(utterances):
            rng = np.random.default_rng(number)
            samples = rng.normal(scale=1e-4, size=int(RATE * seconds))
            for begin, end in bursts:
                samples[int(RATE * begin) : int(RATE * end)] *= 1000
            path = tmp_path / f"u{number}.wav"
            soundfile.write(path, samples, RATE)
            recordings.append(Recording.from_file(path, recording_id=path.stem))
            segments.append(SupervisionSegment(path.stem, path.stem, 0.0, seconds, speaker=f"s{number}", text=text))
        RecordingSet.from_recordings(recordings).to_file(tmp_path / "recordings_all.jsonl.gz")
        SupervisionSet.from_segments(segments).to_file(tmp_path / "supervisions_all.jsonl.gz")
        parts = {"p": {"source": "manifests", "name": "all", "use": "test"}}
        record = CorpusRecord.model_validate(
            {"data": str(tmp_path), "corpus": {"parts": parts, "min_duration": 0.01}, "features": {"mel_bins": 4}}
        )
        prepare("p", record=record, synthetic=tmp_path, output=tmp_path / "p")
        return list(read_cuts([tmp_path / "p"]))

    return make


def fixed(*frames):
    """Return an aligner that says where each token of a single utterance begins and ends."""

    def aligner(model, states, labels, lengths):
        first, last = zip(*frames, strict=True)
        return torch.tensor([first]), torch.tensor([last])

    return aligner


def ends(model, cuts, **settings):
    return {name: list(words) for name, words in align(model, cuts, tokenizer=TOKENIZER, **settings)}


def best_frames(model, states, labels):
    """Return the frames at which the likeliest of all paths of one utterance (N, D) emits its labels."""
    predicted = model.joint.predictor(model.predictor(torch.tensor([labels], dtype=torch.long)))[0]
    logits = model.joint(model.joint.encoder(states)[:, None], predicted[None])
    log_probs = logits.double().log_softmax(dim=-1)

    def score(frames):
        path = sum(log_probs[t, u, label] for u, (t, label) in enumerate(zip(frames, labels, strict=True)))
        return path + sum(log_probs[t, sum(f <= t for f in frames), 0] for t in range(len(states)))

    return max(itertools.combinations_with_replacement(range(len(states)), len(labels)), key=score)


@torch.inference_mode()
@pytest.mark.parametrize("seed", range(4))
def test_the_transducer_aligns_as_the_likeliest_of_all_paths(talking_model, random_states, seed):
    model = talking_model(seed=seed, blank=2.0)
    states, frames = random_states([6, 3, 1, 4], seed=seed)
    labels = [[1, 2, 2], [3], [4, 1], []]
    padded = torch.tensor([row + [0] * (3 - len(row)) for row in labels])
    lengths = LatticeLengths(frames=frames, labels=torch.tensor([len(row) for row in labels]))
    first, last = transducer_alignment(model, states, padded, lengths)
    assert torch.equal(first, last)
    for row, (count, expected) in enumerate(zip(frames, labels, strict=True)):
        assert tuple(last[row, : len(expected)].tolist()) == best_frames(model, states[row, :count], expected)


@torch.inference_mode()
def test_the_ctc_head_aligns_as_torchaudio(talking_model, random_states):
    model = talking_model(seed=1)
    states, frames = random_states([12, 7], seed=1)
    labels = torch.tensor([[1, 2, 2, 5], [3, 4, 0, 0]])
    counts = torch.tensor([4, 2])
    first, last = ctc_alignment(model, states, labels, LatticeLengths(frames=frames, labels=counts))
    log_probs = model.ctc_head(states).log_softmax(dim=-1)
    for row, (length, count) in enumerate(zip(frames, counts, strict=True)):
        tokens, scores = torchaudio.functional.forced_align(log_probs[[row], :length], labels[[row], :count])
        spans = torchaudio.functional.merge_tokens(tokens[0], scores[0])
        assert first[row].tolist() == [span.start for span in spans] + [-1] * (4 - count)
        assert last[row].tolist() == [span.end - 1 for span in spans] + [-1] * (4 - count)


def test_words_end_where_the_next_begins_or_the_speech_before_it_ceases(talking_model, prepared):
    # MAYBE 0.12 to 0.50, a pause, SO 0.75 to 0.96, NO right after it to 1.20; tokens come at the words' beginnings
    cuts = prepared(("MAYBE SO NO", 1.5, [(0.12, 0.50), (0.75, 1.20)]))
    places = [4, 4, 4, 4, 5, 6, 24, 25, 26, 32, 32, 33]  # a word's mark is a token, too
    found = ends(talking_model(vocabulary=11), cuts, aligner=fixed(*zip(places, places, strict=True)))
    assert [word for word, _ in found["u0"]] == ["MAYBE", "SO", "NO"]
    assert [seconds for _, seconds in found["u0"]] == pytest.approx([0.50, 0.96, 1.20], abs=0.0201)
    assert found["u0"][1].seconds == pytest.approx(32 * 0.03)  # the frame of NO's first token, of 3 x 10 ms


def test_a_quiet_word_lasts_as_long_as_its_tokens(talking_model, prepared):
    cuts = prepared(("NO SO", 0.6, [(0.45, 0.5)]))
    frames = [(2, 2), (3, 3), (4, 6), (14, 15), (16, 16), (17, 18)]
    found = ends(talking_model(vocabulary=11), cuts, aligner=fixed(*frames))
    assert [seconds for _, seconds in found["u0"]] == pytest.approx([7 * 0.03, 19 * 0.03])


@pytest.mark.parametrize("aligner", [transducer_alignment, ctc_alignment])
def test_batches_change_nothing_and_ends_never_go_back(talking_model, prepared, aligner):
    model = talking_model(vocabulary=11)
    cuts = prepared(("MAYBE SO", 1.5, [(0.1, 1.2)]), ("NO", 0.5, []), ("YES NO NO", 1.0, [(0.2, 0.3), (0.5, 0.9)]))
    together = ends(model, cuts, aligner=aligner)
    assert list(together) == ["u0", "u2", "u1"]
    for cut in cuts:
        (alone,) = ends(model, [cut], aligner=aligner).values()
        assert alone == together[cut.id]
        assert [word for word, _ in alone] == cut.supervisions[0].text.split()
        seconds = [0.0, *(end for _, end in alone), cut.duration]
        assert seconds == sorted(seconds)


def test_an_utterance_too_short_for_its_transcript_is_named(talking_model, prepared):
    model = talking_model(vocabulary=11)
    cuts = prepared(("NO", 0.5, []), ("YES NO NO", 0.06, []))
    message = r"^u1: 0.06 s are too short for its transcript of 3 words and 10 tokens; leave it out$"
    for aligner in (transducer_alignment, ctc_alignment):
        with pytest.raises(ValueError, match=message):
            ends(model, cuts, aligner=aligner)
    (cut,) = prepared(("MAYBE", 0.12, []))  # 4 frames carry a word, but no 6 tokens of CTC
    assert len(ends(model, [cut])["u0"]) == 1
    with pytest.raises(ValueError, match="1 words and 6 tokens"):
        ends(model, [cut], aligner=ctc_alignment)


def test_a_streaming_model_is_refused(talking_model, prepared):
    with pytest.raises(ValueError, match="a streaming model hears words late"):
        ends(talking_model(vocabulary=11, streaming=True, right_context=0), prepared(("NO", 0.5, [])))


def test_from_speech_to_latency(talking_model, prepared, tmp_path):
    """A student's own transcripts are the references, so that every word is right."""
    teacher = talking_model(vocabulary=11, seed=2)
    student = talking_model(vocabulary=11, seed=28, streaming=True, right_context=0)
    texts = ("NO", 1.2, [(0.1, 0.9)]), ("MAYBE SO", 1.5, [(0.2, 0.6), (0.8, 1.3)]), ("YES", 0.8, [(0.1, 0.6)])
    cuts = prepared(*texts)
    hypotheses = transcribe(student, *FeatureReader(cuts, cache_hours=0).collate(cuts), settings=Decoding())
    words = emission_times(hypotheses, cuts, tokenizer=TOKENIZER, encoder=student.size.encoder)
    for cut, spoken in zip(cuts, words, strict=True):
        cut.supervisions[0].text = " ".join(word for word, _ in spoken)
    assert sum(map(len, words)) > 10
    write_word_times(tmp_path / "emissions.jsonl", [("p", c.id, w) for c, w in zip(cuts, words, strict=True)])
    write_word_times(
        tmp_path / "ends.jsonl", [("p", name, found) for name, found in align(teacher, cuts, tokenizer=TOKENIZER)]
    )
    references = pd.DataFrame(
        [{"part": "p", "id": c.id, "speaker": f"s{c.id}", "text": c.supervisions[0].text} for c in cuts]
    )
    sides = [read_word_times(tmp_path / f"{name}.jsonl") for name in ("ends", "emissions")]
    latencies = word_latencies(references, *sides)
    expected = [
        emitted - end
        for cut, spoken in zip(cuts, words, strict=True)
        for (_, emitted), (_, end) in zip(spoken, dict(align(teacher, cuts, tokenizer=TOKENIZER))[cut.id], strict=True)
    ]
    assert latencies["latency"].tolist() == pytest.approx(expected)
    summary = latency_summary(latencies, rng=np.random.default_rng(0), replicates=100)
    assert summary.mean.value == pytest.approx(np.mean(expected))
    assert (summary.words, summary.coverage) == (len(expected), 1.0)
