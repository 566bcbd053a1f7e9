"""Training with soft labels; those that do not fit are refused before anything is written."""

from __future__ import annotations

import dataclasses
import json
import signal
from itertools import accumulate, pairwise

import pytest
import torch

from asr_distill.experiment import RunRecord
from asr_distill.text.soft_labels import SoftLabels
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.data import load_training_data
from asr_distill.training.loop import train

TOP_K, HIDDEN = 4, 5
SIZE = {
    "encoder": {"layers": 2, "dim": 8, "heads": 2, "feed_forward": 16, "stack": 2, "dropout": 0},
    "decoder": {"layers": 1, "heads": 2, "dim": 8, "feed_forward": 16, "dropout": 0},
}


@pytest.fixture(autouse=True)
def keep_signal_handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def make_ctc_run(make_run):
    def make(**run) -> RunRecord:
        values = make_run(phase={"steps": 3, "dev_every": 3}).model_dump()
        values["run"] = {"recogniser": "ctc", "model": "m", "phase": "p", "augmentation": "a", "decoder": "bert", **run}
        return RunRecord.model_validate(values | {"model": SIZE})

    return make


@pytest.fixture(scope="module")
def labels(corpus, make_ctc_run):
    """Return soft labels, with hidden states, of the transcripts of the tiny corpus."""
    tokenizer = Tokenizer.load(corpus.tokenizer)
    data = load_training_data(make_ctc_run(), corpus=corpus.folder, tokenizer=tokenizer, pseudo_labels=[])
    tokens = [token for line in data.transcripts().values() for token in line]
    ends = accumulate((len(line) for line in data.transcripts().values()), initial=0)
    generator = torch.Generator().manual_seed(0)
    return SoftLabels(
        spans=dict(zip(data.transcripts(), pairwise(ends), strict=True)),
        ids=torch.randint(1, tokenizer.vocabulary, (len(tokens), TOP_K), generator=generator, dtype=torch.int32),
        probabilities=torch.full((len(tokens), TOP_K), 0.9 / TOP_K),
        tokens=torch.tensor(tokens, dtype=torch.int32),
        hidden=torch.randn(len(tokens), HIDDEN, generator=generator).half(),
        about={"tokenizer": tokenizer.fingerprint, "bert": "b", "transcripts": "t", "mask": "token"},
    )


@pytest.fixture
def learn(corpus, labels, tmp_path):
    """Return a function that saves labels, changed by keyword, and trains with them into tmp_path / "output"."""

    def learn(run, **changes):
        path = tmp_path / "labels.safetensors"
        dataclasses.replace(labels, **changes).save(path)
        paths = corpus.paths(tmp_path / "output", teacher=False)
        train(run, paths=dataclasses.replace(paths, soft_labels=path))

    return learn


@pytest.mark.parametrize("knowledge", [{"top_k": 4}, {"top_k": 2, "hidden_states": "l2"}])
def test_labels_are_learnt(learn, make_ctc_run, tmp_path, knowledge):
    learn(make_ctc_run(knowledge=knowledge))
    summary = json.loads((tmp_path / "output/training.json").read_text())
    assert (summary["teacher"], summary["targets"], summary["skipped_batches"]) == ("BERT", "BERT", 0)


def shifted(spans):
    """Return the spans with those of two utterances exchanged."""
    one, other = "train0", next(name for name in spans if spans[name][1] - spans[name][0] != spans["train0"][1])
    return spans | {one: spans[other], other: spans[one]}


def test_labels_that_do_not_fit_are_refused_in_one_line_and_nothing_is_overwritten(
    learn, labels, make_ctc_run, tmp_path
):
    run = make_ctc_run(knowledge={"top_k": 4})
    learn(run)
    before = {path.name: path.read_bytes() for path in (tmp_path / "output").iterdir()}
    other_tokens = dict(labels.about) | {"tokenizer": "0123456789abcdef"}
    fewer = {name: span for name, span in labels.spans.items() if name != "train3"}
    wrong = [
        (run, {"spans": shifted(labels.spans)}, r"is of another transcript of utterance 'train0' than the one trained"),
        (run, {"spans": fewer}, r"has no utterance 'train3' among its 12; make it anew"),
        (run, {"about": other_tokens}, r"soft labels are of the tokens 0123456789abcdef, not"),
        (run, vars(labels.top(3)), r"holds the 3 most probable tokens .* not 4; make it with soft_label_top_k: 4"),
        (make_ctc_run(knowledge={"mask": "word", "top_k": 4}), {}, r"BERT guessed every token, not every word"),
        (make_ctc_run(knowledge={"hidden_states": "l2", "top_k": 4}), {"hidden": None}, r"holds no hidden states"),
        (make_ctc_run(decoder="none", frame_knowledge={"top_k": 5}), {}, r"holds the 4 most probable tokens .* not 5"),
    ]
    for changed_run, changes, message in wrong:
        with pytest.raises(ValueError, match=rf"labels\.safetensors: {message}") as error:
            learn(changed_run, **changes)
        assert "\n" not in str(error.value)
        assert {path.name: path.read_bytes() for path in (tmp_path / "output").iterdir()} == before


def test_labels_are_needed(corpus, make_ctc_run, tmp_path):
    for knowledge in ({}, {"hidden_states": "l2"}):
        with pytest.raises(ValueError, match="soft_labels: this run learns from BERT and needs them; name their file"):
            train(make_ctc_run(knowledge=knowledge), paths=corpus.paths(tmp_path, teacher=False))
    assert list(tmp_path.iterdir()) == []
