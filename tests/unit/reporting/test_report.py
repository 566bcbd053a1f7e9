from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_stages import report_fake, report_only
from fake_study import FakeStudy, build_fake_study

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Checker(HTMLParser):
    """Collect what a page refers to, and check that its tags nest and its ids are unique."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.text: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.sources += [values[key] for key in ("src", "srcset", "data", "action", "poster") if key in values]
        assert not [key for key in values if key.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parse(path: Path) -> Checker:
    checker = Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    checker.close()
    return checker


def test_is_well_formed(reported: FakeStudy) -> None:
    page = parse(reported.results / "report.html")
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert (reported.results / "report.html").read_text().startswith("<!DOCTYPE html>\n<html lang=")


def test_asks_for_nothing_from_outside(reported: FakeStudy) -> None:
    page = parse(reported.results / "report.html")
    assert len(page.sources) == 5
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert not page.tags & {"link", "iframe", "object", "embed", "base"}
    assert {link for link in page.links if not link.startswith("#")} == {"https://arxiv.org/abs/2210.05793"}
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    text = (reported.results / "report.html").read_text()
    style = "".join(re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style


def test_says_what_was_found(reported: FakeStudy) -> None:
    text = " ".join(" ".join(parse(reported.results / "report.html").text).split())
    for expected in (
        "claim reproduced: A2",
        "not reproduced",
        "E_hard <x>",
        "words by 12 speakers",
        "These rules were fixed before any run",
        "Speech is synthesised; models are 1,000 times smaller.",
        "All rows use no augmentation.",
        "2 training seeds",
        "not under version control",
        "soft_vs_hard/hard/seed1/train",
    ):
        assert expected in text, expected


def test_markup_in_a_config_stays_text(reported_copy: FakeStudy) -> None:
    markup = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    reported_copy.study.write_text(reported_copy.study.read_text().replace("Greedy search", markup))
    report_only(reported_copy)
    page = (reported_copy.results / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert page.count("<script>") == 1


def test_second_run_gives_the_same_bytes(reported: FakeStudy, tmp_path: Path) -> None:
    second = build_fake_study(tmp_path, seeds=reported.record.seeds)
    report_fake(second)
    names = [path.relative_to(second.results) for path in second.results.rglob("*") if path.is_file()]
    assert len(names) > 20
    for name in names:
        if name.name not in ("provenance.json", "report.html"):
            assert (reported.results / name).read_bytes() == (second.results / name).read_bytes(), name


def test_drawings_are_whole(reported: FakeStudy) -> None:
    source = parse(reported.results / "report.html").sources[0]
    assert base64.b64decode(source.partition(",")[2]) == (reported.results / "figures/wer_by_target.svg").read_bytes()


def test_missing_figure(reported_copy: FakeStudy) -> None:
    (reported_copy.results / "figures/lattice.svg").unlink()
    with pytest.raises(ValueError, match=r"lattice\.svg: is missing"):
        report_only(reported_copy)
