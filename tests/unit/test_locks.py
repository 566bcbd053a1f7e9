"""Locks of a workflow's folder and of a job's: who has them, what a killed process leaves, and who must wait."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asr_distill.locks import Lock, lock_job, lock_workflow

HOLD = """
import sys, time
from pathlib import Path
from asr_distill.locks import Lock
lock = Lock(Path(sys.argv[1]))
assert lock.acquire()
lock.sign()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def hold():
    """Start processes that hold a lock; those left are killed at the end."""
    started = []

    def start(path: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def leave_snakemake_s_lock(folder: Path) -> Path:
    path = folder / "locks" / "0.output.lock"
    path.parent.mkdir(parents=True)
    path.write_text("results/table.csv\n", encoding="utf-8")
    return path


def test_a_lock_is_free_when_its_process_is_killed(tmp_path, hold):
    path = tmp_path / "x.lock"
    process = hold(path)
    assert not Lock(path).acquire()
    assert Lock(path).holder().pid == process.pid
    process.kill()
    process.wait()
    assert Lock(path).acquire()


def test_a_file_system_without_locks_keeps_nobody_from_working(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = Lock(tmp_path / "x.lock")
    assert lock.acquire()
    lock.sign()
    assert lock.holder().pid == os.getpid()


def test_the_second_workflow_is_told_who_has_the_folder(tmp_path, hold):
    process = hold(tmp_path / "asr-distill.lock")
    left = leave_snakemake_s_lock(tmp_path)
    with pytest.raises(ValueError, match=rf"another workflow runs.*process {process.pid} on {socket.gethostname()}"):
        lock_workflow(tmp_path)
    assert left.exists()


def test_what_a_killed_workflow_locked_is_cleared(tmp_path, hold):
    process = hold(tmp_path / "asr-distill.lock")
    leave_snakemake_s_lock(tmp_path)
    process.kill()
    process.wait()
    lock, told = lock_workflow(tmp_path)
    assert f"process {process.pid}" in told
    assert not (tmp_path / "locks").exists()
    assert lock.holder().pid == os.getpid()


def test_what_another_machine_locked_is_left_alone(tmp_path):
    left = leave_snakemake_s_lock(tmp_path)
    holder = {"pid": 1, "host": "elsewhere.example", "since": "2026-01-01 00:00:00", "command": "snakemake"}
    (tmp_path / "asr-distill.lock").write_text(json.dumps(holder), encoding="utf-8")
    _, told = lock_workflow(tmp_path)
    assert "elsewhere.example" in told
    assert "snakemake --unlock" in told
    assert left.exists()


def test_a_folder_that_nobody_locked_needs_no_words(tmp_path):
    lock, told = lock_workflow(tmp_path / "new")
    assert told == ""
    lock.release()
    assert lock_workflow(tmp_path / "new")[1] == ""


def test_a_damaged_signature_is_nobody_s(tmp_path):
    (tmp_path / "asr-distill.lock").write_text('{"pid"', encoding="utf-8")
    leave_snakemake_s_lock(tmp_path)
    assert "unknown" in lock_workflow(tmp_path)[1]


def test_a_job_left_behind_is_asked_to_leave(tmp_path, hold):
    process = hold(tmp_path / "job.lock")
    lock = lock_job(tmp_path, patience=30)
    assert process.wait() == -signal.SIGTERM
    assert lock.holder().pid == os.getpid()


def test_a_job_that_stays_is_named(tmp_path, hold):
    process = hold(tmp_path / "job.lock")
    os.kill(process.pid, signal.SIGSTOP)  # so that it does not hear
    before = time.monotonic()
    with pytest.raises(ValueError, match=rf"another job works here \(process {process.pid}"):
        lock_job(tmp_path, patience=1)
    assert time.monotonic() - before < 30


def test_a_job_on_another_machine_is_not_waited_for(tmp_path, hold):
    hold(tmp_path / "job.lock")
    holder = {"pid": 1, "host": "elsewhere.example", "since": "2026-01-01 00:00:00", "command": "train"}
    (tmp_path / "job.lock").write_text(json.dumps(holder), encoding="utf-8")
    with pytest.raises(ValueError, match=r"on elsewhere\.example"):
        lock_job(tmp_path, patience=300)
