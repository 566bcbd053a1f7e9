"""The output of a CTC recogniser in every way of decoding, on a made-up corpus of random features."""

from __future__ import annotations

import copy
import json

import pandas as pd
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from asr_distill.decoding import ctc_decode
from asr_distill.decoding.ctc import greedy
from asr_distill.decoding.ctc_decode import decode_ctc
from asr_distill.experiment import CTCSize, LanguageModelSearch
from asr_distill.models.ctc import CTCModel
from asr_distill.text.ngram import estimate
from asr_distill.text.tokenizer import Tokenizer

BINS = 4
TEXTS = ["AB", "BA A", "A", "B AB", "AA", "BB A"]


class Cut:
    """As much of a cut as decoding looks at."""

    def __init__(self, part, index):
        self.id, self.duration = f"{part}-{index}", 1.0 + index
        self.supervisions = [type("Supervision", (), {"text": TEXTS[index]})]


class Reader:
    """Random features of any cut, longer for longer ones."""

    def __init__(self, cuts, *, cache_hours):
        pass

    def collate(self, cuts):
        lengths = [int(20 * cut.duration) for cut in cuts]
        features = [torch.randn(n, BINS, generator=torch.Generator().manual_seed(n)) for n in lengths]
        return pad_sequence(features, batch_first=True), torch.tensor(lengths)


@pytest.fixture
def decoded(monkeypatch, tmp_path):
    """Return a function that decodes two dev parts and a test part into a folder."""
    monkeypatch.setattr(ctc_decode, "FeatureReader", Reader)
    monkeypatch.setattr(
        ctc_decode, "read_cuts", lambda folders, originals_only: [Cut(folders[0].name, i) for i in range(len(TEXTS))]
    )
    tokenizer = Tokenizer(Tokenizer.estimate(TEXTS * 10, vocabulary=5, type="char"))
    arpa = tmp_path / "ngram.arpa"
    estimate((tokenizer.encode(text) for text in TEXTS), order=2, vocabulary=tokenizer.vocabulary).write_arpa(arpa)
    size = {
        "encoder": {"layers": 3, "dim": 8, "heads": 2, "feed_forward": 16, "stack": 2, "dropout": 0},
        "decoder": {"layers": 1, "heads": 2, "dim": 8, "feed_forward": 16, "dropout": 0},
    }
    torch.manual_seed(0)
    model = CTCModel(CTCSize.model_validate(size), vocabulary=tokenizer.vocabulary, mel_bins=BINS).eval()

    def run(*, decoder=True, **settings):
        output = tmp_path / "run"
        decode_ctc(
            model,
            decoder=model.decoder if decoder else None,
            dev=["dev-a", "dev-b"],
            test=["test"],
            corpus=tmp_path,
            tokenizer=tokenizer,
            settings=LanguageModelSearch(lm_weights=(0.0, 1.0), insertion_scores=(0.0,), beam_sizes=(1, 3), **settings),
            arpa=arpa,
            output=output,
        )
        return output, model, tokenizer

    return run


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_search_transcribes_every_utterance(decoded):
    output, model, tokenizer = decoded()
    files = {path.stem for path in (output / "searches").glob("*.jsonl")}
    assert files == {"beam_1", "beam_3", "attention", "layer_1", "layer_2"}
    for path in (output / "hypotheses.jsonl", *(output / "searches").glob("*.jsonl")):
        lines = read(path)
        assert [line["id"] for line in lines] == [f"{p}-{i}" for p in ("dev-a", "dev-b", "test") for i in range(6)]
    cut = Cut("test", 2)
    features, lengths = Reader([], cache_hours=0).collate([cut])
    with torch.inference_mode():
        states, frames = model.encode(model.normalise(features, lengths), lengths)
        best = greedy(model.ctc_head(states).log_softmax(dim=-1), frames)[0]
    found = {line["id"]: line for line in read(output / "hypotheses.jsonl")}["test-2"]
    assert found["text"] == tokenizer.decode(best.tokens)
    assert found["score"] == pytest.approx(best.score, abs=1e-3)


def test_layers_below_the_final_one_are_read_by_the_same_head(decoded):
    output, model, tokenizer = decoded()
    cut = Cut("dev-b", 1)
    features, lengths = Reader([], cache_hours=0).collate([cut])
    texts = []
    for layer in (1, 2):
        shortened = copy.deepcopy(model)  # its final layer is that one
        shortened.encoder.layers = shortened.encoder.layers[:layer]
        with torch.inference_mode():
            states, frames = shortened.encode(shortened.normalise(features, lengths), lengths)
            best = greedy(shortened.ctc_head(states).log_softmax(dim=-1), frames)[0]
        found = {line["id"]: line for line in read(output / f"searches/layer_{layer}.jsonl")}["dev-b-1"]
        assert found["text"] == tokenizer.decode(best.tokens)
        assert found["score"] == pytest.approx(best.score, abs=1e-3)
        texts.append((found["text"], found["score"]))
    final = {line["id"]: line for line in read(output / "hypotheses.jsonl")}["dev-b-1"]
    assert len({*texts, (final["text"], final["score"])}) == 3


def test_layers_are_not_timed(decoded):
    output, _, _ = decoded()
    timing = json.loads((output / "decoding.json").read_text())
    assert [part["part"] for part in timing["parts"]] == ["dev-a", "dev-b", "test"]
    assert all(part["audio_seconds"] == 1 + 2 + 3 + 4 + 5 + 6 for part in timing["parts"])
    timed = {"features", "encoder", "greedy", "beam_1", "beam_3", "attention"}
    assert all(part["seconds"].keys() == timed for part in timing["parts"])
    assert (timing["device"], timing["batch_seconds"], timing["threads"]) == ("cpu", 240, torch.get_num_threads())


def test_a_recogniser_without_decoder_is_not_asked_for_one(decoded):
    output, _, _ = decoded(decoder=False)
    assert not (output / "searches/attention.jsonl").exists()
    timing = json.loads((output / "decoding.json").read_text())
    assert set(timing["parts"][0]["seconds"]) == {"features", "encoder", "greedy", "beam_1", "beam_3"}


def test_the_dev_parts_alone_decide(decoded):
    output, _, _ = decoded(tune_utterances=2)
    tuning = pd.read_csv(output / "searches/tuning.csv")
    assert [column for column in tuning if column.startswith("wer/")] == ["wer/dev-a", "wer/dev-b"]
    weights = tuning[(tuning["search"] == "beam_3") & (tuning["step"] == "weights")]
    assert weights["lm_weight"].tolist() == [0.0, 1.0]
    assert weights.loc[weights["chosen"], "pooled"].item() == weights["pooled"].min()
