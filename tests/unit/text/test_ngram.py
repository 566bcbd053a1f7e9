"""Estimating n-grams, against formulas worked by hand, a slow implementation and KenLM's.

No package of PyPI or Debian holds an estimator of the same model ready to install (IRSTLM and NLTK smooth differently),
so `lmplz/` keeps what `lmplz --order 3 --discount_fallback [--prune 0 0 1]` of KenLM 0.3.0, built from source, made of
the text beside it.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ngram_reference import SlowNgram

from asr_distill.text.ngram import FALLBACK, estimate

LMPLZ = Path(__file__).parent / "lmplz"
VOCABULARY = 5
sentences = st.lists(st.lists(st.integers(1, VOCABULARY - 1), max_size=6), min_size=1, max_size=8)
histories = st.lists(st.integers(1, VOCABULARY - 1), max_size=4)


@st.composite
def models(draw):
    text, order = draw(sentences), draw(st.integers(1, 4))
    prune = draw(st.sampled_from([(), (0, 0, 1), (0, 1), (0, 1, 2)]))[:order]
    return text, {"order": order, "vocabulary": VOCABULARY, "prune": prune}


def lines_of(arpa: str) -> dict[str, list[float]]:
    """Return the numbers beside every n-gram of an ARPA file; that of <s> means nothing."""
    rows = [line.split("\t") for line in arpa.splitlines() if "\t" in line]
    return {words: [float(number) for number in (log_prob, *rest) if words != "<s>"] for log_prob, words, *rest in rows}


@given(models(), histories)
@settings(max_examples=100, deadline=None)
def test_probabilities_after_any_history_sum_to_one(arguments, history):
    text, options = arguments
    model = estimate(text, **options)
    words = [*range(1, VOCABULARY), None]
    assert sum(math.exp(model.log_prob(history, word)) for word in words) == pytest.approx(1, abs=1e-12)


@given(models(), histories)
@settings(max_examples=100, deadline=None)
def test_probabilities_are_those_of_the_formulas(arguments, history):
    text, options = arguments
    model, slow = estimate(text, **options), SlowNgram(text, **options)
    assert model.discounts == tuple(slow.discounts)[: model.order]
    for seen in (history, *text):
        for word in slow.words():
            token = None if word == "</s>" else word
            expected = math.log(slow.prob(("<s>", *seen), word))
            assert model.log_prob(seen, token) == pytest.approx(expected, abs=1e-9)


def test_an_example_worked_by_hand():
    # Every order falls back to discounts of 1/2, 1 and 3/2. Different words before 2, 3, </s>: 1, 1, 2, so the unigrams
    # give (1/2, 1/2, 1) / 4 of their own, and 2/4 of the uniform 1/4.
    model = estimate([[2, 3], [2]], order=2, vocabulary=4)
    assert model.discounts == (FALLBACK, FALLBACK)
    expected = {
        ((), 2): (2 - 1) / 2 + 1 / 2 * 0.25,
        ((), 3): 1 / 2 * 0.25,
        ((2,), 3): (1 - 1 / 2) / 2 + 1 / 2 * 0.25,
        ((2,), None): (1 - 1 / 2) / 2 + 1 / 2 * 0.375,
        ((2, 3), None): (1 - 1 / 2) / 1 + 1 / 2 * 0.375,
        ((2, 3), 3): 1 / 2 * 0.25,
        ((2,), 1): 1 / 2 * 0.125,
        ((2, 1), 2): 0.25,
        ((2, 1), None): 0.375,
    }
    assert {key: math.exp(model.log_prob(*key)) for key in expected} == pytest.approx(expected)
    logs = [expected[key] for key in [((), 2), ((2,), 3), ((2, 3), None), ((), 2), ((2,), None)]]
    assert model.perplexity([[2, 3], [2]]) == pytest.approx(math.prod(logs) ** (-1 / 5))


def test_discounts_come_from_the_counts_of_counts():
    # 2, 3, 4 and </s> once, 5 and 6 twice, 7 three times, 8 four times: Y = 4 / (4 + 2 * 2)
    model = estimate([[2, 3, 4, 5, 5, 6, 6, 7, 7, 7, 8, 8, 8, 8]], order=1, vocabulary=9)
    assert model.discounts == ((1 - 2 * 0.5 * 2 / 4, 2 - 3 * 0.5 * 1 / 2, 3 - 4 * 0.5 * 1 / 1),)
    freed = (4 * 0.5 + 2 * 1.25 + 2 * 1.0) / 15
    assert math.exp(model.log_prob([], 8)) == pytest.approx((4 - 1) / 15 + freed / 9)


@pytest.mark.parametrize(("name", "prune"), [("unpruned", ()), ("pruned", (0, 0, 1))])
def test_the_file_is_that_of_lmplz(tmp_path, name, prune):
    text = [list(map(int, line.split())) for line in (LMPLZ / "text.txt").read_text().splitlines()]
    model = estimate(text, order=3, vocabulary=9, prune=prune)
    assert model.discounts[0] == FALLBACK
    assert FALLBACK not in model.discounts[1:]
    model.write_arpa(tmp_path / "ours.arpa")
    ours, theirs = ((path).read_text() for path in (tmp_path / "ours.arpa", LMPLZ / f"{name}.arpa"))
    assert ours.split("\\1-grams")[0] == theirs.split("\\1-grams")[0]
    expected = lines_of(theirs)
    assert lines_of(ours) == {words: pytest.approx(numbers, abs=2e-6) for words, numbers in expected.items()}


def test_equal_sentences_give_equal_bytes(tmp_path):
    text = np.random.default_rng(0).integers(1, 30, (300, 9)).tolist()
    for name, given_text in {"list": text, "iterator": iter(text), "arrays": map(np.array, text)}.items():
        estimate(given_text, order=6, vocabulary=30).write_arpa(tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in ("list", "iterator", "arrays")}) == 1


def test_pruning_drops_rare_n_grams_only():
    text = [[2, 3, 4], [2, 3, 4], [2, 3, 3]]
    full, pruned = (estimate(text, order=3, vocabulary=5, prune=prune) for prune in ((), (0, 0, 1)))
    assert [len(keys) for keys in full.keys] == [6, 6, 5]
    assert [len(keys) for keys in pruned.keys] == [6, 6, 3]
    assert pruned.log_prob([2], 3) == pytest.approx(full.log_prob([2], 3))
    assert pruned.log_prob([2, 3], 3) < full.log_prob([2, 3], 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sentences": []}, "no sentences"),
        ({"sentences": [[2], [3, 0]]}, "sentence 2 holds the token 0, which is none of 1 to 4"),
        ({"sentences": [[], [5]]}, "sentence 2 holds the token 5"),
        ({"order": 0}, "order 0"),
        ({"vocabulary": 1}, "vocabulary 1"),
        ({"prune": (1,)}, r"prune: found \[1\]; write up to 3 numbers"),
        ({"prune": (0, 2, 1)}, "never fall"),
        ({"prune": (0, 0, 0, 1)}, "up to 3"),
    ],
)
def test_impossible_arguments_are_refused(change, message):
    arguments = {"sentences": [[2]], "order": 3, "vocabulary": 5} | change
    with pytest.raises(ValueError, match=message):
        estimate(arguments.pop("sentences"), **arguments)


def test_a_text_without_long_n_grams_gives_a_model_of_lower_order():
    model = estimate([[], []], order=4, vocabulary=3)
    assert model.order == 2
    # </s> comes twice after <s>, and behind one word: (2 - 1) / 2 + 1 / 2 * (1 / 2 + 1 / 2 * 1 / 3)
    assert math.exp(model.log_prob([], None)) == pytest.approx(1 / 2 + 1 / 2 * (1 / 2 + 1 / 2 * 1 / 3))
    assert estimate([[2, 2]], order=4, vocabulary=3, prune=(0, 1)).order == 1
