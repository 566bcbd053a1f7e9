"""The records of language models."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from asr_distill.experiment import BertSize, BertTraining

SIZE = {"layers": 2, "heads": 2, "dim": 8, "feed_forward": 16, "max_tokens": 32}
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
