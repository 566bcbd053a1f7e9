"""Download of LibriSpeech's parts through Lhotse, with the publisher's archives checked."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lhotse.recipes.librispeech import LIBRISPEECH, MINI_LIBRISPEECH, download_librispeech

SHA256 = {
    "dev-clean": "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    "dev-other": "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
    "test-clean": "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
    "test-other": "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
    "train-clean-100": "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    "train-clean-360": "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    "train-other-500": "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
}
"""Of the archives of openslr.org, resource 12, as torchaudio 2.11 lists them (torchaudio.datasets.librispeech)."""

MD5 = {"dev-clean-2": "6d7ab67ac6a1d2c993d050e16d61080d", "train-clean-5": "5df7d4e78065366204ca6845bb08f490"}
"""Of the archives of openslr.org, resource 31, which publishes no SHA-256."""


def download_librispeech_part(name: str, *, data: Path) -> None:
    """Fetch and unpack a part into <data>/LibriSpeech/<name> unless it is there.

    A folder without its archive beside it was put there by the user and is left alone.

    Raises:
        ValueError: for a name that LibriSpeech does not have, a failed download or a damaged archive.
    """
    if name not in (*LIBRISPEECH, *MINI_LIBRISPEECH):
        raise ValueError(f"LibriSpeech has no part '{name}'; known: {', '.join((*LIBRISPEECH, *MINI_LIBRISPEECH))}")
    folder, archive = data / "LibriSpeech" / name, data / f"{name}.tar.gz"
    if folder.is_dir() and ((folder / ".completed").exists() or not archive.exists()):
        return
    try:
        download_librispeech(data, dataset_parts=[name])
    except Exception as error:
        raise ValueError(
            f"download of LibriSpeech's {name} into {data} failed: {error}; try again (a broken-off download goes on "
            f"where it stopped; if {archive} is damaged, delete it), or unpack it there yourself"
        ) from error
    kind, published = ("MD5", MD5[name]) if name in MD5 else ("SHA-256", SHA256[name])
    if _digest(archive, kind=kind) != published:
        (folder / ".completed").unlink(missing_ok=True)
        raise ValueError(f"{archive}: its {kind} is not the published one; delete it and {folder} and try again")


def _digest(path: Path, *, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind.replace("-", "").lower()).hexdigest()
