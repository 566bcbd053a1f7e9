"""Resumable state of a training run: written atomically, the newest readable one is found again."""

from __future__ import annotations

import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from asr_distill.files import replacing

log = logging.getLogger(__name__)

KEPT = 2


class Checkpoints:
    """Checkpoints of one run in one folder; those of another configuration (fingerprint) are ignored."""

    def __init__(self, folder: Path, *, fingerprint: str):
        self.folder, self.fingerprint = folder, fingerprint

    def save(self, state: dict[str, Any], *, step: int) -> None:
        """Write the state after `step` steps and remove all but the newest ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step{step:08d}-{self.fingerprint[:16]}.pt"
        with replacing(path) as temporary:
            torch.save(state | {"step": step, "fingerprint": self.fingerprint}, temporary)
        for old in self._paths()[KEPT:]:
            old.unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """Return the newest readable state of this configuration, or None."""
        for path in self._paths():
            try:
                state = torch.load(path, weights_only=True, map_location="cpu")
            except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
                log.warning("%s is not readable (%s); trying the one before", path, " ".join(str(error).split())[:100])
                continue
            if state.get("fingerprint") == self.fingerprint:
                return state
            log.info("%s is of another configuration; starting anew", path)
        return None

    def remove(self) -> None:
        """Remove all checkpoints, once the final model is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        """Return the checkpoints of this configuration, newest first."""
        return sorted(self.folder.glob(f"step*-{self.fingerprint[:16]}.pt"), reverse=True)
