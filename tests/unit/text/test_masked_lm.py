"""BERT over the recogniser's tokens: kept and found again, refused where it is of other tokens; units of masking."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from asr_distill.text.masked_lm import MaskedVocabulary, bert_hash, load_bert, save_bert, units, word_starts
from asr_distill.text.tokenizer import Tokenizer


@pytest.fixture
def copy(bert, tmp_path):
    return shutil.copytree(bert, tmp_path / "copy")


def test_a_loaded_bert_is_the_saved_one(bert, tokenizer, tmp_path):
    model = load_bert(bert, tokenizer=tokenizer)
    assert not model.training
    assert model.config.vocab_size == tokenizer.vocabulary + 3
    save_bert(model, tmp_path, tokenizer=tokenizer.fingerprint, about={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert.json", "config.json", "model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == (bert / "model.safetensors").read_bytes()
    assert bert_hash(tmp_path) == bert_hash(bert)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "bert.json").stat().st_mode


def test_a_bert_of_others_needs_only_the_name_of_its_tokens(copy, bert, tokenizer):
    (copy / "bert.json").write_text(json.dumps({"tokenizer": tokenizer.fingerprint}))
    load_bert(copy, tokenizer=tokenizer)
    (copy / "bert.json").write_text("{}")
    with pytest.raises(ValueError, match=r"bert\.json: names no tokens; it names the tokens of a BERT: {"):
        load_bert(copy, tokenizer=tokenizer)
    (copy / "bert.json").unlink()
    with pytest.raises(ValueError, match=r"holds no BERT: bert\.json is missing; it names the tokens"):
        load_bert(copy, tokenizer=tokenizer)


def test_other_tokens_are_refused(bert, tokenizer):
    other = Tokenizer(Tokenizer.estimate(["SOME OTHER WORDS"], vocabulary=12, type="char"))
    with pytest.raises(
        ValueError, match=rf"on the tokens {tokenizer.fingerprint}, not {other.fingerprint}; train"
    ) as e:
        load_bert(bert, tokenizer=other)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("changed", [{"vocab_size": 30522}, {"model_type": "gpt2"}])
def test_another_vocabulary_or_model_is_refused(copy, tokenizer, changed):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(ValueError, match=r"config\.json describes a .*, not a bert of 36: the tokenizer's 33, then"):
        load_bert(copy, tokenizer=tokenizer)


@pytest.mark.parametrize("name", ["config.json", "bert.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"[]", b"neither JSON nor safetensors"])
def test_damaged_folders_are_refused_in_one_line(copy, tokenizer, name, content):
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content)
    with pytest.raises(ValueError, match="copy") as error:
        load_bert(copy, tokenizer=tokenizer)
    assert "\n" not in str(error.value)


def test_missing_weights_are_not_made_up(copy, tokenizer):
    tensors = load_file(copy / "model.safetensors")
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights of BERT are missing, such as bert\.encoder\.layer\.1\.output"):
        load_bert(copy, tokenizer=tokenizer)


def test_the_hash_follows_the_weights(copy, make_bert, bert, tokenizer):
    (copy / "bert.json").write_text(json.dumps({"tokenizer": tokenizer.fingerprint, "seconds": 5}))
    assert bert_hash(copy) == bert_hash(bert) != bert_hash(make_bert(tokenizer, seed=1))


@pytest.mark.parametrize(("kind", "vocabulary"), [("unigram", 23), ("bpe", 26), ("char", 20)])
def test_units_are_tokens_or_words(kind, vocabulary):
    text = "THE CAT'S É MAT"
    lines = ["THE CAT'S MAT", "BUY A LOG", "FOG IN MAY"]
    tokenizer = Tokenizer(Tokenizer.estimate(lines * 3, vocabulary=vocabulary, type=kind))
    marks = MaskedVocabulary(tokenizer.vocabulary)
    ids = tokenizer.encode(text)
    framed = marks.framed(torch.tensor([ids]))
    assert framed.tolist() == [[marks.bos, *ids, marks.eos]]
    starts = word_starts(tokenizer)
    assert len(starts) == marks.size == tokenizer.vocabulary + 3
    words = units(framed, mask="word", starts=starts)[0, 1:-1]
    assert words[0] == 1  # 0 is the mark
    found = [tokenizer.decode([token for token, word in zip(ids, words, strict=True) if word == n]) for n in (1, 2, 4)]
    assert found == ["THE", "CAT'S", "MAT"]
    assert units(framed, mask="word", starts=starts)[0, -1] == 5
    assert units(framed, mask="token", starts=starts).tolist() == [list(range(len(ids) + 2))]


def test_transformers_is_imported_only_when_bert_is_needed():
    code = "import sys, asr_distill.text.soft_labels, asr_distill.training.bert; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "False\n"
