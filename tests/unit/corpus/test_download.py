"""Downloads from a server on this machine that serves good, truncated and altered archives."""

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from asr_distill.cli import app
from asr_distill.corpus import download
from asr_distill.corpus.download import download_librispeech_part
from asr_distill.experiment import CorpusRecord


class Publisher:
    """Serves what `served` holds, by path; understands ranges as openslr.org does."""

    def __init__(self) -> None:
        self.served: dict[str, bytes] = {}
        self.ranges: list[str] = []
        self.cut = 0
        publisher = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = publisher.served.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                asked = self.headers["Range"]
                publisher.ranges.append(asked)
                first = int(asked.removeprefix("bytes=").removesuffix("-"))
                if first and first >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Length", str(len(content) - first))
                self.end_headers()
                self.wfile.write(content[first : len(content) - publisher.cut])

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def publish(self, name: str, content: bytes, *, monkeypatch: pytest.MonkeyPatch) -> None:
        """Serve an archive as the published one."""
        self.served[f"/12/{name}.tar.gz"] = content
        monkeypatch.setitem(download.CHECKSUMS, name, f"sha256:{hashlib.sha256(content).hexdigest()}")


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    yield publisher
    publisher.server.shutdown()
    publisher.server.server_close()


def file_member(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


def link_member(name: str, *, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def archive(*extra: tarfile.TarInfo, part: str = "dev-clean") -> bytes:
    """Return a small archive in LibriSpeech's shape, with some more members."""
    buffer = io.BytesIO()
    chapter = f"LibriSpeech/{part}/84/121123"
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member in (*map(file_member, ("LibriSpeech/README.TXT", f"{chapter}/84-121123.trans.txt")), *extra):
            text = b"84-121123-0000 GO" if member.isfile() else b""
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return buffer.getvalue()


def test_a_good_archive_is_unpacked_once(publisher, tmp_path, monkeypatch):
    publisher.publish("dev-clean", archive(), monkeypatch=monkeypatch)
    for _ in range(2):
        download_librispeech_part("dev-clean", data=tmp_path / "data", publisher=publisher.address)
    folder = tmp_path / "data/LibriSpeech/dev-clean"
    assert (folder / "84/121123/84-121123.trans.txt").read_text() == "84-121123-0000 GO"
    assert publisher.ranges == ["bytes=0-"]
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"LibriSpeech", "dev-clean.tar.gz"}


def test_a_broken_off_download_goes_on_where_it_stopped(publisher, tmp_path, monkeypatch):
    content = archive()
    publisher.publish("dev-clean", content, monkeypatch=monkeypatch)
    (tmp_path / "dev-clean.tar.gz").write_bytes(content[:100])
    download_librispeech_part("dev-clean", data=tmp_path, publisher=publisher.address)
    assert publisher.ranges == ["bytes=100-"]
    assert (tmp_path / "LibriSpeech/dev-clean/.completed").is_file()


def test_a_part_interrupted_while_it_was_unpacked_is_unpacked_from_its_archive(publisher, tmp_path, monkeypatch):
    content = archive()
    publisher.publish("dev-clean", content, monkeypatch=monkeypatch)
    (tmp_path / "dev-clean.tar.gz").write_bytes(content)
    (tmp_path / ".dev-clean.unpacking/LibriSpeech").mkdir(parents=True)
    download_librispeech_part("dev-clean", data=tmp_path, publisher=publisher.address)
    assert publisher.ranges == [f"bytes={len(content)}-"]
    assert (tmp_path / "LibriSpeech/dev-clean/84").is_dir()


@pytest.mark.parametrize("damage", ["truncated by the server", "altered", "another file"])
def test_a_wrong_checksum_is_refused_and_the_file_removed(publisher, tmp_path, monkeypatch, damage):
    content = archive()
    publisher.publish("dev-clean", content, monkeypatch=monkeypatch)
    if damage.startswith("truncated"):
        publisher.cut = 50
    else:
        altered = content[:60] + bytes([content[60] ^ 1]) + content[61:] if damage == "altered" else b"<html>"
        publisher.served["/12/dev-clean.tar.gz"] = altered
    with pytest.raises(ValueError, match=r"dev-clean.tar.gz: the sha256 checksum .* has been removed; try again"):
        download_librispeech_part("dev-clean", data=tmp_path, publisher=publisher.address)
    assert list(tmp_path.iterdir()) == []
    publisher.cut, publisher.served["/12/dev-clean.tar.gz"] = 0, content
    download_librispeech_part("dev-clean", data=tmp_path, publisher=publisher.address)
    assert (tmp_path / "LibriSpeech/dev-clean/84").is_dir()


@pytest.mark.parametrize(
    ("member", "fault"),
    [
        (file_member("../outside.txt"), "leads out of it"),
        (file_member("LibriSpeech/dev-clean/../../../outside.txt"), "leads out of it"),
        (file_member("/LibriSpeech/absolute.txt"), "leads out of it"),
        (link_member("LibriSpeech/dev-clean/a", target="/etc/passwd", kind=tarfile.SYMTYPE), "a link to '/etc/passwd'"),
        (link_member("LibriSpeech/dev-clean/b", target="../../x", kind=tarfile.LNKTYPE), "a link to '../../x'"),
        (link_member("LibriSpeech/dev-clean/c", target="", kind=tarfile.FIFOTYPE), "no ordinary file"),
        (link_member("LibriSpeech/dev-clean/d", target="", kind=tarfile.CHRTYPE), "no ordinary file"),
    ],
)
def test_an_archive_that_would_write_elsewhere_is_refused(publisher, tmp_path, monkeypatch, member, fault):
    publisher.publish("dev-clean", archive(member), monkeypatch=monkeypatch)
    data = tmp_path / "a/b/data"
    with pytest.raises(ValueError, match=fault) as error:
        download_librispeech_part("dev-clean", data=data, publisher=publisher.address)
    assert member.name in str(error.value)
    assert not (data / "LibriSpeech/dev-clean").exists()
    assert not list(tmp_path.rglob("*outside*"))


def test_what_an_archive_holds_beside_the_part_is_left_in_it(publisher, tmp_path, monkeypatch):
    publisher.publish("dev-clean", archive(file_member("outside/outside.txt")), monkeypatch=monkeypatch)
    download_librispeech_part("dev-clean", data=tmp_path, publisher=publisher.address)
    assert (tmp_path / "LibriSpeech/dev-clean/.completed").exists()
    assert not list(tmp_path.rglob("*outside*"))


@pytest.mark.parametrize(
    "content",
    [archive(part="test-clean"), archive()[:70], b"no archive"],
    ids=["another part", "cut short", "no archive"],
)
def test_a_published_archive_that_cannot_be_used_leaves_nothing_half_done(publisher, tmp_path, monkeypatch, content):
    publisher.publish("dev-clean", content, monkeypatch=monkeypatch)
    with pytest.raises(ValueError, match=r"dev-clean.tar.gz: .*get (it again|the archive from its publisher)"):
        download_librispeech_part("dev-clean", data=tmp_path, publisher=publisher.address)
    assert not (tmp_path / "LibriSpeech/dev-clean").exists()


def test_a_failed_download_says_what_to_do(publisher, tmp_path):
    with pytest.raises(ValueError, match=r"dev-clean to .* failed: .*404.*; try again"):
        download_librispeech_part("dev-clean", data=tmp_path, publisher=publisher.address)


def test_a_folder_of_the_users_own_is_left_alone(publisher, tmp_path):
    (tmp_path / "LibriSpeech/dev-clean").mkdir(parents=True)
    download_librispeech_part("dev-clean", data=tmp_path, publisher=publisher.address)
    assert publisher.ranges == []


def test_a_misspelt_part_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="no part 'dev-clan'; did you mean 'dev-clean'"):
        download_librispeech_part("dev-clan", data=tmp_path)


def test_the_command_fetches_what_a_scale_downloads(publisher, tmp_path, monkeypatch):
    publisher.publish("dev-clean", archive(), monkeypatch=monkeypatch)
    monkeypatch.setattr(download, "PUBLISHER", publisher.address)
    parts = {
        "dev": {"use": "dev", "source": "librispeech", "name": "dev-clean", "download": True},
        "own": {"use": "test", "source": "librispeech", "name": "test-clean"},
    }
    values = {"data": str(tmp_path / "data"), "corpus": {"parts": parts}, "features": {}}
    record = tmp_path / "corpus.yaml"
    record.write_text(CorpusRecord.model_validate(values).to_yaml())
    done = CliRunner().invoke(app, ["download", str(record)])
    assert done.exit_code == 0, done.output
    assert "dev-clean: there" in done.output
    assert Path(tmp_path / "data/LibriSpeech/dev-clean/84").is_dir()
    assert len(publisher.ranges) == 1
