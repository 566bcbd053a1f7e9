"""Adapters: one function per kind of corpus, from what lies on disk to Lhotse recordings and supervisions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from lhotse import RecordingSet, SupervisionSegment, SupervisionSet

from asr_distill.corpus.download import download_librispeech_part
from asr_distill.corpus.entries import Entry, open_entries, read_lines, require, untranscribed
from asr_distill.corpus.manifest_checks import check_entry
from asr_distill.corpus.published import an4, published_folder, speechocean762
from asr_distill.corpus.speakers import choose_speakers
from asr_distill.corpus.speech import Speech
from asr_distill.experiment import (
    AN4Part,
    CorpusRecord,
    LibriLightPart,
    LibriSpeechPart,
    ManifestPart,
    PublishedPart,
    Speechocean762Part,
    SyntheticPart,
)

Manifest = TypeVar("Manifest", RecordingSet, SupervisionSet)


def read_speech(part: str, *, record: CorpusRecord, synthetic: Path) -> Speech:
    """Return one part of a scale's corpus as its publisher lists it.

    Args:
        part: a name among `corpus.parts`.
        record: the corpus of the scale and the folder of the real corpora.
        synthetic: folder of the synthesised parts, `LibriSpeech/<part>` and `LibriLight/<part>`.

    Raises:
        ValueError: where the corpus is not there or has too few speakers, telling what to do.
    """
    settings = record.corpus.parts[part]
    data = Path(record.data)
    transcribed = settings.use != "unlabelled"
    match settings:
        case SyntheticPart(layout="librispeech"):
            return librispeech(Path(synthetic) / "LibriSpeech" / part, part=part, transcribed=transcribed)
        case SyntheticPart():
            return librilight(Path(synthetic) / "LibriLight" / part, part=part)
        case LibriSpeechPart():
            if settings.download:
                download_librispeech_part(settings.name, data=data)
            return librispeech(data / "LibriSpeech" / settings.name, part=part, transcribed=transcribed)
        case LibriLightPart():
            return librilight(data / "LibriLight" / settings.name, part=part)
        case PublishedPart() if not (data / settings.folder / f"recordings_{settings.name}.jsonl.gz").is_file():
            read = {AN4Part: an4, Speechocean762Part: speechocean762}[type(settings)]
            return read(published_folder(part, settings=settings, data=data), part=part, corpus=record.corpus)
        case ManifestPart() | PublishedPart():
            return manifests(part, record=record)


def librispeech(folder: Path, *, part: str, transcribed: bool) -> Speech:
    """Read a folder in LibriSpeech's layout: <speaker>/<chapter>/<utterance>.flac and, if `transcribed`, *.trans.txt.

    Lhotse's own recipe stops at the first broken file or line and skips missing ones; here they are reported.
    """
    _require_folder(folder, part=part, hint=f"get '{folder.name}' from openslr.org (SLR12), or write download: true")
    files = {path.stem: path for path in sorted(folder.rglob("*.flac"))}
    if not transcribed:
        return open_entries(Entry(key, path, key.split("-")[0], None) for key, path in files.items())
    lines = list(_transcript_lines(folder))
    without = sorted(files.keys() - {key for key, _, _ in lines})
    return open_entries(
        (Entry(key, path, key.split("-")[0], text) for key, path, text in lines),
        rejected=(untranscribed(key, "in no *.trans.txt") for key in without),
    )


def librilight(folder: Path, *, part: str) -> Speech:
    """Read a folder in Libri-Light's layout, <speaker>/<book>/<name>.flac; ids as in Lhotse: <folder>/<speaker>/..."""
    _require_folder(folder, part=part, hint=f"get '{folder.name}' from Libri-Light, facebookresearch on GitHub")
    paths = sorted(folder.rglob("*.flac"))
    inside = (path.relative_to(folder) for path in paths)
    return open_entries(
        Entry(str(Path(folder.name, name.with_suffix(""))), path, name.parts[0], None)
        for path, name in zip(paths, inside, strict=True)
    )


def manifests(part: str, *, record: CorpusRecord) -> Speech:
    """Read one part's speakers from <data>/<folder>/recordings_<name>.jsonl.gz and supervisions_<name>.jsonl.gz."""
    settings = record.corpus.parts[part]
    folder = Path(record.data) / settings.folder
    recordings, supervisions = (folder / f"{kind}_{settings.name}.jsonl.gz" for kind in ("recordings", "supervisions"))
    for path in (recordings, supervisions):
        hint = "put Lhotse manifests there; the recordings' paths are relative to their folder"
        require(path.is_file(), path, part=part, keys=f"data and corpus.parts.{part}.folder and name", hint=hint)
    everything = _load(SupervisionSet, supervisions)
    chosen = choose_speakers(part, corpus=record.corpus, speakers=_ages(everything))
    segments = [segment for segment in everything if _speaker(segment) in chosen]
    spoken = {segment.recording_id for segment in segments}
    listed = _load(RecordingSet, recordings)
    without = [item.id for item in listed if item.id not in spoken] if settings.takes_all else []
    return Speech(
        recordings=RecordingSet.from_recordings(item.with_path_prefix(folder) for item in listed if item.id in spoken),
        supervisions=SupervisionSet.from_segments(segments),
        rejected=tuple(untranscribed(key, f"{supervisions.name} does not name it") for key in without),
    )


def _transcript_lines(folder: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield id, audio path and text of every line of the *.trans.txt below a folder."""
    for path in sorted(folder.rglob("*.trans.txt")):
        for line in read_lines(path):
            key, _, text = line.strip().partition(" ")
            yield key, path.parent / f"{key}.flac", text


def _load(kind: type[Manifest], path: Path) -> Manifest:
    try:
        manifest = kind.from_file(path).to_eager()
        for entry in manifest:
            check_entry(entry)
    except Exception as error:  # gzip, JSON and Lhotse each have their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: not readable as a Lhotse {kind.__name__}: {reason}") from None
    return manifest


def _speaker(segment: SupervisionSegment) -> str:
    """Return who speaks; an unnamed speaker is nobody else."""
    return segment.speaker or segment.recording_id


def _ages(segments: Iterable[SupervisionSegment]) -> dict[str, int | None]:
    """Return all speakers with their ages in years, None where they are not told as whole numbers."""
    ages: dict[str, int | None] = {}
    for segment in segments:
        told = str((segment.custom or {}).get("age", ""))
        ages[_speaker(segment)] = int(told) if told.isascii() and told.isdigit() else None
    return ages


def _require_folder(folder: Path, *, part: str, hint: str) -> None:
    require(folder.is_dir(), folder, part=part, keys=f"data and corpus.parts.{part}", hint=hint)
