"""What a user sees of the command line when something is wrong: one line, exit status 1, no traceback."""

import errno
import json
import os
from pathlib import Path

import pytest

from asr_distill import cli


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["asr-distill", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return exit_.value.code


def test_a_users_mistake_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    record = tmp_path / "tokenizer.yaml"
    record.write_text("tokenizer: {vocabulary: 5000}\n")
    references = tmp_path / "references.jsonl"
    references.write_text(json.dumps({"text": "SEE THE SEA"}) + "\n")
    output = tmp_path / "tokenizer.model"
    log = tmp_path / "log"
    arguments = ["tokenizer", str(record), str(references), "--output", str(output), "--log", str(log)]
    assert run(arguments, monkeypatch) == 1
    shown = capfd.readouterr().err.strip()
    assert shown.startswith("error: tokenizer.vocabulary: 5000 is too large")
    assert "\n" not in shown
    assert "5000 is too large" in log.read_text()
    assert not output.exists()


@pytest.mark.parametrize(
    ("code", "hint"), [(errno.ENOSPC, "free some space and run again"), (errno.EACCES, "Permission denied")]
)
def test_a_full_or_forbidden_disk_is_one_line(code: int, hint: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def fail() -> None:
        raise OSError(code, os.strerror(code), "work/model.safetensors")

    monkeypatch.setattr(cli, "app", fail)
    assert run([], monkeypatch) == 1
    shown = capsys.readouterr().err.strip()
    assert shown.startswith("error: work/model.safetensors: ")
    assert hint in shown
    assert "\n" not in shown


def test_our_own_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr("sys.argv", ["asr-distill"])
    with pytest.raises(AssertionError, match="a bug"):
        cli.main()


def test_show_tells_where_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert run(["show", str(tmp_path), "mini"], monkeypatch) == 1
    assert "run `snakemake --cores all` first" in capsys.readouterr().err


def test_no_text_is_read_aloud_that_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"source": "synthetic", "use": "labelled", "accents": ["gmw/en"], "speakers": 1, "utterances": 2}
    read = {**part, "part_set": "read", "text": {"source": "file", "path": "text.txt"}}
    parts = {
        "train": part,
        "read": read,
        "later": {**read, "part_set": "other", "text": {"source": "file", "path": "?"}},
    }
    record = {"data": str(tmp_path), "corpus": {"parts": parts}, "features": {}}
    (tmp_path / "sets.yaml").write_text(json.dumps(record))
    (tmp_path / "text.txt").write_text("The cat sat.\nThe dog barked.\nThe rain fell.\n")
    (tmp_path / "scored.jsonl").write_text(json.dumps({"id": "1", "text": "THE DOG BARKED"}) + "\n")
    arguments = ["synthesize", str(tmp_path / "sets.yaml"), str(tmp_path / "out"), "--set", "read"]
    assert run([*arguments, "--scored", str(tmp_path / "scored.jsonl")], monkeypatch) == 0
    (said,) = (tmp_path / "out").rglob("*.trans.txt")
    assert sorted(line.split(maxsplit=1)[1] for line in said.read_text().splitlines()) == [
        "THE CAT SAT",
        "THE RAIN FELL",
    ]


def test_a_text_that_is_missing_is_told_with_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    part = {"source": "synthetic", "use": "labelled", "accents": ["gmw/en"], "speakers": 1, "utterances": 2}
    read = {**part, "part_set": "read", "text": {"source": "wordnet", "path": "wordnet"}}
    record = {"data": str(tmp_path), "corpus": {"parts": {"read": read}}, "features": {}}
    (tmp_path / "sets.yaml").write_text(json.dumps(record))
    assert run(["synthesize", str(tmp_path / "sets.yaml"), str(tmp_path / "out"), "--set", "read"], monkeypatch) == 1
    shown = capfd.readouterr().err
    assert "error: corpus.parts.read.text: " in shown
    assert "Debian's package wordnet-base" in shown
