"""The scales of real speech are planned by Snakemake without any corpus being there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import snakemake

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize("scale", ["librispeech_mini", "librispeech_100", "librispeech_960", "librilight"])
def test_everything_is_planned_without_the_corpora(scale: str, copied_workflow: Path) -> None:
    options = ("complete", "--dry-run", "--quiet")
    done = snakemake(copied_workflow, f"scale={scale}", "data=/nowhere", options=options)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout + done.stderr
    counts = {rule: int(jobs) for rule, jobs in re.findall(r"^([a-z_]+) +(\d+) ", said, flags=re.MULTILINE)}
    has_lm = scale in ("librispeech_100", "librispeech_960")
    assert counts["tokenizer"] == 1 + has_lm  # CTC recognisers have tokens of their own
    assert ("bert" in counts, "decode_ctc" in counts) == (has_lm, has_lm)
    assert counts["train_large"] > 20
    assert not {"synthesize", "overview_with_sets"} & counts.keys()


def test_tokens_of_their_own_go_to_ctc_recognisers_alone(copied_workflow: Path) -> None:
    overrides = "overrides={ctc_tokenizer: {vocabulary: 60}}"
    done = snakemake(copied_workflow, "scale=smoke", overrides, options=("--dry-run",))
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout + done.stderr
    commands = re.findall(r"asr-distill (\S+) (\S+) [^\n]*--tokenizer \S*/(\w+)\.model", said)
    readers = {(stage, study(path)): tokens for stage, path, tokens in commands}
    ctc = {reader for reader, tokens in readers.items() if tokens == "ctc_tokenizer"}
    stages = {("bert", ""), ("soft-labels", ""), ("ngram", "")}
    assert ctc == stages | {("train", "lm_into_ctc"), ("decode-ctc", "lm_into_ctc"), ("knowledge", "lm_into_ctc")}
    others = {reader for reader, tokens in readers.items() if tokens == "tokenizer"}
    assert {(stage, "soft_vs_hard") for stage in ("train", "decode", "pseudo-label")} <= others


def study(path: str) -> str:
    """Return the study that a file of the work folder belongs to; none for what all share."""
    return next((name for name in ("soft_vs_hard", "lm_into_ctc") if f"/{name}/" in path), "")
