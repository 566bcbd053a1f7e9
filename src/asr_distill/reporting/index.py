"""The page that leads through published results: verdicts, tables, figures, and how to get each again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asr_distill.experiment import read_yaml
from asr_distill.experiment.checks import RESERVED
from asr_distill.files import write_text
from asr_distill.reporting.decisions import NOT_RUN, headline
from asr_distill.reporting.grid import duration
from asr_distill.reporting.inputs import read_claims
from asr_distill.reporting.provenance import read_provenance
from asr_distill.reporting.publish import BENCHMARKS

VERDICTS = ("reproduced", "not reproduced", "inconclusive", NOT_RUN)

_INTRODUCTION = """\
# Results

Written by `asr-distill index`, which `asr-distill publish` calls. Every figure below comes out of a run of this
repository, at the commit that stands beside it; printed figures of the papers have columns of their own. A run of your
own ends with the same tables and a report, `results/<scale>/<study>/<part>/report.html`; `asr-distill compare` holds it
against these.
"""


def write_index(published: Path, output: Path, *, config: Path, readings: Path) -> None:
    """Write a Markdown page about everything that is published.

    Args:
        published: folder with <scale>/<study>/<part>/ and benchmarks/, as `publish` writes it.
        output: the page; its links are relative to it.
        config: folder of the configuration; its scales say what they are.
        readings: folder of <scale>.<study>.md: what we make of the results, in our own words, where there is such a
            file.

    Raises:
        ValueError: when published results lack their provenance, or another page is in the place of this one.
    """
    if output.exists() and not output.read_text(encoding="utf-8").startswith(_INTRODUCTION.splitlines()[0] + "\n"):
        raise ValueError(f"{output}: is another page; publish into a folder beside which there is none")
    folders = sorted((path.parent for path in published.glob("*/*/*/claims.csv")), key=_order)
    reports = [_Report(folder, page=output.parent, config=config) for folder in folders]
    text = "\n".join([_INTRODUCTION, *_overview(reports), "", *_scales(reports, readings=readings)])
    if (published / BENCHMARKS / "provenance.json").is_file():
        text += "\n".join(["", *_benchmarks(published / BENCHMARKS, page=output.parent)])
    write_text(output, text.rstrip() + "\n")


class _Report:
    """One part of a study at one scale, as published."""

    def __init__(self, folder: Path, *, page: Path, config: Path):
        self.folder, self._page = folder, page
        self.scale, self.study, self.part = folder.parts[-3:]
        self.claims = read_claims(folder / "claims.csv")
        self.verdicts: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS} | headline(self.claims)
        self.provenance = read_provenance(folder / "provenance.json")
        path = config / "scales" / f"{self.scale}.yaml"
        self._values = read_yaml(path) if path.is_file() else {}

    @property
    def anchor(self) -> str:
        return f"{self.scale}-{self.study}-{self.part}"

    @property
    def description(self) -> str:
        return self._values.get("description", "")

    @property
    def title(self) -> str:
        return _heading(self.folder / "claims.md").removeprefix("Claims: ")

    @property
    def seeds(self) -> list[int]:
        return self.provenance["seeds"]

    def command(self, target: str) -> str:
        """Return what one types to get a part of the study again."""
        words = ["snakemake --cores all --config"]
        words += [f"scale={self.scale}", f"studies='[{self.study}]'"]
        if self.seeds != [0]:
            words.append(f"seeds='[{','.join(map(str, self.seeds))}]'")
        parts = self._values.get("corpus", {}).get("parts", {}).values()
        if any(part.get("source") != "synthetic" for part in parts):
            words.append("data=/corpora")
        return " ".join([*words, *(["--", target] if target != "core" else [])])

    def link(self, text: str, name: str) -> str:
        return _link(text, self.folder / name, page=self._page)


def _order(folder: Path) -> tuple[Any, ...]:
    """Return the place of a report: the core of a study first, then all of it, then single tables."""
    scale, study, part = folder.parts[-3:]
    known = ("core", "complete")
    return scale, study, known.index(part) if part in known else len(known), part


def _overview(reports: list[_Report]) -> Iterator[str]:
    """Yield a table of all reports: how many claims got which verdict."""
    yield f"| scale | study | part | seeds | {' | '.join(VERDICTS)} |"
    yield f"| :--- | :--- | :--- | ---: | {' | '.join(['---:'] * len(VERDICTS))} |"
    for report in reports:
        counts = [str(len(report.verdicts[verdict])) for verdict in VERDICTS]
        part = f"[{report.part}](#{report.anchor})"
        yield f"| {report.scale} | {report.study} | {part} | {len(report.seeds)} | {' | '.join(counts)} |"


def _scales(reports: list[_Report], *, readings: Path) -> Iterator[str]:
    """Yield what is there, scale by scale and study by study."""
    scale = study = None
    for report in reports:
        if report.scale != scale:
            yield from (f"## {report.scale}", "", f"{report.description.rstrip('.')}.", "")
        if (report.scale, report.study) != (scale, study):
            yield from (f"### {report.title}", "")
            reading = readings / f"{report.scale}.{report.study}.md"
            if reading.is_file():
                yield from (reading.read_text(encoding="utf-8").strip(), "")
        scale, study = report.scale, report.study
        yield from _one(report)


def _one(report: _Report) -> Iterator[str]:
    provenance, git = report.provenance, report.provenance.get("git") or {}
    yield from (f'<a id="{report.anchor}"></a>', "", f"#### `{report.study}` at `{report.scale}`: {report.part}", "")
    commit = f"commit `{git['commit'][:10]}`" if git else "no commit"
    commit += " with uncommitted changes" if git.get("dirty") else ""
    seeds = ", ".join(map(str, report.seeds))
    hours = duration(provenance["total_job_seconds"])
    yield (
        f"Training seeds: {seeds}; {commit}, finished {provenance['finished'][:10]}; all jobs together {hours} "
        f"({report.link('provenance', 'provenance.json')}, {report.link('scores', 'scores.csv')}). Again:"
    )
    yield from ("", "```sh", report.command(report.part), "```", "")
    yield from _claims(report)
    yield from ("", "| table | other forms | alone |", "| :--- | :--- | :--- |")
    for path in sorted((report.folder / "tables").glob("*.md"), key=_natural):
        name = path.stem
        forms = [form for form in ("csv", "tex") if path.with_suffix(f".{form}").is_file()]
        others = ", ".join(report.link(form, f"tables/{name}.{form}") for form in forms)
        alone = f"`{report.command(name)}`" if name not in RESERVED and not name.endswith("_verdicts") else ""
        yield f"| {report.link(_heading(path), f'tables/{name}.md')} | {others} | {alone} |"
    figures = sorted((report.folder / "figures").glob("*.svg"), key=_natural)
    if figures:
        links = ", ".join(report.link(path.stem.replace("_", " "), f"figures/{path.name}") for path in figures)
        yield from ("", f"Figures ({report.link('captions', 'figures/captions.md')}): {links}.")
    yield ""


def _claims(report: _Report) -> Iterator[str]:
    """Yield the claims that were decided, in a table, and a line about the others."""
    yield "| claim | verdict | what the paper says |"
    yield "| :--- | :--- | :--- |"
    for _, claim in report.claims.drop_duplicates("claim").iterrows():
        if claim["claim_verdict"] != NOT_RUN:
            name = report.link(str(claim["claim"]), "claims.md")
            yield f"| {name} | **{claim['claim_verdict']}** | {_cell(claim['statement'])} |"
    if report.verdicts[NOT_RUN]:
        yield from ("", f"Not run in this part: {', '.join(report.verdicts[NOT_RUN])}.")


def _benchmarks(folder: Path, *, page: Path) -> Iterator[str]:
    git = read_provenance(folder / "provenance.json").get("git") or {}
    provenance = _link("provenance", folder / "provenance.json", page=page)
    yield from ("## Speed and memory", "")
    yield f"Commit `{git.get('commit', 'none')[:10]}` ({provenance}). Again: `snakemake --cores all benchmarks`."
    yield ""
    for path in sorted(folder.glob("*.md"), key=_natural):
        yield f"- {_link(_heading(path), path, page=page)}"


def _heading(path: Path) -> str:
    """Return the first heading of a page."""
    with path.open(encoding="utf-8") as file:
        return next((line.lstrip("# ").rstrip() for line in file if line.startswith("#")), path.stem)


def _link(text: str, path: Path, *, page: Path) -> str:
    return f"[{text}]({path.relative_to(page).as_posix()})"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _natural(path: Path) -> tuple[Any, ...]:
    """Return a key by which table10 stands behind table9."""
    return tuple(int(x) if x.isdigit() else x for x in re.split(r"(\d+)", path.stem))
