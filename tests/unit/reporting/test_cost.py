from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from asr_distill.reporting.cost import Job, cost_text, estimates, recorded_seconds, wall_seconds


def write_benchmark(path: Path, seconds: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:00\t10\n")


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    work = tmp_path / "work/mini"
    trainings = [Job(rule="train", benchmark=work / f"study/{run}/seed0/train.tsv") for run in "abcd"]
    done = Job(rule="train", benchmark=work / "study/e/seed0/train.tsv", planned=False)
    others = [
        Job(rule="report"),
        Job(rule="decode", benchmark=work / "study/a/seed0/decode.tsv"),
        Job(rule="benchmarks", benchmark=tmp_path / "elsewhere.tsv"),
    ]
    return [*trainings, done, *others]


@pytest.fixture
def recorded(jobs: list[Job], tmp_path: Path) -> dict[int, float]:
    """Jobs a and e ran here, b and d when results were published, where a was faster; the last benchmark failed."""
    work, published = tmp_path / "work/mini", tmp_path / "published/mini"
    write_benchmark(work / "study/a/seed0/train.tsv", "100.0")
    write_benchmark(work / "study/e/seed0/train.tsv", "40.0")
    write_benchmark(work / "study/d/seed0/train.tsv", "NA")
    write_benchmark(tmp_path / "elsewhere.tsv", "7.0")
    for selection, seconds in (("core", {"a": 10.0, "b": 60.0}), ("table8", {"d": 50.0, "c": None})):
        folder = published / "study" / selection
        folder.mkdir(parents=True)
        listed = {f"study/{run}/seed0/train": {"seconds": value} for run, value in seconds.items()}
        (folder / "provenance.json").write_text(json.dumps({"jobs": listed}))
    return recorded_seconds(jobs, work=work, published=published)


def test_times_of_this_machine_come_before_published_ones(recorded: dict[int, float]) -> None:
    assert recorded == {0: 100.0, 1: 60.0, 3: 50.0, 4: 40.0}


def test_jobs_that_never_ran_take_the_median_of_their_rule(jobs: list[Job], recorded: dict[int, float]) -> None:
    found = estimates(jobs, recorded=recorded)
    assert sorted(found) == [0, 1, 2, 3, 5, 6, 7]  # the fifth is done
    assert (found[2].seconds, found[2].recorded) == (55.0, False)  # median of 100, 60, 50 and the done one's 40
    assert (found[0].seconds, found[0].recorded) == (100.0, True)
    assert all(math.isnan(found[place].seconds) for place in (5, 6, 7))


def test_text(jobs: list[Job], recorded: dict[int, float]) -> None:
    lines = cost_text(jobs, recorded=recorded, cores=2, gpus=0).splitlines()
    assert [line.split() for line in lines[1:7]] == [
        ["rule", "jobs", "recorded", "estimated", "unknown", "time"],
        ["train", "4", "3", "1", "0", "4", "min"],  # 100 + 60 + 55 + 50 s
        ["benchmarks", "1", "0", "0", "1", "?"],
        ["decode", "1", "0", "0", "1", "?"],
        ["report", "1", "0", "0", "1", "?"],
        ["total", "7", "3", "1", "3", "4", "min"],
    ]
    # two at a time, the longest first: 100 | 60 + 55 = 115, and then 50 on the first core: 150
    assert lines[7] == "Together on 2 cores: about 2 min, unknown jobs left out."
    assert "median" in lines[8]


def test_text_without_any_record(jobs: list[Job]) -> None:
    text = cost_text(jobs, recorded={}, cores=1, gpus=0)
    assert "No such job was recorded yet." in text
    assert "about" not in text


def test_published_results_that_cannot_be_read_are_named(jobs: list[Job], tmp_path: Path) -> None:
    path = tmp_path / "published/study/core/provenance.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"provenance\.json: is no JSON"):
        recorded_seconds(jobs, work=tmp_path, published=tmp_path / "published")


# Job 0 comes before 1 and 2, both before 3; job 4 waits for nothing.
DIAMOND = [
    Job(rule="first"),
    Job(rule="left", needs=(0,)),
    Job(rule="right", needs=(0,)),
    Job(rule="last", needs=(1, 2)),
    Job(rule="alone"),
]
SECONDS = {0: 10.0, 1: 5.0, 2: 20.0, 3: 1.0, 4: 12.0}


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        (1, 48.0),
        (2, 31.0),  # 0 and 4; 2 behind 0, 1 behind 4 at 12; 3 at 30
        (8, 31.0),  # the chain 0, 2, 3 cannot be shortened
    ],
)
def test_wall_time(cores: int, expected: float) -> None:
    assert wall_seconds(DIAMOND, seconds=SECONDS, cores=cores, gpus=0) == expected


def test_a_done_job_is_not_waited_for() -> None:
    seconds = {place: value for place, value in SECONDS.items() if place != 0}
    assert wall_seconds(DIAMOND, seconds=seconds, cores=8, gpus=0) == 21.0


def test_the_longest_chain_starts_first() -> None:
    jobs = [Job(rule="short"), Job(rule="short"), Job(rule="start"), Job(rule="long", needs=(2,))]
    assert wall_seconds(jobs, seconds={0: 10.0, 1: 10.0, 2: 5.0, 3: 30.0}, cores=2, gpus=0) == 35.0


def test_threads_and_gpus_limit_how_many_run_at_once() -> None:
    greedy = [Job(rule="synthesize", threads=1024), Job(rule="synthesize", threads=1), Job(rule="other", threads=3)]
    seconds = {0: 10.0, 1: 10.0, 2: 10.0}
    assert wall_seconds(greedy, seconds=seconds, cores=4, gpus=0) == 20.0
    on_gpus = [Job(rule="train", gpus=1) for _ in range(3)]
    assert wall_seconds(on_gpus, seconds=seconds, cores=8, gpus=2) == 20.0
    assert wall_seconds(on_gpus, seconds=seconds, cores=8, gpus=0) == 10.0


def test_nothing_takes_no_time() -> None:
    assert wall_seconds([], seconds={}, cores=2, gpus=0) == 0.0
