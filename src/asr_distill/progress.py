"""Progress bars on a terminal, nothing elsewhere: logs get their own lines."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from asr_distill.devices import rank


class Progress:
    """A bar on standard error while it is a terminal; of several processes that train one model the first shows it."""

    def __init__(self, description: str, *, total: int, done: int = 0):
        self.description, self.total, self.done = description, total, done
        self._bar = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and rank() == 0:
            from rich.console import Console
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self.description, total=self.total, completed=self.done)
        return self

    def advance(self, text: str = "") -> None:
        """Count one step."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=f"{self.description} {text}".strip())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
