"""What is counted while a part is prepared: its size, and the sums behind the features' mean and deviation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import MonoCut
from torch import Tensor


class PartStatistics:
    """Running totals of one part, over its utterances at their original speed."""

    def __init__(self, *, part: str, use: str, bins: int):
        self.part, self.use = part, use
        self.utterances = self.words = self.frames = 0
        self._seconds = 0.0
        self._speakers: set[str] = set()
        self._sum, self._sum_of_squares = np.zeros(bins), np.zeros(bins)

    def add(self, cut: MonoCut, features: np.ndarray) -> None:
        """Count an utterance with its features (T, F)."""
        (supervision,) = cut.supervisions
        self.utterances += 1
        self._seconds += cut.duration
        self._speakers.add(supervision.speaker)
        self.words += len((supervision.text or "").split())
        self.frames += len(features)
        self._sum += features.sum(axis=0, dtype=np.float64)
        self._sum_of_squares += np.square(features, dtype=np.float64).sum(axis=0)

    def state(self) -> dict[str, Any]:
        """Return the totals, to be added to those of the part later."""
        return {
            "utterances": self.utterances,
            "seconds": self._seconds,
            "speakers": sorted(self._speakers),
            "words": self.words,
            "frames": self.frames,
            "sum": self._sum.tolist(),
            "sum_of_squares": self._sum_of_squares.tolist(),
        }

    def add_state(self, state: Mapping[str, Any]) -> None:
        """Add what `state` returned for other utterances of the part."""
        self.utterances += state["utterances"]
        self.words += state["words"]
        self.frames += state["frames"]
        self._seconds += state["seconds"]
        self._speakers.update(state["speakers"])
        self._sum += np.array(state["sum"])
        self._sum_of_squares += np.array(state["sum_of_squares"])

    def write(self, path: Path, *, quarantined: int) -> None:
        """Write `statistics.json`; `sum` and `sum_of_squares` have one entry per mel bin."""
        values = {
            "part": self.part,
            "use": self.use,
            "utterances": self.utterances,
            "hours": round(self._seconds / 3600, ndigits=6),
            "speakers": sorted(self._speakers),
            "words": self.words,
            "quarantined": quarantined,
            "frames": self.frames,
            "sum": self._sum.tolist(),
            "sum_of_squares": self._sum_of_squares.tolist(),
        }
        path.write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def global_mean_and_std(statistics: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (F,) of each mel bin over the parts' `statistics.json`, float32."""
    parts = [json.loads(Path(path).read_text(encoding="utf-8")) for path in statistics]
    frames = sum(part["frames"] for part in parts)
    mean = np.sum([part["sum"] for part in parts], axis=0) / frames
    variance = np.sum([part["sum_of_squares"] for part in parts], axis=0) / frames - mean**2
    deviation = np.sqrt(np.maximum(variance, 1e-6))  # a bin that never changes must not divide by zero
    return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()
