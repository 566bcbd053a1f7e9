"""Utterances to listen to in the report: their sound, and what each system made of them."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile

from asr_distill.decoding.choice import evenly_spaced
from asr_distill.experiment import StudyRecord
from asr_distill.files import write_json
from asr_distill.reporting.grid import Column, Grid
from asr_distill.reporting.samples import REFERENCE, marked, transcripts
from asr_distill.scoring.word_errors import read_references
from asr_distill.text.normalise import normalise

if TYPE_CHECKING:
    from lhotse import MonoCut  # whose import takes long, and the report does not need it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One utterance, as the report shows it."""

    part: str
    sound: str
    """A data URI of FLAC; empty where the audio is no longer there."""
    grid: Grid


def write_listening(study: StudyRecord, *, corpus: Path, runs: Path, output: Path) -> None:
    """Choose the utterances that a study lets one listen to, and write their sound and transcripts as JSON.

    Args:
        study: a study with `listening`.
        corpus: folder that holds <part>/references.jsonl and cuts.jsonl.gz of the test parts.
        runs: folder that holds <run>/seed<seed>/hypotheses.jsonl and searches/; the first seed's are read.
        output: the file, which holds speech and so is for those who have the corpus.
    """
    examples = [example for part in heard_parts(study) for example in _examples(study, part, corpus=corpus, runs=runs)]
    write_json(output, examples)


def heard_parts(study: StudyRecord) -> tuple[str, ...]:
    """Return the test parts that all runs are scored on."""
    return study.scale.parts("test")


def read_examples(path: Path) -> list[Example]:
    """Read what `write_listening` wrote."""
    columns = (Column(label="system", align="left"), Column(label="text", align="prose"), Column(label="errors"))
    return [
        Example(
            part=found["part"],
            sound=f"data:audio/flac;base64,{found['flac']}" if found["flac"] else "",
            grid=Grid(
                name=found["id"],
                title=f"{found['part']}, {found['id']}, speaker {found['speaker']}",
                caption="",
                columns=columns,
                rows=tuple(tuple(row) for row in found["rows"]),
            ),
        )
        for found in json.loads(path.read_text(encoding="utf-8"))
    ]


def rule(study: StudyRecord) -> str:
    """Return by what rule the utterances were chosen, and how their transcripts are marked."""
    seed = f" Transcripts are of training seed {study.seeds[0]}." if len(study.seeds) > 1 else ""
    return (
        "Of each test part that all runs are scored on, in the order of their ids, "
        f"{study.study.listening.utterances} evenly spaced utterances, whatever became of them. Substituted and "
        f"inserted words are in capitals, *** stands for each deleted one; errors are word errors.{seed}"
    )


def _examples(study: StudyRecord, part: str, *, corpus: Path, runs: Path) -> Iterator[dict[str, object]]:
    listening = study.study.listening
    references = read_references({part: corpus / part / "references.jsonl"}).set_index("id")
    chosen = evenly_spaced(sorted(references.index), listening.utterances)
    sounds = _sounds(corpus / part / "cuts.jsonl.gz", set(chosen), rate=study.scale.features.sampling_rate)
    heard = {label: transcripts(study, system, part=part, runs=runs) for label, system in listening.systems.items()}
    for utterance in chosen:
        reference = references.loc[utterance]
        rows = [(REFERENCE, normalise(reference["text"]).lower(), "")]
        rows += [(label, *marked(reference["text"], found.get(utterance, ""))) for label, found in heard.items()]
        yield {
            "part": part,
            "id": utterance,
            "speaker": str(reference["speaker"]),
            "flac": sounds.get(utterance, ""),
            "rows": rows,
        }


def _sounds(cuts: Path, wanted: set[str], *, rate: int) -> dict[str, str]:
    """Return the audio of some utterances as FLAC in base64, without those whose audio is gone."""
    from lhotse import load_manifest_lazy

    from asr_distill.corpus.validate import UnusableError

    found = {}
    for cut in load_manifest_lazy(cuts):
        if cut.id in wanted:
            try:
                found[cut.id] = _flac(cut, rate=rate)
            except UnusableError:
                continue
    return found


def _flac(cut: MonoCut, *, rate: int) -> str:
    from asr_distill.corpus.validate import load_samples

    samples = load_samples(cut, sampling_rate=rate)
    file = io.BytesIO()
    soundfile.write(file, samples[0], rate, format="FLAC", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode("ascii")
