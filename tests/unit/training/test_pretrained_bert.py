"""A BERT that others trained: taken over as one trained here, or refused before anything is written."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from asr_distill.experiment import BertSize, BertTraining
from asr_distill.text.masked_lm import bert_hash, load_bert
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.bert import train_bert
from asr_distill.training.pretrained_bert import take_over_bert

LINES = [f"{first} {last}" for first in ("YES", "NO", "MAYBE") for last in ("SO", "NOT", "WHY", "HOW NOW", "AND THEN")]
SIZE = BertSize(layers=1, heads=2, dim=8, feed_forward=8, max_tokens=20)
TRAINING = BertTraining(steps=3, batch_tokens=80, learning_rate=1e-2, warmup_steps=1, dev_lines=5)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(Tokenizer.estimate(LINES, vocabulary=22, type="bpe"))


@pytest.fixture(scope="module")
def trained(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train_bert(LINES, tokenizer=tokenizer, size=SIZE, training=TRAINING, seed=0, output=folder)
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "elsewhere")


def take_over(folder, *, tokenizer, output, lines=LINES):
    take_over_bert(folder, lines, tokenizer=tokenizer, training=TRAINING, seed=0, output=output)
    return json.loads((output / "bert.json").read_text())


def test_it_is_measured_and_kept_like_one_trained_here(copy, trained, tokenizer, tmp_path):
    named = {"tokenizer": tokenizer.fingerprint, "from": "a friend"}
    (copy / "bert.json").write_text(json.dumps(named))
    (copy / "curve.csv").unlink()
    output = tmp_path / "output"
    about = take_over(copy, tokenizer=tokenizer, output=output)
    ours = json.loads((trained / "bert.json").read_text())
    assert sorted(path.name for path in output.iterdir()) == sorted(path.name for path in trained.iterdir())
    same = ["tokenizer", "vocabulary", "parameters", "lines", "tokens", "too_long_lines", "held_out_lines", "seed"]
    same += ["held_out_tokens", "perplexity"]
    assert {key: about[key] for key in same} == {key: ours[key] for key in same}
    assert about["pretrained"] == {"folder": str(copy), "hash": bert_hash(copy), "about": named}
    assert bert_hash(output) == bert_hash(trained)
    load_bert(output, tokenizer=tokenizer)
    head, *_ = (trained / "curve.csv").read_text().splitlines()
    assert (output / "curve.csv").read_text() == f"{head}\n"


def other_tokens(copy):
    (copy / "bert.json").write_text('{"tokenizer": "0123456789abcdef"}')


def other_vocabulary(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": 30522}))


def unnamed_tokens(copy):
    (copy / "bert.json").unlink()


def no_weights(copy):
    (copy / "model.safetensors").unlink()


def damaged_weights(copy):
    tensors = load_file(copy / "model.safetensors")
    tensors["bert.embeddings.LayerNorm.weight"] = torch.full((8,), torch.nan)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, r"^language_models\.bert\.pretrained: .*elsewhere is no folder; give one below"),
        (other_tokens, "BERT was trained on the tokens 0123456789abcdef, not"),
        (
            other_vocabulary,
            r"config\.json describes a bert of 30522 tokens, not a bert of 25: the tokenizer's 22, then",
        ),
        (unnamed_tokens, r"bert\.json is missing; it names the tokens of a BERT"),
        (no_weights, "elsewhere: not readable as a BERT"),
        (damaged_weights, "elsewhere: the perplexity of held-out lines is nan; copy"),
    ],
)
def test_one_that_does_not_fit_is_refused_in_one_line_and_nothing_is_overwritten(
    copy, tokenizer, tmp_path, spoil, message
):
    output = tmp_path / "output"
    take_over(copy, tokenizer=tokenizer, output=output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    spoil(copy)
    with pytest.raises(ValueError, match=message) as error:
        take_over(copy, tokenizer=tokenizer, output=output)
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_lines_are_needed_to_measure_it(copy, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="dev_lines: 5 lines cannot be held out of the text's 3 distinct lines"):
        take_over(copy, tokenizer=tokenizer, output=tmp_path / "output", lines=LINES[:3])
    assert not (tmp_path / "output").exists()
