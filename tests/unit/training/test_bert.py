"""Training BERT: it learns, it resumes exactly; batches, masks and perplexities against slow ones."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import signal

import numpy as np
import pytest
import torch

from asr_distill.experiment import BertSize, BertTraining
from asr_distill.text.masked_lm import MaskedVocabulary, load_bert, new_bert, word_starts
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training import bert as module
from asr_distill.training.bert import BertTrainer, learning_rate, train_bert
from asr_distill.training.bert_data import HeldOut, TokenLines, batches, guess_loss, hold_out, mask_tokens

STEPS = 6
SIZE = BertSize(layers=1, heads=2, dim=8, feed_forward=8, max_tokens=20)


def toy_language(count):
    """Return lines in which most words follow from their neighbours, though all are equally frequent."""
    rng = random.Random(0)
    words = ["AX", "BY", "CO", "DO", "EL", "FA", "GO", "HI"]
    lines = []
    for _ in range(count):
        first = rng.randrange(8)
        lines.append(" ".join(words[(first + step) % 8] for step in range(rng.randint(3, 7))))
    return lines


@pytest.fixture(scope="module")
def lines():
    """Return 40 distinct lines and some repeats."""
    rng = random.Random(1)
    distinct = [
        " ".join(rng.choices(["YES", "NO", "MAYBE", "SO"], k=1 + n % 5)) + f" {'ABCDEFGH'[n % 8]}" * (n // 8)
        for n in range(60)
    ]
    return [*distinct, *distinct[:9]]


@pytest.fixture(scope="module")
def tokenizer(lines):
    return Tokenizer(Tokenizer.estimate(lines, vocabulary=24, type="bpe"))


@pytest.fixture
def training():
    """Return a function that makes settings."""

    def make(**changes):
        budget = {"steps": STEPS, "batch_tokens": 150, "learning_rate": 1e-2, "warmup_steps": 2, "dev_lines": 8}
        return BertTraining.model_validate(budget | {"checkpoint_seconds": 1e6} | changes)

    return make


@pytest.fixture(autouse=True)
def keep_signal_handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def at_step(monkeypatch):
    """Return a function that lets something happen at the end of each of the given steps, once."""

    def install(steps, action):
        pending, record = set(steps), BertTrainer._record

        def recording(trainer, loss):
            record(trainer, loss)
            if trainer.position.step in pending:
                pending.remove(trainer.position.step)
                action()

        monkeypatch.setattr(BertTrainer, "_record", recording)

    return install


def ask_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


class PowerCutError(Exception):
    pass


def cut_power():
    raise PowerCutError


def curve(output):
    """Return the learning curve without the column of seconds."""
    with (output / "curve.csv").open(newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def weights(output):
    return (output / "model.safetensors").read_bytes()


@pytest.mark.parametrize("mask", ["token", "word"])
def test_a_toy_language_is_learnt(tmp_path, mask):
    lines = toy_language(400)
    tokenizer = Tokenizer(Tokenizer.estimate(lines, vocabulary=20, type="bpe"))
    train_bert(
        lines,
        tokenizer=tokenizer,
        size=BertSize(layers=2, heads=2, dim=32, feed_forward=64, max_tokens=20, dropout=0),
        training=BertTraining(steps=120, batch_tokens=600, learning_rate=5e-3, warmup_steps=10, dev_lines=8, mask=mask),
        seed=0,
        output=tmp_path,
    )
    about = json.loads((tmp_path / "bert.json").read_text())
    for found in about["perplexity"].values():
        assert 8 < found["unigram"] < 20
        assert found["bert"] < found["unigram"] / 2
        assert found["tokens"] > 10
    perplexities = [float(row["perplexity"]) for row in curve(tmp_path) if row["perplexity"]]
    assert len(perplexities) == 10
    assert perplexities[-1] == pytest.approx(about["perplexity"]["masked"]["bert"])


def test_what_comes_out(tmp_path, lines, tokenizer, training):
    train_bert(lines, tokenizer=tokenizer, size=SIZE, training=training(), seed=3, output=tmp_path / "new")
    files = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert files == ["bert.json", "config.json", "curve.csv", "model.safetensors"]
    about = json.loads((tmp_path / "new" / "bert.json").read_text())
    assert about["tokenizer"] == tokenizer.fingerprint
    assert (about["vocabulary"], about["steps"], about["seed"]) == (27, STEPS, 3)
    assert about["lines"] + about["held_out_lines"] <= len(lines) - about["too_long_lines"]
    assert about["held_out_lines"] == 8
    assert about["seconds"] > 0
    assert BertSize.model_validate(about["size"]) == SIZE
    assert BertTraining.model_validate(about["training"]) == training()
    model = load_bert(tmp_path / "new", tokenizer=tokenizer)
    assert model.num_parameters() == about["parameters"]
    assert model.config.max_position_embeddings == 20


@pytest.fixture(scope="module")
def undisturbed(lines, tokenizer, tmp_path_factory):
    """Return a function that trains once without a stop and remembers the folder."""
    outputs = {}

    def get(settings):
        if settings not in outputs:
            outputs[settings] = tmp_path_factory.mktemp("undisturbed")
            train_bert(lines, tokenizer=tokenizer, size=SIZE, training=settings, seed=0, output=outputs[settings])
        return outputs[settings]

    return get


def test_equal_trainings_are_equal_to_the_last_byte(tmp_path, lines, tokenizer, training, undisturbed):
    for seed, equal in ((0, True), (1, False)):
        output = tmp_path / str(seed)
        train_bert(lines, tokenizer=tokenizer, size=SIZE, training=training(), seed=seed, output=output)
        assert (weights(output) == weights(undisturbed(training()))) == equal
        assert (curve(output) == curve(undisturbed(training()))) == equal


@pytest.mark.parametrize("mask", ["token", "word"])
@pytest.mark.parametrize("stops", [[1], [2, 4, 5], [STEPS]])
def test_a_training_that_is_asked_to_stop_goes_on_as_if_it_never_had(
    tmp_path, lines, tokenizer, training, undisturbed, at_step, stops, mask
):
    settings = training(mask=mask)
    expected = undisturbed(settings)
    at_step(stops, ask_to_stop)
    for stop in stops:
        with pytest.raises(SystemExit) as error:
            train_bert(lines, tokenizer=tokenizer, size=SIZE, training=settings, seed=0, output=tmp_path)
        assert error.value.code == 128 + signal.SIGTERM == 143
        assert [path.name for path in (tmp_path / "state").glob(f"step*{stop}*")]
        assert not (tmp_path / "bert.json").exists()
    train_bert(lines, tokenizer=tokenizer, size=SIZE, training=settings, seed=0, output=tmp_path)
    assert weights(tmp_path) == weights(expected)
    assert curve(tmp_path) == curve(expected)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("kill", [1, 4])
def test_a_training_that_is_killed_goes_on_from_its_last_checkpoint(
    tmp_path, lines, tokenizer, training, undisturbed, at_step, caplog, kill
):
    settings = training(checkpoint_seconds=1e-9)
    at_step([kill], cut_power)
    with pytest.raises(PowerCutError):
        train_bert(lines, tokenizer=tokenizer, size=SIZE, training=settings, seed=0, output=tmp_path)
    with caplog.at_level("INFO"):
        train_bert(lines, tokenizer=tokenizer, size=SIZE, training=settings, seed=0, output=tmp_path)
    assert (f"goes on from step {kill - 1}" in caplog.text) == (kill > 1)
    assert weights(tmp_path) == weights(undisturbed(settings))


def test_a_checkpoint_of_another_text_is_not_gone_on_from(tmp_path, lines, tokenizer, training, at_step, undisturbed):
    at_step([2], ask_to_stop)
    with pytest.raises(SystemExit):
        train_bert(lines[::-1], tokenizer=tokenizer, size=SIZE, training=training(), seed=0, output=tmp_path)
    train_bert(lines, tokenizer=tokenizer, size=SIZE, training=training(), seed=0, output=tmp_path)
    assert weights(tmp_path) == weights(undisturbed(training()))


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path, lines, tokenizer, training, monkeypatch):
    monkeypatch.setattr(module, "guess_loss", lambda *_, **__: torch.tensor([math.nan]))
    with pytest.raises(ValueError, match="BERT: the loss is nan at step 0; lower the learning_rate"):
        train_bert(lines, tokenizer=tokenizer, size=SIZE, training=training(), seed=0, output=tmp_path)


def test_settings_that_do_not_fit_are_refused(tmp_path, lines, tokenizer, training):
    def train(lines=lines, **changes):
        size = SIZE.model_copy(update={"max_tokens": changes.pop("max_tokens", 20)})
        train_bert(lines, tokenizer=tokenizer, size=size, training=training(**changes), seed=0, output=tmp_path)

    distinct, long = len(set(lines)), [line for line in lines if " " in line]
    with pytest.raises(ValueError, match="batch_tokens: 19 cannot hold one line of max_tokens: 20; write at least 20"):
        train(batch_tokens=19)
    with pytest.raises(
        ValueError, match=f"dev_lines: 99 lines .* {distinct} distinct lines; write at most {distinct - 1}"
    ):
        train(dev_lines=99, max_tokens=99)
    with pytest.raises(ValueError, match=f"max_tokens: 3 leaves no line: {len(long)} of {len(long)} have more tokens"):
        train(long, max_tokens=3)


def test_too_long_lines_are_left_out_and_counted(tmp_path, lines, tokenizer, training, caplog):
    longest = 9
    expected = sum(len(tokenizer.encode(line)) + 2 > longest for line in lines)
    assert expected
    size = SIZE.model_copy(update={"max_tokens": longest})
    train_bert(lines, tokenizer=tokenizer, size=size, training=training(steps=3), seed=0, output=tmp_path)
    about = json.loads((tmp_path / "bert.json").read_text())
    assert about["too_long_lines"] == expected
    assert f"{about['too_long_lines']} lines of more than max_tokens: 9 are left out" in caplog.text


def encoded(lines, *, tokenizer):
    return TokenLines.encode(lines, tokenizer=tokenizer, max_tokens=10**6)[0]


def decoded(lines, *, tokenizer):
    return [tokenizer.decode(lines[line]) for line in range(len(lines))]


def test_no_copy_of_a_held_out_line_is_trained_on(lines, tokenizer):
    split = {}
    for seed in (0, 0, 1):
        halves = hold_out(encoded(lines, tokenizer=tokenizer), dev_lines=8, seed=seed)
        kept, dev = (decoded(half, tokenizer=tokenizer) for half in halves)
        assert len(dev) == len(set(dev)) == 8
        assert set(dev) < set(lines)
        assert kept == [line for line in lines if line not in dev]
        assert split.setdefault(seed, dev) == dev
    assert split[0] != split[1]


def test_batches_hold_every_line_once_and_similar_lengths_together(lines, tokenizer):
    lines = lines * 40
    encoded_lines = encoded(lines, tokenizer=tokenizer)
    marks = MaskedVocabulary(tokenizer.vocabulary)
    first, fill = [], []
    for batch, epoch, _ in batches(encoded_lines, batch_tokens=300, seed=0):
        if epoch:
            break
        inputs = encoded_lines.batch(batch, vocabulary=marks)
        assert inputs.numel() <= 300
        fill.append(float((inputs != 0).float().mean()))
        first.append(batch)
        for row, line in zip(inputs.tolist(), batch, strict=True):
            assert row[: 1 + row.index(marks.eos)] == [marks.bos, *tokenizer.encode(lines[line]), marks.eos]
    assert sorted(line for batch in first for line in batch) == list(range(len(lines)))
    assert np.mean(fill) > 0.95


def test_batches_go_on_from_any_position(lines, tokenizer):
    encoded_lines = encoded(lines, tokenizer=tokenizer)
    options = {"batch_tokens": 150, "seed": 5}
    order = batches(encoded_lines, **options)
    taken = [next(order) for _ in range(12)]
    assert taken[-1][1] > 0  # into another epoch
    for index, (_, epoch, position) in enumerate(taken[:-1]):
        assert next(batches(encoded_lines, epoch=epoch, position=position, **options)) == taken[index + 1]
    assert taken[0] != next(batches(encoded_lines, batch_tokens=150, seed=6))


@pytest.mark.parametrize("mask", ["token", "word"])
def test_masks_are_as_frequent_as_devlin_says(tokenizer, lines, mask):
    marks, starts = MaskedVocabulary(tokenizer.vocabulary), word_starts(tokenizer)
    encoded_lines = encoded([" ".join(lines)] * 60, tokenizer=tokenizer)
    inputs = encoded_lines.batch(range(60), vocabulary=marks)
    generator = torch.Generator().manual_seed(0)
    shown, chosen = mask_tokens(inputs, vocabulary=marks, mask=mask, share=0.15, starts=starts, generator=generator)
    assert float(chosen.float().mean()) == pytest.approx(0.15, abs=0.01)
    assert torch.equal(shown[~chosen], inputs[~chosen])
    as_mask, as_itself = (shown == marks.mask)[chosen], (shown == inputs)[chosen]
    assert float(as_mask.float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float(as_itself.float().mean()) == pytest.approx(0.1 + 0.1 / (marks.tokens - 1), abs=0.02)
    others = shown[chosen & (shown != marks.mask) & (shown != inputs)]
    assert set(others.tolist()) == set(range(1, marks.tokens))
    again = torch.Generator().manual_seed(0)
    always, same = mask_tokens(
        inputs, vocabulary=marks, mask=mask, share=0.15, starts=starts, generator=again, always=True
    )
    assert torch.equal(same, chosen)
    assert bool((always[chosen] == marks.mask).all())


@pytest.mark.parametrize("mask", ["token", "word"])
def test_marks_and_padding_are_never_masked_and_a_token_of_every_line_is(tokenizer, lines, mask):
    marks, starts = MaskedVocabulary(tokenizer.vocabulary), word_starts(tokenizer)
    encoded_lines = encoded(lines, tokenizer=tokenizer)
    inputs = encoded_lines.batch(range(len(lines)), vocabulary=marks)
    words = torch.stack([starts[row] for row in inputs]).cumsum(1)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        _, chosen = mask_tokens(inputs, vocabulary=marks, mask=mask, share=0.05, starts=starts, generator=generator)
        assert bool(chosen.any(dim=1).all())
        assert bool(((inputs[chosen] > 0) & (inputs[chosen] < marks.tokens)).all())
        if mask == "word":
            for row, picked, tokens in zip(words, chosen, inputs, strict=True):
                real = (tokens > 0) & (tokens < marks.tokens)
                assert torch.equal(picked, real & torch.isin(row, row[picked]))


def test_padding_changes_no_guess(tokenizer, lines):
    marks, starts = MaskedVocabulary(tokenizer.vocabulary), word_starts(tokenizer)
    torch.manual_seed(0)
    model = new_bert(SIZE.model_copy(update={"max_tokens": 99}), vocabulary=marks).eval()
    encoded_lines = encoded(lines, tokenizer=tokenizer)
    inputs = encoded_lines.batch(range(len(lines)), vocabulary=marks)
    generator = torch.Generator().manual_seed(0)
    shown, chosen = mask_tokens(inputs, vocabulary=marks, mask="token", share=0.3, starts=starts, generator=generator)
    together = guess_loss(model, inputs, shown=shown, chosen=chosen)
    alone = []
    for row, length in enumerate((inputs != 0).sum(dim=1).tolist()):
        one = slice(row, row + 1), slice(length)
        alone.append(guess_loss(model, inputs[one], shown=shown[one], chosen=chosen[one]))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_perplexities_are_those_of_one_guess_after_the_other(tokenizer, lines):
    marks, starts = MaskedVocabulary(tokenizer.vocabulary), word_starts(tokenizer)
    torch.manual_seed(0)
    model = new_bert(SIZE.model_copy(update={"max_tokens": 99}), vocabulary=marks).eval()
    training, dev_lines = hold_out(encoded(lines, tokenizer=tokenizer), dev_lines=12, seed=0)
    kept, dev = (decoded(half, tokenizer=tokenizer) for half in (training, dev_lines))
    held_out = HeldOut(dev_lines, training=training, vocabulary=marks, starts=starts)
    loss, unigram = [], []
    counts = [1 + sum(tokenizer.encode(line).count(token) for line in kept) for token in range(1, marks.tokens)]
    for line in dev[:10]:
        tokens = tokenizer.encode(line)
        for place, token in enumerate(tokens):
            inputs = torch.tensor([[marks.bos, *tokens, marks.eos]])
            inputs[0, place + 1] = marks.mask
            with torch.no_grad():
                logits = model(inputs).logits[0, place + 1, 1 : marks.tokens]
            loss.append(-float(logits.log_softmax(dim=0)[token - 1]))
            unigram.append(-math.log(counts[token - 1] / sum(counts)))
    found = held_out.one_by_one(model, lines=10, batch_tokens=100)
    assert found.tokens == len(loss)
    assert found.bert == pytest.approx(math.exp(np.mean(loss)), rel=1e-4)
    assert found.unigram == pytest.approx(math.exp(np.mean(unigram)), rel=1e-6)
    looks = [held_out.masked(model, mask="word", share=0.15, batch_tokens=100) for _ in range(2)]
    assert looks[0] == looks[1]


def test_the_learning_rate_rises_and_falls_to_zero(training):
    settings = training(steps=10, warmup_steps=3, learning_rate=1.0)
    rates = [learning_rate(step, training=settings) for step in range(10)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4:] == pytest.approx([6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7])
