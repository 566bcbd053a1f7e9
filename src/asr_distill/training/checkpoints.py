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
UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError)
"""What PyTorch raises for damaged files."""


class Checkpoints:
    """Checkpoints of one run in one folder; those of another configuration (fingerprint) are ignored."""

    def __init__(self, folder: Path, *, fingerprint: str):
        self.folder, self.fingerprint = folder, fingerprint

    def save(self, state: dict[str, Any], *, step: int) -> None:
        """Write the state after `step` steps and remove all but the newest ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_over in self.folder.glob(".step*"):  # of an attempt that was killed while it wrote
            left_over.unlink(missing_ok=True)
        with replacing(self.path(step)) as temporary:
            torch.save(state | {"step": step, "fingerprint": self.fingerprint}, temporary)
        for old in self._paths()[KEPT:]:
            old.unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """Return the newest readable state of this configuration, or None."""
        for path in self._paths():
            try:
                return self.read(path)
            except ValueError as error:
                log.warning("%s; trying the one before", error)
        others = sorted(path for path in self.folder.glob("step*.pt") if self.fingerprint[:16] not in path.name)
        if others:
            log.warning("%s is of another model, other tokens or other settings; training starts anew", others[-1])
        return None

    def path(self, step: int) -> Path:
        """Return where the state after `step` steps is."""
        return self.folder / f"step{step:08d}-{self.fingerprint[:16]}.pt"

    def read(self, path: Path) -> dict[str, Any]:
        """Return the state in a file.

        Raises:
            ValueError: when it is damaged, or of another configuration.
        """
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
        except (*UNREADABLE, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is not readable ({' '.join(str(error).split())[:100]})") from None
        if not isinstance(state, dict) or state.get("fingerprint") != self.fingerprint:
            raise ValueError(f"{path} is of another model, other tokens or other settings")
        return state

    def remove(self) -> None:
        """Remove all checkpoints, once the final model is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        """Return the checkpoints of this configuration, newest first."""
        return sorted(self.folder.glob(f"step*-{self.fingerprint[:16]}.pt"), reverse=True)
