"""The profile for clusters on a real SLURM of one node: jobs die, its controller too, the tables stay the same."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import Cluster, missing, running_cluster

from conftest import ROOT, copy_workflow, snakemake, with_commands

pytestmark = pytest.mark.workflow

TABLE = "results/smoke/soft_vs_hard/table4"
PARTITIONS = "partitions:\n  cpu: {max_runtime: 2-00:00:00}\n  gpu: {max_runtime: 1-00:00:00, max_gpu: 2}\n"
REPORTING = (
    "score",
    "illustrate",
    "listen",
    "tables",
    "claims",
    "figures",
    "times",
    "provenance",
    "quarantine",
    "report",
)
ENDINGS = ("csv", "md", "tex")
SMALL = ("synthesize", "prepare", "prepare_training", "overview", "tokenizer")
"""Jobs of seconds at this scale, of hours at others."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Return a running cluster; a machine that cannot have one skips the test, unless skips are forbidden."""
    if lacks := missing():
        if os.environ.get("ASR_DISTILL_FORBID_SKIPS") == "1":
            pytest.fail(f"no SLURM here ({', '.join(lacks)} missing), and ASR_DISTILL_FORBID_SKIPS=1 forbids skipping")
        pytest.skip(f"no SLURM here: {', '.join(lacks)} missing")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # munged's user cannot enter pytest's folders
    folder.chmod(0o755)
    with running_cluster(folder / "cluster") as cluster:
        yield cluster
    shutil.rmtree(folder, ignore_errors=True)  # a step of a job may still be writing its last lines


def fill_in(folder: Path, **changed: str) -> None:
    """Copy the workflow and fill in its profile as a site does, for a node of two cores and two GPUs."""
    copy_workflow(folder)
    profile = folder / "profiles/slurm"
    (profile / "partitions.yaml").write_text(PARTITIONS)
    text = (profile / "config.yaml").read_text()
    values = {"cpus_per_gpu": "1", "latency-wait": "10", **changed}
    for key, value in values.items():
        text, found = re.subn(rf"(?m)^(\s*{key}: +)\S.*?( *#.*)?$", rf"\g<1>{value}\2", text, count=1)
        assert found == 1, key
    (profile / "config.yaml").write_text(text)


def command(*words: str, config: tuple[str, ...] = ("scale=smoke", "studies=[soft_vs_hard]")) -> list[str]:
    profile = ["--workflow-profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "3"]
    return [sys.executable, "-m", "snakemake", *words, *profile, "--cores", "2", "--config", *config]


def call(cluster: Cluster, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=folder,
        env=with_commands(cluster.environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def run(cluster: Cluster, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return call(cluster, folder, *command(*words))


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error: ")]


def kill_a_training(cluster: Cluster) -> str:
    """Kill the first process that trains with -9; return its job, which had one GPU of its own."""
    found: dict[str, list[int]] = {}

    def training() -> bool:
        jobs = [job for job, comment in cluster.running().items() if comment.startswith("rule_train")]
        found.update({job: cluster.processes(job, word="asr-distill\0train") for job in jobs})
        return any(found.values())

    cluster.wait_until(training, seconds=200)
    job, processes = next((job, processes) for job, processes in found.items() if processes)
    described = cluster.ask("scontrol", "show", "job", "--details", job)
    assert "JOB_GRES=gpu:1\n" in described
    assert "Partition=gpu " in described
    for process in processes:
        os.kill(process, signal.SIGKILL)
    return job


def cancel_a_job(cluster: Cluster, *, other_than: str) -> str:
    """Cancel the first job that runs; return it."""
    cluster.wait_until(lambda: bool(cluster.running().keys() - {other_than}), seconds=200)
    job = min(cluster.running().keys() - {other_than})
    cluster.ask("scancel", job)
    return job


def stop_the_controller_for_a_while(cluster: Cluster) -> None:
    """Let there be no controller for longer than the plugin waits between two looks at its jobs."""
    cluster.stop("slurmctld")
    time.sleep(10)
    cluster.start("slurmctld", "-D")


def test_a_profile_without_a_partition_ends_in_one_line(cluster: Cluster, tmp_path: Path) -> None:
    copy_workflow(tmp_path)
    done = run(cluster, tmp_path)
    assert done.returncode == 1
    assert len(errors(done)) == 1
    assert "profiles/slurm/partitions.yaml: no partition is named" in errors(done)[0]
    assert "has been submitted" not in done.stdout + done.stderr


def test_a_training_that_no_partition_has_room_for_ends_in_one_line(cluster: Cluster, tmp_path: Path) -> None:
    fill_in(tmp_path)
    done = run(cluster, tmp_path, "--set-resources", "train_teacher:gpu=4")
    assert done.returncode == 1
    assert len(errors(done)) == 1
    assert (
        "no partition fits 'train_teacher', which asks for 4 GPUs, 1 threads, 8000 MB, 1440 minutes" in errors(done)[0]
    )
    assert "has been submitted" not in done.stdout + done.stderr


def test_a_path_that_a_node_lacks_is_said_before_anything_is_computed(cluster: Cluster, tmp_path: Path) -> None:
    fill_in(tmp_path, precommand="sh profiles/slurm/node.sh work /no/such/corpora")
    done = run(cluster, tmp_path, "--retries", "0", "work/smoke/synthetic")
    assert done.returncode == 1
    assert len(errors(done)) == 1
    assert "/no/such/corpora is not there on compute node" in errors(done)[0]
    assert not (tmp_path / "work/smoke/synthetic").exists()


def test_a_whole_scale_may_be_one_job(cluster: Cluster, tmp_path: Path) -> None:
    copy_workflow(tmp_path)
    page = (ROOT / "docs/clusters.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith("sbatch "))
    assert line.endswith("scale=smoke'")
    done = call(cluster, tmp_path, "bash", "-c", f"{line[:-1]} -- work/smoke/synthetic'")
    assert done.returncode == 0, done.stderr + "".join(path.read_text() for path in tmp_path.glob("slurm-*.out"))
    assert any((tmp_path / "work/smoke/synthetic").iterdir())


def test_what_the_page_says_of_nodes_without_internet(tmp_path: Path) -> None:
    copy_workflow(tmp_path)
    page = (ROOT / "docs/clusters.md").read_text(encoding="utf-8")
    section = page[page.index("## Compute nodes without internet") :]
    commands = section[section.index("```sh\n") + 6 :].split("```")[0]
    assert "asr-distill download work/librispeech_100/corpus.yaml" in commands
    here = commands.replace("librispeech_100", "mini")  # where nothing has to be downloaded
    done = subprocess.run(
        ["bash", "-euc", here],
        cwd=tmp_path,
        env=with_commands(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "work/mini/corpus.yaml: no part says download: true" in done.stdout


def test_the_tables_of_a_disturbed_run_are_those_of_a_local_one(
    cluster: Cluster, smoke_run: Path, tmp_path: Path
) -> None:
    """One table, with all that it needs from the corpus on: every kind of job, and CI has no time for more."""
    local, disturbed = tmp_path / "local", tmp_path / "disturbed"
    shutil.copytree(smoke_run, local)
    done = snakemake(local, "scale=smoke", "studies=[soft_vs_hard]", options=("table4",))
    assert done.returncode == 0, done.stderr[-2000:]
    disturbed.mkdir()
    fill_in(disturbed)
    killed, cancelled, said = run_disturbed(cluster, disturbed, "table4")
    assert f"SLURM-job '{killed}' failed, SLURM status is: 'FAILED'" in said
    assert f"SLURM-job '{cancelled}' failed, SLURM status is: 'CANCELLED'" in said
    assert said.count("Trying to restart job") >= 2  # what is sent while there is no controller has failed, too
    for name in ("scores.csv", "claims.csv", "claims.md", "claims.tex", *(f"tables/table4.{x}" for x in ENDINGS)):
        assert (disturbed / TABLE / name).read_bytes() == (local / TABLE / name).read_bytes(), name


def wait_until_said(log: Path, text: str) -> None:
    """Wait until a log holds a text."""
    deadline = time.monotonic() + 240
    while text not in log.read_text():
        assert time.monotonic() < deadline, f"{text!r} is not in {log} after 240 s:\n{log.read_text()[-2000:]}"
        time.sleep(0.5)


def run_disturbed(cluster: Cluster, folder: Path, target: str) -> tuple[str, str, str]:
    """Run the workflow while things die; return the killed job, the cancelled one, and what Snakemake said."""
    groups = [f"{rule}=report" for rule in REPORTING] + [f"{rule}=corpus" for rule in SMALL]
    log = folder / "snakemake.log"
    with log.open("w") as output:
        workflow = subprocess.Popen(
            command(target, "--groups", *groups),
            cwd=folder,
            env=with_commands(cluster.environment),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            killed = kill_a_training(cluster)
            wait_until_said(log, f"SLURM-job '{killed}' failed")
            stop_the_controller_for_a_while(cluster)
            cancelled = cancel_a_job(cluster, other_than=killed)
            workflow.wait(timeout=600)
        finally:
            workflow.terminate()
            workflow.wait()
    said = log.read_text()
    assert workflow.returncode == 0, said[-4000:]
    return killed, cancelled, said
