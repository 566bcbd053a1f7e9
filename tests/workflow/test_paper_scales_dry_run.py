"""The scales of real speech are planned by Snakemake without any corpus being there."""

from __future__ import annotations

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
    counts = {line.split()[0]: int(line.split()[1]) for line in said.splitlines() if line[:1].islower()}
    has_lm = scale in ("librispeech_100", "librispeech_960")
    assert counts["tokenizer"] == 1 + has_lm  # CTC recognisers have tokens of their own
    assert ("bert" in counts, "decode_ctc" in counts) == (has_lm, has_lm)
    assert counts["train_large"] > 20
    assert not {"synthesize", "overview_with_sets"} & counts.keys()


def test_tokens_of_their_own_go_to_ctc_recognisers_alone(copied_workflow: Path) -> None:
    overrides = "overrides={ctc_tokenizer: {vocabulary: 60}}"
    done = snakemake(copied_workflow, "scale=smoke", overrides, options=("--dry-run",))
    assert done.returncode == 0, done.stderr[-2000:]
    blocks = (done.stdout + done.stderr).split("\nrule ")
    readers = {True: set(), False: set()}
    for block in blocks:
        inputs = block.partition("    input: ")[2].partition("\n")[0]
        if "tokenizer.model" in inputs:
            readers["ctc_tokenizer.model" in inputs].add(block.partition(":")[0])
    assert {"bert", "soft_labels", "ngram", "decode_ctc", "train_with_decoder"} <= readers[True]
    assert {"decode", "pseudo_label", "train_teacher"} <= readers[False]
    assert not {"bert", "soft_labels", "ngram", "decode_ctc"} & readers[False]
