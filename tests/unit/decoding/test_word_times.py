"""When hypotheses' words were emitted, by hand and against the scored transcript."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_distill.decoding.hypothesis import Hypothesis
from asr_distill.decoding.word_times import WordTime, emission_times, lookahead, word_spans, write_word_times
from asr_distill.experiment import EncoderSize
from asr_distill.models.conformer import Conformer
from asr_distill.text.normalise import normalise
from asr_distill.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer(Tokenizer.estimate(["YES", "NO", "NO NO", "MAYBE SO'"] * 5, vocabulary=12, type="char"))
STREAMING = EncoderSize(layers=2, dim=8, heads=2, feed_forward=16, stack=6, streaming=True, right_context=0)
CUT = SimpleNamespace(id="u", frame_shift=0.01, duration=3.0)


def spelled(*pieces):
    """Return the tokens of pieces; `_` marks the beginning of a word."""
    ids = {TOKENIZER.piece(token): token for token in range(TOKENIZER.vocabulary)}
    return tuple(ids[piece.replace("_", "\u2581")] for piece in pieces)


def emitted(tokens, frames, *, encoder=STREAMING, cut=CUT):
    (words,) = emission_times([Hypothesis(tokens, 0.0, frames)], [cut], tokenizer=TOKENIZER, encoder=encoder)
    return words


def test_a_word_appears_with_its_last_token_at_the_end_of_the_frame():
    words = emitted(spelled("_", "Y", "E", "S", "_", "N", "O"), (3, 3, 4, 9, 11, 11, 14))
    assert words == (("YES", 0.6), ("NO", 0.9))  # (9 + 1) and (14 + 1) frames of 6 x 10 ms


def test_no_word_appears_after_the_speech_has_ended():
    cut = SimpleNamespace(id="u", frame_shift=0.01, duration=0.8765)
    assert emitted(spelled("_", "N", "O"), (11, 12, 14), cut=cut) == (("NO", 0.8765),)


def test_frames_to_the_right_are_waited_for():
    encoder = EncoderSize(layers=3, dim=8, heads=2, feed_forward=16, stack=4, kernel=5, right_context=2)
    words = emitted(spelled("_", "N", "O"), (1, 1, 1), encoder=encoder)
    assert words == (("NO", pytest.approx((1 + 1 + 3 * (2 + 2)) * 4 * 0.01)),)


@pytest.mark.parametrize("streaming", [False, True])
def test_the_encoder_sees_as_far_as_it_says(streaming):
    sizes = {"layers": 2, "dim": 8, "heads": 2, "feed_forward": 16, "stack": 1, "kernel": 3, "dropout": 0}
    encoder = EncoderSize(**sizes, streaming=streaming, right_context=0 if streaming else 2)
    torch.manual_seed(0)
    model, features = Conformer(encoder, mel_bins=4).eval(), torch.randn(1, 20, 4)
    reached = []
    with torch.inference_mode():
        before, _ = model(features, torch.tensor([20]))
        for changed in range(20):
            other = features.clone()
            other[0, changed] += 1
            after, _ = model(other, torch.tensor([20]))
            if not torch.equal(after[0, 5], before[0, 5]):
                reached.append(changed)
    assert max(reached) == 5 + lookahead(encoder)


def test_words_that_scoring_leaves_out_have_no_time():
    tokens = spelled("_", "'", "_", "_", "N", "O")  # an apostrophe alone, and a mark without letters
    assert emitted(tokens, (0, 1, 2, 3, 4, 5)) == (("NO", 0.36),)


def test_a_search_that_does_not_tell_its_frames_is_refused():
    with pytest.raises(ValueError, match=r"^u: its search does not tell when tokens are emitted"):
        emitted(spelled("_", "N", "O"), ())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, TOKENIZER.vocabulary - 1), max_size=12))
def test_words_are_those_of_the_scored_transcript(tokens):
    words = emitted(tuple(tokens), tuple(range(len(tokens))))
    assert [word for word, _ in words] == normalise(TOKENIZER.decode(tokens)).split()
    assert sorted(seconds for _, seconds in words) == [seconds for _, seconds in words]


def test_spans_cover_all_tokens():
    starts = [False, False, True, False]
    assert word_spans([3, 3, 2, 2, 3], starts) == [range(2), range(2, 3), range(3, 5)]
    assert word_spans([], starts) == []


def test_lines_are_sorted(tmp_path):
    path = tmp_path / "emissions.jsonl"
    write_word_times(path, [("p", "v", ()), ("p", "u", (WordTime("NO", 0.5), WordTime("SO", 1.25))), ("o", "w", ())])
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == [
        {"part": "o", "id": "w", "words": []},
        {"part": "p", "id": "u", "words": [["NO", 0.5], ["SO", 1.25]]},
        {"part": "p", "id": "v", "words": []},
    ]
