from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_stages import score_fake
from fake_study import FakeStudy

from asr_distill.experiment import KnowledgeFigure, StudyRecord
from asr_distill.reporting.captions import captions
from asr_distill.reporting.figures import write_figures
from asr_distill.reporting.knowledge_figure import knowledge_figure, read_distributions, shown_tokens

VOCABULARY = ["<blank>", "▁A", "▁B", "$", "▁C", "D"]
TOKENS = [4, 1, 4, 5]
RUNS = ("soft", "hard")


def study(record: StudyRecord, *, top: int = 4) -> StudyRecord:
    figure = KnowledgeFigure(runs=RUNS, top=top)
    return record.model_copy(update={"study": record.study.model_copy(update={"knowledge": figure})})


def distributions() -> dict[str, np.ndarray]:
    """Return what the stage before writes: BERT is sure of token 4 at once, soft of 1, hard of 3 at the third place."""
    bert, soft, hard = (np.full((len(TOKENS), len(VOCABULARY)), 0.01, dtype=np.float32) for _ in range(3))
    bert[0, 4], bert[3, 2] = 0.9, 0.3
    soft[1, 1] = 0.8
    hard[2, 3] = 0.7
    arrays = {"utterance": "u", "reference": "C A CD", "tokens": TOKENS, "vocabulary": VOCABULARY, "bert": bert}
    return {name: np.array(values) for name, values in (arrays | {"decoder/soft": soft, "decoder/hard": hard}).items()}


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **{f"figure/{name}": values for name, values in arrays.items()})
    return path


def test_rows_are_the_likeliest_tokens_along_the_sentence() -> None:
    arrays = distributions()
    panels = [arrays["bert"], arrays["decoder/soft"], arrays["decoder/hard"]]
    assert shown_tokens(panels, tokens=TOKENS, top=4) == [4, 1, 3, 2]  # 2 competes with 5, which is nowhere likely
    assert shown_tokens(panels, tokens=TOKENS, top=1) == [4]
    assert shown_tokens(panels[:1], tokens=TOKENS, top=2) == [4, 2]
    assert shown_tokens(panels, tokens=[2, 1, 4, 5], top=4) == [2, 1, 4, 3]  # a place in the reference counts first
    assert sorted(shown_tokens(panels, tokens=TOKENS, top=99)) == list(range(6))


def test_a_panel_for_each_distribution(fake_study: FakeStudy) -> None:
    arrays = distributions()
    figure = knowledge_figure(study(fake_study.record), arrays)
    *panels, bar = figure.axes
    assert [panel.get_title() for panel in panels] == [
        "BERT, each token masked in turn",
        "soft: soft targets",
        "hard: hard targets",
    ]
    for panel, name in zip(panels, ("bert", "decoder/soft", "decoder/hard"), strict=True):
        (image,) = panel.images
        np.testing.assert_array_equal(image.get_array(), arrays[name][:, [4, 1, 3, 2]].T)
        assert image.get_clim() == (0, 1)
        (dots,) = panel.lines
        assert list(zip(*dots.get_data(), strict=True)) == [(0, 0), (1, 1), (2, 0)]  # the last token has no row
        assert [label.get_text() for label in panel.get_yticklabels()] == ["_C", "_A", r"\$", "_B"]
    assert [label.get_text() for label in panels[-1].get_xticklabels()] == ["_C", "_A", "_C", "D"]
    assert bar.get_ylabel() == "probability"


def test_long_sentences_are_named_in_part(fake_study: FakeStudy) -> None:
    arrays = distributions()
    for name in ("tokens", "bert", "decoder/soft", "decoder/hard"):
        arrays[name] = np.concatenate([arrays[name]] * 16)[:61]
    panel = knowledge_figure(study(fake_study.record), arrays).axes[2]
    assert panel.get_xticks().tolist() == list(range(0, 61, 2))
    assert {label.get_text() for label in panel.get_xticklabels()} == {"_C"}  # every second token of C A C D


def test_it_is_drawn_beside_the_others_with_a_caption(fake_study: FakeStudy) -> None:
    score_fake(fake_study)
    record = study(fake_study.record)
    fake_study.study.write_text(record.to_yaml(), encoding="utf-8")
    path = write(fake_study.root / "knowledge.npz", distributions())
    options = {"scores": fake_study.results / "scores.csv", "runs": fake_study.runs, "output": fake_study.results}
    write_figures(fake_study.study, illustrations=fake_study.illustrations, knowledge=path, **options)
    drawn = {file.stem for file in fake_study.results.glob("*.svg")}
    assert drawn == set(captions(record)) == set(captions(fake_study.record)) | {"knowledge"}
    text = (fake_study.results / "captions.md").read_text()
    assert "the 4 tokens with the highest probability anywhere" in text
    assert "the utterance of median length of test-clean" in text


def test_what_is_missing_is_named(tmp_path: Path, fake_study: FakeStudy) -> None:
    record, arrays = study(fake_study.record), distributions()
    found = read_distributions(write(tmp_path / "knowledge.npz", arrays), record)
    assert set(found) == set(arrays)
    del arrays["decoder/hard"], arrays["bert"]
    message = r"knowledge\.npz: lacks figure/bert, figure/decoder/hard; write the knowledge of this study again"
    with pytest.raises(ValueError, match=message):
        read_distributions(write(tmp_path / "knowledge.npz", arrays), record)
