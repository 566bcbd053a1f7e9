"""The stages of language models: what they write, and that bad input is one line and overwrites nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from asr_distill import cli_language_models as stages
from asr_distill.experiment import BertSize
from asr_distill.text.masked_lm import MaskedVocabulary, new_bert, save_bert
from asr_distill.text.tokenizer import Tokenizer

LINES = ["see the sea", "the ship is old", "the old ship sails", "to sea", "a ship sees the sea", "old sails"]
SCORED, LABELLED = ["TO SEA"], ["THE SEA IS OLD", "SHIPS"]
BERT = {"layers": 1, "heads": 2, "dim": 8, "feed_forward": 8, "max_tokens": 30}
TRAINING = {"steps": 2, "batch_tokens": 60, "learning_rate": 1e-3, "warmup_steps": 1, "dev_lines": 2}


@pytest.fixture(autouse=True)
def no_start(monkeypatch):
    """Leave the test process its log and threads."""
    monkeypatch.setattr(stages, "start", lambda *_, **__: None)


@pytest.fixture
def record(tmp_path):
    """Return a function that writes the settings of language models whose text is data/lm.txt."""

    def write(*, bert=BERT):
        text = {"source": "file", "path": "lm.txt"}
        settings = {"text": text, "bert": bert, "bert_training": TRAINING}
        path = tmp_path / "language_models.yaml"
        path.write_text(yaml.safe_dump({"data": str(tmp_path / "data"), "language_models": settings}))
        return path

    (tmp_path / "data").mkdir()
    return write


def write_references(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"id": f"{path.stem}{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    return path


def prepare(record: Path, content: bytes) -> dict[str, bytes]:
    """Run the stage `text` on this text; return what lies in the folder of its outputs afterwards."""
    folder = record.parent
    (folder / "data/lm.txt").write_bytes(content)
    (folder / "made").mkdir(exist_ok=True)
    scored = write_references(folder / "scored.jsonl", SCORED)
    labelled = write_references(folder / "labelled.jsonl", LABELLED)
    outputs = {"output": folder / "made/text.txt", "counts": folder / "made/text.json"}
    stages.text(record, [scored], labelled=[labelled], **outputs)
    return contents(folder / "made")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_text_is_prepared_without_what_is_scored(record):
    made = prepare(record(), "\n".join([*LINES, "7 up"]).encode())
    assert made["text.txt"].decode().splitlines() == [line.upper() for line in LINES if line != "to sea"]
    assert json.loads(made["text.json"]) == {
        "read": 7,
        "kept": 5,
        "overlapping": 1,
        "unspeakable": {"transcript contains digits": 1},
        "words": 18,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"lm\.txt: holds no text"),
        (b"the sea\nla \xe9poque\n", r"lm\.txt: line 2: not UTF-8 at byte 4; convert the file to UTF-8"),
        (b"to\nguten morgen\n", r"lm\.txt: has no word in common with the labelled transcripts; give a text"),
        (b"to sea\n1 2 3\n", r"lm\.txt: none of 2 lines can be used: contains digits: 1, equal to a dev or test"),
    ],
)
def test_unusable_text_is_one_line_and_overwrites_nothing(record, content, message):
    before = prepare(record(), "\n".join(LINES).encode())
    with pytest.raises(ValueError, match=message) as error:
        prepare(record(), content)
    assert "\n" not in str(error.value)
    assert contents(record().parent / "made") == before


@pytest.fixture
def tokens(tmp_path):
    """Return two tokenizers' files, by name."""
    lines = [line.upper() for line in LINES]
    for name, size in (("ours", 24), ("theirs", 20)):
        (tmp_path / f"{name}.model").write_bytes(Tokenizer.estimate(lines, vocabulary=size, type="bpe"))
    return {name: tmp_path / f"{name}.model" for name in ("ours", "theirs")}


def bert_of(tokenizer: Path, folder: Path) -> Path:
    """Write a BERT with random weights over these tokens."""
    tokens = Tokenizer.load(tokenizer)
    torch.manual_seed(0)
    model = new_bert(BertSize.model_validate(BERT), vocabulary=MaskedVocabulary(tokens.vocabulary))
    save_bert(model, folder, tokenizer=tokens.fingerprint, about={})
    return folder


def test_a_bert_of_others_is_taken_over_unless_it_has_another_vocabulary(record, tokens, tmp_path):
    settings = record(bert={"pretrained": "berts/base"})
    text, output = tmp_path / "text.txt", tmp_path / "bert"
    text.write_text("\n".join(line.upper() for line in LINES))
    bert_of(tokens["ours"], tmp_path / "data/berts/base")
    stages.bert(settings, text, tokenizer=tokens["ours"], output=output)
    before = contents(output)
    assert before.keys() == {"bert.json", "config.json", "curve.csv", "model.safetensors"}
    bert_of(tokens["theirs"], tmp_path / "data/berts/base")
    with pytest.raises(ValueError, match=r"berts/base: BERT was trained on the tokens \w+, not \w+; train it") as error:
        stages.bert(settings, text, tokenizer=tokens["ours"], output=output)
    assert "\n" not in str(error.value)
    assert contents(output) == before


def test_soft_labels_are_not_made_by_a_bert_of_another_vocabulary(tokens, tmp_path):
    references = [write_references(tmp_path / "labelled.jsonl", LABELLED)]
    options = {"mask": "token", "top_k": 3, "tokenizer": tokens["ours"], "output": tmp_path / "labels.safetensors"}
    stages.soft_labels(bert_of(tokens["ours"], tmp_path / "bert"), references, hidden_states=True, **options)
    before = options["output"].read_bytes()
    with pytest.raises(ValueError, match="other: BERT was trained on the tokens") as error:
        stages.soft_labels(bert_of(tokens["theirs"], tmp_path / "other"), references, **options)
    assert "\n" not in str(error.value)
    assert options["output"].read_bytes() == before
