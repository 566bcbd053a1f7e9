"""Publish results for others to hold theirs against, and hold one's own against the published ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from asr_distill.experiment import nearest
from asr_distill.reporting.decisions import CLAIM_P_VALUES, SPEED_COLUMNS, is_about_speed
from asr_distill.reporting.inputs import read_claims, read_scores
from asr_distill.reporting.provenance import read_provenance
from asr_distill.reporting.scores import MEAN

LARGEST_FIGURE = 2**20
"""Bytes; larger drawings are left out."""
FIGURES = {".svg", ".png"}
TEXTS = {".csv", ".md", ".tex"}
LEFT_OUT = {"errors.csv"}
BENCHMARKS = "benchmarks"
"""Folder of the measurements of speed and memory, beside those of the scales."""


def publish(results: Path, *, published: Path, studies: Sequence[str] = (), allow_dirty: bool = False) -> list[Path]:
    """Copy tables, figures, captions, claims and provenance of finished studies; return the folders written.

    Args:
        results: folder with <scale>/<study>/<selection>/ and benchmarks/, as the workflow writes it.
        published: folder that gets the same folders; what stood there before is replaced.
        studies: which to publish, as "scale/study/selection"; all that are there, and the benchmarks, by default.
        allow_dirty: publish results of uncommitted code too.

    Raises:
        ValueError: when there is nothing to publish, or provenance is missing, dirty or without a commit, or tells of
            benchmarks that did not measure everything.
    """
    if not studies and (results / BENCHMARKS / "provenance.json").is_file():
        names = [*_finished(results, published=published), BENCHMARKS]
    else:
        names = _chosen(results, published=published, studies=studies)
    for name in names:
        _check_provenance(results / name / "provenance.json", allow_dirty=allow_dirty)
    for name in names:
        target = published / name
        shutil.rmtree(target, ignore_errors=True)
        for path in _publishable(results / name):
            copy = target / path.relative_to(results / name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return [published / name for name in names]


def compare(results: Path, *, published: Path, studies: Sequence[str] = ()) -> str:
    """Return in words where scores and claims differ from the published ones, or "identical", a line per report."""
    lines = []
    for name in _chosen(results, published=published, studies=studies):
        lines += [f"{name}: {line}" for line in _compare_study(results / name, published / name)]
    return "\n".join(lines)


def _compare_study(own: Path, published: Path) -> list[str]:
    """Return one line per thing that differs."""
    if not (published / "scores.csv").is_file():
        return ["nothing is published to compare with"]
    same = {name: _same_bytes(own / name, published / name) for name in ("scores.csv", "claims.csv")}
    if all(same.values()):
        return ["identical"]
    if same["scores.csv"] and _untimed(own / "claims.csv").equals(_untimed(published / "claims.csv")):
        return ["identical but for measured times"]
    lines = []
    if not same["scores.csv"]:
        lines += _compare_scores(read_scores(own / "scores.csv"), read_scores(published / "scores.csv"))
    if not same["claims.csv"]:
        lines += _compare_claims(read_claims(own / "claims.csv"), read_claims(published / "claims.csv"))
    return lines or ["the same word error rates and verdicts; other columns differ"]


def _compare_scores(own: pd.DataFrame, published: pd.DataFrame) -> Iterator[str]:
    """Yield the runs and parts whose mean word error rate differs, and whether it leaves the published interval."""
    mine, theirs = (frame[frame["seed"] == MEAN].set_index(["run", "part"]) for frame in (own, published))
    yield from _one_sided(mine.index, theirs.index)
    shared = mine.index.intersection(theirs.index)
    counts = {"equal": 0, "within": 0, "outside": 0}
    details = []
    for key in shared:
        wer, old = mine.loc[key, "wer"], theirs.loc[key]
        if wer == old["wer"]:
            counts["equal"] += 1
            continue
        where = "within" if old["low"] <= wer <= old["high"] else "outside"
        counts[where] += 1
        interval = f"[{old['low']:.1f}, {old['high']:.1f}]"
        details.append(f"{key[0]} on {key[1]}: WER {wer:.2f} %, published {old['wer']:.2f} % {interval}: {where}")
    yield (
        f"of {len(shared)} word error rates {counts['equal']} are equal, {counts['within']} differ within and "
        f"{counts['outside']} differ outside the published interval"
    )
    yield from details


def _compare_claims(own: pd.DataFrame, published: pd.DataFrame) -> Iterator[str]:
    """Yield the claims whose verdict differs."""
    mine, theirs = (frame.drop_duplicates("claim").set_index("claim")["claim_verdict"] for frame in (own, published))
    yield from _one_sided(mine.index, theirs.index)
    shared = mine.index.intersection(theirs.index)
    changed = [claim for claim in shared if mine[claim] != theirs[claim]]
    yield f"of {len(shared)} verdicts {len(changed)} differ"
    for claim in changed:
        yield f"claim {claim}: {mine[claim]}, published {theirs[claim]}"


def _one_sided(own: pd.Index, published: pd.Index) -> Iterator[str]:
    for keys, words in ((own.difference(published), "not published"), (published.difference(own), "published only")):
        for key in keys:
            yield f"{' on '.join(key) if isinstance(key, tuple) else f'claim {key}'}: {words}"


def _chosen(results: Path, *, published: Path, studies: Sequence[str]) -> list[str]:
    """Return the studies as "scale/study/selection", checked."""
    known = _finished(results, published=published)
    if not known:
        raise ValueError(f"{results}: holds no <scale>/<study>/<selection>/scores.csv; run the workflow first")
    for name in studies:
        if name not in known:
            raise ValueError(f"'{name}' is no study with results in {results}{nearest(name, known)}")
    return list(studies) or known


def _finished(results: Path, *, published: Path) -> list[str]:
    """Return the studies with results as "scale/study/selection"; what is published are no results of a run."""
    folders = sorted(path.parent for path in results.glob("*/*/*/scores.csv"))
    return [f.relative_to(results).as_posix() for f in folders if not f.resolve().is_relative_to(published.resolve())]


def _check_provenance(path: Path, *, allow_dirty: bool) -> None:
    document = read_provenance(path)
    git = document.get("git")
    if document.get("complete") is False:
        raise ValueError(f"{path}: tells of a trial; run `snakemake --cores all --forcerun benchmarks -- benchmarks`")
    if allow_dirty:
        return
    if git is None:
        raise ValueError(f"{path}: names no commit; run the workflow in a git repository, or allow dirty results")
    if git["dirty"]:
        raise ValueError(f"{path}: the code had uncommitted changes; commit and run again, or allow dirty results")


def _publishable(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in LEFT_OUT:
            continue
        small_figure = path.suffix in FIGURES and path.stat().st_size < LARGEST_FIGURE
        if small_figure or path.suffix in TEXTS or path.name == "provenance.json":
            yield path


def _untimed(path: Path) -> pd.DataFrame:
    """Return claims without what no second run measures again: how fast searches are, and p-values corrected for it."""
    claims = read_claims(path)
    measured = ["low", "high", "p_reproduced", "p_refuted", *SPEED_COLUMNS]
    timed = is_about_speed(claims)
    claims.loc[timed, [column for column in measured if column in claims]] = ""
    if timed.any():
        claims[[column for column in CLAIM_P_VALUES if column in claims]] = ""
    return claims


def _same_bytes(left: Path, right: Path) -> bool:
    return left.is_file() and right.is_file() and left.read_bytes() == right.read_bytes()
