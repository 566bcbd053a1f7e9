"""The table of the language models: what text they read, how large they are, how well BERT guesses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from asr_distill.experiment import PretrainedBert, StudyRecord
from asr_distill.files import write_csv
from asr_distill.reporting.grid import Column, Grid, write_grid
from asr_distill.reporting.tables import count, magnitude
from asr_distill.text.arpa import ngram_counts

PERPLEXITIES = (
    "Perplexities are of tokens that BERT does not see, on lines that were held out of the text; the unigram guesses "
    "the same tokens by their frequencies in the rest of the text."
)


class Figure(NamedTuple):
    """One row: of which model, what, how many, and what else is to be said."""

    model: str
    name: str
    value: str
    """For machines; "" where there is none."""
    shown: str
    """For people."""
    remark: str = ""


def write_language_models_table(study: Path, *, folder: Path, output: Path) -> None:
    """Write the language models of a study's scale as <output>/language_models.csv, .md and .tex.

    Args:
        study: the resolved study.yaml.
        folder: of the language models: text.json, ngram.arpa and, where a run learns from BERT, bert/bert.json.
        output: folder of the tables.

    Raises:
        ValueError: naming the file that is missing or lacks a figure.
    """
    record = StudyRecord.read(study)
    write_grid(language_models_grid(record, folder=folder), folder=output)
    rows = [(row.model, row.name, row.value, row.remark) for row in _figures(record, folder=folder)]
    frame = pd.DataFrame(rows, columns=["model", "name", "value", "remark"])
    write_csv(output / "language_models.csv", frame)


def language_models_grid(study: StudyRecord, *, folder: Path) -> Grid:
    """Return the language models for people.

    Raises:
        ValueError: naming the file that is missing or lacks a figure.
    """
    rows = tuple((row.model, row.name, row.shown, row.remark) for row in _figures(study, folder=folder))
    return Grid(
        name="language_models",
        title="Language models",
        caption=f"Scale “{study.scale_name}”. {_given(study)}",
        columns=(
            Column(label="", align="left"),
            Column(label="figure", align="left"),
            Column(label="value"),
            Column(label="remark", align="prose"),
        ),
        rows=rows,
        notes=(PERPLEXITIES,) if _asks_bert(study) else (),
    )


def _given(study: StudyRecord) -> str:
    """Return what the models are known to have read."""
    if not _asks_bert(study):
        return "The n-gram has read the text."
    if isinstance(study.scale.language_models.bert, PretrainedBert):
        return "The n-gram has read the text; BERT was trained elsewhere, on what is not known here."
    return "BERT and n-gram have read the same text."


def _figures(study: StudyRecord, *, folder: Path) -> Iterator[Figure]:
    """Yield the rows; none of BERT where no run learns from it."""
    yield from _of_text(study, _Known(folder / "text.json", again="prepare the text again"))
    if _asks_bert(study):
        yield from _of_bert(study, _Known(folder / "bert" / "bert.json", again="make BERT again"))
    yield from _of_ngram(study, folder / "ngram.arpa")


def _asks_bert(study: StudyRecord) -> bool:
    return any(run.recogniser == "ctc" and run.from_bert is not None for run in study.study.runs.values())


def _of_text(study: StudyRecord, counts: _Known) -> Iterator[Figure]:
    text = study.scale.language_models.text
    if text.source == "grammar":
        source, remark = "grammar", f"of the embedded corpus; domains: {', '.join(text.domains)}"
    else:
        source, remark = Path(text.path).name, "below the folder of the corpora"
    unspeakable = counts["unspeakable"]
    reasons = [f"{reason.removeprefix('transcript ')}: {count(number)}" for reason, number in unspeakable.items()]
    yield Figure("text", "source", source, source, remark)
    yield _whole("text", "lines read", counts["read"])
    yield _whole("text", "lines left out as scored", counts["overlapping"], "transcripts of dev and test parts")
    yield _whole("text", "lines left out as unspeakable", sum(unspeakable.values()), "; ".join(reasons))
    yield _whole("text", "lines kept", counts["kept"])
    yield _whole("text", "words", counts["words"], "of the lines kept")


def _of_bert(study: StudyRecord, about: _Known) -> Iterator[Figure]:
    bert, training = study.scale.language_models.bert, study.scale.language_models.bert_training
    parameters = about["parameters"]
    if isinstance(bert, PretrainedBert):
        shape, steps = f"pre-trained: {bert.pretrained}", Figure("BERT", "steps", "", "", "trained elsewhere")
    else:
        shape = f"{bert.layers} layers of {bert.dim} dimensions"
        steps = _whole("BERT", "steps", about["steps"], f"batches of up to {count(training.batch_tokens)} tokens")
    yield Figure("BERT", "parameters", str(parameters), magnitude(str(parameters)), shape)
    yield steps
    held_out = f"of {count(about['held_out_tokens'])} tokens on {count(about['held_out_lines'])} held-out lines"
    if isinstance(bert, PretrainedBert):
        held_out += ", which it may have read elsewhere"
    how = {
        "masked": ("of a masked token", f"{100 * training.mask_share:g} % of the {training.mask}s masked at once"),
        "one_by_one": ("of a token masked alone", "every token in turn"),
    }
    for kind, (name, remark) in how.items():
        perplexity = about["perplexity"][kind]
        ours, unigram = perplexity["bert"], perplexity["unigram"]
        measured = f"{remark}: {count(perplexity['tokens'])} {held_out}"
        yield Figure("BERT", f"perplexity {name}", f"{ours:.3f}", f"{ours:.1f}", measured)
        yield Figure("unigram", f"perplexity {name}", f"{unigram:.3f}", f"{unigram:.1f}", "the same tokens")
        yield Figure("BERT / unigram", f"perplexity {name}", f"{ours / unigram:.4f}", f"{ours / unigram:.2f}")


def _of_ngram(study: StudyRecord, path: Path) -> Iterator[Figure]:
    wanted, prune = study.scale.language_models.ngram.order, study.scale.language_models.ngram.prune
    counts = ngram_counts(path)
    remark = "tokens" if len(counts) == wanted else f"tokens; no n-gram is left of order {len(counts) + 1} to {wanted}"
    yield _whole("n-gram", "order", len(counts), remark)
    for order, number in enumerate(counts, start=1):
        threshold = prune[min(order, len(prune)) - 1] if prune else 0
        yield _whole("n-gram", f"{order}-grams", number, f"seen more than {threshold} times" if threshold else "")


def _whole(model: str, name: str, value: int, remark: str = "") -> Figure:
    return Figure(model, name, str(value), count(value), remark)


class _Known:
    """What a stage wrote down, as JSON; a key that is missing is the user's error, not ours."""

    def __init__(self, path: Path, *, again: str):
        self.path, self.again = path, again
        try:
            self.values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: not readable as JSON ({error}); {again}") from None

    def __getitem__(self, key: str) -> Any:
        if key not in self.values:
            raise ValueError(f"{self.path}: has no '{key}'; {self.again}")
        return self.values[key]
