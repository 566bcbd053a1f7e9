"""Choosing weights and pruning on dev sets."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from asr_distill.decoding.ctc import BeamSettings
from asr_distill.decoding.ctc_beam import CTCBeamSearch
from asr_distill.decoding.ctc_tuning import DevUtterances, chosen_settings, tune
from asr_distill.text.ngram import estimate
from asr_distill.text.tokenizer import BLANK, Tokenizer

SENTENCES = ["THE SEA IS BLUE", "I SEE THE SEA", "THE SUN IS RED", "MY SON IS HERE"] * 5


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(Tokenizer.estimate(SENTENCES, vocabulary=18, type="char"))


@pytest.fixture(scope="module")
def search(tokenizer, tmp_path_factory):
    model = estimate(map(tokenizer.encode, SENTENCES), order=5, vocabulary=tokenizer.vocabulary)
    path = tmp_path_factory.mktemp("ngram") / "ngram.arpa"
    model.write_arpa(path)
    return CTCBeamSearch(BeamSettings(beam_size=4), vocabulary=tokenizer.vocabulary, arpa=path)


def spoken(lines, *, part, tokenizer, noise, seed=0, references=None):
    """Return dev utterances in which a frame of a token and a frame of the blank take turns, under noise."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for line in lines:
        tokens = [token for each in tokenizer.encode(line) for token in (each, BLANK)]
        certain = 4 * torch.nn.functional.one_hot(torch.tensor(tokens), tokenizer.vocabulary)
        rows.append((certain + noise * torch.randn(certain.shape, generator=generator)).log_softmax(dim=-1))
    lengths = torch.tensor([len(row) for row in rows])
    return DevUtterances(part, torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths, references or lines)


def test_the_language_model_helps_on_noisy_speech_and_everything_is_recorded(search, tokenizer):
    dev = [
        spoken(SENTENCES[:3], part="dev-clean", tokenizer=tokenizer, noise=1.5),
        spoken(SENTENCES[:4] * 3, part="dev-other", tokenizer=tokenizer, noise=2.0, seed=1),
        spoken(SENTENCES[3:4], part="dev-clean", tokenizer=tokenizer, noise=1.5, seed=2),
    ]
    rows = tune(
        dev,
        search=search,
        tokenizer=tokenizer,
        lm_weights=(0.0, 0.5, 1.0),
        insertion_scores=(0.0, 1.0),
        beam_size_tokens=(1, 8),
        beam_thresholds=(5.0, math.inf),
    )
    weights, pruning = ([row for row in rows if row.step == step] for step in ("weights", "pruning"))
    assert len(weights) == 3 * 2
    assert len(pruning) == 2 * 2 + 1
    assert [sum(row.chosen for row in each) for each in (weights, pruning)] == [1, 1]
    assert all(set(row.word_error_rates) == {"dev-clean", "dev-other"} for row in rows)
    for row in rows:  # pooled over 16 and 48 words
        rates = row.word_error_rates
        assert row.pooled == pytest.approx((16 * rates["dev-clean"] + 48 * rates["dev-other"]) / 64)
    (best,) = (row for row in weights if row.chosen)
    assert best.pooled == min(row.pooled for row in weights)
    assert best.settings.lm_weight > 0
    assert best.pooled < next(row.pooled for row in weights if row.settings == BeamSettings(beam_size=4))
    (last,) = (row for row in pruning if row.chosen)
    allowed = [row for row in pruning if row.pooled <= min(each.pooled for each in pruning) + 0.0005 + 1e-9]
    assert last.settings == min(
        (row.settings for row in allowed), key=lambda each: (each.beam_size_token or 99, each.beam_threshold)
    )
    assert chosen_settings(rows) == last.settings
    same = {"beam_size_token": None, "beam_threshold": math.inf}
    assert replace(last.settings, **same) == replace(best.settings, **same)


def test_ties_go_to_the_smaller_weight_and_the_smaller_insertion_score(search, tokenizer):
    dev = [spoken(SENTENCES[:4], part="dev", tokenizer=tokenizer, noise=0.0)]
    options = {"search": search, "tokenizer": tokenizer}
    rows = tune(dev, **options, lm_weights=(0.2, 0.1), insertion_scores=(0.1, -0.1, 0.0), beam_size_tokens=(3, 2))
    assert all(row.pooled == 0 for row in rows)
    assert chosen_settings(rows) == BeamSettings(beam_size=4, beam_size_token=2, lm_weight=0.1, insertion_score=0.0)


def test_speed_may_cost_a_twentieth_of_a_point(search, tokenizer, monkeypatch):
    dev = [spoken(SENTENCES[:4], part="dev", tokenizer=tokenizer, noise=0.0)]
    rates = {None: 0.1002, 2: 0.1006, 4: 0.1004, 8: 0.1}

    def measured(dev, *, settings, **options):
        return ctc_tuning.TuningRow("weights", settings, {"dev": 0.0}, rates[settings.beam_size_token])

    from asr_distill.decoding import ctc_tuning

    monkeypatch.setattr(ctc_tuning, "_measured", measured)
    options = {"search": search, "tokenizer": tokenizer, "lm_weights": (0.5,), "insertion_scores": (0.0,)}
    assert chosen_settings(tune(dev, **options, beam_size_tokens=(8, 4, 2))).beam_size_token == 4
    assert chosen_settings(tune(dev, **options, beam_size_tokens=(2,))).beam_size_token == 2


def test_references_are_normalised(search, tokenizer):
    dev = [spoken(["THE SUN"], part="dev", tokenizer=tokenizer, noise=0.0, references=["  the sun!"])]
    rows = tune(dev, search=search, tokenizer=tokenizer, lm_weights=(0.1,), insertion_scores=(0.0,))
    assert rows[0].pooled == 0


@pytest.mark.parametrize("name", ["lm_weights", "insertion_scores", "beam_size_tokens", "beam_thresholds", "dev"])
def test_empty_arguments_are_named(search, tokenizer, name):
    dev = [spoken(["THE SUN"], part="dev", tokenizer=tokenizer, noise=0.0)]
    arguments = {"dev": dev, "lm_weights": (0.1,), "insertion_scores": (0.0,)} | {name: ()}
    with pytest.raises(ValueError, match=f"{name}: empty"):
        tune(arguments.pop("dev"), search=search, tokenizer=tokenizer, **arguments)


def test_parts_without_words_are_named(search, tokenizer):
    dev = [spoken(["THE SUN"], part="dev", tokenizer=tokenizer, noise=0.0, references=[" "])]
    with pytest.raises(ValueError, match="no words in the references of dev"):
        tune(dev, search=search, tokenizer=tokenizer, lm_weights=(0.1,), insertion_scores=(0.0,))
