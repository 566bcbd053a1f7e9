"""Download of LibriSpeech's parts through Lhotse; nothing is unpacked whose checksum is not the publisher's."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from lhotse.recipes.librispeech import LIBRISPEECH
from lhotse.utils import resumable_download

from asr_distill.corpus.archives import unpack
from asr_distill.experiment import CorpusRecord, LibriSpeechPart, nearest

PUBLISHER = "https://www.openslr.org/resources"

CHECKSUMS = {
    "dev-clean": "sha256:76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    "dev-other": "sha256:12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
    "test-clean": "sha256:39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
    "test-other": "sha256:d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
    "train-clean-100": "sha256:d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    "train-clean-360": "sha256:146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    "train-other-500": "sha256:ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
    "dev-clean-2": "md5:6d7ab67ac6a1d2c993d050e16d61080d",
    "train-clean-5": "md5:5df7d4e78065366204ca6845bb08f490",
}
"""Of the archives of openslr.org: SHA-256 as torchaudio 2.11 lists them (torchaudio.datasets.librispeech, resource 12);
MD5 for Mini LibriSpeech (resource 31), whose publisher gives nothing stronger."""


def download_parts(record: CorpusRecord) -> list[str]:
    """Fetch every part of a scale that says `download: true`; return their names.

    Raises:
        ValueError: see `download_librispeech_part`.
    """
    parts = [part for part in record.corpus.parts.values() if isinstance(part, LibriSpeechPart) and part.download]
    names = list(dict.fromkeys(part.name for part in parts))
    for name in names:
        download_librispeech_part(name, data=Path(record.data))
    return names


def download_librispeech_part(name: str, *, data: Path, publisher: str | None = None) -> None:
    """Fetch, check and unpack a part into <data>/LibriSpeech/<name> unless it is there.

    A folder without its archive beside it was put there by the user and is left alone. A download that was broken off
    goes on where it stopped.

    Raises:
        ValueError: for a name that LibriSpeech does not have, a failed download, an archive whose checksum is wrong
            (it is removed) or one that holds anything but files and folders below it.
    """
    if name not in CHECKSUMS:
        raise ValueError(f"LibriSpeech has no part '{name}'{nearest(name, CHECKSUMS)}")
    folder, archive = data / "LibriSpeech" / name, data / f"{name}.tar.gz"
    if folder.is_dir() and ((folder / ".completed").exists() or not archive.exists()):
        return
    resource = 12 if name in LIBRISPEECH else 31
    data.mkdir(parents=True, exist_ok=True)
    try:
        resumable_download(f"{publisher or PUBLISHER}/{resource}/{archive.name}", filename=archive)
    except Exception as error:  # urllib, ssl, sockets and Lhotse each have their own
        raise ValueError(
            f"download of LibriSpeech's {name} to {archive} failed: {error}; try again (a broken-off download goes on "
            f"where it stopped), or put the unpacked part into {folder} yourself"
        ) from error
    _check(archive, published=CHECKSUMS[name])
    shutil.rmtree(folder, ignore_errors=True)
    unpack(archive, inside=f"LibriSpeech/{name}", folder=folder)
    (folder / ".completed").touch()


def _check(archive: Path, *, published: str) -> None:
    """Remove an archive that is not the published one."""
    algorithm, _, digest = published.partition(":")
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != digest:
        size = archive.stat().st_size
        archive.unlink()
        raise ValueError(
            f"{archive}: the {algorithm} checksum of its {size:,} bytes is {found}, published {digest}; the file was "
            "cut short or altered on its way and has been removed; try again"
        )
