import errno
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from asr_distill.files import replacing, write_json_lines, write_text

Usage = namedtuple("Usage", "total used free")


def fail_half_way(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half way")


def test_a_file_appears_whole(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "lines.jsonl", [{"a": 1}, {"a": "é"}])
    assert (tmp_path / "lines.jsonl").read_text(encoding="utf-8") == '{"a": 1}\n{"a": "é"}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["lines.jsonl"]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "old")
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way(tmp_path / "x")
    assert (tmp_path / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_full_disk_is_called_so_whatever_the_library_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 100, 0))
    with pytest.raises(OSError, match="No space left") as caught:
        fail_half_way(tmp_path / "x")
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())
