"""Which methods are best and whether some upset an order, against slow arithmetic; gains by quality of the teacher."""

from __future__ import annotations

from pathlib import Path

import jiwer
import numpy as np
import pandas as pd
import pytest
from fake_methods import build_fake_methods, methods_record, read_lines
from fake_stages import score_fake
from fake_study import FakeStudy

from asr_distill.reporting.comparisons import COLUMNS, compare_family, in_points
from asr_distill.reporting.inputs import read_errors, read_texts
from asr_distill.reporting.verdicts import statements, verdict_grids, verdicts_frame, write_verdicts
from asr_distill.reporting.weak_teachers import gain_figure, gains_frame, gains_grid, write_gains
from asr_distill.text.normalise import normalise

RECORD = methods_record()
STREAMING = ["supervised", "hard", "soft", "shift_60", "shift_120", "sum"]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    """Return the study of methods after scoring; to be read only."""
    fake = build_fake_methods(tmp_path_factory.mktemp("scored"))
    score_fake(fake)
    return fake


@pytest.fixture(scope="module")
def errors(scored: FakeStudy) -> pd.DataFrame:
    return read_errors(scored.results / "errors.csv")


def error_rate(fake: FakeStudy, run: str, part: str) -> float:
    """Return a run's word error rate in percent, from the files themselves."""
    said = {line["id"]: normalise(line["text"]) for line in read_lines(fake.runs / f"{run}/seed0/hypotheses.jsonl")}
    lines = read_lines(fake.references[part])
    return 100 * jiwer.wer([normalise(line["text"]) for line in lines], [said[line["id"]] for line in lines])


def invented(counts: dict[str, list[int]], *, words: int = 10) -> pd.DataFrame:
    """Return word errors of runs on test-clean, one utterance per speaker."""
    return pd.DataFrame(
        [
            {
                "run": run,
                "seed": 0,
                "part": "test-clean",
                "id": f"u{n}",
                "speaker": f"{n:02d}",
                "words": words,
                "errors": k,
            }
            for run, own in counts.items()
            for n, k in enumerate(own)
        ]
    )


def holm_by_hand(p_values: list[float]) -> list[float]:
    """Return adjusted p-values: for each, the largest of what it and all smaller ones come to."""
    ordered = sorted(p_values)
    steps = [min(1.0, (len(ordered) - place) * p) for place, p in enumerate(ordered)]
    return [max(steps[: ordered.index(p) + 1]) for p in p_values]


def test_a_family_is_corrected_for_its_size() -> None:
    """Three pairs, of which one would be significant alone; a fourth of four alone is."""
    steady = [5] * 24
    better = [4 - (n % 3) for n in range(24)]  # plainly better than 5
    alone = next(
        candidate
        for k in range(24)
        for candidate in [[5 + (-1) ** n - (n < k) for n in range(24)]]
        if 0.0167 < _p(candidate, steady) <= 0.05
    )
    even = [5 + (-1) ** n for n in range(24)]
    counts = {"hard": steady, "soft": better, "mixed": alone, "supervised": even}
    pairs = [("soft", "hard"), ("mixed", "hard"), ("supervised", "hard")]
    rows = compare_family(RECORD, pairs, "test-clean", errors=invented(counts))
    p_values = [float(row["p_value"]) for row in rows]
    assert [float(row["p_holm"]) for row in rows] == pytest.approx(holm_by_hand(p_values), abs=2e-4)
    assert [row["verdict"] for row in rows] == ["reproduced", "inconclusive", "inconclusive"]
    (single,) = compare_family(RECORD, pairs[1:2], "test-clean", errors=invented(counts))
    assert single["verdict"] == "reproduced"
    assert (single["p_holm"], single["low"], single["high"]) == (single["p_value"], rows[1]["low"], rows[1]["high"])
    assert float(rows[0]["difference"]) == pytest.approx(100 * (3 - 5) / 10)
    assert set(rows[0]) == set(COLUMNS)


def _p(left: list[int], right: list[int]) -> float:
    errors = invented({"mixed": left, "hard": right})
    (row,) = compare_family(RECORD, [("mixed", "hard")], "test-clean", errors=errors)
    return float(row["p_value"])


def test_no_difference_and_worse_are_told_apart_from_not_knowing() -> None:
    wild = [9 * (n % 2) for n in range(24)]
    counts = {"hard": [5] * 24, "soft": [5] * 24, "mixed": [7] * 24, "supervised": wild}
    rows = compare_family(
        RECORD, [(run, "hard") for run in ("soft", "mixed", "supervised")], "test-clean", errors=invented(counts)
    )
    assert [row["verdict"] for row in rows] == ["not reproduced", "not reproduced", "inconclusive"]


def test_runs_scored_on_other_words_cannot_be_compared() -> None:
    counts = invented({"hard": [1, 2], "soft": [1, 2]})
    with pytest.raises(ValueError, match="soft against hard on test-clean: a comparison needs the same utterances"):
        compare_family(RECORD, [("soft", "hard")], "test-clean", errors=counts.iloc[:-1])


def test_points_in_both_directions() -> None:
    row = {"difference": "-3.100", "low": "-4.000", "high": "0.020"}
    assert in_points(row) == "−3.1 [−4.0, 0.0]"
    assert in_points(row, sign=-1) == "+3.1 [0.0, 4.0]"
    assert in_points({"difference": "1.000", "low": "nan", "high": "nan"}, sign=-1) == "−1.0 [n/a]"


def test_the_best_of_each_group_is_held_against_all_others(scored: FakeStudy, errors: pd.DataFrame) -> None:
    frame = verdicts_frame(RECORD, "methods", errors=errors)
    best = frame[frame["question"] == "best"]
    groups = {"Small": ["supervised", "hard", "soft"], "Streaming": [f"streaming_{name}" for name in STREAMING]}
    for part in ("test-clean", "test-other"):
        for group, runs in groups.items():
            own = best[(best["part"] == part) & (best["group"] == group)]
            rates = sorted((error_rate(scored, run, part), run) for run in runs)
            assert set(own["left"]) == {rates[0][1]}
            assert own["right"].tolist() == [run for _, run in rates[1:]]
            assert own["right_wer"].astype(float).tolist() == pytest.approx([rate for rate, _ in rates[1:]], abs=1e-3)
            adjusted = holm_by_hand(own["p_value"].astype(float).tolist())
            assert own["p_holm"].astype(float).tolist() == pytest.approx(adjusted, abs=5e-4)
    assert "teacher" not in {*frame["left"], *frame["right"]}


def test_challengers_meet_every_run_of_the_order_but_the_last(errors: pd.DataFrame) -> None:
    frame = verdicts_frame(RECORD, "methods", errors=errors)
    for part in ("test-clean", "test-other"):
        own = frame[frame["part"] == part]
        order = own[own["question"] == "order"][["left", "right"]].to_numpy().tolist()
        assert order == [["streaming_hard", "streaming_supervised"], ["streaming_supervised", "streaming_soft"]]
        duels = own[own["question"] == "challenge"]
        assert duels[["right", "left"]].to_numpy().tolist() == [
            [f"streaming_{rival}", f"streaming_{run}"]
            for rival in ("hard", "supervised")
            for run in ("shift_120", "sum")
        ]
        for _, family in duels.groupby("right"):
            adjusted = holm_by_hand(family["p_value"].astype(float).tolist())
            assert family["p_holm"].astype(float).tolist() == pytest.approx(adjusted, abs=5e-4)


def decided(**verdicts: str) -> pd.DataFrame:
    """Return a frame of the order and all challenges on one part: "reproduced" where no other verdict is said."""
    rows = [("order", "streaming_hard", "streaming_supervised"), ("order", "streaming_supervised", "streaming_soft")]
    rows += [
        ("challenge", f"streaming_{run}", f"streaming_{rival}")
        for rival in ("hard", "supervised")
        for run in ("shift_120", "sum")
    ]
    key = "{}_{}_{}".format
    return pd.DataFrame(
        [
            {
                "part": "test-other",
                "question": question,
                "left": left,
                "right": right,
                "verdict": verdicts.get(
                    key(question, *(n.removeprefix("streaming_") for n in (left, right))), "reproduced"
                ),
            }
            for question, left, right in rows
        ]
    )


def test_what_is_said_follows_from_the_verdicts() -> None:
    (said,) = statements(RECORD, "methods", decided())
    assert said == (
        "Streaming, test-other: the paper's order, Hard < Supervised < Soft (WER), is reproduced here. Better than "
        "Hard and Supervised: shift_120; sum. Not better than both: none. Undecided: none."
    )
    (said,) = statements(
        RECORD,
        "methods",
        decided(
            order_supervised_soft="not reproduced",
            challenge_shift_120_hard="inconclusive",
            challenge_sum_supervised="not reproduced",
        ),
    )
    assert said.endswith(
        "is not reproduced here. Better than Hard and Supervised: none. Not better than both: sum. "
        "Undecided: shift_120."
    )


def test_files_and_grids_agree(scored: FakeStudy, errors: pd.DataFrame) -> None:
    output = scored.results / "tables"
    output.mkdir(exist_ok=True)
    write_verdicts(scored.study, errors=scored.results / "errors.csv", output=output)
    frame = read_texts(output / "methods_verdicts.csv")
    pd.testing.assert_frame_equal(frame, verdicts_frame(RECORD, "methods", errors=errors), check_dtype=False)
    best, order = verdict_grids(RECORD, "methods", frame)
    assert [row[:2] for row in best.rows] == [
        (group, part) for part in ("test-clean", "test-other") for group in ("Small", "Streaming")
    ]
    own = frame[(frame["question"] == "best") & (frame["group"] == "Streaming") & (frame["part"] == "test-clean")]
    assert best.rows[1][2] == f"shift_120, {float(own.iloc[0]['left_wer']):.1f} %"
    for row in own.to_dict("records"):
        label = {"supervised": "Supervised", "hard": "Hard", "soft": "Soft"}
        run = row["right"].removeprefix("streaming_")
        behind = float(row["right_wer"]) - float(row["left_wer"])
        place = 4 if row["verdict"] == "reproduced" else 3
        assert f"{label.get(run, run)} +{behind:.1f} [" in best.rows[1][place]
    assert len(order.rows) == 2 * 6
    assert order.rows[2][:2] == ("shift_120 < Hard", "test-clean")
    text = (output / "methods_verdicts.md").read_text()
    assert text.startswith("# Methods: the best methods\n")
    assert "## Methods: is the paper's order upset?" in text
    assert "Streaming, test-other: the paper's order" in text
    assert (output / "methods_verdicts.tex").read_text().count(r"\begin{tabular}") == 2


def test_gains_by_teacher(scored: FakeStudy, errors: pd.DataFrame) -> None:
    frame = gains_frame(RECORD, errors=errors)
    own = frame[frame["part"] == "test-other"].set_index("left")
    assert set(own.index) == {"hard", "soft", "mixed", "weak_hard", "weak_soft"}
    assert own["teacher"].drop_duplicates().tolist() == ["teacher", "weak_teacher"]  # the better one first
    for run, row in own.iterrows():
        assert float(row["teacher_wer"]) == pytest.approx(error_rate(scored, row["teacher"], "test-other"), abs=1e-3)
        gain = error_rate(scored, "supervised", "test-other") - error_rate(scored, run, "test-other")
        assert -float(row["difference"]) == pytest.approx(gain, abs=2e-3)
        assert row["targets"] == run.removeprefix("weak_")
        assert row["right"] == "supervised"
    grid = gains_grid(RECORD, frame)
    cells = next(row for row in grid.rows if row[:2] == ("test-other", "weak teacher") and row[3] == "hard targets")
    row = own.loc["weak_hard"]
    assert cells[6] == in_points(row.to_dict(), sign=-1)
    assert cells[7] == row["verdict"]
    write_gains(scored.study, errors=scored.results / "errors.csv", output=scored.results / "gains")
    assert read_texts(scored.results / "gains/gain_by_teacher.csv").equals(frame.astype(str))


def test_the_figure_of_gains_draws_a_line_per_kind_of_target(errors: pd.DataFrame) -> None:
    frame = gains_frame(RECORD, errors=errors)
    figure = gain_figure(RECORD, frame)
    for panel, part in zip(figure.axes, ("test-clean", "test-other"), strict=True):
        own = frame[frame["part"] == part]
        drawn = {tuple(line.get_ydata()) for line in panel.lines if line.get_marker() not in ("", "None", None)}
        expected = {tuple(-rows["difference"].astype(float)) for _, rows in own.groupby("targets", sort=False)}
        assert drawn == expected
        assert {len(line) for line in drawn} == {1, 2}  # mixed targets have one teacher here
        (names,) = panel.child_axes
        assert np.unique(names.get_xticks()) == pytest.approx(np.unique(own["teacher_wer"].astype(float)))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "hard targets",
        "soft targets",
        "mixed targets",
    ]


def test_students_of_one_teacher_are_no_comparison_of_teachers(tmp_path: Path) -> None:
    study = RECORD.study
    tables = {"few": study.tables["weak"].model_copy(update={"rows": study.tables["weak"].rows[:1]})}
    weak = study.tables["weak"].rows
    tables |= {"one": study.tables["weak"].model_copy(update={"rows": (weak[0], *weak[5:])})}
    several = study.model_copy(update={"tables": study.tables | tables})
    assert several.restricted(["few"]).weak_teachers is None
    assert several.restricted(["one"]).weak_teachers is None
    assert several.restricted(["weak"]).weak_teachers == study.weak_teachers
    part = several.restricted(["methods", "weak"])
    assert part.shift_sweep == study.shift_sweep
