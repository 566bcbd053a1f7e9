from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_study import FakeStudy, build_fake_study
from test_report import parse

from asr_distill.experiment import Samples, StudyRecord
from asr_distill.reporting.report import write_report
from asr_distill.reporting.samples import marked, samples_grid, transcripts, write_samples

SAMPLES = {"systems": {"Hard": "hard", "Soft, too": "soft"}, "compared": ("hard", "soft"), "utterances": 2}
CHOSEN = ["test-other-0003", "test-other-0020"]
HEARD = {"hard": ["the see is", "home"], "soft": ["", "the sea is a calm"], "reference": ["the sea is calm", "home"]}
"""Transcripts of the two utterances."""


def with_samples(fake: FakeStudy, **changes: object) -> FakeStudy:
    """Return the study with samples, whose texts are written over those of the first seed."""
    study = fake.record.study.model_copy(update={"samples": Samples.model_validate(SAMPLES | changes)})
    record = fake.record.model_copy(update={"study": study})
    fake.study.write_text(record.to_yaml(), encoding="utf-8")
    for run in ("hard", "soft"):
        path = fake.runs / record.run_folder(run, record.seeds[0]) / "hypotheses.jsonl"
        overwrite(path, dict(zip(CHOSEN, HEARD[run], strict=True)))
    overwrite(fake.references["test-other"], dict(zip(CHOSEN, HEARD["reference"], strict=True)))
    return FakeStudy(root=fake.root, record=record)


def overwrite(path: Path, texts: dict[str, str]) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [line | {"text": texts.get(line["id"], line["text"])} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def knowledge(fake: FakeStudy, *, differing: int = 7, **changes: object) -> Path:
    """Write what the stage before writes, with some arrays changed, or left out where None."""
    arrays = {
        "utterances": CHOSEN,
        "bert": ["the sea WAS calm", "homes"],
        "differing": differing,
        "total": 36,
    } | changes
    path = fake.root / "knowledge.npz"
    np.savez(path, **{f"samples/{name}": np.array(values) for name, values in arrays.items() if values is not None})
    return path


def grid(fake: FakeStudy, path: Path):
    return samples_grid(fake.record, references=fake.references, runs=fake.runs, knowledge=path)


@pytest.mark.parametrize(
    ("reference", "transcript", "shown", "errors"),
    [
        ("THE SEA IS CALM", "THE SEA IS CALM", "the sea is calm", 0),
        ("THE SEA IS CALM", "THE SEE IS CALM", "the SEE is calm", 1),
        ("THE SEA IS CALM", "THE IS", "the *** is ***", 2),
        ("THE SEA IS CALM", "THE CALM", "the *** *** calm", 2),
        ("THE SEA", "OH THE SEA NOW", "OH the sea NOW", 2),
        ("A B C", "", "", 3),
        ("A", "B C D", "B C D", 3),
        ("IT'S CALM", "It’s, calm!", "it's calm", 0),
    ],
)
def test_wrong_words_are_marked(reference: str, transcript: str, shown: str, errors: int) -> None:
    assert marked(reference, transcript) == (shown, str(errors))


def test_a_row_for_each_system(fake_study: FakeStudy) -> None:
    fake = with_samples(fake_study)
    found = grid(fake, knowledge(fake))
    assert found.rows == (
        (CHOSEN[0], "Reference", "the sea is calm", ""),
        (CHOSEN[0], "Hard", "the SEE is ***", "2"),
        (CHOSEN[0], "Soft, too", "", "4"),
        (CHOSEN[0], "BERT, each token masked in turn", "the sea WAS calm", "1"),
        (CHOSEN[1], "Reference", "home", ""),
        (CHOSEN[1], "Hard", "home", "0"),
        (CHOSEN[1], "Soft, too", "THE SEA IS A CALM", "5"),
        (CHOSEN[1], "BERT, each token masked in turn", "HOMES", "1"),
    )
    assert [column.label for column in found.columns] == ["utterance", "system", "text", "errors"]
    assert "test-other. Hard: hard; Soft, too: soft." in found.caption


def test_files(fake_study: FakeStudy) -> None:
    fake = with_samples(fake_study)
    output = fake.root / "tables"
    write_samples(fake.study, references=fake.references, runs=fake.runs, knowledge=knowledge(fake), output=output)
    frame = pd.read_csv(output / "samples.csv", dtype=str, keep_default_na=False)
    assert frame.shape == (8, 4)
    assert frame.iloc[1].to_dict() == {
        "utterance": CHOSEN[0],
        "system": "Hard",
        "text": "the SEE is ***",
        "errors": "2",
    }
    text = (output / "samples.md").read_text()
    assert rf"| {CHOSEN[0]} | Hard | the SEE is \*\*\* | 2 |" in text
    assert f"| {CHOSEN[0]} | Soft, too | – | 4 |" in text
    assert "BERT's row is no recognition result" in text
    assert "the SEE is *** & 2" in (output / "samples.tex").read_text()


@pytest.mark.parametrize(
    ("differing", "rule"),
    [
        (7, "differ on 7 after normalisation; of these, in the order of their ids, 2 evenly spaced ones are shown."),
        (2, "differ on 2 after normalisation; all these are shown."),
        (0, "differ on none of the 36 utterances of test-other after normalisation; of all of them, in the order"),
    ],
)
def test_the_rule_stands_under_the_table(fake_study: FakeStudy, differing: int, rule: str) -> None:
    fake = with_samples(fake_study)
    note = grid(fake, knowledge(fake, differing=differing)).notes[0]
    assert rule in note
    assert "the 36 utterances of test-other" in note
    assert "by hard and soft" in note


def test_transcripts_are_the_first_seeds(tmp_path: Path) -> None:
    fake = with_samples(build_fake_study(tmp_path, seeds=(5, 3)))
    assert transcripts(fake.record, "hard", part="test-other", runs=fake.runs)[CHOSEN[0]] == "the see is"
    assert set(transcripts(fake.record, "hard", part="test-other", runs=fake.runs)) == {
        f"test-other-{n:04d}" for n in range(96)
    }
    assert "training seed 5" in grid(fake, knowledge(fake)).caption


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bert": None}, r"knowledge\.npz: lacks samples/bert; write the knowledge of this study again"),
        (
            {"utterances": ["x", CHOSEN[1]]},
            r"knowledge\.npz: its utterance 'x' is not in .*references\.jsonl; write it",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_named(fake_study: FakeStudy, changes: dict[str, object], message: str) -> None:
    fake = with_samples(fake_study)
    with pytest.raises(ValueError, match=message):
        grid(fake, knowledge(fake, **changes))


@pytest.mark.parametrize("content", [None, b"", b"PK no archive", b"text"])
def test_a_file_that_is_none_is_named(fake_study: FakeStudy, content: bytes | None) -> None:
    fake, path = with_samples(fake_study), fake_study.root / "knowledge.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"knowledge\.npz: not readable as npz \(.*\); write the knowledge of this"
    ) as e:
        grid(fake, path)
    assert "\n" not in str(e.value)


def test_the_report_has_a_section_of_samples_where_there_are_some(reported_copy: FakeStudy) -> None:
    page = reported_copy.results / "report.html"
    assert "samples" not in parse(page).ids
    assert "#samples" not in parse(page).links
    results, fake = reported_copy.results, with_samples(reported_copy)
    write_report(
        fake.study,
        scores=results / "scores.csv",
        claims=results / "claims.csv",
        runs=fake.runs,
        overview=fake.overview,
        tables=results / "tables",
        figures=results / "figures",
        times=results / "times",
        provenance=results / "provenance.json",
        output=page,
        knowledge=knowledge(fake),
        references=fake.references,
    )
    shown = parse(page)
    assert shown.ids.index("tables") < shown.ids.index("samples") < shown.ids.index("figures")
    assert "#samples" in shown.links
    assert "the SEE is ***" in shown.text
    assert any(text.startswith("Which utterances: of the 36 utterances of test-other") for text in shown.text)
    assert StudyRecord.read(fake.study).study.samples.utterances == 2
