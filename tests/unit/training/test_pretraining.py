"""Pre-training of an encoder as a run of its own: what it hears and leaves, how it resumes, and who starts from it."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import signal

import pytest
import torch
from lhotse import CutSet
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from asr_distill.experiment import EncoderSize, RunRecord
from asr_distill.models.best_rq import BestRQ
from asr_distill.models.best_rq_storage import save_encoder
from asr_distill.models.storage import load_model
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training import loop as module
from asr_distill.training.build import build_objective
from asr_distill.training.data import load_training_data
from asr_distill.training.loop import Trainer, TrainingPaths, train

STEPS, CODES = 7, 12  # more than an epoch


@pytest.fixture(autouse=True)
def keep_signal_handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def pretraining(make_run):
    """Return a function that describes a pre-training run; keyword arguments change its phase."""

    def make(*, audio=("labelled", "unlabelled"), seed=0, **phase):
        values = make_run("hard", phase={"steps": STEPS, **phase}, seed=seed, audio=list(audio)).model_dump()
        values["run"] = {"recogniser": "best_rq", "model": "m", "phase": "p", "audio": audio}
        return RunRecord.model_validate(
            values
            | {"augmentation": {}, "dev": [], "pretraining": {"codes": CODES, "code_dim": 4, "masking": {"span": 8}}}
        )

    return make


def inputs(corpus, output, **others):
    output.mkdir(parents=True, exist_ok=True)
    return TrainingPaths(
        **{"corpus": corpus.folder, "tokenizer": None, "teacher": None, "pseudo_labels": [], "output": output, **others}
    )


def curve(output):
    """Return the learning curve without the column of seconds."""
    with (output / "curve.csv").open(newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def encoder(output):
    return load_file(output / "encoder.safetensors")


def test_what_it_leaves(corpus, pretraining, tmp_path):
    train(pretraining(dev_every=2), paths=inputs(corpus, tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.csv", "encoder.safetensors", "training.json"]
    rows = curve(tmp_path)
    assert [(int(row["step"]), row.keys()) for row in rows] == [(STEPS, {"step", "loss", "learning_rate"})]
    summary = json.loads((tmp_path / "training.json").read_text())
    assert (summary["targets"], summary["teacher"], summary["initial"]) == ("self-supervised", None, None)
    parameters = sum(x.numel() for name, x in encoder(tmp_path).items() if name.startswith("encoder."))
    assert summary["parameters"] == summary["encoder_parameters"] == parameters
    assert {name.split(".")[0] for name in encoder(tmp_path)} == {"encoder", "feature_mean", "feature_deviation"}


def test_all_speech_is_heard_and_no_transcript(corpus, pretraining, tmp_path):
    run = pretraining()
    data = load_training_data(run, corpus=corpus.folder, tokenizer=None, pseudo_labels=[])
    batches = data.batches()
    heard = []
    for batch, epoch, _ in batches:
        if epoch:
            break
        assert batch.labels.shape == (len(batch.utterances), 0)
        assert batch.label_lengths.tolist() == [0] * len(batch.utterances)
        heard += batch.utterances
    everything = [
        cut for part in ("train", "quiet") for cut in CutSet.from_file(corpus.folder / part / "cuts.jsonl.gz")
    ]
    assert len(heard) == len(everything) == 2 * (13 + 6)  # at two speeds
    assert set(heard) == {f"train{n}" for n in range(13)} | {f"quiet{n}" for n in range(6)}
    train(run, paths=inputs(corpus, tmp_path))
    original = [cut.duration for cut in everything if cut.id in heard]
    assert json.loads((tmp_path / "training.json").read_text())["hours"] == pytest.approx(sum(original) / 3600)


def test_the_loss_starts_at_chance_and_falls(corpus, pretraining, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "CURVE_EVERY", 1)
    train(pretraining(steps=60, learning_rate=3e-2), paths=inputs(corpus, tmp_path))
    losses = [float(row["loss"]) for row in curve(tmp_path)]
    assert len(losses) == 60
    assert sum(losses[:3]) / 3 == pytest.approx(math.log(CODES), abs=0.6)
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.1


@pytest.mark.parametrize("stops", [[1], [3, 4], [STEPS]])
def test_a_stopped_pre_training_goes_on_as_if_it_never_had(corpus, pretraining, monkeypatch, tmp_path, stops):
    run = pretraining(average_decay=0.5)
    train(run, paths=inputs(corpus, tmp_path / "undisturbed"))
    pending, record = set(stops), Trainer._record

    def recording(trainer, loss):
        record(trainer, loss)
        if trainer.position.step in pending:
            pending.remove(trainer.position.step)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_record", recording)
    paths = inputs(corpus, tmp_path / "stopped")
    for _ in stops:
        with pytest.raises(SystemExit):
            train(run, paths=paths)
        assert not (paths.output / "encoder.safetensors").exists()
    train(run, paths=paths)
    assert not pending
    assert not (paths.output / "state").exists()
    files = [(tmp_path / name / "encoder.safetensors").read_bytes() for name in ("undisturbed", "stopped")]
    assert files[0] == files[1]
    assert curve(paths.output) == curve(tmp_path / "undisturbed")


def test_seeds_give_different_encoders(corpus, pretraining, tmp_path):
    for seed in (0, 1):
        train(pretraining(seed=seed), paths=inputs(corpus, tmp_path / str(seed)))
    first, second = (encoder(tmp_path / str(seed))["encoder.input.weight"] for seed in (0, 1))
    assert not torch.equal(first, second)


# ---------------------------------------------------------------- starting from it


@pytest.fixture
def pretrained(corpus, make_run, tmp_path):
    """Return a file with an encoder of the runs' size, of statistics unlike the corpus's."""
    torch.manual_seed(1234)
    model = BestRQ(make_run().model.encoder, mel_bins=6, quantizer_seed=0, codes=5, code_dim=3)
    model.feature_mean.fill_(77.0)
    path = tmp_path / "given" / "encoder.safetensors"
    path.parent.mkdir()
    save_encoder(model, path)
    return path


def student(corpus, run, **others):
    """Return the new model of a run, before its first step."""
    tokenizer = Tokenizer.load(corpus.tokenizer)
    paths = dataclasses.replace(corpus.paths(corpus.folder, teacher=run.run.teacher is not None), **others)
    objective = build_objective(run, paths=paths, tokenizer=tokenizer, transcripts={}, device=torch.device("cpu"))
    return objective.student.state_dict()


@pytest.mark.parametrize("targets", ["supervised", "soft"])
def test_only_the_encoder_is_taken_over(corpus, make_run, pretrained, targets):
    run, given = make_run(targets), load_file(pretrained)
    random, started = student(corpus, run), student(corpus, run, initial=pretrained)
    assert random.keys() == started.keys()
    taken = {name for name in random if name.startswith("encoder.")}
    assert taken == {name for name in given if name.startswith("encoder.")}
    for name, tensor in started.items():
        assert torch.equal(tensor, given[name] if name in taken else random[name]), name
    assert not torch.equal(random["encoder.input.weight"], given["encoder.input.weight"])


def test_a_transducer_starts_from_another_ones_encoder(corpus, make_run):
    teacher = load_model(corpus.teacher, tokenizer=Tokenizer.load(corpus.tokenizer).fingerprint).state_dict()
    run = make_run()
    random, started = student(corpus, run), student(corpus, run, initial=corpus.teacher)
    for name, tensor in started.items():
        assert torch.equal(tensor, (teacher if name.startswith("encoder.") else random)[name]), name
    assert not torch.equal(teacher["joint.output.weight"], random["joint.output.weight"])


def test_a_transducer_starts_from_all_of_another_one(corpus, make_run):
    teacher = load_model(corpus.teacher, tokenizer=Tokenizer.load(corpus.tokenizer).fingerprint).state_dict()
    started = student(corpus, make_run(initial="teacher", whole_initial=True), initial=corpus.teacher)
    statistics = {"feature_mean", "feature_deviation"}
    for name in started.keys() - statistics:
        assert torch.equal(started[name], teacher[name]), name


def test_a_transducer_of_another_size_is_refused(corpus, make_run, pretrained):
    run = make_run(initial="teacher", whole_initial=True)
    other = run.model_copy(update={"model": run.model.model_copy(update={"joint": 24})})
    with pytest.raises(ValueError, match=r"holds a transducer with joint \d+ instead of 24; train one of the"):
        student(corpus, other, initial=corpus.teacher)
    with pytest.raises(ValueError, match="holds a model of kind 'encoder' where 'transducer' is needed"):
        student(corpus, run, initial=pretrained)


def test_training_goes_on_from_the_initial_encoder(corpus, make_run, pretrained, tmp_path):
    run = make_run("soft", phase={"steps": 3, "learning_rate": 1e-9, "weight_decay": 0}, initial="pretrained")
    train(run, paths=dataclasses.replace(corpus.paths(tmp_path / "out"), initial=pretrained))
    trained, given = load_file(tmp_path / "out/model.safetensors"), load_file(pretrained)
    for name in (name for name in given if name.startswith("encoder.")):
        torch.testing.assert_close(trained[name], given[name], atol=1e-6, rtol=0)
    assert float(trained["feature_mean"].abs().max()) < 70
    assert json.loads((tmp_path / "out/training.json").read_text())["initial"] == "pretrained"


def test_a_run_whose_initial_encoder_changed_starts_anew(corpus, make_run, pretrained, monkeypatch, tmp_path, caplog):
    run, record = make_run("hard", initial="pretrained"), Trainer._record

    def recording(trainer, loss):
        record(trainer, loss)
        if trainer.position.step == 3:
            trainer._save()
            raise InterruptedError

    paths = dataclasses.replace(corpus.paths(tmp_path / "out"), initial=pretrained)
    monkeypatch.setattr(Trainer, "_record", recording)
    with pytest.raises(InterruptedError):
        train(run, paths=paths)
    monkeypatch.undo()
    with safe_open(pretrained, "pt") as file:
        metadata = file.metadata()
    save_file({name: x + 1 for name, x in load_file(pretrained).items()}, pretrained, metadata=metadata)
    with caplog.at_level("INFO"):
        train(run, paths=paths)
    assert "goes on from step" not in caplog.text


def test_an_encoder_of_another_size_is_refused_before_anything_is_written(corpus, make_run, tmp_path):
    path, output = tmp_path / "encoder.safetensors", tmp_path / "out"
    size = EncoderSize(layers=2, dim=8, heads=2, feed_forward=16, stack=4)
    save_encoder(BestRQ(size, mel_bins=6, quantizer_seed=0, codes=5), path)
    paths = dataclasses.replace(corpus.paths(output, teacher=False), initial=path)
    with pytest.raises(ValueError, match="holds an encoder with layers 2 instead of 1; pre-train one of the"):
        train(make_run(initial="pretrained"), paths=paths)
    assert not list(output.iterdir())


def test_a_recogniser_needs_tokens(corpus, make_run, tmp_path):
    with pytest.raises(ValueError, match="run: learns transcripts, which takes tokens; give --tokenizer"):
        train(make_run(), paths=inputs(corpus, tmp_path))
