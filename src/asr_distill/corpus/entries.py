"""Files that are one utterance each: opened one by one, so that a broken one costs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

from asr_distill.corpus.plain_audio import is_plain, plain_recording
from asr_distill.corpus.speech import Rejection, Speech, first_cause


class Entry(NamedTuple):
    """One file that is one utterance."""

    id: str
    path: Path
    speaker: str
    text: str | None


def open_entries(entries: Iterable[Entry], *, rejected: Iterable[Rejection] = ()) -> Speech:
    """Read the header of every file; those without one that can be read join the `rejected`."""
    recordings, segments, unusable = [], [], []
    for entry in entries:
        if not entry.path.is_file():
            unusable.append(Rejection(id=entry.id, reason="audio file missing", detail=str(entry.path)))
            continue
        try:
            open_recording = plain_recording if is_plain(entry.path) else Recording.from_file
            recording = open_recording(entry.path, recording_id=entry.id)
        except Exception as error:  # whatever an audio library says about a broken header
            detail = f"{entry.path}: {first_cause(error)}"
            unusable.append(Rejection(id=entry.id, reason="audio unreadable", detail=detail))
            continue
        recordings.append(recording)
        segments.append(
            SupervisionSegment(
                id=entry.id,
                recording_id=entry.id,
                start=0.0,
                duration=recording.duration,
                speaker=entry.speaker,
                text=entry.text,
            )
        )
    return Speech(
        recordings=RecordingSet.from_recordings(recordings),
        supervisions=SupervisionSet.from_segments(segments),
        rejected=(*unusable, *rejected),
    )


def untranscribed(key: str, detail: str) -> Rejection:
    """Return the rejection of an utterance that is heard and not written."""
    return Rejection(id=key, reason="transcript missing", detail=detail)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a publisher's text file that are not empty.

    Raises:
        ValueError: for a file that is not UTF-8.
    """
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not readable as UTF-8 ({error}); convert it") from None


def require(there: bool, path: Path, *, part: str, keys: str, hint: str) -> None:
    """Raise ValueError, telling what to do, unless something is there."""
    if not there:
        raise ValueError(f"corpus.parts.{part}: {path} not found (see {keys}); {hint}")
