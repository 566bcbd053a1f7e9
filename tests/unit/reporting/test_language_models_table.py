"""The table of the language models, from what their stages wrote down."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from fake_study import study_record

from asr_distill.reporting.grid import markdown
from asr_distill.reporting.language_models import language_models_grid, write_language_models_table

TEXT = {"read": 12000, "kept": 11000, "overlapping": 400, "unspeakable": {"transcript empty": 600}, "words": 99000}
PERPLEXITY = {
    "masked": {"bert": 5.25, "unigram": 105.0, "tokens": 700},
    "one_by_one": {"bert": 4.0, "unigram": 100.0, "tokens": 3000},
}
BERT = {"tokenizer": "t", "parameters": 1234567, "held_out_lines": 500, "held_out_tokens": 4800}
BERT |= {"perplexity": PERPLEXITY}
ARPA = "\\data\\\nngram 1=42\nngram 2=1500\nngram 3=7\n\n\\1-grams:\nnothing that could be read"
SIZE = {"layers": 3, "heads": 2, "dim": 8, "feed_forward": 16, "max_tokens": 32}


@pytest.fixture
def folder(tmp_path):
    """Return a folder of language models."""
    (tmp_path / "bert").mkdir()
    (tmp_path / "text.json").write_text(json.dumps(TEXT))
    (tmp_path / "bert/bert.json").write_text(json.dumps(BERT | {"steps": 4000}))
    (tmp_path / "ngram.arpa").write_text(ARPA)
    return tmp_path


def study_of(*, bert=SIZE, text=None, ngram=None, decoder="bert"):
    values = study_record().model_dump(mode="json")
    run = {"recogniser": "ctc", "model": "ctc", "phase": "main", "augmentation": "none", "decoder": decoder}
    values["study"]["runs"]["ctc"] = run
    values["scale"]["language_models"] = {
        "text": text or {"source": "grammar", "lines": 12000},
        "bert": bert,
        "bert_training": {"steps": 4000, "batch_tokens": 2048, "learning_rate": 1e-3, "warmup_steps": 2},
        "ngram": ngram or {"order": 3},
    }
    return type(study_record()).model_validate(values)


def figures(study, folder):
    rows = language_models_grid(study, folder=folder).rows
    return {(model, name): (shown, remark) for model, name, shown, remark in rows}


def test_everything_is_shown(folder):
    found = figures(study_of(), folder)
    assert {key: shown for key, (shown, _) in found.items()} == {
        ("text", "source"): "grammar",
        ("text", "lines read"): "12\u202f000",
        ("text", "lines left out as scored"): "400",
        ("text", "lines left out as unspeakable"): "600",
        ("text", "lines kept"): "11\u202f000",
        ("text", "words"): "99\u202f000",
        ("BERT", "parameters"): "1.23\u00a0M",
        ("BERT", "steps"): "4\u202f000",
        ("BERT", "perplexity of a masked token"): "5.2",
        ("unigram", "perplexity of a masked token"): "105.0",
        ("BERT / unigram", "perplexity of a masked token"): "0.05",
        ("BERT", "perplexity of a token masked alone"): "4.0",
        ("unigram", "perplexity of a token masked alone"): "100.0",
        ("BERT / unigram", "perplexity of a token masked alone"): "0.04",
        ("n-gram", "order"): "3",
        ("n-gram", "1-grams"): "42",
        ("n-gram", "2-grams"): "1\u202f500",
        ("n-gram", "3-grams"): "7",
    }
    remark = found["BERT", "perplexity of a masked token"][1]
    assert remark == "15 % of the tokens masked at once: 700 of 4\u202f800 tokens on 500 held-out lines"
    assert found["text", "lines left out as unspeakable"][1] == "empty: 600"


def test_a_bert_of_others_has_no_steps_and_no_curve(folder):
    (folder / "bert/bert.json").write_text(json.dumps(BERT))
    study = study_of(bert={"pretrained": "berts/base"})
    found = figures(study, folder)
    assert found["BERT", "parameters"] == ("1.23\u00a0M", "pre-trained: berts/base")
    assert found["BERT", "steps"] == ("", "trained elsewhere")
    assert "may have read" in found["BERT", "perplexity of a masked token"][1]
    assert "what is not known here" in language_models_grid(study, folder=folder).caption


def test_bert_is_left_out_where_no_run_learns_from_it(folder):
    (folder / "bert/bert.json").unlink()
    study = study_of(decoder="none")
    assert {model for model, _ in figures(study, folder)} == {"text", "n-gram"}
    assert "BERT" not in markdown(language_models_grid(study, folder=folder))


def test_a_text_of_others_and_a_pruned_ngram(folder):
    text = {"source": "file", "path": "lm/librispeech-lm-norm.txt.gz"}
    found = figures(study_of(text=text, ngram={"order": 5, "prune": [0, 0, 1]}), folder)
    assert found["text", "source"][0] == "librispeech-lm-norm.txt.gz"
    assert found["n-gram", "order"] == ("3", "tokens; no n-gram is left of order 4 to 5")
    assert [found["n-gram", f"{n}-grams"][1] for n in (1, 2, 3)] == ["", "", "seen more than 1 times"]


def test_the_files(folder, tmp_path):
    study = study_of()
    (tmp_path / "study.yaml").write_text(study.to_yaml(), encoding="utf-8")
    output = tmp_path / "tables"
    write_language_models_table(tmp_path / "study.yaml", folder=folder, output=output)
    assert sorted(path.name for path in output.iterdir()) == [
        f"language_models.{kind}" for kind in ("csv", "md", "tex")
    ]
    table = pd.read_csv(output / "language_models.csv", dtype=str, keep_default_na=False)
    assert list(table.columns) == ["model", "name", "value", "remark"]
    values = table.set_index(["model", "name"])["value"]
    assert values["text", "lines read"] == "12000"
    assert values["BERT", "perplexity of a masked token"] == "5.250"
    assert values["n-gram", "2-grams"] == "1500"
    assert (output / "language_models.md").read_text() == markdown(language_models_grid(study, folder=folder))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.json", None, "No such file"),
        ("text.json", "{", "not readable as JSON"),
        ("text.json", json.dumps({"read": 3, "unspeakable": {}}), "has no 'overlapping'; prepare the text again"),
        ("bert/bert.json", json.dumps({"parameters": 3, "steps": 2}), "has no 'held_out_tokens'; make BERT again"),
        ("ngram.arpa", None, "No such file"),
        ("ngram.arpa", "text", "no ARPA file"),
        ("ngram.arpa", "\\data\\\nngram one\n", "'ngram one' is no number of n-grams"),
    ],
)
def test_what_is_missing_is_named(folder, name, content, message):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name}: .*{message}") as error:
        language_models_grid(study_of(), folder=folder)
    assert "\n" not in str(error.value)
