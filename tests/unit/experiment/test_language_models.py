"""The records of language models."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from asr_distill.experiment import BertSize, BertTraining, CTCRun, PretrainedBert
from asr_distill.experiment.language_models import LanguageModels

SIZE = {"layers": 2, "heads": 2, "dim": 8, "feed_forward": 16, "max_tokens": 32}
MODELS = {"text": {"source": "grammar", "lines": 9}}
TRAINING = {"steps": 10, "batch_tokens": 100, "learning_rate": 1e-3, "warmup_steps": 2}


def test_defaults_are_devlins():
    assert BertSize.model_validate(SIZE).dropout == 0.1
    training = BertTraining.model_validate(TRAINING)
    assert (training.mask, training.mask_share) == ("token", 0.15)


@pytest.mark.parametrize(
    ("record", "values", "message"),
    [
        (BertSize, SIZE | {"heads": 3}, "dim: 8 is no multiple of heads: 3"),
        (BertSize, SIZE | {"layer": 3}, "unknown key 'layer'; did you mean 'layers'"),
        (BertSize, SIZE | {"max_tokens": 2}, "max_tokens"),
        (BertTraining, TRAINING | {"warmup_steps": 10}, "warmup_steps: 10 must be smaller than steps: 10"),
        (BertTraining, TRAINING | {"mask_share": 1.0}, "mask_share"),
        (BertTraining, TRAINING | {"mask": "phrase"}, "mask"),
    ],
)
def test_what_cannot_be_is_refused(record, values, message):
    with pytest.raises(ValidationError, match=message):
        record.model_validate(values)


@pytest.mark.parametrize(("bert", "kind"), [(SIZE, BertSize), ({"pretrained": "bert/base"}, PretrainedBert)])
def test_a_bert_is_trained_here_or_elsewhere(bert, kind):
    models = LanguageModels.model_validate(MODELS | {"bert": bert, "bert_training": TRAINING})
    assert isinstance(models.bert, kind)
    assert LanguageModels.model_validate(models.model_dump(mode="json")) == models


@pytest.mark.parametrize(
    ("bert", "message"),
    [
        (
            SIZE | {"pretrained": "bert"},
            "pretrained: a BERT read from a folder has a size of its own; remove dim, feed_forward, heads, layers, ",
        ),
        ({"pretraind": "bert"}, "unknown key 'pretraind'; did you mean 'pretrained'"),
        ({"pretrained": "bert", "folder": "bert"}, "unknown key 'folder'; known: pretrained"),
        ({"pretrained": 3}, "valid string"),
        (SIZE | {"layer": 3}, "unknown key 'layer'; did you mean 'layers'"),
        ({}, "layers"),
        ("bert/base", "valid dictionary"),
    ],
)
def test_mistakes_in_a_bert_are_told_once(bert, message):
    with pytest.raises(ValidationError, match=message) as error:
        LanguageModels.model_validate(MODELS | {"bert": bert, "bert_training": TRAINING})
    assert {found["loc"][0] for found in error.value.errors()} == {"bert"}
    assert len({found["loc"][1] for found in error.value.errors()}) == 1


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({}, ()),
        ({"decoder": "cross_entropy"}, ()),
        ({"decoder": "bert"}, ("token",)),
        ({"decoder": "bert", "knowledge": {"mask": "word"}}, ("word",)),
        ({"decoder": "bert", "knowledge": {"mask": "word", "hidden_states": "l2"}}, ("word_hidden_states",)),
        ({"decoder": "bert", "knowledge": {"hidden_states": "cosine"}}, ("token_hidden_states",)),
        ({"frame_knowledge": {"mask": "word"}}, ("word",)),
    ],
)
def test_a_run_names_the_soft_labels_that_it_needs(run, expected):
    made = CTCRun.model_validate({"recogniser": "ctc", "model": "m", "phase": "p", "augmentation": "a", **run})
    assert made.soft_labels == expected
    assert (made.from_bert is None) == (expected == ())
