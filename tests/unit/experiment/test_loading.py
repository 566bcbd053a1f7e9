"""Loading, cross-checking and resolving the files in config/."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import types
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asr_distill.experiment import (
    CorpusRecord,
    DecodingRecord,
    Record,
    Row,
    RunRecord,
    Scale,
    Study,
    StudyRecord,
    TokenizerRecord,
    load_experiment,
    nearest,
    read_yaml,
    systems,
    write_if_changed,
)

ROOT = Path(__file__).parents[3]
SCALES, STUDIES = (
    sorted(path.stem for path in (ROOT / "config" / kind).glob("*.yaml")) for kind in ("scales", "studies")
)


SELECTIONS = ("core", "complete", *read_yaml(ROOT / "config/studies/soft_vs_hard.yaml")["tables"])


def named(scale="smoke", study="soft_vs_hard", **values):
    return {"scale": scale, "studies": [study], **values}


def plain(path):
    """Return a YAML file's values, each place its own copy."""
    return json.loads(json.dumps(read_yaml(path)))


@pytest.fixture
def root(tmp_path):
    """Return a copy of config/ that a test may change."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def change(root, name, keys, value):
    """Set a value in config/<name>.yaml; None removes the key."""
    path = root / "config" / f"{name}.yaml"
    values = plain(path)
    place = values
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def leave_core(root):
    """Leave the runs, tables and claims of the first study that are built by default, and their figures."""
    core = load_experiment(named(), root=ROOT).record("soft_vs_hard", "core").study
    path = root / "config/studies/soft_vs_hard.yaml"
    values = plain(path)
    kept = {key: values[key] for key in ("title", "paper", "lattice")}
    kept["figures"] = {title: list(runs) for title, runs in core.figures.items()}
    for key in ("runs", "tables", "claims"):
        kept[key] = {name: value for name, value in values[key].items() if name in getattr(core, key)}
    path.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")


def failure(values, root):
    """Return the message of the ValueError, which is one line."""
    with pytest.raises(ValueError, match=r"\S") as error:
        load_experiment(values, root=root)
    assert type(error.value) is ValueError
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_loads_with_every_study(scale, study, tmp_path):
    values = named(scale, study, seeds=[0, 3], work=str(tmp_path))
    if study in read_yaml(ROOT / f"config/scales/{scale}.yaml").get("studies_left_out", ()):
        assert f"'{study}' is left out at the scale '{scale}': " in failure(values, ROOT)
        return
    experiment = load_experiment(values, root=ROOT)
    experiment.write()
    assert CorpusRecord.read(tmp_path / scale / "corpus.yaml").corpus == experiment.scale.corpus.restricted()
    if experiment.scale.corpus.sets:
        assert CorpusRecord.read(tmp_path / scale / "sets.yaml").corpus == experiment.scale.corpus
    assert TokenizerRecord.read(tmp_path / scale / "tokenizer.yaml").tokenizer == experiment.scale.tokenizer
    assert DecodingRecord.read(tmp_path / scale / "decoding.yaml").decoding == experiment.scale.decoding
    record = StudyRecord.read(tmp_path / scale / study / "report/complete/study.yaml")
    assert (record.study, record.seeds) == (experiment.studies[study], (0, 3))
    named_sets = experiment.scale.corpus.sets if study == "soft_vs_hard" else ()
    assert record.scale.model_dump() == experiment.scale.restricted(named_sets).model_dump()
    for name in record.study.runs:
        for seed in (0, 3):
            run = RunRecord.read(tmp_path / scale / study / record.run_folder(name, seed) / "run.yaml")
            assert run == experiment.run(study, name, seed=seed)
            assert (run.name, run.seed) == (name, seed)


def test_the_config_file_itself_loads_with_all_studies_that_the_scale_does_not_leave_out():
    values = read_yaml(ROOT / "config/config.yaml")
    experiment = load_experiment(values, root=ROOT)
    assert experiment.config.scale in SCALES
    assert set(experiment.studies) == set(STUDIES)
    assert set(load_experiment(values | {"scale": "an4"}, root=ROOT).studies) == {"soft_vs_hard"}


def test_a_part_of_a_study_has_the_runs_of_its_tables_their_teachers_and_what_these_can_decide():
    experiment = load_experiment(named(), root=ROOT)
    record = experiment.record("soft_vs_hard", "table5")
    assert list(record.study.tables) == ["table5"]
    assert set(record.study.runs) == {"teacher", "small_supervised", "small_hard", "small_soft", "small_mixed"}
    assert set(record.study.claims) == {"A3", "A4"}
    assert set(record.undecided) == experiment.studies["soft_vs_hard"].claims.keys() - {"A3", "A4"}
    shown = {run for runs in record.study.figures.values() for run in runs}
    assert shown <= set(record.study.runs)
    assert record.study.lattice is None


def test_a_run_changes_what_its_scale_chose(root):
    changes = {"activation": "swish", "steps_factor": 2.0, "batch_factor": 0.5, "mask_factor": 1.5}
    for key, value in changes.items():
        change(root, "studies/soft_vs_hard", ("runs", "small_soft", key), value)
    experiment = load_experiment(named(), root=root)
    plain, changed = (experiment.run("soft_vs_hard", name, seed=0) for name in ("small_mixed", "small_soft"))
    assert changed.model.encoder.activation == "swish"
    assert changed.model.encoder.model_copy(update={"activation": "squared_relu"}) == plain.model.encoder
    assert changed.phase == plain.phase.model_copy(update={"steps": 12, "batch_utterances": 4})
    masks = {"frequency_masks": 2, "time_masks": 2}  # 1.5 of each, rounded half up
    assert changed.augmentation == plain.augmentation.model_copy(update=masks)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("teacher_shift_ms", 500, "is no less than the shortest utterance that corpus.min_duration allows, 500 ms"),
        ("steps_factor", 0.2, "leaves 1 steps, which the warm-up of the phase 'distilled' (1) would not survive"),
        ("teacher_augmentation", "standart", "did you mean 'standard'?"),
        ("batch_factor", 0, "batch_factor: Input should be greater than 0"),
    ],
)
def test_changes_that_cannot_be_are_refused(root, key, value, said):
    change(root, "studies/soft_vs_hard", ("runs", "small_soft", key), value)
    assert said in failure(named(), root)


def test_tables_that_are_not_core_are_left_to_the_complete_study(root):
    change(root, "studies/soft_vs_hard", ("tables", "table6", "core"), False)
    study = load_experiment(named(), root=root).studies["soft_vs_hard"]
    assert study.selections()["core"] == ("table4", "table5")
    assert study.selections()["complete"] == tuple(study.tables)
    for table in ("table4", "table5"):
        change(root, "studies/soft_vs_hard", ("tables", table, "core"), False)
    assert "tables: none is core" in failure(named(), root)


def test_a_run_is_resolved_from_its_study_and_scale():
    experiment = load_experiment(named(), root=ROOT)
    scale = experiment.scale
    run = experiment.run("soft_vs_hard", "streaming_soft", seed=5)
    assert run.model == scale.models["streaming"]
    assert run.phase == scale.phases["distilled"]
    assert run.augmentation == scale.augmentations["standard"]
    assert (run.labelled, run.unlabelled) == (("train-clean",), ("small",))
    assert run.dev == ("dev-clean", "dev-other")
    assert experiment.run("soft_vs_hard", "teacher", seed=5).unlabelled == ()


# ---------------------------------------------------------------- misspelt keys


def field_keys(record, values, path=()):
    """Yield (where, key) of every key that is a record's field; names that the user gives are left out."""
    if isinstance(values, dict):
        for key, value in values.items():
            if key in record.model_fields:
                yield path, key
                for inner, deeper in _records(record.model_fields[key].annotation, value):
                    yield from field_keys(inner, deeper[1], (*path, key, *deeper[0]))


def _records(annotation, value):
    """Yield the record that each mapping in a value is, as (record, (where, mapping))."""
    arguments = getattr(annotation, "__args__", ())
    if isinstance(annotation, type) and issubclass(annotation, Record):
        yield annotation, ((), value)
    elif hasattr(annotation, "__metadata__"):
        yield from _records(arguments[0], value)
    elif isinstance(annotation, types.UnionType):
        for kind in arguments:
            kind = getattr(kind, "__origin__", kind)
            if isinstance(value, dict) and kind is not types.NoneType and _is_kind(kind, value):
                yield kind, ((), value)
    elif isinstance(value, (dict, list)):
        of_values = arguments[1 if isinstance(value, dict) else 0]
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            for record, (where, mapping) in _records(of_values, inner):
                yield record, ((key, *where), mapping)


def _is_kind(kind, values):
    """Return whether values are of one of several kinds of record, told apart by their source or recogniser."""
    tags = {"source": None, "recogniser": "transducer"}
    told = [
        kind.model_fields[key].annotation.__args__ == (values.get(key, default),)
        for key, default in tags.items()
        if key in kind.model_fields
    ]
    return all(told)


PLACES = [
    (f"config/{kind}/{name}.yaml", path, key)
    for kind, names, record in (("scales", SCALES, Scale), ("studies", STUDIES, Study))
    for name in names
    for path, key in field_keys(record, plain(ROOT / "config" / kind / f"{name}.yaml"))
]


def test_keys_are_found_at_every_depth():
    keys = {(path, key) for file, path, key in PLACES if file == "config/scales/smoke.yaml"}
    assert ((), "corpus") in keys
    assert (("corpus", "parts", "small"), "accents") in keys
    assert (("models", "streaming", "encoder"), "left_context") in keys
    assert len(keys) > 80
    keys = {(path, key) for file, path, key in PLACES if file == "config/studies/soft_vs_hard.yaml"}
    assert (("claims", "A1", "comparisons", 1), "relation") in keys


@st.composite
def misspelt_keys(draw):
    file, path, key = draw(st.sampled_from(PLACES))
    position = draw(st.integers(0, len(key) - 1))
    kind = draw(st.sampled_from(["replace", "drop", "double", "case"]))
    letter = {
        "replace": draw(st.sampled_from("qxz")),
        "drop": "",
        "double": 2 * key[position],
        "case": key[position].swapcase(),
    }[kind]
    return file, path, key, key[:position] + letter + key[position + 1 :]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(misspelt_keys())
def test_a_misspelt_key_is_one_line_with_the_file_and_the_right_word(misspelt):
    file, path, key, wrong = misspelt
    values = plain(ROOT / file)
    place = values
    for step in path:
        place = place[step]
    if wrong in place or wrong == key:
        return
    renamed = [(wrong if name == key else name, value) for name, value in place.items()]
    place.clear()
    place.update(renamed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(ROOT / "config", root / "config")
        (root / file).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        name = Path(file).stem
        message = failure(named(scale=name) if "scales" in file else named(study=name), root)
    assert message.startswith(file)
    assert f"'{key}'" in message
    if key != "source":  # which kind of part it is cannot be told without
        assert f"unknown key '{wrong}'; did you mean '{key}'?" in message


@pytest.mark.parametrize("key", ["scale", "studies", "seeds", "data", "work", "results", "overrides"])
def test_misspelt_keys_of_the_config_file(key):
    message = failure({key + "x": None}, ROOT)
    assert message == f"config/config.yaml or --config: unknown key '{key}x'; did you mean '{key}'?"


def test_the_nearest_word_or_all_words():
    assert nearest("techer", ["teacher", "self_soft"]) == "; did you mean 'teacher'?"
    assert nearest("qqq", ["b", "a"]) == "; known: a, b"
    assert nearest("qqq", []) == "; known: none"


# ---------------------------------------------------------------- references


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": "smok"}, "scale: 'smok' is not in config/scales/; did you mean 'smoke'?"),
        ({"scale": "../scales/smoke"}, "scale: '../scales/smoke' is not in config/scales/"),
        ({"studies": ["soft_vs_herd"]}, "studies: 'soft_vs_herd' is not in config/studies/; did you mean"),
        ({"studies": []}, "config: studies and seeds need at least one entry each"),
        ({"seeds": []}, "config: studies and seeds need at least one entry each"),
        ({"seeds": [1, 1]}, "config: seeds: [1, 1] names a seed twice"),
        ({"seeds": [-1]}, "config/config.yaml or --config: seeds.0: Input should be greater than or equal to 0"),
        ({"seeds": "two"}, "config/config.yaml or --config: seeds: "),
    ],
)
def test_what_cannot_be_chosen(values, message):
    assert failure({"scale": "smoke", **values}, ROOT).startswith(message)


TEACHER = ("runs", "teacher")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("runs", "self_soft", "teacher"), "techer", "'techer' is no run of this study; did you mean 'teacher'?"),
        (("runs", "self_soft", "model"), "lage", "'lage' is no model role in the scale 'smoke'; did you mean 'large'?"),
        (("runs", "self_soft", "phase"), "distiled", "'distiled' is no phase in the scale 'smoke'; did you mean"),
        (("runs", "self_soft", "augmentation"), "standart", "'standart' is no augmentation in the scale 'smoke'; did"),
        (("paper",), "hwang2020", "paper: 'hwang2020' is not in config/papers/; did you mean 'hwang2022'?"),
        (("tables", "table4", "printed"), "table4_self", "'table4_self' is no table of the paper; did you mean"),
        (("tables", "table4", "rows", 0, "run"), "tescher", "'tescher' is no run of this study; did you mean"),
        (("tables", "table4", "rows", 0, "printed"), "b0", "'b0' is no row of the printed table; "),
        (("claims", "A1", "comparisons", 0, "left"), "self_sft", "'self_sft' is no run of this study; did you mean"),
        (("claims", "A1", "conditions"), ["clear"], "'clear' is no condition of 'smoke'; did you mean 'clean'?"),
        (("figures", "Same architecture"), ["theacher"], "'theacher' is no run of this study; did you mean 'teacher'?"),
        (("lattice", "runs"), ["teecher"], "lattice.runs: 'teecher' is no run of this study; did you mean 'teacher'?"),
        (("runs", "teacher", "audio"), ["unlabelled"], "supervised runs have no targets for unlabelled speech"),
        (("runs", "self_soft", "audio"), [], "runs.self_soft: audio: is empty"),
        (("runs", "self_soft", "soft_losses"), {}, "soft_losses: is empty; name at least one loss"),
        (("runs", "self_hard", "teacher_shift_ms"), 60, "soft_losses, teacher_shift_ms: hard targets have none"),
        (("runs", "self_soft", "fast_emit"), 0.1, "fast_emit: goes with a transducer loss"),
        (("runs", "self_soft", "alpha"), 0.5, "alpha: soft targets mean 0.0, found 0.5; use targets: mixed"),
        (("runs", "self_soft", "teacher"), None, "teacher: soft targets need a teacher: name a run"),
        (("runs", "small_supervised", "teacher"), "teacher", "teacher: supervised targets must not name a teacher"),
        (("runs", "self_soft", "targets"), "sofd", "Input should be 'supervised', 'hard', 'soft' or 'mixed'"),
        (("runs", "self_soft", "alpha"), 1.5, "runs.self_soft.alpha: Input should be less than or equal to 1"),
    ],
)
def test_references_of_a_study_that_lead_nowhere(root, keys, value, message):
    change(root, "studies/soft_vs_hard", keys, value)
    found = failure(named(), root)
    assert message in found
    assert found.startswith(("config/studies/soft_vs_hard.yaml: ", "paper: "))


@pytest.mark.parametrize(
    ("teachers", "circle"),
    [
        ({"self_soft": "self_soft"}, "self_soft <- self_soft"),
        ({"self_soft": "small_soft", "small_soft": "self_soft"}, "self_soft <- small_soft <- self_soft"),
        ({"self_hard": "self_soft", "self_soft": "small_hard", "small_hard": "self_hard"}, "self_hard <- self_soft <-"),
    ],
)
def test_teachers_in_a_circle(root, teachers, circle):
    for run, teacher in teachers.items():
        change(root, "studies/soft_vs_hard", ("runs", run, "teacher"), teacher)
    assert f"runs need each other in a circle: {circle}" in failure(named(), root)


def test_a_chain_of_teachers_is_fine(root):
    change(root, "studies/soft_vs_hard", ("runs", "small_soft", "teacher"), "self_soft")
    change(root, "studies/soft_vs_hard", ("runs", "small_hard", "teacher"), "small_soft")
    load_experiment(named(), root=root)


def test_lattices_are_compared_at_one_frame_rate(root):
    change(root, "scales/smoke", ("models", "streaming", "encoder", "stack"), 4)
    message = failure(named(), root)
    assert "'teacher' stacks 8 frames and 'streaming_soft' 4: soft targets compare lattices frame by frame" in message
    leave_core(root)
    for name in ("streaming_soft", "streaming_mixed"):  # hard targets are words
        change(root, "studies/soft_vs_hard", ("runs", name, "targets"), "hard")
        change(root, "studies/soft_vs_hard", ("runs", name, "alpha"), 1.0)
    load_experiment(named(), root=root)


@pytest.mark.parametrize("condition", ["clean", "other"])
def test_the_lattice_figure_needs_a_condition_of_the_scale(root, condition):
    missing = {"clean": "other", "other": "clean"}[condition]
    change(root, "scales/smoke", ("conditions",), {condition: f"test-{condition}"})
    change(root, "studies/soft_vs_hard", ("claims",), {})
    change(root, "studies/soft_vs_hard", ("lattice", "condition"), condition)
    load_experiment(named(), root=root)
    change(root, "studies/soft_vs_hard", ("lattice", "condition"), missing)
    assert f"lattice.condition: '{missing}' is no condition of 'smoke'" in failure(named(), root)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("tokenizer", "vocabulary"), 3, "tokenizer.vocabulary: Input should be greater than or equal to 4, found 3"),
        (("columns", "dev_clean"), "dev-clear", "columns.dev_clean: 'dev-clear' is no part for dev or test; did you"),
        (("columns", "dev_clean"), "small", "columns.dev_clean: 'small' is no part for dev or test"),
        (("conditions", "clean"), "dev-clean", "conditions.clean: 'dev-clean' is no part for test; did you mean"),
        (("features",), {"speed_perturbation": [0.9]}, "features.speed_perturbation: the speed 1.0 must be among"),
        (("corpus", "min_duration"), 20, "corpus.min_duration: 20.0 is not below max_duration"),
        (("corpus", "parts", "train-clean", "use"), "test", "corpus.parts: none has use: labelled; training needs one"),
        (("corpus", "parts", "dev-clean", "source"), "synthetik", "source: 'synthetik' is none; did you mean"),
        (("corpus", "parts", "train-clean", "layout"), "libri", "corpus.parts.train-clean.layout: Input should be"),
        (("corpus", "parts", "bad name"), {"use": "dev"}, "String should match pattern"),
        (("models", "large", "encoder", "heads"), 3, "models.large.encoder: dim: 16 is no multiple of 2 x heads = 6"),
        (("models", "large", "encoder", "kernel"), 4, "models.large.encoder: kernel: 4 has no middle; write an odd"),
        (("models", "streaming", "encoder", "right_context"), 1, "right_context: a streaming encoder cannot look"),
        (("models", "large", "encoder", "layers"), "two", "models.large.encoder.layers: Input should be a valid"),
        (("models", "large", "joint"), None, "models.large.joint: Field required"),
        (("phases", "teacher", "warmup_steps"), 6, "warmup_steps: 6 must be smaller than steps: 6"),
        (("augmentations", "standard", "frequency_mask_width"), 80, "hides all 80 mel bins; write less"),
    ],
)
def test_mistakes_in_a_scale(root, keys, value, message):
    change(root, "scales/smoke", keys, value)
    found = failure(named(), root)
    assert message in found
    assert found.startswith("config/scales/smoke.yaml: ")


def test_unlabelled_speech_must_exist(root):
    change(root, "scales/smoke", ("corpus", "parts", "small"), None)
    assert "audio: the scale 'smoke' has no unlabelled part; write audio: [labelled]" in failure(named(), root)


@pytest.mark.parametrize(
    ("speakers", "message"),
    [
        ([40, 8, "rest"], None),
        ([40, 8, 4], None),
        (["all", 8, "rest"], "corpus.parts.train-labelled.speakers: 'all' leaves none for train-unlabelled; write"),
        ([40, 8, "all"], "corpus.parts.train-unlabelled.speakers: 'all' leaves none for"),
        (["rest", 8, 4], "corpus.parts.train-labelled.speakers: only the last part can take the 'rest'"),
        ([40, "rest", "rest"], "corpus.parts.dev.speakers: only the last part can take the 'rest'"),
        ([40, 8, 0], "corpus.parts.train-unlabelled.speakers"),
        ([40, 8, "some"], "corpus.parts.train-unlabelled.speakers"),
    ],
)
def test_parts_of_one_manifest_share_no_speaker(root, speakers, message):
    for part, value in zip(("train-labelled", "dev", "train-unlabelled"), speakers, strict=True):
        change(root, "scales/an4", ("corpus", "parts", part, "speakers"), value)
    if message is None:
        load_experiment(named("an4"), root=root)
    else:
        assert message in failure(named("an4"), root)


# ---------------------------------------------------------------- YAML, overrides, files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("description: a\ncorpus: {}\ndescription: b\n", "key 'description' stands twice"),
        ("models: {large: {joint: 1, joint: 2}}\n", "key 'joint' stands twice"),
        ("a: [1\nb: {\n", "not readable as YAML"),
        ("- a\n- b\n", "expected keys and values, found list"),
        ("", "expected keys and values, found NoneType"),
        ("a: !!python/object/apply:os.system ['true']\n", "not readable as YAML"),
    ],
)
def test_what_is_no_mapping_in_yaml(root, text, message):
    path = root / "config/scales/smoke.yaml"
    path.write_text(text, encoding="utf-8")
    found = failure(named(), root)
    assert message in found
    assert "smoke.yaml" in found


def test_a_file_that_is_no_text(root):
    (root / "config/scales/smoke.yaml").write_bytes(b"description: \xff\xfe\n")
    assert "not readable as YAML" in failure(named(), root)


def test_overrides_are_merged_key_by_key():
    overrides = {"phases": {"teacher": {"steps": 123}}, "scoring": {"seed": 7}, "deviations": ["one"]}
    plain_scale = load_experiment(named(), root=ROOT).scale
    scale = load_experiment(named(overrides=overrides), root=ROOT).scale
    assert scale.phases["teacher"] == plain_scale.phases["teacher"].model_copy(update={"steps": 123})
    assert scale.phases["distilled"] == plain_scale.phases["distilled"]  # though YAML has them as one
    assert (scale.scoring.seed, scale.scoring.replicates) == (7, plain_scale.scoring.replicates)
    assert scale.deviations == ("one",)
    assert scale.corpus == plain_scale.corpus


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"phase": {}}, "unknown key 'phase'; did you mean 'phases'?"),
        ({"phases": {"teacher": {"step": 1}}}, "phases.teacher: unknown key 'step'; did you mean 'steps'?"),
        ({"phases": 3}, "phases: Input should be a valid dictionary, found 3"),
    ],
)
def test_overrides_are_checked(overrides, message):
    assert failure(named(overrides=overrides), ROOT) == f"config/scales/smoke.yaml: {message}"


def test_files_that_say_the_same_keep_their_time(tmp_path):
    values = named(seeds=[0, 1], work=str(tmp_path))
    load_experiment(values, root=ROOT).write()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    runs = read_yaml(ROOT / "config/studies/soft_vs_hard.yaml")["runs"]
    assert len(files) == 5 + len(SELECTIONS) + 2 * len(runs)
    for path in files:
        os.utime(path, ns=(10**9, 10**9))
    load_experiment(values, root=ROOT).write()
    assert all(path.stat().st_mtime_ns == 10**9 for path in files)
    changed = values | {"overrides": {"phases": {"teacher": {"learning_rate": 0.5}}}}
    load_experiment(changed, root=ROOT).write()
    touched = {str(path.relative_to(tmp_path / "smoke")) for path in files if path.stat().st_mtime_ns != 10**9}
    teachers = [name for name, run in runs.items() if run["phase"] == "teacher"]
    records = {f"soft_vs_hard/{name}/seed{seed}/run.yaml" for name in teachers for seed in (0, 1)}
    assert touched == {f"soft_vs_hard/report/{name}/study.yaml" for name in SELECTIONS} | records
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(files)


def test_a_changed_record_is_written_whole(tmp_path):
    run = load_experiment(named(), root=ROOT).run("soft_vs_hard", "teacher", seed=0)
    path = tmp_path / "a" / "b" / "run.yaml"
    write_if_changed(path, run)
    assert RunRecord.read(path) == run
    other = run.model_copy(update={"seed": 9})
    write_if_changed(path, other)
    assert RunRecord.read(path) == other
    assert run.to_yaml() == RunRecord.model_validate(run.model_dump()).to_yaml()


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("runs", "ctc", "recogniser"), "ctcc", "recogniser: 'ctcc' is none; did you mean 'ctc'?"),
        (("runs", "ctc", "model"), "cct", "'cct' is no model role in the scale 'smoke'; did you mean 'ctc'?"),
        (("runs", "ctc", "intermediate"), 1, "intermediate: nothing reads intermediate layers"),
        (("runs", "ctc", "knowledge"), {"top_k": 3}, "knowledge: decoder: none learns nothing of BERT"),
        (("runs", "aed_kd", "frame_knowledge"), {"top_k": 3}, "frame_knowledge: is for runs whose decoder does not"),
        (("runs", "aed_kd", "label_smoothing"), 0.1, "label_smoothing: is for decoders that learn the transcript"),
        (
            ("runs", "aed_kd", "knowledge"),
            {"top_k": 51},
            "BERT's top 51, but language_models.soft_label_top_k is 50",
        ),
        (("runs", "interaed", "intermediate"), 4, "4 layers below the final one; 'ctc' has 3 in the scale 'smoke'"),
        (
            ("claims", "B5", "comparisons", 0, "right"),
            "ctc@beam_2",
            "'ctc@beam_2' is no run of this study; did you",
        ),
        (
            ("tables", "table1", "rows", 6, "printed"),
            "ctc@beam_3",
            "'beam_3' is no way of decoding in the printed",
        ),
        (("claims", "B6", "speed", 0, "slow"), "beam_2", "B6.speed: 'beam_2' is no search of this study; did you mean"),
        (("claims", "B6", "speed", 2, "fast"), "layer_1", "claims.B6.speed: 'layer_1' is no search of this study"),
        (("claims", "B6", "speed", 0, "at_least"), 0, "claims.B6.speed.0.at_least: Input should be greater than 0"),
        (("claims", "B6", "speed"), [], "claims.B6: comparisons: nothing decides the claim"),
        (("claims", "B6", "conditions"), ["clean"], "claims.B6: conditions: go with comparisons of word error rates"),
        (("claims", "B5", "conditions"), [], "claims.B5: conditions: go with comparisons of word error rates"),
        (("samples", "systems"), {"A": "ctcc"}, "samples.systems: 'ctcc' is no run of this study; did you mean 'ctc'?"),
        (("samples", "compared", 1), "aed_kd@atention", "samples.compared: 'aed_kd@atention' is no run of this study"),
        (("samples", "compared"), ["ctc"], "samples.compared.1: Field required"),
        (("samples", "utterances"), 0, "samples.utterances: Input should be greater than or equal to 1, found 0"),
        (("knowledge", "runs", 0), "ctc", "knowledge.runs: 'ctc' is no run of this study with an attention decoder; "),
        (("knowledge", "runs", 0), "interaedkd", "with an attention decoder; did you mean 'interaed_kd'?"),
    ],
)
def test_mistakes_in_a_study_of_ctc_recognisers(root, keys, value, message):
    change(root, "studies/lm_into_ctc", keys, value)
    assert message in failure(named(study="lm_into_ctc"), root)


@pytest.mark.parametrize(("name", "missing", "left"), [("samples", "other", "clean"), ("knowledge", "clean", "other")])
def test_what_is_shown_of_ctc_recognisers_needs_a_condition_of_the_scale(root, name, missing, left):
    change(root, "scales/smoke", ("conditions",), {left: f"test-{left}"})
    change(root, "studies/lm_into_ctc", ("claims",), {})
    for shown in ("samples", "knowledge"):
        change(root, "studies/lm_into_ctc", (shown, "condition"), left)
    load_experiment(named(study="lm_into_ctc"), root=root)
    change(root, "studies/lm_into_ctc", (name, "condition"), missing)
    assert f"{name}.condition: '{missing}' is no condition of 'smoke'" in failure(named(study="lm_into_ctc"), root)


def test_a_part_of_a_study_decides_on_the_speed_of_searches_that_it_has(root):
    study = load_experiment(named(study="lm_into_ctc"), root=root).studies["lm_into_ctc"]
    fast = study.claims["B6"].model_copy(update={"speed": study.claims["B6"].speed[:2]})
    assert fast.searches() == {"greedy", "beam_1", "beam_10"}
    runs = study.runs
    assert study.claims["B6"].decidable({name: runs[name] for name in ("ctc", "aed_kd")})
    without = {"ctc": runs["ctc"], "hidden_l2": runs["hidden_l2"]}  # whose decoder transcribes nothing
    assert not study.claims["B6"].decidable(without)
    assert fast.decidable(without)
    assert not fast.decidable({})
    table = study.tables["table1"].model_copy(update={"rows": (Row(label="CTC", run="ctc"),)})
    part = study.model_copy(update={"tables": {"few": table}, "claims": {"B6": study.claims["B6"], "fast": fast}})
    assert set(part.restricted(["few"]).claims) == {"fast"}
    both = study.claims["B5"].model_copy(update={"speed": fast.speed})
    assert not both.decidable({"ctc": runs["ctc"]})
    assert both.decidable({name: runs[name] for name in ("ctc", "interaed_kd")})


def test_bert_can_be_shown_only_where_there_is_one(root):
    samples = {"systems": {"A": "teacher"}, "compared": ["teacher", "self_hard"]}
    change(root, "studies/soft_vs_hard", ("samples",), samples)
    load_experiment(named(), root=root)
    change(root, "scales/smoke", ("language_models",), None)
    message = "samples: shows BERT, but there are no language_models in the scale 'smoke'; remove it"
    assert message in failure(named(), root)


def test_a_part_of_a_study_shows_only_utterances_of_its_own_runs(root):
    change(root, "studies/lm_into_ctc", ("samples", "compared", 1), "interaed@attention")
    study = load_experiment(named(study="lm_into_ctc"), root=root).studies["lm_into_ctc"]
    rows = {"table1": ("ctc", "interaed", "interaed_kd_interctc"), "few": ("ctc", "interaed_kd_interctc"), "none": ()}
    for name, runs in rows.items():
        table = study.tables["table1"].model_copy(update={"rows": tuple(Row(label=run, run=run) for run in runs)})
        part = study.model_copy(update={"tables": {name: table}}).restricted([name])
        assert (part.samples is not None) == (name == "table1")
        assert part.knowledge is None  # interaed_interctc is nowhere
    assert study.restricted(["table1"]).knowledge == study.knowledge is not None


def test_a_ctc_study_needs_language_models_and_decoders_of_the_scale(root):
    change(root, "scales/smoke", ("language_models", "search", "lm_weights"), [])
    assert "lm_weights: is empty; there is nothing to try on the dev sets" in failure(named(study="lm_into_ctc"), root)
    change(root, "scales/smoke", ("language_models", "search", "lm_weights"), [0.5])
    change(root, "scales/smoke", ("ctc_models", "ctc", "decoder"), None)
    assert "the model role 'ctc' has no attention decoder" in failure(named(study="lm_into_ctc"), root)
    change(root, "scales/smoke", ("language_models",), None)
    assert "there are no language_models in the scale 'smoke'" in failure(named(study="lm_into_ctc"), root)


def test_a_ctc_run_is_several_systems(root):
    found = load_experiment(named(study="lm_into_ctc"), root=root)
    known = systems(found.studies["lm_into_ctc"], found.scale)
    layers = ["ctc@layer_1", "ctc@layer_2", "ctc@layer_3"]  # the fourth is the final one
    assert list(known)[:7] == ["ctc", "ctc@beam_1", "ctc@beam_10", *layers, "aed_kd"]
    assert known["aed_kd@layer_2"] == ("aed_kd", "searches/layer_2.jsonl")
    assert "ctc@layer_4" not in known
    assert known["aed_kd@attention"] == ("aed_kd", "searches/attention.jsonl")
    assert known["ctc@beam_10"] == ("ctc", "searches/beam_10.jsonl")
    assert "ctc@attention" not in known
