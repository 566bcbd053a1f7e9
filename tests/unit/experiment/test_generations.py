"""Chains of runs that teach each other, choices of pseudo-labels, shares of labelled speech: config and errors."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from asr_distill.experiment import load_experiment, read_yaml

ROOT = Path(__file__).parents[3]
HARD = ("teacher", "self_hard", "hard_generation_2", "hard_generation_3", "hard_generation_4")
SOFT = ("teacher", "self_soft", "soft_generation_2", "soft_generation_3", "soft_generation_4")
RUNS, CHAINS = "runs", "generations"


def load(root=ROOT):
    return load_experiment({"scale": "smoke", "studies": ["soft_vs_hard"]}, root=root)


@pytest.fixture
def change(tmp_path):
    """Return a function that sets a value of the study in a copy of config/ and returns the copy's root."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    path = tmp_path / "config/studies/soft_vs_hard.yaml"

    def changed(keys, value):
        values = read_yaml(path)
        place = values
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return tmp_path

    return changed


def test_every_generation_learns_from_the_one_before_on_the_same_budget():
    study = load().studies["soft_vs_hard"]
    assert study.generations == {"Hard targets": HARD, "Soft targets": SOFT}
    for chain, targets in ((HARD, "hard"), (SOFT, "soft")):
        for teacher, run in pairwise(chain):
            assert study.runs[run] == study.runs[chain[1]].model_copy(update={"teacher": teacher})
            assert study.runs[run].targets == targets


@pytest.mark.parametrize(
    ("tables", "chains"),
    [
        (["generations"], {"Hard targets": HARD, "Soft targets": SOFT}),
        (["table4"], {}),  # one generation is no chain
        (["table5"], {}),
    ],
)
def test_a_part_of_a_study_keeps_the_generations_that_it_has(tables, chains):
    assert load().studies["soft_vs_hard"].restricted(tables).generations == chains


def test_a_chain_may_be_cut_short(change):
    root = change(("tables", "generations", "rows"), [{"label": "third", "run": "hard_generation_3"}])
    part = load(root).studies["soft_vs_hard"].restricted(["generations"])
    assert part.generations == {"Hard targets": HARD[:4]}
    assert set(part.runs) == set(HARD[:4])


def test_runs_that_filter_and_mix_say_so_to_their_job():
    experiment = load()
    filtered, mixed, plain = (
        experiment.run("soft_vs_hard", name, seed=0) for name in ("hard_filtered", "hard_half_labelled", "self_hard")
    )
    assert filtered.run.pseudo_labels.keep_share == 0.8
    assert (filtered.run.labelled_share, mixed.run.labelled_share) == (None, 0.5)
    assert (plain.run.pseudo_labels, plain.run.labelled_share) == (None, None)
    assert mixed.run.labelled_utterances(8) == 4
    assert mixed.run.labelled_utterances(7) == 4  # half up


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (
            (CHAINS, "Hard targets"),
            ["teacher", "self_hard", "hard_generation_3"],
            "generations.Hard targets: 'hard_generation_3' stands after 'self_hard', but its teacher is "
            "'hard_generation_2'; name runs in the order in which they teach each other",
        ),
        (
            (CHAINS, "Hard targets"),
            ["teacher", "self_herd", "hard_generation_2"],
            "generations.Hard targets: 'self_herd' is no run of this study; did you mean 'self_hard'?",
        ),
        (
            (CHAINS, "Soft targets"),
            ["teacher", "self_soft"],
            "generations.Soft targets: 2 runs are no chain; write a teacher and two generations or more",
        ),
        (
            (RUNS, "self_hard", "teacher"),
            "hard_generation_4",
            " in a circle: self_hard <- hard_generation_4 <- hard_generation_3 <- hard_generation_2 <- self_hard",
        ),
        (
            (RUNS, "hard_filtered", "pseudo_labels"),
            {"keep_share": 0},
            "runs.hard_filtered.pseudo_labels.keep_share: Input should be greater than 0, found 0",
        ),
        (
            (RUNS, "hard_filtered", "pseudo_labels"),
            {"keep_shere": 0.5},
            "runs.hard_filtered.pseudo_labels: unknown key 'keep_shere'; did you mean 'keep_share'?",
        ),
        (
            (RUNS, "small_supervised", "pseudo_labels"),
            {"keep_share": 0.5},
            "runs.small_supervised: pseudo_labels: there are none without unlabelled speech; leave it out, or change",
        ),
        (
            (RUNS, "small_supervised", "labelled_share"),
            0.5,
            "runs.small_supervised: labelled_share: mixes two kinds of speech; leave it out, or write both as audio",
        ),
        (
            (RUNS, "hard_half_labelled", "audio"),
            ["unlabelled"],
            "runs.hard_half_labelled: labelled_share: mixes two kinds of speech; leave it out, or write both as audio",
        ),
        ((RUNS, "hard_half_labelled", "labelled_share"), 0, "labelled_share: Input should be greater than 0, found 0"),
        ((RUNS, "hard_half_labelled", "labelled_share"), 1, "labelled_share: Input should be less than 1, found 1"),
        (
            (RUNS, "hard_half_labelled", "labelled_share"),
            0.05,
            "runs.hard_half_labelled.labelled_share: 0.05 of 8 utterances, the batch of the phase 'distilled' in the "
            "scale 'smoke', rounds to none or all; write a share nearer to 0.5",
        ),
    ],
)
def test_mistakes_in_chains_filters_and_mixtures(change, keys, value, message):
    root = change(keys, value)
    with pytest.raises(ValueError, match=r"^config/studies/soft_vs_hard\.yaml: ") as error:
        load(root)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_share_is_of_the_run_s_own_batches(change):
    change((RUNS, "hard_half_labelled", "labelled_share"), 0.1)
    load(change((RUNS, "hard_half_labelled", "batch_factor"), 1))
    with pytest.raises(ValueError, match=r"labelled_share: 0\.1 of 4 utterances"):
        load(change((RUNS, "hard_half_labelled", "batch_factor"), 0.5))
