"""Scores for many histories at once, against the model's own."""

from __future__ import annotations

import numpy as np
import pytest

from asr_distill.text.ngram import estimate
from asr_distill.text.ngram_scorer import NgramScorer

VOCABULARY = 7


@pytest.mark.parametrize("order", [1, 2, 3, 6])
@pytest.mark.parametrize("prune", [(), (0, 0, 1)])
def test_scores_along_sentences_are_those_of_the_model(order, prune):
    rng = np.random.default_rng(order)
    text = np.minimum(rng.geometric(0.4, (60, 8)), VOCABULARY - 1).tolist()
    model = estimate(text, order=order, vocabulary=VOCABULARY, prune=prune[:order])
    scorer = NgramScorer(model)
    walks = rng.integers(1, VOCABULARY, (25, 9))
    words = np.arange(1, VOCABULARY + 1)
    assert scorer.end == VOCABULARY
    states = np.full(len(walks), scorer.start)
    for position in range(walks.shape[1]):
        if position == 4:
            assert scorer.kept_bytes > 0
            scorer.forget()
            assert scorer.kept_bytes == 0
        found = scorer.score(states[:, None], words[None])
        for walk, scores in zip(walks.tolist(), found, strict=True):
            tokens = [*range(1, VOCABULARY), None]
            expected = [model.log_prob(walk[:position], token) for token in tokens]
            np.testing.assert_allclose(scores, expected, atol=1e-12)
        states = scorer.advance(states, walks[:, position])
