"""Emission latency by hand, by a slow bootstrap, and under shifts."""

from __future__ import annotations

import json
import math
import statistics

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_distill.scoring.latency import COLUMNS, latency_summary, read_word_times, word_latencies
from asr_distill.scoring.word_errors import word_errors

FRAME = 0.06


def references(*texts, part="test"):
    return pd.DataFrame(
        [{"part": part, "id": f"u{n}", "speaker": f"s{n % 3}", "text": text} for n, text in enumerate(texts)]
    )


def timed(*utterances, part="test"):
    """Return the frame of utterances written as `WORD@seconds WORD@seconds`."""
    lines = []
    for number, utterance in enumerate(utterances):
        pairs = [pair.split("@") for pair in utterance.split()]
        words = [[word, float(seconds)] for word, seconds in pairs]
        lines.append({"part": part, "id": f"u{number}", "words": words})
    return pd.DataFrame(lines)


def test_only_words_that_are_right_are_timed():
    found = word_latencies(
        references("the sea is calm", "is it"),
        timed("THE@0.2 SEA@0.5 IS@0.7 CALM@1.3", "IS@0.4 IT@0.6"),
        timed("OH@0.1 THE@0.5 SEE@0.6 IS@0.6 CALM@1.5 NOW@1.6", "IT@0.9"),
    )
    assert list(found) == COLUMNS
    assert found["word"].tolist() == ["THE", "SEA", "IS", "CALM", "IS", "IT"]
    assert found["place"].tolist() == [0, 1, 2, 3, 0, 1]
    assert found["speaker"].tolist() == ["s0"] * 4 + ["s1"] * 2
    assert found["latency"].tolist() == pytest.approx([0.3, math.nan, -0.1, 0.2, math.nan, 0.3], nan_ok=True)


def test_an_utterance_without_a_hypothesis_has_no_word_right():
    found = word_latencies(references("the", "sea"), timed("THE@1", "SEA@1"), timed("THE@1.5"))
    assert found["latency"].tolist() == pytest.approx([0.5, math.nan], nan_ok=True)


def test_order_of_lines_does_not_matter():
    ends, emissions = timed("THE@1", "SEA@1"), timed("THE@2", "SEA@3")
    found = word_latencies(references("the", "sea"), ends.iloc[::-1], emissions.iloc[::-1])
    assert found["latency"].tolist() == [1, 2]


def test_what_does_not_fit_is_named():
    expected, emissions = references("the sea", "is"), timed("THE@1 SEA@2", "IS@1")
    with pytest.raises(ValueError, match="alignment: none for utterance 'u1' of test; align"):
        word_latencies(expected, timed("THE@1 SEA@2"), emissions)
    with pytest.raises(ValueError, match="alignment: one of other words for utterance 'u0' of test"):
        word_latencies(expected, timed("THE@1 SEE@2", "IS@1"), emissions)
    with pytest.raises(ValueError, match="hypotheses: 1 without a reference, such as 'u2' of test"):
        word_latencies(expected, timed("THE@1 SEA@2", "IS@1"), timed("THE@1", "IS@1", "IS@2"))


vocabulary = st.lists(st.sampled_from("ABCD"), min_size=1, max_size=6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(vocabulary, vocabulary), min_size=1, max_size=5), st.integers(1, 9))
def test_a_shift_of_all_emissions_shifts_the_latency_and_nothing_else(pairs, frames):
    rng = np.random.default_rng(len(pairs))

    def times(words):
        return " ".join(
            f"{word}@{time}" for word, time in zip(words, np.sort(rng.uniform(0, 9, len(words))), strict=True)
        )

    expected = references(*(" ".join(words) for words, _ in pairs))
    ends, emissions = timed(*(times(words) for words, _ in pairs)), timed(*(times(said) for _, said in pairs))
    shifted = emissions.assign(
        words=[[[word, seconds + frames * FRAME] for word, seconds in words] for words in emissions["words"]]
    )
    found, later = (word_latencies(expected, ends, side) for side in (emissions, shifted))
    before, after = (latency_summary(side, rng=np.random.default_rng(0), replicates=50) for side in (found, later))
    for name in ("mean", "percentile_90"):
        for bound in ("value", "low", "high"):
            values = [getattr(getattr(side, name), bound) for side in (before, after)]
            assert values[1] == pytest.approx(values[0] + frames * FRAME, nan_ok=True)
    assert (before.words, before.coverage) == (after.words, after.coverage)
    heard = pd.DataFrame({"part": "test", "id": expected["id"], "text": [" ".join(said) for _, said in pairs]})
    errors = word_errors(expected, heard)
    assert before.words == (errors["words"] - errors["substitutions"] - errors["deletions"]).sum()


def latencies(values, *, speakers, seed=None):
    frame = pd.DataFrame({"speaker": speakers, "latency": values})
    return frame if seed is None else frame.assign(seed=seed)


def test_mean_and_percentile_by_hand():
    values = [*(n / 10 for n in range(1, 21)), math.nan, math.nan, math.nan, math.nan, math.nan]
    found = latency_summary(latencies(values[::-1], speakers=["a", "b"] * 12 + ["b"]), rng=np.random.default_rng(0))
    assert found.mean.value == pytest.approx(1.05)
    assert found.percentile_90.value == pytest.approx(1.8)  # 18 of 20 words are no later
    assert (found.words, found.coverage, found.speakers, found.reason) == (20, 0.8, 2, "")


def slow_percentile(values):
    """Return the smallest value that at least nine tenths of the values do not exceed."""
    return min(value for value in values if 10 * sum(other <= value for other in values) >= 9 * len(values))


def test_replicates_equal_a_slow_loop():
    rng = np.random.default_rng(1)
    names = ["a", "b", "c", "d"]
    rows = [
        (seed, str(rng.choice(names)), rng.normal() if rng.random() < 0.7 else math.nan)
        for seed in (0, 1, 2)
        for _ in range(40)
    ]
    frame = pd.DataFrame(rows, columns=["seed", "speaker", "latency"])
    found = latency_summary(frame, rng=np.random.default_rng(0), replicates=119)
    rng = np.random.default_rng(0)
    seed_counts, speaker_counts = (rng.multinomial(n - 1, [1 / n] * n, size=119) for n in (3, 4))
    means, percentiles = [], []
    for of_seeds, of_speakers in zip(seed_counts, speaker_counts, strict=True):
        drawn = [
            latency
            for seed, speaker, latency in rows
            for _ in range(of_seeds[seed] * of_speakers[names.index(speaker)])
            if not math.isnan(latency)
        ]
        means.append(statistics.mean(drawn))
        percentiles.append(slow_percentile(drawn))
    assert (found.mean.low, found.mean.high) == pytest.approx((sorted(means)[2], sorted(means)[-3]))  # the third of 119
    expected = (sorted(percentiles)[2], sorted(percentiles)[-3])
    assert (found.percentile_90.low, found.percentile_90.high) == pytest.approx(expected)


def test_speakers_who_differ_widen_the_interval():
    rng = np.random.default_rng(0)
    noise, speakers = rng.normal(scale=0.1, size=400), np.repeat([f"s{n:02d}" for n in range(20)], 20)
    of_speakers = np.repeat(rng.normal(scale=0.3, size=20), 20)
    alike, different = (
        latency_summary(latencies(values, speakers=speakers), rng=np.random.default_rng(0)).mean
        for values in (noise, noise + of_speakers)
    )
    assert different.high - different.low > 5 * (alike.high - alike.low)
    assert alike.low < alike.value < alike.high


def test_without_an_interval_there_is_a_reason():
    alone = latency_summary(latencies([0.1, 0.3], speakers=["a", "a"]), rng=np.random.default_rng(0))
    assert alone.mean.value == pytest.approx(0.2)
    assert math.isnan(alone.mean.low)
    assert "one speaker only" in alone.reason
    wrong = latency_summary(latencies([math.nan] * 2, speakers=["a", "b"]), rng=np.random.default_rng(0))
    assert math.isnan(wrong.percentile_90.value)
    assert (wrong.words, wrong.coverage) == (0, 0)
    assert "no word is right" in wrong.reason
    with pytest.raises(ValueError, match="the references hold no words"):
        latency_summary(latencies([], speakers=[]), rng=np.random.default_rng(0))


def test_files_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "ends.jsonl"
    lines = [{"part": "p", "id": "u0", "words": [["NO", 0.5]]}, {"part": "p", "id": "7", "words": []}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_word_times(path)
    assert found.to_dict("records") == lines
    path.write_text('{"part": "p", "id": "u0"}\n')
    with pytest.raises(ValueError, match="a line lacks words"):
        read_word_times(path)
