"""Starting several processes: what is refused, and what a user sees when one is killed, stopped or mistaken."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from asr_distill.training import launch as module
from asr_distill.training.launch import LOST_OTHERS, RENDEZVOUS, STOPPED, Layout

FOREVER = 10**6


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that says how many GPUs a machine has, without a SLURM job."""
    for name in ("SLURM_JOB_NUM_NODES", RENDEZVOUS):
        monkeypatch.delenv(name, raising=False)
    return lambda number: monkeypatch.setattr(module, "num_gpus", lambda: number)


@pytest.mark.parametrize(
    ("number", "layout", "message"),
    [
        (2, {"processes": 4}, "--processes: 4 is more than the 2 GPUs that this job has; write 2"),
        (0, {"processes": 4, "threads": 3}, "--processes: 4 without a GPU is more than --threads 3"),
        (
            8,
            {"processes": 5},
            "batch_utterances: 24 cannot be divided evenly among 5 processes; start 1 or 2 or 3 or 4",
        ),
        (9, {"processes": 9}, "among 9 processes; start 1 or 2 or 3 or 4 or 6 or 8, or write a multiple of 9"),
        (8, {"processes": 8, "nodes": 2}, "phases.p.batch_utterances: 24 cannot be divided evenly among 16 processes"),
        (8, {"processes": 4, "nodes": 2}, "--nodes: 2 is more than the 1 of this job; ask SLURM for them, or start"),
    ],
)
def test_what_cannot_work_is_refused(make_run, gpus, number, layout, message):
    gpus(number)
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        Layout(**layout).check(make_run(phase={"batch_utterances": 24}))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("number", "layout", "variables"),
    [
        (4, {"processes": 4}, {}),
        (0, {"processes": 2, "threads": 2}, {}),
        (4, {"processes": 4, "nodes": 3}, {"SLURM_JOB_NUM_NODES": "3"}),
        (4, {"processes": 4, "nodes": 3}, {RENDEZVOUS: "here:29400/1"}),
    ],
)
def test_what_can_work_is_not(make_run, gpus, monkeypatch, number, layout, variables):
    gpus(number)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    Layout(**layout).check(make_run(phase={"batch_utterances": 24}))


def failures(*codes):
    """Return what torchrun says of processes that ended with these statuses, in this order of time."""
    found = {}
    for rank, code in enumerate(codes):
        found[rank] = ProcessFailure(local_rank=rank, pid=rank, exitcode=code, error_file="")
        found[rank].timestamp = rank
    return found


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((LOST_OTHERS, -9, -15), "process 1 was killed by SIGKILL, perhaps for want of memory. The next attempt goes"),
        ((1, -11), "process 1 was killed by SIGSEGV; see its error above"),
        ((LOST_OTHERS, 143, 3, 1), "process 2 ended with exit status 3; see its error above"),
        ((LOST_OTHERS, LOST_OTHERS), "lost a process on another node; see its log"),
    ],
)
def test_the_process_that_failed_first_is_named(codes, expected):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        module._explain(failures(*codes))
    assert expected in str(error.value)


@pytest.mark.parametrize("codes", [(STOPPED, STOPPED), (STOPPED, -15)])
def test_a_stop_is_no_error(codes):
    with pytest.raises(SystemExit) as end:
        module._explain(failures(*codes))
    assert end.value.code == STOPPED == 143


@pytest.fixture
def command(corpus, make_run, tmp_path):
    """Return a function that starts the command line on a run, with the given options, and returns its process."""
    started = []
    output = tmp_path / "out"
    output.mkdir()

    def start(*options, prefix=(), tokenizer=corpus.tokenizer, **phase):
        run = make_run("supervised", phase={"checkpoint_seconds": 1e-3, "dev_every": FOREVER, **phase})
        (tmp_path / "run.yaml").write_text(run.to_yaml())
        words = [
            *prefix,
            sys.executable,
            "-m",
            "asr_distill",
            "train",
            tmp_path / "run.yaml",
            "--corpus",
            corpus.folder,
        ]
        words += ["--output", output, "--tokenizer", tokenizer, "--threads", 2, "--log", tmp_path / "log", *options]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        environment |= {"CUDA_VISIBLE_DEVICES": ""}
        started.append(
            subprocess.Popen([str(word) for word in words], env=environment, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until(condition, *, process, seconds=60):
    """Wait for something that the process is to bring about."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)


def log_lines(tmp_path: Path) -> str:
    return (tmp_path / "log").read_text()


def test_a_killed_process_ends_the_job_and_the_next_attempt_goes_on_until_it_is_stopped(command, tmp_path):
    state = tmp_path / "out" / "state"
    job = command("--processes", 2, steps=FOREVER)
    wait_until(lambda: list(state.glob("step*")), process=job)
    children = [child for child in psutil.Process(job.pid).children() if "asr_distill" in child.cmdline()]
    assert len(children) == 2
    victim = next(child for child in children if child.environ()["RANK"] == "1")
    victim.kill()
    assert job.wait(timeout=60) == 1
    assert job.stderr.read().splitlines() == [
        "error: process 1 was killed by SIGKILL, perhaps for want of memory. The next attempt goes on from the newest "
        "checkpoint"
    ]
    assert "process 1 was killed by SIGKILL" in log_lines(tmp_path)
    psutil.wait_procs(children, timeout=30)
    assert not any(child.is_running() for child in children)
    steps = len(list(state.glob("step*")))
    assert steps
    job = command("--processes", 2, steps=FOREVER)
    wait_until(lambda: "goes on from step" in log_lines(tmp_path), process=job)
    before = max(state.glob("step*"))
    wait_until(lambda: max(state.glob("step*")) > before, process=job)
    job.terminate()
    assert job.wait(timeout=60) == STOPPED
    assert job.stderr.read() == ""
    assert log_lines(tmp_path).count("goes on from step") == 1


def test_a_users_mistake_is_told_once(command, tmp_path, corpus):
    job = command("--processes", 2, tokenizer=corpus.pseudo_labels)
    assert job.wait(timeout=60) == 1
    shown = job.stderr.read().strip().splitlines()
    assert len(shown) == 1
    assert shown[0].startswith("error: ")
    assert "pseudo.jsonl" in shown[0]
    assert shown[0].removeprefix("error: ") in log_lines(tmp_path)


SRUN = """#!/bin/sh
# starts what follows the options twice, as on two nodes
echo "$@" > {folder}/called
while [ "${{1#--}}" != "$1" ]; do shift; done
"$@" & one=$!
"$@" & other=$!
wait $one && wait $other
"""


def test_on_several_nodes_srun_starts_one_agent_each(command, tmp_path, monkeypatch):
    for name, text in {
        "srun": SRUN.format(folder=tmp_path),
        "squeue": "#!/bin/sh\necho 2 localhost,other\n",  # Snakemake's plugin hides the variables that tell the nodes
        "scontrol": "#!/bin/sh\necho localhost\necho other\n",
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": os.getpid()}
    prefix = ["env", f"PATH={tmp_path}:{os.environ['PATH']}", *(f"{name}={value}" for name, value in slurm.items())]
    job = command("--nodes", 2, prefix=prefix, steps=3)
    _, errors = job.communicate(timeout=100)
    assert job.returncode == 0, errors
    assert "--nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=2" in (tmp_path / "called").read_text()
    assert '"processes": 2' in (tmp_path / "out" / "training.json").read_text()
