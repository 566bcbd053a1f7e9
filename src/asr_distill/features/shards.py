"""Parts too large for one manifest, stored as Lhotse Shar: shards of some thousand utterances each.

The folder of such a part holds `shards/cuts.<number>.jsonl.gz` and `shards/features.<number>.tar`, which Lhotse reads
as they are (`CutSet.from_shar`), and `shards.json`, which lists them. Each cut also tells where in the archive its
features lie, so that a process that needs a few of them reads these alone.
"""

from __future__ import annotations

import dataclasses
import json
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import lilcom
import numpy as np
from lhotse import MonoCut
from lhotse.features.io import FeaturesReader, register_reader
from lhotse.lazy import LazyManifestIterator
from lhotse.shar import ArrayTarWriter
from lhotse.shar.writers.cut import JsonlShardWriter

from asr_distill.files import replacing, write_json

INDEX = "shards.json"
FOLDER = "shards"
UNREADABLE = (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, zlib.error)
"""What Lhotse and the libraries below it raise for damaged files."""
_ALL = 10**9
"""Utterances of which Lhotse would begin the next shard; ours are cut to size before."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard of a part."""

    folder: Path
    """Of the part."""
    number: int
    utterances: int
    """Copies at other speeds left out."""
    cuts: int
    """Copies at other speeds included."""
    seconds: float
    """Of speech, copies left out."""

    @property
    def manifest(self) -> Path:
        """Return the file of the cuts."""
        return self.folder / FOLDER / f"cuts.{self.number:06d}.jsonl.gz"

    @property
    def archive(self) -> Path:
        """Return the file of the features."""
        return self.folder / FOLDER / f"features.{self.number:06d}.tar"

    def read(self) -> Iterator[MonoCut]:
        """Yield the cuts one by one, each original followed by its copies at other speeds; no features are read.

        Raises:
            ValueError: where the shard is damaged.
        """
        found, damage, archive = 0, "ends early", str(self.archive)
        cuts = iter(LazyManifestIterator(self.manifest))
        while True:
            try:
                cut = next(cuts, None)
            except UNREADABLE as error:
                cut, damage = None, " ".join(str(error).split())[:200]
            if cut is None:
                break
            found += 1
            cut.features.storage_path = archive
            yield cut
        if found != self.cuts:
            raise ValueError(
                f"{self.manifest}: {found} of {self.cuts} utterances are readable ({damage}); remove this file and "
                f"{self.folder / INDEX} and run again: what is damaged is prepared anew"
            )


def read_index(folder: Path) -> list[Shard] | None:
    """Return the shards of a prepared part in the order of its utterances, None where it is not stored in shards."""
    path = Path(folder) / INDEX
    if not path.exists():
        return None
    listed = json.loads(path.read_text(encoding="utf-8"))["shards"]
    return [Shard(folder=Path(folder), **values) for values in listed]


def write_index(folder: Path, shards: Sequence[Shard]) -> None:
    """Write `shards.json`."""
    values = [{name: value for name, value in vars(shard).items() if name != "folder"} for shard in shards]
    write_json(Path(folder) / INDEX, {"shards": values})


class ShardWriter:
    """Writes one shard: features as they come, the cuts at its end, when it is known where their features lie."""

    def __init__(self, folder: Path, *, number: int):
        """Write into `folder`/shards, under temporary names until `finish`."""
        self.shard = Shard(folder=Path(folder), number=number, utterances=0, cuts=0, seconds=0.0)
        self._incomplete = self.shard.archive.parent.parent / f".incomplete.{number:06d}"
        self._incomplete.mkdir(parents=True, exist_ok=True)
        self._pattern = str(self._incomplete).replace("%", "%%") + "/{}.%06d.{}"
        self._features = self._open(ArrayTarWriter, "features", "tar", compression="lilcom")
        self._cuts: list[MonoCut] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._features.close()

    def write(self, cut: MonoCut, features: np.ndarray) -> None:
        """Add a cut with its features (T, F)."""
        self._features.write(cut.id, features.astype(np.float32, copy=False), cut.features)
        self._cuts.append(dataclasses.replace(cut, start=0.0, recording=None))  # as Lhotse does: no path of the audio

    def finish(self) -> Shard:
        """Put the shard in its place, safe on disk, and return it; one without utterances is not written."""
        self._features.close()
        if self._cuts:
            archive, manifest = (self._incomplete / path.name for path in (self.shard.archive, self.shard.manifest))
            places = _places(archive)
            with self._open(JsonlShardWriter, "cuts", "jsonl.gz") as writer:
                for cut in self._cuts:
                    place = dataclasses.replace(cut.features, start=0.0, storage_key=places[cut.id])
                    writer.write(dataclasses.replace(cut, features=place))
            self.shard.archive.parent.mkdir(exist_ok=True)
            for path, final in ((archive, self.shard.archive), (manifest, self.shard.manifest)):
                with replacing(final) as temporary:
                    path.replace(temporary)
        self._incomplete.rmdir()
        originals = [cut for cut in self._cuts if "original" not in (cut.custom or {})]
        return dataclasses.replace(
            self.shard,
            utterances=len(originals),
            cuts=len(self._cuts),
            seconds=sum(cut.duration for cut in originals),
        )

    def _open(self, writer: Any, field: str, suffix: str, **options: Any) -> Any:
        return writer(
            self._pattern.format(field, suffix), shard_size=_ALL, shard_offset=self.shard.number, **options
        ).__enter__()


def _places(archive: Path) -> dict[str, str]:
    """Return "offset,size" in bytes of the features in an archive by the id of their cut."""
    with tarfile.open(archive) as tar:
        return {
            member.name.removesuffix(".llc"): f"{member.offset_data},{member.size}"
            for member in tar
            if member.name.endswith(".llc")
        }


@register_reader
class ArchivedFeaturesReader(FeaturesReader):
    """Reads one utterance's features out of the archive of a shard; the key is "offset,size" in bytes."""

    name = "lilcom_in_shard"

    def __init__(self, storage_path: str, *_: object, **__: object):
        self.storage_path = storage_path

    def read(self, key: str, left_offset_frames: int = 0, right_offset_frames: int | None = None) -> np.ndarray:
        """Return frames of features (T, F), float32."""
        offset, size = (int(number) for number in key.split(","))
        with open(self.storage_path, "rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) < size:
            raise ValueError(f"ends after {offset + len(data)} of {offset + size} bytes")
        return lilcom.decompress(data)[left_offset_frames:right_offset_frames]
