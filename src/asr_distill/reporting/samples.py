"""The table of decoded samples: what each system made of a few utterances, its wrong words marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import jiwer
import pandas as pd
from numpy.typing import NDArray

from asr_distill.experiment import StudyRecord
from asr_distill.files import write_csv
from asr_distill.reporting.grid import NOTHING, Column, Grid, write_grid
from asr_distill.reporting.inputs import read_knowledge
from asr_distill.reporting.tables import count
from asr_distill.scoring.word_errors import read_hypotheses, read_references
from asr_distill.text.normalise import normalise

REFERENCE, BERT = "Reference", "BERT, each token masked in turn"
DELETED = "***"


def write_samples(study: Path, *, references: Mapping[str, Path], runs: Path, knowledge: Path, output: Path) -> None:
    """Write the decoded samples of a study as <output>/samples.csv, .md and .tex; arguments as for `samples_grid`."""
    grid = samples_grid(StudyRecord.read(study), references=references, runs=runs, knowledge=knowledge)
    write_grid(grid, folder=output)
    frame = pd.DataFrame(grid.rows, columns=[column.label for column in grid.columns])
    write_csv(output / "samples.csv", frame)


def samples_grid(study: StudyRecord, *, references: Mapping[str, Path], runs: Path, knowledge: Path) -> Grid:
    """Return the decoded samples for people: a row per utterance and system, and one each for reference and BERT.

    Args:
        study: a study that has samples.
        references: references.jsonl of each part, by name of the part.
        runs: folder that holds <run>/seed<seed>/hypotheses.jsonl and searches/; the first seed's are read.
        knowledge: knowledge.npz, which says what utterances are shown and what BERT made of them.

    Raises:
        ValueError: naming the file that lacks something.
    """
    samples, part = study.study.samples, sampled_part(study)
    arrays = read_samples(knowledge)
    expected = read_references({part: references[part]}).set_index("id")["text"]
    heard = {label: transcripts(study, system, part=part, runs=runs) for label, system in samples.systems.items()}
    rows: list[tuple[str, ...]] = []
    for utterance, guessed in zip(arrays["utterances"].tolist(), arrays["bert"].tolist(), strict=True):
        if utterance not in expected:
            raise ValueError(f"{knowledge}: its utterance '{utterance}' is not in {references[part]}; write it again")
        texts = {label: found.get(utterance, "") for label, found in heard.items()} | {BERT: guessed}
        rows.append((utterance, REFERENCE, normalise(expected[utterance]).lower(), ""))
        rows += [(utterance, label, *marked(expected[utterance], text)) for label, text in texts.items()]
    return Grid(
        name="samples",
        title="Decoded samples",
        caption=_caption(study),
        columns=(
            Column(label="utterance", align="left"),
            Column(label="system", align="left"),
            Column(label="text", align="prose"),
            Column(label="errors"),
        ),
        rows=tuple(rows),
        notes=tuple(_notes(study, arrays)),
    )


def sampled_part(study: StudyRecord) -> str:
    """Return the part whose utterances are shown."""
    return study.scale.conditions[study.study.samples.condition]


def transcripts(study: StudyRecord, system: str, *, part: str, runs: Path) -> dict[str, str]:
    """Return a system's transcripts of a part, of the first seed, by utterance id."""
    run, name = study.systems()[system]
    found = read_hypotheses(runs / study.run_folder(run, study.seeds[0]) / name)
    own = found[found["part"] == part]
    return dict(zip(own["id"], own["text"], strict=True))


def read_samples(path: Path) -> dict[str, NDArray]:
    """Read what knowledge.npz says of the samples.

    Keys: utterances: (S,) ids; bert: (S,) text; differing: on how many utterances the compared transcripts differ;
    total: of how many.
    """
    return read_knowledge(path, "samples", ("utterances", "bert", "differing", "total"))


def marked(reference: str, transcript: str) -> tuple[str, str]:
    """Return a transcript with its wrong words marked as NIST's sclite marks them, and the number of word errors.

    Substituted and inserted words are in capitals, all others in lower case; *** stands for each deleted word. An empty
    transcript stays empty.
    """
    aligned = jiwer.process_words(normalise(reference), normalise(transcript))
    words = aligned.hypotheses[0]
    shown: list[str] = []
    for chunk in aligned.alignments[0]:
        own = words[chunk.hyp_start_idx : chunk.hyp_end_idx]
        if chunk.type == "delete":
            shown += [DELETED] * (chunk.ref_end_idx - chunk.ref_start_idx)
        else:
            shown += [word.lower() if chunk.type == "equal" else word.upper() for word in own]
    errors = aligned.substitutions + aligned.deletions + aligned.insertions
    return " ".join(shown) if words else "", str(errors)


def _caption(study: StudyRecord) -> str:
    systems = "; ".join(f"{label}: {system}" for label, system in study.study.samples.systems.items())
    seed = f", training seed {study.seeds[0]}" if len(study.seeds) > 1 else ""
    return (
        f"Scale “{study.scale_name}”, {sampled_part(study)}{seed}. {systems}. As in table 3 of Hentschel et al. 2024."
    )


def _notes(study: StudyRecord, arrays: Mapping[str, NDArray]) -> Iterator[str]:
    yield _rule(study, **{name: int(arrays[name]) for name in ("differing", "total")}, shown=len(arrays["utterances"]))
    yield (
        "Wrong words are marked as NIST's sclite marks them: substituted and inserted ones in capitals, "
        f"{DELETED} for each deleted one; {NOTHING} is an empty transcript. Errors are word errors."
    )
    yield (
        "BERT's row is no recognition result: BERT hears nothing, and for each token it sees all others of the "
        "reference. Its marks and errors tell where it would say something else."
    )


def _rule(study: StudyRecord, *, differing: int, total: int, shown: int) -> str:
    """Return by what rule the utterances were chosen."""
    left, right = study.study.samples.compared
    of_all = f"the {count(total)} utterances of {sampled_part(study)}"
    if not differing:
        return (
            f"Which utterances: the transcripts by {left} and {right} differ on none of {of_all} after normalisation; "
            f"of all of them, in the order of their ids, {shown} evenly spaced ones are shown."
        )
    evenly = f"of these, in the order of their ids, {shown} evenly spaced ones are shown"
    which = "all these are shown" if shown == differing else evenly
    return (
        f"Which utterances: of {of_all}, the transcripts by {left} and {right} differ on {count(differing)} after "
        f"normalisation; {which}."
    )
