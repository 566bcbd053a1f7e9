"""A few tokens, and a BERT over them with large random weights, whose answers are far from uniform."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asr_distill.experiment import BertSize
from asr_distill.text.masked_lm import MaskedVocabulary, new_bert, save_bert
from asr_distill.text.tokenizer import Tokenizer

torch.set_num_threads(1)

LINES = ["THE CAT SAT ON THE MAT", "A DOG'S LIFE IS A GOOD LIFE", "YES NO MAYBE SO", "THE LAZY DOG"]
MAX_TOKENS = 24


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(Tokenizer.estimate(LINES * 5, vocabulary=33, type="bpe"))


@pytest.fixture(scope="session")
def make_bert(tmp_path_factory):
    """Return a function that makes a random BERT for a tokenizer and returns its folder."""

    def make(tokenizer: Tokenizer, *, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        size = BertSize(layers=2, heads=2, dim=16, feed_forward=24, max_tokens=MAX_TOKENS)
        model = new_bert(size, vocabulary=MaskedVocabulary(tokenizer.vocabulary))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.4)
        folder = tmp_path_factory.mktemp("bert")
        save_bert(model, folder, tokenizer=tokenizer.fingerprint, about={"steps": 0})
        return folder

    return make


@pytest.fixture(scope="session")
def bert(make_bert, tokenizer) -> Path:
    return make_bert(tokenizer)
