"""Two processes train as one does: losses, weights, skipped steps, stops, restarts on another number of processes."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import rank_worker
import torch
from rank_worker import Job, train_disturbed
from safetensors.torch import load_file

from asr_distill.experiment import RunRecord

SMOOTH = {"layers": 2, "dim": 8, "heads": 2, "feed_forward": 16, "stack": 4, "dropout": 0.0}
SIZE = {"encoder": SMOOTH, "predictor": {"dim": 8, "dropout": 0.0}, "joint": 8}
CTC_SIZE = {
    "encoder": {**SMOOTH, "stack": 2},
    "decoder": {"layers": 1, "heads": 2, "dim": 8, "feed_forward": 16, "dropout": 0},
}
STEPS = 9


@pytest.fixture(autouse=True)
def keep_signal_handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def runs(make_run) -> dict[str, RunRecord]:
    """Return the runs that are compared, without anything random, but for the one that is called so."""

    def described(targets="mixed", *, augmentation=None, model=SIZE, **phase):
        return make_run(targets, phase=phase, augmentation=augmentation or {}, model=model)

    warm_up = {"ctc_warmup_share": 0.3}
    values = described().model_dump()
    ctc = {"recogniser": "ctc", "model": "m", "phase": "p", "augmentation": "a", "decoder": "cross_entropy"}
    best_rq = {"recogniser": "best_rq", "model": "m", "phase": "p", "audio": ["labelled", "unlabelled"]}
    asked = {"codes": 12, "code_dim": 4, "masking": {"span": 8}}
    unlabelled_too = {"dev": [], "pretraining": asked, "run": best_rq}
    random = make_run("mixed")
    return {
        "distilled": described(**warm_up),
        "ctc": RunRecord.model_validate(values | {"run": ctc, "model": CTC_SIZE, "unlabelled": []}),
        "sharded": described(**warm_up, sharded=True),
        "random": random,
        "pretraining": RunRecord.model_validate(values | unlabelled_too),
        "in turn": described(micro_batch_utterances=2),
        "supervised": described("supervised"),
    }


def paths(corpus, output, run) -> dict[str, object]:
    """Return a run's inputs and the folder of its outputs."""
    pretrains = run.run.recogniser == "best_rq"
    found = corpus.paths(output, teacher=run.run.recogniser == "transducer" and run.run.teacher is not None)
    return vars(dataclasses.replace(found, tokenizer=None) if pretrains else found)


def changed(run: RunRecord, **phase) -> RunRecord:
    return run.model_copy(update={"phase": run.phase.model_copy(update=phase)})


@pytest.fixture(scope="module")
def train_alone(corpus, tmp_path_factory):
    """Return a function that trains a run in this process and returns the folder of its outputs."""

    def alone(run, *, output=None, **disturbed) -> Path:
        output = output or tmp_path_factory.mktemp("alone")
        train_disturbed(Job(run=run.to_yaml(), paths=paths(corpus, output, run), **disturbed))
        return output

    return alone


@pytest.fixture(scope="module")
def together(corpus, runs, train_alone, tmp_path_factory) -> Path:
    """Train, in two processes, all runs and some disturbed ones into folders of their own."""
    folder = tmp_path_factory.mktemp("together")
    supervised = runs["supervised"]
    disturbed = {
        "spoilt": {"spoilt": [(3, 1), (5, 0)]},
        "refused": {"spoilt": [(3, 1), (5, 0)], "refused": True},
        "sharded, refused": {"spoilt": [(3, 1), (5, 0)], "refused": True},
        "always spoilt": {"spoilt": [(step, 1) for step in range(1, 40)]},
        "stopped": {"stopped_after": 4},
        "sharded, stopped": {"stopped_after": 4},
        "goes on": {},
        "sharded, goes on": {},
    }
    of_disturbed = {name: runs["sharded" if "sharded" in name else "supervised"] for name in disturbed}
    of_disturbed["always spoilt"] = changed(supervised, steps=40)
    for name in ("goes on", "sharded, goes on"):
        _stopped_and_truncated(of_disturbed[name], folder / name, train_alone)
    everything = {name: (run, {}) for name, run in runs.items()}
    everything |= {name: (run, disturbed[name]) for name, run in of_disturbed.items()}
    jobs = [
        Job(run=run.to_yaml(), paths=paths(corpus, folder / name, run), port=_free_port(), **how)
        for name, (run, how) in everything.items()
    ]
    (folder / "jobs.json").write_text(rank_worker.as_json(jobs))
    _in_two_processes(folder / "jobs.json")
    return folder


def _stopped_and_truncated(run, output, train_alone) -> None:
    """Leave what one process leaves that was stopped after four steps, and a newer checkpoint that is cut off."""
    train_alone(run, output=output, stopped_after=4)
    (state,) = (output / "state").iterdir()
    newer = state.with_name(state.name.replace("step00000004", "step00000005"))
    newer.write_bytes(state.read_bytes()[:-100])


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def _in_two_processes(jobs: Path) -> None:
    """Run the list of jobs as torchrun would."""
    common = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "TORCHELASTIC_RUN_ID": "test"}
    command = [sys.executable, rank_worker.__file__, str(jobs)]
    with contextlib.ExitStack() as stack:
        started = []
        for rank in (0, 1):
            settings = common | {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "CUDA_VISIBLE_DEVICES": ""}
            environment = os.environ | {name: str(value) for name, value in settings.items()}
            errors = stack.enter_context((jobs.parent / f"errors{rank}").open("w"))
            started.append(stack.enter_context(subprocess.Popen(command, env=environment, stderr=errors)))
    ended = [process.returncode for process in started]
    assert ended == [0, 0], "\n".join((jobs.parent / f"errors{rank}").read_text() for rank in (0, 1))


def losses(output: Path) -> list[float]:
    with (output / "curve.csv").open(newline="", encoding="utf-8") as file:
        return [float(row["loss"] or "nan") for row in csv.DictReader(file)]


def word_error_rates(output: Path) -> list[str]:
    with (output / "curve.csv").open(newline="", encoding="utf-8") as file:
        return [row["wer/dev"] for row in csv.DictReader(file)]


def weights(output: Path) -> dict[str, torch.Tensor]:
    return {file.name + name: x for file in output.glob("*.safetensors") for name, x in load_file(file).items()}


def assert_same_training(one: Path, other: Path) -> None:
    assert len(losses(one)) == STEPS
    assert losses(one) == pytest.approx(losses(other), rel=1e-4, nan_ok=True)
    assert weights(one).keys() == weights(other).keys()
    for name, tensor in weights(other).items():
        difference = (weights(one)[name] - tensor).abs().max()
        assert difference < 1e-3, name  # a step is ten times that; Adam makes the most of rounding


@pytest.mark.parametrize("name", ["distilled", "ctc", "sharded", "supervised"])
def test_two_processes_train_as_one_does(together, runs, train_alone, name):
    alone = train_alone(runs[name])
    assert_same_training(together / name, alone)
    assert word_error_rates(together / name) == word_error_rates(alone)
    summaries = [json.loads((folder / "training.json").read_text()) for folder in (together / name, alone)]
    assert [summary.pop("processes") for summary in summaries] == [2, 1]
    for summary in summaries:
        del summary["seconds"]
    assert summaries[0] == summaries[1]
    assert not (together / name / "state").exists()


@pytest.mark.parametrize("name", ["random", "pretraining"])
def test_what_is_random_depends_on_the_share_and_not_on_who_computes_it(together, runs, train_alone, name):
    assert_same_training(together / name, train_alone(runs[name], as_two=True))


@pytest.mark.parametrize("largest", [1, 2, 3, 5])
def test_adding_up_gradients_gives_those_of_the_whole_batch(runs, train_alone, largest):
    whole = train_alone(runs["supervised"])
    assert_same_training(train_alone(changed(runs["supervised"], micro_batch_utterances=largest)), whole)


def test_processes_add_up_gradients_too(together, runs, train_alone):
    whole = changed(runs["in turn"], micro_batch_utterances=None)
    assert_same_training(together / "in turn", train_alone(whole))


@pytest.mark.parametrize("name", ["spoilt", "refused", "sharded, refused"])
def test_a_loss_that_is_not_finite_in_one_process_is_skipped_by_all(together, runs, train_alone, name):
    run = runs["sharded" if "sharded" in name else "supervised"]
    alone = train_alone(run, as_two=True, spoilt=[(3, 1), (5, 0)])
    assert_same_training(together / name, alone)
    assert json.loads((together / name / "training.json").read_text())["skipped_batches"] == 2


def test_such_losses_in_a_row_end_the_run_in_all_processes(together):
    shown = [(together / "always spoilt" / f"error{rank}").read_text() for rank in (0, 1)]
    expected = "run: the loss was not finite 20 times in a row (step 21); lower phases.p.learning_rate"
    assert shown == [expected] * 2


@pytest.mark.parametrize("name", ["stopped", "sharded, stopped"])
def test_one_process_that_is_asked_to_stop_stops_all_and_one_alone_goes_on(together, runs, train_alone, tmp_path, name):
    run = runs["sharded" if "sharded" in name else "supervised"]
    assert [(together / name / f"exit{rank}").read_text() for rank in (0, 1)] == ["143", "143"]
    assert [path.name[:12] for path in (together / name / "state").iterdir()] == ["step00000004"]
    shutil.copytree(together / name / "state", tmp_path / "state")
    alone = next((train_alone(run, stopped_after=4) / "state").iterdir())
    norms = [torch.load(next(path.iterdir()))["clip"] for path in (tmp_path / "state", alone.parent)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)  # of the whole gradient, which Adam's steps do not tell
    assert_same_training(train_alone(run, output=tmp_path), train_alone(run))


@pytest.mark.parametrize("name", ["goes on", "sharded, goes on"])
def test_two_processes_go_on_where_one_stopped_before_a_truncated_checkpoint(together, runs, train_alone, name):
    run = runs["sharded" if "sharded" in name else "supervised"]
    assert_same_training(together / name, train_alone(run))
    assert json.loads((together / name / "training.json").read_text())["processes"] == 2
