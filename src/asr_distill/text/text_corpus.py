"""Text without speech, for language models: where its lines come from and which of them may be learnt from."""

from __future__ import annotations

import gzip
import logging
import random
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

from asr_distill.text import grammar
from asr_distill.text.normalise import normalise, unspeakable

log = logging.getLogger(__name__)

WORDNET_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
FEWEST_WORDS = 3
"""Of an example of WordNet's; shorter ones are expressions and no sentences."""

_PLAIN = re.compile("[A-Z' ]*")
"""Lines that `normalise` would change in nothing but their spaces and lonely apostrophes."""


class Source(Protocol):
    """Where lines are found."""

    source: Literal["file", "wordnet"]
    path: str


@dataclass(frozen=True, kw_only=True)
class TextCounts:
    """How many lines were read and what became of them."""

    read: int
    kept: int
    overlapping: int
    """Lines that equal a dev or test transcript."""
    unspeakable: dict[str, int]
    """Lines that no transcript could be, by reason."""
    words: int
    """Of the lines kept."""


def prepare_text(
    lines: Iterable[str], *, exclude: Collection[str], labelled: Collection[str] = (), source: str = "text"
) -> tuple[list[str], TextCounts]:
    """Return normalised lines in their order, repeats kept, and how many were left out.

    Args:
        lines: raw text, one sentence or so each.
        exclude: dev and test transcripts; a line that equals one after normalisation is left out, so that the language
            model has read nothing that is scored.
        labelled: transcripts that recognisers learn from.
        source: what error messages call the text, such as its file.

    Raises:
        ValueError: when no line is left, or the text shares no word with the labelled transcripts, which then are of
            another language or spelling.
    """
    excluded = {normalise(line) for line in exclude}
    kept: list[str] = []
    read = overlapping = 0
    reasons: Counter[str] = Counter()
    for read, line in enumerate(lines, start=1):  # noqa: B007 - the number of the last line is how many there are
        text = _normalise_fast(line)
        if text in excluded:
            overlapping += 1
        elif reason := unspeakable(text):
            reasons[reason] += 1
        else:
            kept.append(text)
    counts = TextCounts(
        read=read,
        kept=len(kept),
        overlapping=overlapping,
        unspeakable=dict(sorted(reasons.items())),
        words=sum(line.count(" ") + 1 for line in kept),
    )
    if not kept:
        raise ValueError(f"{source}: none of {read} lines can be used: {_told(counts)}")
    _check_common_words(kept, transcripts=labelled, source=source)
    log.info("%s: %d of %d lines are kept (%s)", source, counts.kept, counts.read, _told(counts))
    return kept, counts


def grammar_lines(count: int, *, seed: int, domains: Collection[str] = grammar.DOMAINS) -> Iterator[str]:
    """Yield `count` sentences of the embedded grammar, the domains taking turns; another stream than any part's."""
    return islice(grammar.sentences(random.Random(f"{seed} text only"), domains=domains), count)


def found_lines(source: Source, *, data: Path) -> Iterator[str]:
    """Yield the lines of a text that lies below the folder `data`, or at a path of its own."""
    return (wordnet_lines if source.source == "wordnet" else file_lines)(data / source.path)


def found_files(source: Source, *, data: Path) -> list[Path]:
    """Return the files of such a text that are there."""
    path = data / source.path
    files = [path / name for name in WORDNET_FILES] if source.source == "wordnet" else [path]
    return [file for file in files if file.is_file()]


def file_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, `.txt` or `.txt.gz` as LibriSpeech's text for language models is.

    Raises:
        ValueError: where the file is missing, damaged or without text, or a line is not UTF-8 (named by its number).
    """
    empty = True
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = _decoded(line, where=f"{path}: line {number}")
                empty = empty and not text.strip()
                yield text
    except (OSError, EOFError, zlib.error) as error:  # gzip reports damage as any of these
        raise ValueError(f"{path}: not readable: {error}") from None
    if empty:
        raise ValueError(f"{path}: holds no text")


def wordnet_lines(folder: Path) -> Iterator[str]:
    """Yield the example sentences of WordNet: what stands in quotes in the glosses, if it has three words or more.

    Layout as in WordNet's manual page wndb(5WN): a synset a line, its gloss after "|"; the licence before them is
    indented.

    Raises:
        ValueError: where a file is missing or unreadable, is no WordNet database, or none has an example.
    """
    found = False
    for name in WORDNET_FILES:
        path = folder / name
        if not path.is_file():
            raise ValueError(
                f"{path}: not found; put WordNet's {', '.join(WORDNET_FILES)} there (Debian's package wordnet-base has "
                "them)"
            )
        for number, line in enumerate(file_lines(path), start=1):
            if line.startswith("  "):
                continue
            _, mark, gloss = line.partition("|")
            if not mark:
                raise ValueError(f"{path}: line {number} has no gloss after a '|'; this is no WordNet database")
            for example in re.findall(r'"([^"]+)"', gloss):
                if len(example.split()) >= FEWEST_WORDS:
                    found = True
                    yield example
    if not found:
        raise ValueError(f"{folder}: WordNet's files hold no example sentence")


def _normalise_fast(line: str) -> str:
    """Return `normalise(line)` in a tenth of the time for a normalised line, as all of LibriSpeech's 40 million are."""
    if _PLAIN.fullmatch(line.rstrip("\r\n")):
        return " ".join(word for word in line.split() if word.strip("'"))
    return normalise(line)


def _check_common_words(lines: Iterable[str], *, transcripts: Collection[str], source: str) -> None:
    words = {word for transcript in transcripts for word in normalise(transcript).split()}
    if words and not any(word in words for line in lines for word in line.split()):
        raise ValueError(
            f"{source}: has no word in common with the labelled transcripts; give a text of their language and spelling"
        )


def _told(counts: TextCounts) -> str:
    """Spell out what was left out."""
    left_out = {reason.removeprefix("transcript "): number for reason, number in counts.unspeakable.items()}
    left_out["equal to a dev or test transcript"] = counts.overlapping
    return ", ".join(f"{reason}: {number}" for reason, number in left_out.items() if number) or "nothing left out"


def _decoded(line: bytes, *, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 at byte {error.start + 1}; convert the file to UTF-8") from None
