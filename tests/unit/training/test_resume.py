"""A whole small training: undisturbed, stopped, killed, with losses that are not finite."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
from unittest import mock

import pytest
import torch

from asr_distill.models.storage import load_model
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training import build
from asr_distill.training import loop as module
from asr_distill.training.loop import MAX_NON_FINITE, Trainer, train
from asr_distill.training.objective import Objective

STEPS = 9  # three epochs


@pytest.fixture(autouse=True)
def keep_signal_handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def at_step(monkeypatch):
    """Return a function that lets something happen at the end of each of the given steps, once."""

    def install(steps, action):
        pending, record = set(steps), Trainer._record

        def recording(trainer, loss):
            record(trainer, loss)
            if trainer.position.step in pending:
                pending.remove(trainer.position.step)
                action()

        monkeypatch.setattr(Trainer, "_record", recording)

    return install


def ask_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


class PowerCutError(Exception):
    pass


def cut_power():
    raise PowerCutError


def weights(output):
    return (output / "model.safetensors").read_bytes()


def curve(output):
    """Return the learning curve without the column of seconds."""
    with (output / "curve.csv").open(newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def tensors(corpus, output):
    fingerprint = Tokenizer.load(corpus.tokenizer).fingerprint
    return load_model(output / "model.safetensors", tokenizer=fingerprint).state_dict()


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    """Return a function that trains a run once, without a stop, and remembers its folder."""
    outputs = {}

    def get(run):
        key = run.to_yaml()
        if key not in outputs:
            outputs[key] = tmp_path_factory.mktemp("undisturbed")
            train(run, paths=corpus.paths(outputs[key], teacher=run.run.teacher is not None))
        return outputs[key]

    return get


def test_equal_runs_are_equal_to_the_last_byte(corpus, make_run, undisturbed, tmp_path):
    run = make_run("mixed")
    for attempt in range(4):
        train(run, paths=corpus.paths(tmp_path / str(attempt)))
        assert weights(tmp_path / str(attempt)) == weights(undisturbed(run))
        assert curve(tmp_path / str(attempt)) == curve(undisturbed(run))


@pytest.mark.parametrize("targets", ["supervised", "soft"])
@pytest.mark.parametrize("stops", [[1], [3], [2, 5, 6], [STEPS]])
def test_a_run_that_is_asked_to_stop_goes_on_as_if_it_never_had(
    corpus, make_run, undisturbed, at_step, tmp_path, targets, stops
):
    run = make_run(targets, phase={"ctc_warmup_share": 0.3})
    paths = corpus.paths(tmp_path, teacher=targets == "soft")
    expected = undisturbed(run)
    at_step(stops, ask_to_stop)
    for stop in stops:
        with pytest.raises(SystemExit) as error:
            train(run, paths=paths)
        assert error.value.code == 128 + signal.SIGTERM == 143
        assert not (tmp_path / "model.safetensors").exists()
        assert [path.name for path in (tmp_path / "state").glob(f"step*{stop}*")]
    train(run, paths=paths)
    for name, tensor in tensors(corpus, expected).items():
        assert torch.equal(tensors(corpus, tmp_path)[name], tensor), name
    assert curve(tmp_path) == curve(expected)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("kill", [1, 4, STEPS])
def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(
    corpus, make_run, undisturbed, at_step, tmp_path, caplog, kill
):
    run = make_run("hard", phase={"checkpoint_seconds": 1e-9})
    expected = undisturbed(run)
    at_step([kill], cut_power)
    with pytest.raises(PowerCutError):
        train(run, paths=corpus.paths(tmp_path))
    with caplog.at_level("INFO"):
        train(run, paths=corpus.paths(tmp_path))
    assert (f"goes on from step {kill - 1}" in caplog.text) == (kill > 1)
    for name, tensor in tensors(corpus, expected).items():
        assert torch.equal(tensors(corpus, tmp_path)[name], tensor), name
    assert curve(tmp_path) == curve(expected)


@pytest.mark.parametrize("change", ["run", "teacher", "pseudo-labels"])
def test_a_run_whose_inputs_changed_starts_anew(corpus, make_run, at_step, tmp_path, caplog, monkeypatch, change):
    at_step([3], ask_to_stop)
    paths = corpus.paths(tmp_path / "out")
    with pytest.raises(SystemExit):
        train(make_run("hard"), paths=paths)
    run = make_run("hard", phase={"learning_rate": 2e-2} if change == "run" else None)
    changed = {"teacher": corpus.teacher, "pseudo-labels": corpus.pseudo_labels}.get(change)
    if changed is not None:
        content = changed.read_bytes()
        copy = tmp_path / changed.name
        copy.write_bytes(content.replace(b"YES", b"NO") if change == "pseudo-labels" else content[:-1] + b"\x3f")
        paths = module.TrainingPaths(
            **vars(paths) | ({"pseudo_labels": [copy]} if change == "pseudo-labels" else {"teacher": copy})
        )
    with caplog.at_level("INFO"):
        train(run, paths=paths)
    assert "goes on from step" not in caplog.text


def test_a_disk_that_is_full_at_a_checkpoint_ends_the_run_and_costs_nothing(
    corpus, make_run, undisturbed, at_step, monkeypatch, tmp_path
):
    run = make_run(phase={"checkpoint_seconds": 1e-9})
    paths = corpus.paths(tmp_path, teacher=False)
    full = []

    def fill_the_disk():
        path = next((tmp_path / "state").glob("step00000004*"))
        fifth = path.name.replace("step00000004", "step00000005")
        full.append(path.with_name(f".{fifth}.{os.getpid()}"))
        remove = type(path).unlink
        monkeypatch.setattr(type(path), "unlink", lambda path, **options: path in full or remove(path, **options))
        full[0].symlink_to("/dev/full")  # where every byte is one too many
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: mock.Mock(free=0))

    at_step([5], fill_the_disk)
    with pytest.raises(OSError, match="No space left on device") as error:
        train(run, paths=paths)
    assert error.value.errno == errno.ENOSPC
    assert "step00000005" in error.value.filename
    monkeypatch.undo()
    full[0].unlink(missing_ok=True)
    assert sorted(path.name[:12] for path in (tmp_path / "state").iterdir()) == ["step00000003", "step00000004"]
    train(run, paths=paths)
    assert weights(tmp_path) == weights(undisturbed(make_run()))


def test_a_checkpoint_that_does_not_fit_the_model_is_refused_in_one_line(corpus, make_run, at_step, tmp_path):
    at_step([3], ask_to_stop)
    paths = corpus.paths(tmp_path, teacher=False)
    with pytest.raises(SystemExit):
        train(make_run(), paths=paths)
    (path,) = (tmp_path / "state").iterdir()
    state = torch.load(path, weights_only=True)
    state["model"] = {f"old.{name}": tensor for name, tensor in state["model"].items()}
    torch.save(state, path)
    message = rf"^{path}: does not fit this model \(.*\); remove {path.parent} to start anew$"
    with pytest.raises(ValueError, match=message):
        train(make_run(), paths=paths)


@pytest.mark.parametrize("changes", [{"micro_batch_utterances": 3}, {"sharded": True}])
def test_how_work_is_divided_may_change_on_the_way(corpus, make_run, at_step, caplog, tmp_path, changes):
    at_step([3], ask_to_stop)
    paths = corpus.paths(tmp_path, teacher=False)
    with pytest.raises(SystemExit):
        train(make_run(), paths=paths)
    with caplog.at_level("INFO"):
        train(make_run(phase=changes), paths=paths)
    assert "goes on from step 3" in caplog.text


def test_what_is_written_beside_the_model(corpus, make_run, undisturbed):
    output = undisturbed(make_run("mixed"))
    assert sorted(path.name for path in output.iterdir()) == ["curve.csv", "model.safetensors", "training.json"]
    rows = curve(output)
    assert [int(row["step"]) for row in rows] == [4, 8, STEPS]
    assert all(float(row["wer/dev"]) >= 0 for row in rows)
    summary = json.loads((output / "training.json").read_text())
    assert summary["steps"] == STEPS
    assert summary["epochs"] >= 1
    assert (summary["targets"], summary["teacher"], summary["skipped_batches"]) == ("mixed", "teacher", 0)
    assert summary["hours"] == summary["labelled_hours"] + summary["unlabelled_hours"] > 0
    assert summary["device"] == "cpu" or torch.cuda.is_available()


def test_training_lowers_the_loss(corpus, make_run, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "CURVE_EVERY", 1)
    run = make_run(phase={"steps": 60, "dev_every": 60, "learning_rate": 3e-2})
    train(run, paths=corpus.paths(tmp_path, teacher=False))
    losses = [float(row["loss"]) for row in curve(tmp_path)]
    assert len(losses) == 60
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_seeds_give_different_models(corpus, make_run, undisturbed):
    first, second = (tensors(corpus, undisturbed(make_run("mixed", seed=seed))) for seed in (0, 1))
    assert not torch.equal(first["joint.output.weight"], second["joint.output.weight"])


@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_a_run_on_unlabelled_speech_alone(corpus, make_run, undisturbed, targets):
    output = undisturbed(make_run(targets, audio=["unlabelled"]))
    summary = json.loads((output / "training.json").read_text())
    assert summary["labelled_hours"] == 0
    assert summary["unlabelled_hours"] > 0
    assert all(torch.isfinite(tensor).all() for tensor in tensors(corpus, output).values())


def test_student_and_teacher_normalise_alike(corpus, make_run, undisturbed):
    teacher = load_model(corpus.teacher, tokenizer=Tokenizer.load(corpus.tokenizer).fingerprint)
    student = tensors(corpus, undisturbed(make_run("mixed")))
    assert torch.equal(student["feature_mean"], teacher.feature_mean)
    assert torch.equal(student["feature_deviation"], teacher.feature_deviation)


def undefined(loss, parameter):
    return loss * float("nan")


def without_slope(loss, parameter):
    return loss + torch.sqrt(0 * parameter.sum())  # adds 0, whose gradient is not a number


def spoil(monkeypatch, steps, how=undefined):
    """Spoil the loss of these steps, counted from 0."""
    count = iter(range(10**6))

    class Spoilt(Objective):
        def forward(self, batch, **options):
            loss = super().forward(batch, **options)
            return how(loss, self.student.joint.output.bias) if next(count) in steps else loss

    monkeypatch.setattr(build, "Objective", Spoilt)


@pytest.mark.parametrize("how", [undefined, without_slope])
def test_losses_and_gradients_that_are_not_finite_are_skipped_and_counted(corpus, make_run, monkeypatch, tmp_path, how):
    spoil(monkeypatch, {0, 4, 5}, how)
    train(make_run(), paths=corpus.paths(tmp_path, teacher=False))
    assert json.loads((tmp_path / "training.json").read_text())["skipped_batches"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in tensors(corpus, tmp_path).values())


@pytest.mark.parametrize("in_a_row", [MAX_NON_FINITE - 1, MAX_NON_FINITE])
def test_too_many_in_a_row_end_the_run(corpus, make_run, monkeypatch, tmp_path, in_a_row):
    first = 2
    spoil(monkeypatch, set(range(first, first + in_a_row)) | {first + in_a_row + 1})
    run = make_run(phase={"steps": 26, "dev_every": 26})
    paths = corpus.paths(tmp_path, teacher=False)
    if in_a_row < MAX_NON_FINITE:
        train(run, paths=paths)
        assert json.loads((tmp_path / "training.json").read_text())["skipped_batches"] == in_a_row + 1
    else:
        message = r"run: the loss was not finite 20 times in a row \(step 22\); lower phases\.p\.learning_rate"
        with pytest.raises(ValueError, match=message):
            train(run, paths=paths)
