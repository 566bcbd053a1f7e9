"""Which utterances are shown, and what BERT and attention decoders say about them, on a made-up corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_ctc_decode import BINS, TEXTS, Cut, Reader

from asr_distill.decoding import illustrations, knowledge
from asr_distill.decoding.knowledge import choose_utterances, decoder_probabilities, write_knowledge
from asr_distill.experiment import BertSize, CTCSize, load_experiment
from asr_distill.models.ctc import CTCModel
from asr_distill.models.ctc_storage import save_ctc, save_decoder
from asr_distill.text.masked_lm import MaskedVocabulary, load_bert, new_bert, save_bert
from asr_distill.text.tokenizer import Tokenizer

ROOT = Path(__file__).parents[3]
SIZE = {
    "encoder": {"layers": 1, "dim": 8, "heads": 2, "feed_forward": 16, "stack": 2, "dropout": 0},
    "decoder": {"layers": 1, "heads": 2, "dim": 8, "feed_forward": 16, "dropout": 0},
}
MEDIAN = 3
"""Of six utterances, each longer than the one before."""


def sharpened(module):
    """Return a random module with larger weights, whose answers are far from uniform."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
    return module.eval()


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens.model"
    path.write_bytes(Tokenizer.estimate(TEXTS * 10, vocabulary=5, type="char"))
    return path


@pytest.fixture(scope="module")
def tokenizer(tokenizer_file):
    return Tokenizer.load(tokenizer_file)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(3)
    return sharpened(CTCModel(CTCSize.model_validate(SIZE), vocabulary=tokenizer.vocabulary, mel_bins=BINS))


@pytest.fixture(scope="module")
def bert(tmp_path_factory, tokenizer):
    torch.manual_seed(4)
    size = BertSize(layers=1, heads=2, dim=8, feed_forward=16, max_tokens=16)
    folder = tmp_path_factory.mktemp("bert")
    berts = sharpened(new_bert(size, vocabulary=MaskedVocabulary(tokenizer.vocabulary)))
    save_bert(berts, folder, tokenizer=tokenizer.fingerprint, about={})
    return folder


@pytest.fixture
def write(monkeypatch, tmp_path, tokenizer_file, tokenizer, model, bert):
    """Return a function that writes knowledge.npz of a part of the study of language models, and reads it."""
    for module in (illustrations, knowledge):
        monkeypatch.setattr(
            module, "read_cuts", lambda folders, originals_only: [Cut(folders[0].name, i) for i in range(len(TEXTS))]
        )
    monkeypatch.setattr(illustrations, "FeatureReader", Reader)
    values = {"scale": "smoke", "studies": ["lm_into_ctc"], "seeds": [7, 8], "work": str(tmp_path)}
    record = load_experiment(values, root=ROOT).record("lm_into_ctc", "core")
    for run in record.study.knowledge.runs:
        folder = tmp_path / run / "seed7"
        folder.mkdir(parents=True)
        save_ctc(model, folder / "model.safetensors", tokenizer=tokenizer.fingerprint)
        save_decoder(model.decoder, folder / "decoder.safetensors", tokenizer=tokenizer.fingerprint)

    def run(compared, *, runs=tmp_path, **changes):
        shown = record.model_copy(update={"study": record.study.model_copy(update=changes)})
        paths = {"bert": bert, "corpus": tmp_path, "tokenizer": tokenizer_file}
        write_knowledge(shown, compared=compared, runs=runs, output=tmp_path / "knowledge.npz", **paths)
        with np.load(tmp_path / "knowledge.npz", allow_pickle=False) as file:
            return dict(file)

    return run


def masked_by_hand(bert, text, *, tokenizer):
    """Return BERT's probabilities (U, V) at each token of a text, masked alone, from one forward pass each."""
    tokens, v = tokenizer.encode(text), tokenizer.vocabulary
    model = load_bert(bert, tokenizer=tokenizer)
    rows = torch.zeros(len(tokens), v)
    for place in range(len(tokens)):
        shown = [*tokens[:place], v + 2, *tokens[place + 1 :]]
        with torch.no_grad():
            logits = model(torch.tensor([[v, *shown, v + 1]])).logits[0, place + 1]
        rows[place, 1:] = logits[1:v].softmax(dim=0)
    return rows


@torch.no_grad()
def forced_by_hand(model, cut, *, tokenizer):
    """Return the decoder's probabilities (U, V) at each token of a cut, fed one token after the other."""
    features, lengths = Reader([], cache_hours=0).collate([cut])
    states, frames = model.encode(model.normalise(features, lengths), lengths)
    memory, token, rows = model.decoder.initial_memory(states, frames), model.decoder.start, []
    for label in tokenizer.encode(cut.supervisions[0].text):
        rows.append(model.decoder.step(torch.tensor([token]), memory)[0].softmax(dim=0)[:-1])
        token = label
    return torch.stack(rows)


# ---------------------------------------------------------------- which utterances


def differing_on(*names, of):
    """Return transcripts of two systems that differ on the utterances named alone."""
    return dict.fromkeys(of, "SAME"), {name: "OTHER" if name in names else "SAME" for name in of}


def test_samples_are_evenly_spaced_among_those_that_differ():
    names = [f"u{number:02d}" for number in range(24)]
    odd = names[1::2]
    chosen, differing = choose_utterances(reversed(names), differing_on(*odd, of=names), count=8)
    assert chosen == [odd[place] for place in (0, 2, 3, 5, 6, 8, 9, 11)]  # 0, 11/7, 22/7, ...
    assert differing == 12


@pytest.mark.parametrize(
    ("count", "expected"), [(1, ["b"]), (2, ["b", "d"]), (3, ["b", "c", "d"]), (8, ["b", "c", "d"])]
)
def test_first_and_last_are_always_among_them(count, expected):
    assert choose_utterances("abcde", differing_on(*"bcd", of="abcde"), count=count) == (expected, 3)


def test_where_none_differ_all_are_chosen_from():
    assert choose_utterances("abcde", differing_on(of="abcde"), count=3) == (["a", "c", "e"], 0)


def test_transcripts_are_compared_after_normalisation_and_may_be_missing():
    left, right = {"a": "It’s, on", "b": "", "c": "YES"}, {"a": "IT'S ON", "c": "NO"}
    assert choose_utterances("abc", (left, right), count=5) == (["c"], 1)
    assert choose_utterances("abc", (left, {}), count=5) == (["a", "c"], 2)


def test_no_utterance_is_chosen_twice():
    for total in range(1, 30):
        names = [f"{number:02d}" for number in range(total)]
        for count in range(1, 32):
            chosen, _ = choose_utterances(names, ({}, {}), count=count)
            assert len(set(chosen)) == len(chosen) == min(count, total)
            assert chosen == sorted(chosen)


# ---------------------------------------------------------------- what is said about them


def test_the_decoder_is_fed_the_reference(model, tokenizer):
    cut = Cut("part", 5)
    labels = torch.tensor([tokenizer.encode(TEXTS[5])])
    found = decoder_probabilities(model, model.decoder, *Reader([], cache_hours=0).collate([cut]), labels)
    torch.testing.assert_close(found, forced_by_hand(model, cut, tokenizer=tokenizer), rtol=1e-4, atol=1e-6)
    assert bool((found.sum(dim=1) < 1).all())  # the rest is the end of the sentence
    assert float(found.max()) > 2 / tokenizer.vocabulary  # else everything would be near to everything


def test_the_file_holds_the_chosen_samples_and_one_sentence(write, tokenizer, model, bert):
    same = {f"test-other-{index}": "A" for index in range(len(TEXTS))}
    arrays = write((same, same | {"test-other-4": "B", "test-other-1": "AB"}))
    assert arrays["samples/utterances"].tolist() == ["test-other-1", "test-other-4"]
    assert (arrays["samples/differing"], arrays["samples/total"]) == (2, 6)
    for index, guessed in zip((1, 4), arrays["samples/bert"], strict=True):
        expected = masked_by_hand(bert, TEXTS[index], tokenizer=tokenizer).argmax(dim=1)
        assert guessed == tokenizer.decode(expected.tolist())
    assert arrays["figure/utterance"] == f"test-clean-{MEDIAN}"
    assert arrays["figure/reference"] == TEXTS[MEDIAN]
    assert arrays["figure/tokens"].tolist() == tokenizer.encode(TEXTS[MEDIAN])
    assert "".join(arrays["figure/vocabulary"][arrays["figure/tokens"]]) == "▁" + TEXTS[MEDIAN].replace(" ", "▁")
    by_hand = masked_by_hand(bert, TEXTS[MEDIAN], tokenizer=tokenizer)
    np.testing.assert_allclose(arrays["figure/bert"], by_hand, rtol=1e-4, atol=1e-6)
    forced = forced_by_hand(model, Cut("test-clean", MEDIAN), tokenizer=tokenizer)
    decoders = {name for name in arrays if name.startswith("figure/decoder/")}
    assert decoders == {"figure/decoder/interaed_kd_interctc", "figure/decoder/interaed_interctc"}
    for name in decoders:
        np.testing.assert_allclose(arrays[name], forced, rtol=1e-4, atol=1e-6)


def test_only_what_is_asked_for_is_written(write, tmp_path):
    assert {name.partition("/")[0] for name in write(None)} == {"figure"}
    nowhere = tmp_path / "absent"  # no model is needed for the samples
    arrays = write(({}, {}), runs=nowhere, knowledge=None)
    assert {name.partition("/")[0] for name in arrays} == {"samples"}
    assert arrays["samples/differing"] == 0
    assert len(arrays["samples/utterances"]) == 6


def test_a_model_of_other_tokens_is_refused(write, tmp_path, model):
    save_decoder(model.decoder, tmp_path / "interaed_interctc/seed7/decoder.safetensors", tokenizer="xyz")
    with pytest.raises(
        ValueError, match=r"interaed_interctc/seed7/decoder\.safetensors: was trained on the tokens xyz"
    ):
        write(None)
