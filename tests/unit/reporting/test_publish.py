from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_study import FakeStudy

from asr_distill.reporting.publish import LARGEST_FIGURE, compare, publish


@pytest.fixture
def traced(reported_copy: FakeStudy) -> FakeStudy:
    set_git(reported_copy, {"commit": "abc", "dirty": False})
    return reported_copy


def set_git(fake: FakeStudy, git: dict[str, object] | None) -> None:
    path = fake.results / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"git": git}))


def test_publish(traced: FakeStudy, tmp_path: Path) -> None:
    (traced.results / "figures/huge.png").write_bytes(bytes(LARGEST_FIGURE))
    target = tmp_path / "published/fake/soft_vs_hard/core"
    (target / "tables").mkdir(parents=True)
    (target / "tables/of_an_older_study.md").touch()
    assert publish(traced.root / "results", published=tmp_path / "published") == [target]
    names = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    (traced.results / "figures/huge.png").unlink()
    assert {"scores.csv", "claims.md", "provenance.json", "tables/self_training.tex", "figures/captions.md"} <= names
    assert {"figures/lattice.svg", "figures/lattice.png", "times/times.csv"} <= names
    assert not names & {"report.html", "errors.csv", "figures/huge.png", "tables/of_an_older_study.md"}
    assert compare(traced.root / "results", published=tmp_path / "published") == "fake/soft_vs_hard/core: identical"


def test_published_results_are_no_results(traced: FakeStudy) -> None:
    results = traced.root / "results"
    for _ in range(2):
        assert publish(results, published=results / "published") == [results / "published/fake/soft_vs_hard/core"]


def test_refuses_what_nobody_can_trace(reported_copy: FakeStudy, tmp_path: Path) -> None:
    results, published = reported_copy.root / "results", tmp_path / "published"
    set_git(reported_copy, None)
    with pytest.raises(ValueError, match="names no commit"):
        publish(results, published=published)
    set_git(reported_copy, {"commit": "abc", "dirty": True})
    with pytest.raises(ValueError, match="uncommitted changes"):
        publish(results, published=published)
    assert not published.exists()
    assert publish(results, published=published, allow_dirty=True)
    (reported_copy.results / "provenance.json").unlink()
    with pytest.raises(ValueError, match=r"provenance\.json: is missing"):
        publish(results, published=published, allow_dirty=True)
    with pytest.raises(ValueError, match="run the workflow first"):
        publish(tmp_path / "nothing", published=published)


def test_benchmarks_are_published_too(traced: FakeStudy, tmp_path: Path) -> None:
    results, published = traced.root / "results", tmp_path / "published"
    folder = results / "benchmarks"
    folder.mkdir()
    (folder / "lattice.md").write_text("| ours |\n")
    (folder / "provenance.json").write_text(json.dumps({"git": {"commit": "abc", "dirty": False}, "complete": True}))
    assert publish(results, published=published) == [published / "fake/soft_vs_hard/core", published / "benchmarks"]
    assert (published / "benchmarks/lattice.md").read_text() == "| ours |\n"
    assert publish(results, published=published, studies=["fake/soft_vs_hard/core"]) == [
        published / "fake/soft_vs_hard/core"
    ]
    assert compare(results, published=published) == "fake/soft_vs_hard/core: identical"
    (folder / "provenance.json").write_text(json.dumps({"git": {"commit": "abc", "dirty": False}, "complete": False}))
    with pytest.raises(ValueError, match="tells of a trial"):
        publish(results, published=published)


def test_unknown_study(traced: FakeStudy, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'fake/soft_vs_hard/core'"):
        publish(traced.root / "results", published=tmp_path / "published", studies=["fake/soft_vs_hrd"])


def test_compare_tells_what_differs(traced: FakeStudy, tmp_path: Path) -> None:
    results = traced.root / "results"
    assert (
        compare(results, published=tmp_path / "published")
        == "fake/soft_vs_hard/core: nothing is published to compare with"
    )
    publish(results, published=tmp_path / "published")
    folder = tmp_path / "published/fake/soft_vs_hard/core"
    scores = (folder / "scores.csv").read_text().splitlines()
    row = next(n for n, line in enumerate(scores) if line.startswith("soft,mean,test-clean,"))
    cells = scores[row].split(",")
    scores[row] = ",".join([*cells[:-3], "55.000", "50.000", "60.000"])
    (folder / "scores.csv").write_text("\n".join(scores) + "\n")
    claims = (folder / "claims.csv").read_text()
    assert ",reproduced,reproduced\n" in claims
    (folder / "claims.csv").write_text(claims.replace(",reproduced,reproduced\n", ",reproduced,inconclusive\n"))
    text = compare(results, published=tmp_path / "published")
    assert f"soft on test-clean: WER {float(cells[-3]):.2f} %, published 55.00 % [50.0, 60.0]: outside" in text
    assert "of 20 word error rates 19 are equal, 0 differ within and 1 differ outside" in text
    assert "claim A2: reproduced, published inconclusive" in text


def test_compare_names_runs_of_one_side(traced: FakeStudy, tmp_path: Path) -> None:
    publish(traced.root / "results", published=tmp_path / "published")
    path = tmp_path / "published/fake/soft_vs_hard/core/scores.csv"
    kept = [line for line in path.read_text().splitlines() if not line.startswith("mixed,")]
    path.write_text("\n".join(kept) + "\n")
    assert "mixed on test-other: not published" in compare(traced.root / "results", published=tmp_path / "published")
