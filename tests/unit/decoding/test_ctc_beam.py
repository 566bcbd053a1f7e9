"""CTC beam search against all alignments of tiny inputs, a search written with dictionaries, and flashlight's."""

from __future__ import annotations

import itertools
import math
import pickle
from collections import defaultdict

import numpy as np
import pytest
import torch
from flashlight_search import flashlight_search
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_distill.decoding import ctc_beam
from asr_distill.decoding.ctc import BeamSettings
from asr_distill.decoding.ctc_beam import CTCBeamSearch
from asr_distill.text.ngram import estimate
from asr_distill.text.tokenizer import BLANK

VOCABULARY = 4
TEXT = [[2, 3, 3], [3, 2], [2, 2, 3, 2], [2, 3], [3, 2, 3], [2, 1]]
WEIGHTS = [
    {},
    {"lm_weight": 0.8},
    {"insertion_score": 1.3},
    {"lm_weight": 1.5, "insertion_score": 0.9},
    {"lm_weight": 0.3, "insertion_score": -0.7},
]


@pytest.fixture(scope="module")
def model():
    return estimate(TEXT, order=3, vocabulary=VOCABULARY)


@pytest.fixture(scope="module")
def arpa(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("ngram") / "ngram.arpa"
    model.write_arpa(path)
    return path


@pytest.fixture(scope="module")
def search(arpa):
    return CTCBeamSearch(BeamSettings(), vocabulary=VOCABULARY, arpa=arpa)


def random_output(frames: int, *, seed: int, vocabulary: int = VOCABULARY) -> torch.Tensor:
    return (2 * torch.randn(frames, vocabulary, generator=torch.Generator().manual_seed(seed))).log_softmax(dim=-1)


def join(scores, *, log_add):
    return float(np.logaddexp.reduce(scores)) if log_add else max(scores)


def bonus(tokens, *, model, options, ended=True):
    """Return what language model and insertion score add to a token sequence."""
    words = [*tokens, None] if ended else tokens
    language = sum(model.log_prob(tokens[:position], word) for position, word in enumerate(words))
    return options.lm_weight * language + options.insertion_score * len(tokens)


def exhaustive(log_probs, *, model, options):
    """Return the best token sequence and its score, from all alignments."""
    scores = defaultdict(list)
    for alignment in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        tokens = tuple(token for token, _ in itertools.groupby(alignment) if token != BLANK)
        scores[tokens].append(sum(log_probs[t, token].item() for t, token in enumerate(alignment)))
    totals = {
        tokens: join(each, log_add=options.log_add) + bonus(tokens, model=model, options=options)
        for tokens, each in scores.items()
    }
    best = max(totals, key=totals.__getitem__)
    return best, totals[best]


def slow_search(log_probs, *, model, options):
    """Search with a limited beam: token sequences in a dictionary, one frame and one token at a time."""
    beam = {(): (0.0, -math.inf)}  # log-probabilities of ending in the blank, and in the last token
    for frame in log_probs.double().tolist():
        tokens = sorted(range(BLANK + 1, len(frame)), key=lambda token: -frame[token])[: options.beam_size_token]
        after = defaultdict(lambda: ([-math.inf], [-math.inf]))
        for sequence, (blank, token_last) in beam.items():
            either = join([blank, token_last], log_add=options.log_add)
            after[sequence][0].append(either + frame[BLANK])
            if sequence:
                after[sequence][1].append(token_last + frame[sequence[-1]])
            for token in tokens:
                before = blank if sequence[-1:] == (token,) else either
                after[(*sequence, token)][1].append(before + frame[token])
        ends = {sequence: [join(each, log_add=options.log_add) for each in both] for sequence, both in after.items()}
        scores = {
            sequence: join(both, log_add=options.log_add) + bonus(sequence, model=model, options=options, ended=False)
            for sequence, both in ends.items()
        }
        kept = sorted(scores, key=lambda sequence: -scores[sequence])[: options.beam_size]
        least = max(scores[kept[0]] - options.beam_threshold, -1e300)
        beam = {sequence: tuple(ends[sequence]) for sequence in kept if scores[sequence] >= least}
    totals = {
        sequence: join(both, log_add=options.log_add) + bonus(sequence, model=model, options=options)
        for sequence, both in beam.items()
    }
    best = max(totals, key=totals.__getitem__)
    return best, totals[best]


@pytest.mark.parametrize("log_add", [True, False])
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_beam_that_holds_everything_is_exact(search, model, frames, weights, log_add):
    options = BeamSettings(beam_size=500, log_add=log_add, **weights)
    outputs = torch.stack([random_output(frames, seed=seed) for seed in range(3)])
    found = search.with_settings(options)(outputs, torch.tensor([frames] * 3))
    for hypothesis, log_probs in zip(found, outputs, strict=True):
        tokens, score = exhaustive(log_probs, model=model, options=options)
        assert hypothesis.tokens == tokens
        assert hypothesis.score == pytest.approx(score, abs=2e-5)


limits = st.fixed_dictionaries(
    {
        "beam_size": st.integers(1, 6),
        "beam_size_token": st.sampled_from([None, 1, 2]),
        "beam_threshold": st.sampled_from([math.inf, 3.0, 0.5]),
        "log_add": st.booleans(),
    }
)


@given(limits, st.sampled_from(WEIGHTS), st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(0, 2**20))
@settings(max_examples=100, deadline=None)
def test_a_limited_beam_keeps_what_the_slow_search_keeps(search, model, limit, weights, lengths, seed):
    options = BeamSettings(**limit, **weights)
    outputs = torch.stack([random_output(max(lengths), seed=seed + row) for row in range(len(lengths))])
    for row, length in zip(outputs, lengths, strict=True):
        row[length:] = math.nan  # what stands behind counts for nothing
    found = search.with_settings(options)(outputs, torch.tensor(lengths))
    for hypothesis, log_probs, length in zip(found, outputs, lengths, strict=True):
        tokens, score = slow_search(log_probs[:length], model=model, options=options)
        assert hypothesis.tokens == tokens
        assert hypothesis.score == pytest.approx(score, abs=2e-5)


@pytest.mark.parametrize("log_add", [True, False])
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_flashlight_with_a_wide_beam_finds_the_same(search, arpa, weights, log_add):
    options = BeamSettings(beam_size=2000, log_add=log_add, **weights)
    for seed in range(5):
        log_probs = random_output(6, seed=seed)
        (ours,) = search.with_settings(options)(log_probs[None], torch.tensor([6]))
        theirs = flashlight_search(log_probs, options, arpa=arpa if options.lm_weight else None)
        assert ours.tokens == theirs.tokens
        assert ours.score == pytest.approx(theirs.score, abs=1e-4)


def test_a_larger_vocabulary_and_long_utterances(tmp_path):
    rng = np.random.default_rng(0)
    model = estimate(np.minimum(rng.geometric(0.1, (200, 12)), 39).tolist(), order=4, vocabulary=40)
    model.write_arpa(tmp_path / "ngram.arpa")
    options = BeamSettings(beam_size=5, beam_size_token=6, lm_weight=0.5, insertion_score=0.4)
    search = CTCBeamSearch(options, vocabulary=40, arpa=tmp_path / "ngram.arpa")
    outputs, lengths = torch.stack([random_output(25, seed=seed, vocabulary=40) for seed in range(3)]), (25, 9, 17)
    found = search(outputs, torch.tensor(lengths))
    for hypothesis, log_probs, length in zip(found, outputs, lengths, strict=True):
        tokens, score = slow_search(log_probs[:length], model=model, options=options)
        assert hypothesis.tokens == tokens
        assert hypothesis.score == pytest.approx(score, abs=1e-3)


def test_impossible_tokens_never_come():
    log_probs = random_output(6, seed=1)
    log_probs[:, 2:] = -math.inf
    search = CTCBeamSearch(BeamSettings(beam_size=20), vocabulary=VOCABULARY)
    (found,) = search(log_probs[None], torch.tensor([6]))
    assert set(found.tokens) <= {1}
    assert math.isfinite(found.score)


def test_searches_are_the_same_in_another_process_and_when_scores_are_forgotten(search, monkeypatch):
    options = BeamSettings(beam_size=4, lm_weight=0.7, insertion_score=0.2)
    outputs, lengths = random_output(8, seed=3)[None], torch.tensor([8])
    first = search.with_settings(options)
    expected = first(outputs, lengths)
    assert pickle.loads(pickle.dumps(first))(outputs, lengths) == expected  # noqa: S301 - our own
    monkeypatch.setattr(ctc_beam, "_KEPT_SCORES", 0)
    assert first(outputs, lengths) == expected


def test_impossible_requests_are_refused(search, tmp_path, arpa):
    with pytest.raises(ValueError, match=r"lm_weight: 0\.5, but there is no language model"):
        CTCBeamSearch(BeamSettings(lm_weight=0.5), vocabulary=VOCABULARY)
    with pytest.raises(ValueError, match=r"absent\.arpa: not readable"):
        CTCBeamSearch(BeamSettings(), vocabulary=VOCABULARY, arpa=tmp_path / "absent.arpa")
    with pytest.raises(ValueError, match="holds 3 tokens, but the tokenizer has 4"):
        CTCBeamSearch(BeamSettings(), vocabulary=5, arpa=arpa)
    with pytest.raises(ValueError, match="log_probs: of 5 tokens; the tokenizer has 4"):
        search(torch.zeros(1, 2, 5), torch.tensor([2]))
    with pytest.raises(ValueError, match="not a number in frame 1"):
        search(torch.tensor([[[0.0] * 4, [math.nan] * 4]]), torch.tensor([2]))
