"""A scale whose encoders start from one that heard a text read by eSpeak."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from asr_distill.text.text_corpus import grammar_lines
from conftest import snakemake

pytestmark = pytest.mark.workflow

SPOKEN = """
corpus:
  parts:
    spoken: {part_set: spoken, use: labelled, source: synthetic, speakers: 3, utterances: 12, accents: [gmw/en-US],
             text: {source: file, path: sentences.txt}}
start: {audio: [spoken], phase: supervised, augmentation: standard}
"""


def test_a_teacher_starts_from_an_encoder_that_heard_a_text(smoke_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(smoke_run, folder)
    sentences = [line.capitalize() for line in grammar_lines(40, seed=9)]
    (folder / "sentences.txt").write_text("".join(f"{line}.\n" for line in sentences))
    config = ("scale=smoke", "data=.", "studies=[soft_vs_hard]", f"overrides={json.dumps(yaml.safe_load(SPOKEN))}")
    runs = folder / "work/smoke/soft_vs_hard"
    done = snakemake(folder, *config, options=("work/smoke/soft_vs_hard/teacher/seed0/model.safetensors",))
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((runs / "teacher/seed0/training.json").read_text())["initial"] == "start_large"
    assert json.loads((runs / "start_large/seed0/training.json").read_text())["initial"] is None
    references = (folder / "work/smoke/corpus/spoken/references.jsonl").read_text().splitlines()
    spoken = [json.loads(line)["text"] for line in references]
    assert len(set(spoken)) == 12
    assert set(spoken) <= {line.upper() for line in sentences}
