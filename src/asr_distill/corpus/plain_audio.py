"""Plain samples in a file: NIST SPHERE (.sph) and 16-bit samples without any header (.raw).

Lhotse hands .sph files to a command line of sph2pipe, their path unquoted; libsndfile reads them without help.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import soundfile
from lhotse import AudioSource, Recording

RAW_SAMPLING_RATE = 16000
"""Of AN4's raw files, which tell nothing about themselves."""
_HEADER_BYTES = 1024
_SAMPLE_BYTES = 2


def is_plain(path: Path | str) -> bool:
    """Return whether a file is read here, going by its name."""
    return Path(path).suffix.lower() in (".sph", ".raw")


def plain_recording(path: Path, *, recording_id: str) -> Recording:
    """Return what a file holds.

    Raises:
        ValueError: for a SPHERE header that does not tell rate, channels and length, for compressed samples, and for
            fewer samples than the header promises.
    """
    if path.suffix.lower() == ".raw":
        rate, channels, samples = RAW_SAMPLING_RATE, 1, path.stat().st_size // _SAMPLE_BYTES
    else:
        header = _sphere_header(path)
        rate, channels, samples = (header[key] for key in ("sample_rate", "channel_count", "sample_count"))
    source = AudioSource(type="file", channels=list(range(channels)), source=str(path))
    return Recording(
        id=recording_id, sources=[source], sampling_rate=rate, num_samples=samples, duration=samples / rate
    )


def read_plain(path: Path | str, *, offset: float = 0.0, duration: float | None = None) -> tuple[np.ndarray, int]:
    """Return samples (C, N), float32 in -1..1, and their rate; `offset` and `duration` in seconds.

    Raises:
        OSError, RuntimeError: whatever the file system or libsndfile says of a file that cannot be read.
    """
    if Path(path).suffix.lower() == ".raw":
        samples, rate = _read_raw(Path(path))[:, None], RAW_SAMPLING_RATE
    else:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    start = round(offset * rate)
    stop = None if duration is None else start + round(duration * rate)
    return np.ascontiguousarray(samples[start:stop].T), rate


def _read_raw(path: Path) -> np.ndarray:
    """Return samples (N,) in the byte order in which they are quieter.

    Read in the wrong order, the low bytes of speech take the place of the high ones: noise near full scale.
    """
    data = path.read_bytes()
    whole = data[: len(data) // _SAMPLE_BYTES * _SAMPLE_BYTES]
    orders = [np.frombuffer(whole, dtype=order).astype(np.float32) / 2**15 for order in ("<i2", ">i2")]
    return min(orders, key=lambda samples: float(np.abs(samples).sum()))


def _sphere_header(path: Path) -> dict[str, int]:
    """Return the whole numbers of a SPHERE header, once they fit each other and the file."""
    with path.open("rb") as file:
        text = file.read(_HEADER_BYTES).decode("ascii", errors="replace")
    if not text.startswith("NIST_1A"):
        raise ValueError("no NIST SPHERE file: it does not begin with NIST_1A")
    coding = re.search(r"^sample_coding -s\d+ (\S+)", text, flags=re.MULTILINE)
    if coding and "," in coding[1]:
        raise ValueError(f"its samples are compressed ({coding[1]}); expand them with sph2pipe or sox")
    header = {key: int(value) for key, value in re.findall(r"^(\w+) -i (\d+)\s*$", text, flags=re.MULTILINE)}
    for key in ("sample_rate", "channel_count", "sample_count"):
        if not header.get(key):
            raise ValueError(f"its SPHERE header tells no {key}")
    promised = header["sample_count"] * header["channel_count"] * header.get("sample_n_bytes", _SAMPLE_BYTES)
    found = path.stat().st_size - _HEADER_BYTES
    if promised > found:
        raise ValueError(f"truncated: its SPHERE header promises {promised} bytes of samples, {found} are there")
    return header
