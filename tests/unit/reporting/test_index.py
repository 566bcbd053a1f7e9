"""The page about published results: every report, links that lead somewhere, and the commands."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from fake_study import FakeStudy

from asr_distill.reporting.index import write_index

ROOT = Path(__file__).parents[3]


@pytest.fixture
def published(reported_copy: FakeStudy, tmp_path: Path) -> Path:
    """Publish the fake study as the core at `mini`, and with three seeds as a table at `an4`."""
    folder = tmp_path / "results/published"
    core, table = folder / "mini/soft_vs_hard/core", folder / "an4/soft_vs_hard/table4"
    shutil.copytree(reported_copy.results, core)
    shutil.copytree(reported_copy.results, table)
    change_provenance(core, seeds=[0], git={"commit": "0123456789abcdef", "dirty": False})
    change_provenance(table, seeds=[0, 1, 2], git=None)
    return folder


def change_provenance(folder: Path, **values: object) -> None:
    path = folder / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def page_about(published: Path, *, readings: Path) -> str:
    page = published.parent / "README.md"
    write_index(published, page, config=ROOT / "config", readings=readings)
    return page.read_text()


def test_every_report_is_told_with_its_commit_and_its_command(published: Path, tmp_path: Path) -> None:
    text = page_about(published, readings=tmp_path)
    assert "| mini | soft_vs_hard | [core](#mini-soft_vs_hard-core) | 1 |" in text
    assert "| an4 | soft_vs_hard | [table4](#an4-soft_vs_hard-table4) | 3 |" in text
    assert "Training seeds: 0, 1, 2; no commit" in text
    assert "commit `0123456789`" in text
    assert "\nsnakemake --cores all --config scale=mini studies='[soft_vs_hard]'\n" in text
    seeds = "seeds='[0,1,2]' data=/corpora"
    assert f"\nsnakemake --cores all --config scale=an4 studies='[soft_vs_hard]' {seeds} -- table4\n" in text
    assert f"`snakemake --cores all --config scale=an4 studies='[soft_vs_hard]' {seeds} -- self_training`" in text
    assert "-- corpus`" not in text
    assert "Real speech, CMU Census (AN4)" in text


def test_links_lead_somewhere(published: Path, tmp_path: Path) -> None:
    text = page_about(published, readings=tmp_path)
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert len(links) > 20
    for link in links:
        found = f'<a id="{link[1:]}">' in text if link.startswith("#") else (published.parent / link).is_file()
        assert found, link


def test_what_we_make_of_results_stands_above_them(published: Path, tmp_path: Path) -> None:
    (tmp_path / "mini.soft_vs_hard.md").write_text("Students are far from converged.\n")
    text = page_about(published, readings=tmp_path)
    assert text.count("Students are far from converged.") == 1
    assert text.index("## mini") < text.index("Students are far") < text.index('<a id="mini-soft_vs_hard-core">')


def test_benchmarks_have_a_section(published: Path, tmp_path: Path) -> None:
    assert "## Speed and memory" not in page_about(published, readings=tmp_path)
    (published / "benchmarks").mkdir()
    (published / "benchmarks/lattice.md").write_text("# Lattice losses\n")
    (published / "benchmarks/provenance.json").write_text(json.dumps({"git": {"commit": "abc", "dirty": False}}))
    text = page_about(published, readings=tmp_path)
    assert "[Lattice losses](published/benchmarks/lattice.md)" in text
    assert "Commit `abc`" in text


def test_uncommitted_changes_are_told(published: Path, tmp_path: Path) -> None:
    change_provenance(published / "mini/soft_vs_hard/core", git={"commit": "0123456789abcdef", "dirty": True})
    assert "commit `0123456789` with uncommitted changes, finished" in page_about(published, readings=tmp_path)


def test_another_page_is_not_replaced(published: Path, tmp_path: Path) -> None:
    page = published.parent / "README.md"
    page.write_text("# My project\n")
    with pytest.raises(ValueError, match=r"README\.md: is another page"):
        page_about(published, readings=tmp_path)
    assert page.read_text() == "# My project\n"


def test_the_page_in_the_repository_is_up_to_date(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "results/published", tmp_path / "results/published")
    text = page_about(tmp_path / "results/published", readings=ROOT / "docs/readings")
    assert (ROOT / "results/README.md").read_text() == text, "run: asr-distill index"
