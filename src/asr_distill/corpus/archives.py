"""Unpacks downloaded archives so that nothing lands outside the folder that is wanted of them."""

from __future__ import annotations

import fcntl
import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath


def unpack(archive: Path, *, inside: str, folder: Path) -> None:
    """Unpack what lies in `inside`, a folder of an archive, to `folder`, which appears when it is complete.

    Processes that want the same folder wait for the first; an unpacking that was broken off begins again.

    Raises:
        ValueError: for an archive that is damaged, lacks that folder, or holds a link, a device or a path that leads
            out of it.
        OSError: where the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unpacking = folder.with_name(f".{folder.name}.unpacking")
    with unpacking.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(unpacking, ignore_errors=True)
            try:
                _extract(archive, to=unpacking, inside=inside)
                (unpacking / inside).rename(folder)
            finally:
                shutil.rmtree(unpacking, ignore_errors=True)
        Path(lock.name).unlink(missing_ok=True)  # by everyone who opened it: one may have made it anew


def _extract(archive: Path, *, to: Path, inside: str) -> None:
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            _check_members(members, archive=archive)
            wanted = [member for member in members if PurePosixPath(member.name).is_relative_to(inside)]
            if not any(member.isfile() for member in wanted):
                raise ValueError(f"{archive}: holds no folder {inside}/; get the archive from its publisher")
            for member in wanted:
                member.mode = 0o755 if member.isdir() else 0o644
            if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on; what it would refuse was refused above
                tar.extraction_filter = tarfile.data_filter
            tar.extractall(to, wanted)
            while tar.fileobj.read(2**20):  # on to the end, where gzip keeps its checksum
                pass
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        found = str(error).partition("\n")[0].rstrip(": ")
        raise ValueError(f"{archive}: damaged ({found}); delete it and get it again") from None


def _check_members(members: Iterable[tarfile.TarInfo], *, archive: Path) -> None:
    """Refuse an archive that holds anything but files and folders below it."""
    for member in members:
        path = PurePosixPath(member.name)
        if member.issym() or member.islnk():
            fault = f"is a link to '{member.linkname}'"
        elif not (member.isfile() or member.isdir()):
            fault = "is no ordinary file"
        elif path.is_absolute() or ".." in path.parts:
            fault = "leads out of it"
        else:
            continue
        raise ValueError(f"{archive}: refused, its member '{member.name}' {fault}; get it from its publisher")
