"""What an adapter hands on: recordings, the utterances in them, and what could not even be listed."""

from __future__ import annotations

import dataclasses
import re

from lhotse import RecordingSet, SupervisionSet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejection:
    """An utterance left out, and why."""

    id: str
    reason: str
    """In words, the same for all utterances with one kind of defect."""
    detail: str = ""
    """What was found, in one line."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", " ".join(self.detail.split())[:300])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speech:
    """One part of a corpus as its publisher lists it, unchecked."""

    recordings: RecordingSet
    supervisions: SupervisionSet
    """One per utterance, its text None where nobody transcribed it."""
    rejected: tuple[Rejection, ...] = ()
    """Utterances whose files cannot be opened or that lack one of their halves."""


def first_cause(error: Exception) -> str:
    """Return what went wrong first, out of Lhotse's report on every audio library that it tried."""
    match = re.search(r"Exception #0 \(.*?\): (?:<class '[^']*'>: )?(.*)", str(error))
    return match[1] if match else str(error)
