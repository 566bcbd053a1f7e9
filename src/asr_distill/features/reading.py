"""Reading prepared features: one utterance or a padded batch at a time, from memory where they fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import MonoCut
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr_distill.features.shards import read_index
from asr_distill.features.statistics import global_mean_and_std

__all__ = ["FeatureReader", "global_mean_and_std", "original_id", "read_cuts"]


class FeatureReader:
    """Features of prepared cuts, kept in memory from their first use on where the audio is short enough.

    Cuts that were not named when it was made can be read too, and are never kept.

    They are rounded to float16, kept or not, so that the memory never changes a result: by at most 1/256 where they
    are below 16, a quarter of what the storage itself does. Normalisation is the model's business.
    """

    def __init__(self, cuts: Iterable[MonoCut], *, cache_hours: float):
        self.cuts: dict[str, MonoCut] = {cut.id: cut for cut in cuts}
        self.hours: float = sum(cut.duration for cut in self.cuts.values()) / 3600
        self._cache: dict[str, Tensor] | None = {} if self.hours < cache_hours else None

    def read(self, cut: MonoCut | str) -> Tensor:
        """Return the features (T, F) of a cut or of its id, float32.

        Raises:
            ValueError: where the stored features cannot be read.
        """
        cut_id = cut if isinstance(cut, str) else cut.id
        if self._cache is None:
            return self._load(cut).float()
        if cut_id not in self._cache:
            self._cache[cut_id] = self._load(cut_id)
        return self._cache[cut_id].float()

    def collate(self, cuts: Sequence[MonoCut | str]) -> tuple[Tensor, Tensor]:
        """Return features (B, T, F), padded with 0, and their lengths (B,) in frames."""
        features = [self.read(cut) for cut in cuts]
        return pad_sequence(features, batch_first=True), torch.tensor([len(frames) for frames in features])

    def _load(self, cut: MonoCut | str) -> Tensor:
        cut = self.cuts[cut] if isinstance(cut, str) else cut
        try:
            return torch.from_numpy(cut.load_features().astype(np.float16))
        except (OSError, ValueError) as error:
            raise ValueError(f"{cut.features.storage_path}: no features of '{cut.id}': {error}") from None


def read_cuts(folders: Iterable[Path], *, originals_only: bool = False) -> CutSet:
    """Return the cuts of prepared parts, in the order given, with or without the copies at other speeds.

    The features' place is stored relative to its folder, so that a work folder can be moved. Everything is loaded, of
    parts in shards too; `read_index` lets one read these one by one.
    """
    cuts = []
    for folder in folders:
        for cut in _cuts_of(Path(folder)):
            if not originals_only or original_id(cut) == cut.id:
                cuts.append(cut)
    return CutSet.from_cuts(cuts)


def _cuts_of(folder: Path) -> Iterator[MonoCut]:
    shards = read_index(folder)
    if shards is not None:
        return chain.from_iterable(shard.read() for shard in shards)
    return (cut.with_features_path_prefix(folder) for cut in CutSet.from_file(folder / "cuts.jsonl.gz"))


def original_id(cut: MonoCut) -> str:
    """Return the id of the utterance that a cut is, or is a copy of at another speed."""
    return (cut.custom or {}).get("original", cut.id)
