"""Parts of the corpus that only runs which ask for them use: who hears and is scored on what, and mistakes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from asr_distill.experiment import CorpusRecord, StudyRecord, load_experiment, read_yaml, scored_parts
from asr_distill.experiment.parts import training_parts

ROOT = Path(__file__).parents[3]
SETS = {
    "domains": {"news", "test-commands", "test-stories", "test-news"},
    "domains_old": {"commands-old", "stories-old"},
    "domains_new": {"commands-new", "stories-new"},
}
DOMAIN_TESTS = ("test-commands", "test-stories", "test-news")
WITHOUT = ("dev-clean", "dev-other", "test-clean", "test-other")
RUNS = {"old_teacher", "md_hard", "md_soft", "md_new_hard", "md_new_soft"}


def chosen(**values):
    return {"scale": "smoke", "studies": ["soft_vs_hard"], **values}


@pytest.fixture(scope="module")
def experiment():
    return load_experiment(chosen(), root=ROOT)


@pytest.fixture
def root(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def edit(root, name, change):
    """Rewrite config/<name>.yaml after a change to its values in place."""
    path = root / "config" / f"{name}.yaml"
    values = read_yaml(path)
    change(values)
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def failure(root):
    with pytest.raises(ValueError, match=r"\S") as error:
        load_experiment(chosen(), root=root)
    message = str(error.value)
    assert "\n" not in message
    return message


# ---------------------------------------------------------------- who uses what


def test_runs_train_on_what_they_ask_for(experiment):
    runs = experiment.studies["soft_vs_hard"].runs
    heard = {name: training_parts(runs[name], experiment.scale) for name in (*RUNS, "teacher", "self_soft")}
    assert heard["teacher"] == (("train-clean",), ())
    assert heard["self_soft"] == (("train-clean",), ("small",))
    assert heard["old_teacher"] == (("commands-old", "stories-old", "news"), ())
    assert heard["md_hard"] == heard["md_soft"] == ((), ("commands-old", "stories-old", "news"))
    assert heard["md_new_hard"] == heard["md_new_soft"] == ((), ("commands-new", "stories-new", "news"))


def test_students_normalise_as_their_first_teacher_does(experiment):
    assert {experiment.run("soft_vs_hard", name, seed=0).normalised_by for name in RUNS} == {
        ("commands-old", "stories-old", "news")
    }
    for name in ("teacher", "self_hard", "weak_soft"):
        assert experiment.run("soft_vs_hard", name, seed=0).normalised_by == ("train-clean",)


def test_runs_are_scored_on_the_tests_of_their_sets_and_on_those_of_none(experiment):
    for name, run in experiment.studies["soft_vs_hard"].runs.items():
        found = scored_parts(run, experiment.scale)
        if run.recogniser == "best_rq":
            assert found == ()
        else:
            assert found == (*WITHOUT, *(DOMAIN_TESTS if name in RUNS else ()))


def test_the_core_knows_nothing_of_sets(tmp_path):
    experiment = load_experiment(chosen(work=str(tmp_path)), root=ROOT)
    experiment.write()
    work = tmp_path / "smoke"
    whole = experiment.scale.corpus.parts
    in_sets = set().union(*SETS.values())
    assert {name for name, part in whole.items() if part.part_set is not None} == in_sets
    assert CorpusRecord.read(work / "corpus.yaml").corpus.parts.keys() == whole.keys() - in_sets
    assert CorpusRecord.read(work / "sets.yaml").corpus.parts.keys() == whole.keys()
    core, domains = (
        StudyRecord.read(work / "soft_vs_hard/report" / name / "study.yaml") for name in ("core", "table7")
    )
    assert not in_sets & core.scale.corpus.parts.keys()
    assert set(core.scale.conditions) == {"clean", "other", "adults", "children"}
    assert set(core.scale.columns) == {"dev_clean", "dev_other", "test_clean", "test_other"}
    assert core.scored_parts == WITHOUT
    assert in_sets <= domains.scale.corpus.parts.keys()
    assert domains.scored_parts == (*WITHOUT, *DOMAIN_TESTS)
    assert set(domains.study.runs) == RUNS


def test_an_edited_part_of_a_set_leaves_the_records_of_the_core_alone(root, tmp_path):
    work = tmp_path / "work"
    load_experiment(chosen(work=str(work)), root=root).write()
    names = [
        "smoke/corpus.yaml",
        "smoke/soft_vs_hard/report/core/study.yaml",
        "smoke/soft_vs_hard/teacher/seed0/run.yaml",
    ]
    before = {name: (work / name).read_bytes() for name in names}
    sets = (work / "smoke/sets.yaml").read_bytes()
    edit(root, "scales/smoke", lambda values: values["corpus"]["parts"]["news"].update(utterances=9))
    load_experiment(chosen(work=str(work)), root=root).write()
    assert {name: (work / name).read_bytes() for name in names} == before
    assert (work / "smoke/sets.yaml").read_bytes() != sets


# ---------------------------------------------------------------- scales without them


@pytest.mark.parametrize("missing", [{"domains_new"}, set(SETS)])
def test_tables_without_speech_are_left_out_with_their_runs_and_claims(root, missing):
    def remove(values):
        parts = values["corpus"]["parts"]
        values["corpus"]["parts"] = {name: part for name, part in parts.items() if part.get("part_set") not in missing}
        for key in ("columns", "conditions"):
            values[key] = {name: part for name, part in values[key].items() if part in values["corpus"]["parts"]}

    whole = load_experiment(chosen(), root=ROOT).studies["soft_vs_hard"]
    edit(root, "scales/smoke", remove)
    experiment = load_experiment(chosen(), root=root)
    study, left_out = experiment.studies["soft_vs_hard"], experiment.left_out["soft_vs_hard"]
    gone = RUNS if "domains" in missing else {"md_new_hard", "md_new_soft"}
    assert whole.runs.keys() - study.runs.keys() == gone
    assert whole.tables.keys() - study.tables.keys() == {"table7"}
    assert whole.claims.keys() - study.claims.keys() == {"A7"}
    assert left_out.keys() == {"table7", "A7"}
    assert all(name in left_out["table7"] for name in missing)
    assert experiment.record("soft_vs_hard", "complete").left_out == left_out


def test_students_of_a_left_out_teacher_are_left_out(root):
    def new_teacher(values):
        values["runs"]["md_soft"] |= {"teacher": "md_new_hard"}
        values["runs"]["md_soft"]["audio"] = ["labelled"]

    edit(root, "studies/soft_vs_hard", new_teacher)
    edit(root, "scales/smoke", _without_new_speech)
    runs = load_experiment(chosen(), root=root).studies["soft_vs_hard"].runs
    assert runs.keys() & RUNS == {"old_teacher", "md_hard"}


def _without_new_speech(values):
    for part in SETS["domains_new"]:
        del values["corpus"]["parts"][part]


def test_a_scale_that_has_everything_leaves_nothing_out(experiment):
    assert experiment.left_out == {"soft_vs_hard": {}}


def test_parts_without_a_set_may_be_members_of_sets(tmp_path):
    experiment = load_experiment(chosen(work=str(tmp_path / "work")), root=ROOT)
    experiment.write()
    runs = experiment.studies["soft_vs_hard"].runs
    heard = {name: training_parts(runs[name], experiment.scale) for name in ("teacher", "self_soft", "adults_teacher")}
    assert heard["teacher"] == heard["adults_teacher"] == (("train-clean",), ())
    assert heard["self_soft"] == (("train-clean",), ("small",))
    assert training_parts(runs["children_soft"], experiment.scale) == ((), ("train-clean", "small"))
    assert scored_parts(runs["children_soft"], experiment.scale) == WITHOUT
    assert "A7b" in experiment.studies["soft_vs_hard"].claims
    reports = tmp_path / "work/smoke/soft_vs_hard/report"
    core, real = (StudyRecord.read(reports / name / "study.yaml") for name in ("core", "table7b"))
    assert core.scale.corpus.sets == ()
    assert real.scale.corpus.sets == ("adults", "children")


# ---------------------------------------------------------------- mistakes


def audio(run, *names):
    return lambda values: values["runs"][run].update(audio=list(names))


def compare_under(*conditions):
    return lambda values: values["claims"]["A7"]["comparisons"][2].update(conditions=list(conditions))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            audio("md_hard", "domains", "domain_old"),
            "'domain_old' is no kind of speech or set of this study; did you mean",
        ),
        (
            audio("self_hard", "labeled"),
            "runs.self_hard.audio: 'labeled' is no kind of speech or set of this study; did",
        ),
        (audio("old_teacher", "domains", "domains_new"), "nobody transcribes 'commands-new' for a supervised run"),
        (audio("md_hard", "domains_old"), "runs.md_hard.audio: of domains_old no part has use: test"),
        (lambda values: values["runs"]["teacher"].update(human_labels=False), "human_labels: supervised runs learn"),
        (
            lambda values: values["claims"]["A7"]["comparisons"][0].update(right="self_soft"),
            "claims.A7: 'self_soft' is not scored on test-commands",
        ),
        (compare_under("nws"), "claims.A7.conditions: 'nws' is no condition of 'smoke'; did you mean 'news'?"),
        (lambda values: values["claims"]["A7"].pop("conditions"), "claims.A7: conditions: go with comparisons"),
        (lambda values: values["lattice"].update(condition="news"), "lattice.condition: 'news' is no condition"),
        (lambda values: values["tables"]["table7"].update(printed="table7_domain"), "'table7_domain' is no table of"),
        (
            lambda values: values["tables"]["table7"].update(printed="table1_table2_data_hours"),
            "is no table of the paper",
        ),
        (lambda values: values["tables"]["table7"]["rows"][0].update(printed="columns"), "'columns' is no row of the"),
        (
            lambda values: values["tables"]["table12"]["rows"][0].update(printed="soft@250"),
            "'soft@250': '250' is no column of the printed table; did you mean '256'?",
        ),
    ],
)
def test_mistakes_in_a_study(root, change, message):
    edit(root, "studies/soft_vs_hard", change)
    found = failure(root)
    assert found.startswith("config/studies/soft_vs_hard.yaml: ")
    assert message in found


def part(name, **values):
    return lambda scale: scale["corpus"]["parts"][name].update(values)


def rename(old, new):
    def change(scale):
        parts = scale["corpus"]["parts"]
        scale["corpus"]["parts"] = {new if name == old else name: value for name, value in parts.items()}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (part("news", part_set="labelled"), "news.part_set: 'labelled' is what parts without a set are called"),
        (part("news", also_in=["adults"]), "news.also_in: is for parts without a set, and this one is of 'domains'"),
        (part("small", also_in=["unlabelled"]), "small.also_in: 'unlabelled' is what parts without a set are called"),
        (part("small", also_in=["childrn"]), "small.also_in: 'childrn' is no set of this study; did you mean 'childr"),
        (part("commands-new", part_set="domains_nwe"), "'domains_nwe' is no set of this study; did you mean 'domains_"),
        (
            part("small", part_set="domains_new", also_in=[]),
            "corpus.parts.dev-clean: stands after 'small', which belongs to a set",
        ),
        (rename("small", "mean"), "corpus.parts.mean: the name is taken"),
        (
            lambda scale: scale["columns"].update(voice_serch="test-news"),
            "'voice_serch' is no column of a paper's table;",
        ),
        (lambda scale: scale["columns"].update(voice_search="news"), "'news' is no part for dev or test; did you mean"),
        (lambda scale: scale["conditions"].update(news="news"), "conditions.news: 'news' is no part for test; did you"),
        (lambda scale: scale["corpus"]["parts"].pop("test-commands"), "'test-commands' is no part for dev or test"),
    ],
)
def test_mistakes_in_a_scale(root, change, message):
    def with_the_set_misspelt_everywhere(values):
        change(values)
        if values["corpus"]["parts"].get("commands-new", {}).get("part_set") == "domains_nwe":
            values["corpus"]["parts"]["stories-new"]["part_set"] = "domains_nwe"

    edit(root, "scales/smoke", with_the_set_misspelt_everywhere)
    found = failure(root)
    assert found.startswith("config/scales/smoke.yaml: ")
    assert message in found


# ---------------------------------------------------------------- claims and printed figures


def test_a_comparison_may_hold_under_conditions_of_its_own(experiment):
    compared = [
        (condition, comparison.left, comparison.relation, comparison.right)
        for condition, comparison in experiment.studies["soft_vs_hard"].claims["A7"].compared()
    ]
    changed = [("md_new_soft", "<=", "old_teacher"), ("old_teacher", "<", "md_new_hard")]
    assert compared == [
        *(("commands", *sides) for sides in changed),
        *(("stories", *sides) for sides in changed),
        ("news", "md_new_soft", "<", "old_teacher"),
    ]
