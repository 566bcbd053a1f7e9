"""Adapters for corpora that come as one archive, from what their publishers put into it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from asr_distill.corpus.archives import unpack
from asr_distill.corpus.entries import Entry, open_entries, read_lines, require, untranscribed
from asr_distill.corpus.speakers import choose_speakers
from asr_distill.corpus.speech import Rejection, Speech
from asr_distill.experiment import Corpus, PublishedPart

ARCHIVES = {
    "an4": ("an4_sphere.tar.gz", "an4_raw.bigendian.tar.gz", "an4_raw.littleendian.tar.gz"),
    "speechocean762": ("speechocean762.tar.gz",),
}
"""What the publishers call them, by the folder inside. No checksum of theirs is known here; gzip's own finds damage."""
PUBLISHERS = {"an4": "www.speech.cs.cmu.edu/databases/an4", "speechocean762": "openslr.org (SLR101)"}
AN4_SUFFIXES = (".sph", ".raw", ".wav")


def published_folder(part: str, *, settings: PublishedPart, data: Path) -> Path:
    """Return the folder of a corpus below that of the real corpora, unpacked from its archive where it is not there.

    Raises:
        ValueError: where there is neither, or the archive cannot be used.
    """
    folder = data / settings.folder
    if folder.is_dir():
        return folder
    names = ARCHIVES[settings.source] if settings.archive is None else (settings.archive,)
    archive = next((data / name for name in names if (data / name).is_file()), data / names[0])
    require(
        archive.is_file(),
        folder,
        part=part,
        keys=f"data and corpus.parts.{part}.folder",
        hint=f"unpack the corpus there, or put {archive.name} from {PUBLISHERS[settings.source]} into {data}",
    )
    try:
        unpack(archive, inside=settings.source, folder=folder)
    except ValueError as error:
        raise ValueError(f"corpus.parts.{part}: {error}") from None
    except OSError as error:
        raise ValueError(
            f"corpus.parts.{part}: {archive} cannot be unpacked to {folder} ({error}); make room, or unpack it "
            "elsewhere and name that folder"
        ) from None
    return folder


def an4(folder: Path, *, part: str, corpus: Corpus) -> Speech:
    """Read one list of CMU's AN4: etc/an4_<name>.fileids and .transcription, wav/<list>/<speaker>/<id>.sph or .raw."""
    settings = corpus.parts[part]
    lists = [folder / "etc" / f"an4_{settings.name}.{kind}" for kind in ("fileids", "transcription")]
    _require_files(lists, part=part, source="an4")
    texts = _an4_transcripts(lists[1])
    files = [PurePosixPath(line.strip()) for line in read_lines(lists[0])]
    listed = [(path.name, path.parent.name, str(path)) for path in files]
    chosen = choose_speakers(part, corpus=corpus, speakers={speaker: None for _, speaker, _ in listed})
    entries, rejected = [], []
    for key, speaker, name in listed:
        if speaker not in chosen:
            continue
        if problem := _problem(key, name, settings=settings, texts=texts, where=lists[1]):
            rejected.append(problem)
            continue
        paths = [folder / "wav" / f"{name}{suffix}" for suffix in AN4_SUFFIXES]
        entries.append(Entry(key, next(filter(Path.is_file, paths), paths[0]), speaker, texts.get(key)))
    if settings.takes_all:
        rejected += _unlisted(texts.keys() - {key for key, _, _ in listed}, lists[0])
    return open_entries(entries, rejected=rejected)


def speechocean762(folder: Path, *, part: str, corpus: Corpus) -> Speech:
    """Read one half of speechocean762: <name>/wav.scp, text, utt2spk and, where ages are asked for, spk2age.

    Paths in wav.scp are relative to the folder of the corpus.
    """
    settings = corpus.parts[part]
    half = folder / settings.name
    _require_files([half / name for name in ("wav.scp", "text", "utt2spk")], part=part, source="speechocean762")
    files, texts, speakers = (_table(half / name) for name in ("wav.scp", "text", "utt2spk"))
    told = _table(half / "spk2age") if (half / "spk2age").is_file() else {}
    spoken_by = {key: speakers.get(key, key) for key in files}  # an unnamed speaker is nobody else
    ages = {speaker: _whole(told.get(speaker, "")) for speaker in spoken_by.values()}
    chosen = choose_speakers(part, corpus=corpus, speakers=ages, ages_belong=f"into {half / 'spk2age'}")
    entries, rejected = [], []
    for key, name in files.items():
        if spoken_by[key] not in chosen:
            continue
        if problem := _problem(key, name, settings=settings, texts=texts, where=half / "text"):
            rejected.append(problem)
        else:
            entries.append(Entry(key, folder / name, spoken_by[key], texts.get(key)))
    if settings.takes_all:
        rejected += _unlisted(texts.keys() - files.keys(), half / "wav.scp")
    return open_entries(entries, rejected=rejected)


def _an4_transcripts(path: Path) -> dict[str, str]:
    """Return the texts of lines such as `<s> YES </s> (an251-fash-b)`, by id."""
    texts = {}
    for number, line in enumerate(read_lines(path), start=1):
        match = re.fullmatch(r"(.*)\(([^()\s]+)\)\s*", line)
        if match is None:
            raise ValueError(f"{path}: line {number} with text ends in no (utterance id): {line[:60]!r}; mend it")
        texts[match[2]] = re.sub(r"</?s>", " ", match[1]).strip()
    return texts


def _table(path: Path) -> dict[str, str]:
    """Return what follows the first word of each line, by that word, as Kaldi's files have it."""
    lines = (line.split(maxsplit=1) for line in read_lines(path))
    return {key: "".join(rest).strip() for key, *rest in lines}


def _problem(
    key: str, name: str, *, settings: PublishedPart, texts: Mapping[str, str], where: Path
) -> Rejection | None:
    """Return what is wrong with a file's name in a list, or that nobody wrote down what is said where that is used."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or name.endswith("|"):
        return Rejection(id=key, reason="audio file missing", detail=f"'{name}' is no path below the corpus")
    if settings.use != "unlabelled" and key not in texts:
        return untranscribed(key, f"{where} does not name it")
    return None


def _unlisted(keys: Iterable[str], where: Path) -> list[Rejection]:
    return [Rejection(id=key, reason="audio file missing", detail=f"{where} does not name it") for key in sorted(keys)]


def _whole(told: str) -> int | None:
    return int(told) if told.isascii() and told.isdigit() else None


def _require_files(paths: Iterable[Path], *, part: str, source: str) -> None:
    for path in paths:
        hint = f"the folder is not complete; unpack the archive from {PUBLISHERS[source]} again"
        require(path.is_file(), path, part=part, keys=f"data and corpus.parts.{part}.folder", hint=hint)
