"""Tables with columns of their own, tables of means, and tables of what training costs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_stages import report_fake, score_fake
from fake_study import ERROR_RATES, FakeStudy, build_fake_study, misheard, study_record, write_lines

from asr_distill.experiment import StudyRecord
from asr_distill.reporting.costs import megabytes
from asr_distill.reporting.inputs import read_errors, read_scores
from asr_distill.reporting.looks import shown_parts
from asr_distill.reporting.tables import write_tables
from asr_distill.reporting.times import times_frame

NEWS = "test-news"


def record(**tables) -> StudyRecord:
    """Return the invented study with other tables, and a set of parts that `hard` and `soft` ask for."""
    values = study_record().model_dump(mode="json")
    news = values["scale"]["corpus"]["parts"]["test-clean"] | {"part_set": "domains"}
    values["scale"]["corpus"]["parts"] |= {NEWS: news}
    values["scale"]["columns"] |= {"youtube": NEWS}
    values["scale"]["conditions"] |= {"news": NEWS}
    values["study"]["sets"] = {"domains": "one more domain"}
    for run in ("hard", "soft"):
        values["study"]["runs"][run]["audio"] = ["labelled", "unlabelled", "domains"]
    values["study"]["tables"] |= tables
    values["printed"]["other_tables"] = {
        "domains": {"columns": ["voice_search", "youtube"], "e8_hard": {"data": "MD", "wer": [4.2, 8.1]}},
        "batches": {"columns": [256, 512], "soft": [2.10, 2.05]},
    }
    return StudyRecord.model_validate(values)


def build(root, record: StudyRecord) -> FakeStudy:
    """Write the invented study; `hard` and `soft` transcribed the part of their set too."""
    fake = build_fake_study(root, record=record)
    lines = [json.loads(line) for line in fake.references["test-clean"].read_text().splitlines()]
    lines = [line | {"id": f"news-{line['id']}", "speaker": f"n{line['speaker']}"} for line in lines]
    write_lines(fake.scale_work / "corpus" / NEWS / "references.jsonl", lines)
    rng = np.random.default_rng(7)
    for run in ("hard", "soft"):
        path = fake.runs / record.run_folder(run, 0) / "hypotheses.jsonl"
        heard = [{**line, "part": NEWS, "text": misheard(line["text"], rng, ERROR_RATES[run])} for line in lines]
        write_lines(path, [*map(json.loads, path.read_text().splitlines()), *({**one, "score": -1.0} for one in heard)])
    return FakeWithNews(root=root, record=record)


class FakeWithNews(FakeStudy):
    """The invented study with one more test part."""

    @property
    def references(self) -> dict[str, Path]:
        return super().references | {NEWS: self.scale_work / "corpus" / NEWS / "references.jsonl"}


def table(printed: str, *rows: dict[str, str], **values) -> dict[str, object]:
    return {"caption": "A table", "printed": printed, "rows": [{"label": "a row", **row} for row in rows], **values}


def written(fake: FakeStudy, name: str) -> tuple[pd.Series, str]:
    """Return the first row of a table, as text, and the table for people."""
    scores = fake.results / "scores.csv"
    write_tables(fake.study, scores=scores, runs=fake.runs, output=fake.results)
    frame = pd.read_csv(fake.results / f"{name}.csv", dtype=str, keep_default_na=False)
    return frame.iloc[0], (fake.results / f"{name}.md").read_text()


def test_a_table_has_the_columns_that_the_paper_gives_it(tmp_path) -> None:
    own = table("domains", {"run": "hard", "printed": "e8_hard"}, deviations=["Our domains are others."])
    fake = build(tmp_path, record(domain_shift=own))
    score_fake(fake)
    row, text = written(fake, "domain_shift")
    assert row["youtube_printed"] == "8.1"
    scores = read_scores(fake.results / "scores.csv")
    expected = scores[(scores["run"] == "hard") & (scores["part"] == NEWS) & (scores["seed"] == "mean")]["wer"].item()
    assert float(row["youtube_wer"]) == expected
    assert not [name for name in row.index if name.startswith(("test_clean", "voice_search"))]
    assert "- Our domains are others." in text
    usual, other = written(fake, "self_training")
    assert "youtube_wer" not in usual.index
    assert "Our domains" not in other


def test_only_runs_that_ask_for_a_set_are_scored_on_it(tmp_path) -> None:
    fake = build(tmp_path, record())
    score_fake(fake)
    scores = read_scores(fake.results / "scores.csv")
    assert set(scores[scores["part"] == NEWS]["run"]) == {"hard", "soft"}
    assert set(scores[scores["part"] == "test-clean"]["run"]) == set(fake.record.study.runs)


def test_the_real_time_factor_counts_what_a_run_transcribed(tmp_path) -> None:
    fake = build(tmp_path, record())
    seconds = {part: 100.0 + place for place, part in enumerate(fake.references)}
    times = times_frame(fake.record, runs=fake.runs, speech_seconds=seconds).set_index("run")
    speech = times["decode_seconds"] / times["real_time_factor"]
    assert speech["teacher"] == pytest.approx(100 + 101 + 102 + 103)
    assert speech["hard"] == pytest.approx(100 + 101 + 102 + 103 + 104)


def test_figures_show_what_all_their_runs_are_scored_on() -> None:
    values = record().model_dump(mode="json")
    assert shown_parts(StudyRecord.model_validate(values)) == ("test-clean", "test-other")
    values["study"]["figures"] = {"Shifted": ["hard", "soft"]}
    assert shown_parts(StudyRecord.model_validate(values)) == (NEWS,)
    values["scale"]["conditions"] = {}
    assert shown_parts(StudyRecord.model_validate(values)) == ("test-clean", "test-other")


def test_all_stages_cope_with_a_set(tmp_path) -> None:
    own = table("domains", {"run": "hard", "printed": "e8_hard"}, deviations=["Our domains are others."])
    values = record(domain_shift=own).model_dump(mode="json")
    values["left_out"] = {"table99": "the corpus lacks the sets of parts weather"}
    values["study"]["claims"] |= {
        "A7": {
            "statement": "Soft < hard in the news",
            "reported": "-",
            "conditions": ["clean"],
            "comparisons": [
                {"left": "soft", "relation": "<", "right": "teacher"},
                {"left": "soft", "relation": "<", "right": "hard", "conditions": ["news"]},
            ],
        }
    }
    fake = build(tmp_path, StudyRecord.model_validate(values))
    report_fake(fake)
    claims = pd.read_csv(fake.results / "claims.csv", dtype=str, keep_default_na=False)
    own = claims[claims["claim"] == "A7"]
    assert own[["part", "right"]].to_numpy().tolist() == [["test-clean", "teacher"], [NEWS, "hard"]]
    page = (fake.results / "report.html").read_text(encoding="utf-8")
    assert "Left out at this scale: table99 (the corpus lacks the sets of parts weather)." in page
    assert "Our domains are others." in page


def test_provenance_names_no_job_about_sets_of_other_studies(tmp_path) -> None:
    places = ["corpus/test-news/prepare", "synthesize_domains", "overview+domains"]
    others = ["corpus/weather/prepare", "synthesize_weather", "overview+domains+weather"]
    shared = ["synthesize", "overview", "corpus/test-clean/prepare"]
    own, core = (build(tmp_path / "own", record()), build_fake_study(tmp_path / "core"))
    for fake, expected in ((own, {*shared, *places}), (core, {*shared})):
        for place in (*places, *others, *shared):
            path = fake.scale_work / f"{place}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fake.runs / "teacher/seed0/train.tsv", path)
        score_fake(fake)
        report_fake(fake)
        found = json.loads((fake.results / "provenance.json").read_text())["jobs"]
        assert found.keys() & {*places, *others, *shared} == expected


def test_a_table_of_means(tmp_path) -> None:
    means = table("batches", {"run": "soft", "printed": "soft@512"}, {"run": "hard"}, mean=True)
    values = study_record().model_dump(mode="json")
    values["study"]["tables"] |= {"batch_size": means}
    values["printed"]["other_tables"] = record().printed["other_tables"]
    fake = build_fake_study(tmp_path, record=StudyRecord.model_validate(values))
    for part, path in fake.references.items():  # no speaker is in two parts
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        write_lines(path, [line | {"speaker": f"{part}-{line['speaker']}"} for line in lines])
    score_fake(fake)
    row, text = written(fake, "batch_size")
    errors = read_errors(fake.results / "errors.csv")
    own = errors[errors["run"] == "soft"].groupby("part")[["errors", "words"]].sum()
    mean = float((100 * own["errors"] / own["words"]).mean())
    assert float(row["mean_wer"]) == pytest.approx(mean, abs=1e-3)
    assert row["mean_printed"] == "2.05"
    single = [float(row[f"{part}_{bound}"]) for part in ("dev-clean", "test-other") for bound in ("low", "high")]
    low, high = float(row["mean_low"]), float(row["mean_high"])
    assert low < mean < high
    assert high - low < single[3] - single[2]
    assert "dev-clean_printed" not in row.index
    assert "Mean: of the word error rates on dev-clean, dev-other, test-clean, test-other." in text


def test_scores_hold_means_only_where_a_table_shows_them(fake_study: FakeStudy) -> None:
    score_fake(fake_study)
    assert set(read_scores(fake_study.results / "scores.csv")["part"]) == set(fake_study.references)


def test_a_table_of_costs(tmp_path) -> None:
    rows = ({"run": "soft", "printed_memory": "13.7 GB"}, {"printed": "w2v_bert_xl", "printed_memory": "9 GB"})
    values = study_record().model_dump(mode="json")
    values["study"]["tables"] |= {"variants": table("table4_self_training", *rows, cost=True)}
    fake = build_fake_study(tmp_path, record=StudyRecord.model_validate(values))
    score_fake(fake)
    row, text = written(fake, "variants")
    assert (row["memory_printed"], row["memory_megabytes"]) == ("13.7 GB", "812.5")
    assert float(row["step_milliseconds"]) == pytest.approx(1000 * 75.5 / 400, rel=1e-3)
    quoted = pd.read_csv(fake.results / "variants.csv", dtype=str, keep_default_na=False).iloc[1]
    assert (quoted["memory_printed"], quoted["memory_megabytes"], quoted["step_milliseconds"]) == ("9 GB", "", "")
    assert "| 13.7 GB | 812\u00a0MB | 189 |" in text
    assert "vary from run to run" in text
    assert "memory_printed" not in written(fake, "self_training")[0].index


def test_a_training_that_was_not_measured(tmp_path) -> None:
    values = study_record().model_dump(mode="json")
    values["study"]["tables"] |= {"variants": table("table4_self_training", {"run": "soft"}, cost=True)}
    fake = build_fake_study(tmp_path, record=StudyRecord.model_validate(values))
    score_fake(fake)
    (fake.runs / "soft/seed0/train.tsv").unlink()
    assert written(fake, "variants")[0]["memory_megabytes"] == ""


@pytest.mark.parametrize(
    ("number", "text"), [("812.5", "812\u00a0MB"), ("13700", "13.7\u00a0GB"), ("1000", "1.00\u00a0GB"), ("", "")]
)
def test_megabytes(number: str, text: str) -> None:
    assert megabytes(number) == text
