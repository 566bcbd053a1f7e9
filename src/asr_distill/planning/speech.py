"""How much speech the parts of a corpus hold, before and after they are prepared."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_distill.experiment import Corpus, ManifestPart, SyntheticPart


@dataclass(frozen=True, kw_only=True)
class Speech:
    """Size of a part."""

    hours: float
    utterances: int
    archive_gigabytes: float = 0.0
    """As published, to be downloaded."""
    measured: bool = False
    """Counted here, when the part was prepared, instead of known or assumed."""

    @property
    def seconds(self) -> float:
        """Return the mean length of an utterance."""
        return 3600 * self.hours / self.utterances


LIBRISPEECH = {
    "train-clean-100": Speech(hours=100.6, utterances=28539, archive_gigabytes=6.4),
    "train-clean-360": Speech(hours=363.6, utterances=104014, archive_gigabytes=23.0),
    "train-other-500": Speech(hours=496.7, utterances=148688, archive_gigabytes=30.6),
    "dev-clean": Speech(hours=5.4, utterances=2703, archive_gigabytes=0.34),
    "dev-other": Speech(hours=5.3, utterances=2864, archive_gigabytes=0.31),
    "test-clean": Speech(hours=5.4, utterances=2620, archive_gigabytes=0.35),
    "test-other": Speech(hours=5.1, utterances=2939, archive_gigabytes=0.33),
    "train-clean-5": Speech(hours=5.3, utterances=1519, archive_gigabytes=0.33),
    "dev-clean-2": Speech(hours=2.0, utterances=1089, archive_gigabytes=0.13),
}
"""Hours: Panayotov et al. 2015, table 1, and openslr.org, resources 12 and 31."""
LIBRILIGHT_HOURS = {"small": (577, 35), "medium": (5193, 321), "large": (51934, 3050)}
"""Hours and gigabytes: Kahn et al. 2020, table 1, and the corpus' page."""
FILLED = 0.9
"""Share of a window's length that is filled where long recordings are cut: the last piece of each is shorter."""
SYNTHETIC_SECONDS = 3.15
"""Mean length of a synthesised utterance, as measured at the scale mini."""


def speech_of(corpus: Corpus, *, data: Path, prepared: Path) -> dict[str, Speech]:
    """Return the size of every part: as counted when it was prepared, else as known of the corpus.

    Args:
        corpus: of the scale.
        data: folder of the real corpora; only Lhotse manifests are read there.
        prepared: folder of the prepared parts, <part>/statistics.json.

    Raises:
        ValueError: naming a part that nothing is known about.
    """
    return {name: _part(name, corpus, data=data, prepared=prepared) for name in corpus.parts}


def _part(name: str, corpus: Corpus, *, data: Path, prepared: Path) -> Speech:
    part, statistics = corpus.parts[name], prepared / name / "statistics.json"
    if statistics.exists():
        counted = json.loads(statistics.read_text(encoding="utf-8"))
        return Speech(hours=counted["hours"], utterances=counted["utterances"], measured=True)
    if isinstance(part, SyntheticPart):
        return Speech(hours=part.utterances * SYNTHETIC_SECONDS / 3600, utterances=part.utterances)
    if isinstance(part, ManifestPart):
        return _manifest(name, corpus, folder=data / part.folder)
    known = LIBRISPEECH if part.source == "librispeech" else LIBRILIGHT_HOURS
    if part.name not in known:
        raise ValueError(
            f"corpus.parts.{name}: how much speech '{part.name}' of {part.source} holds is not known before it is "
            f"prepared; known: {', '.join(known)}"
        )
    if part.source == "librispeech":
        return LIBRISPEECH[part.name]
    hours, gigabytes = LIBRILIGHT_HOURS[part.name]
    windows = math.ceil(3600 * hours / (FILLED * corpus.max_duration))
    return Speech(hours=hours, utterances=windows, archive_gigabytes=gigabytes)


def _manifest(name: str, corpus: Corpus, *, folder: Path) -> Speech:
    """Count the recordings of a manifest; a part with some of its speakers has their share of them."""
    part = corpus.parts[name]
    recordings, supervisions = (folder / f"{kind}_{part.name}.jsonl.gz" for kind in ("recordings", "supervisions"))
    try:
        seconds = [line["duration"] for line in _lines(recordings)]
        speakers = len({line.get("speaker") for line in _lines(supervisions)})
    except FileNotFoundError as error:
        raise ValueError(
            f"corpus.parts.{name}: {error.filename} is missing, so nobody knows how much speech there is; name the "
            "folder of the corpora: --data <folder>"
        ) from None
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"corpus.parts.{name}: {recordings} and {supervisions.name} are not readable: {error}"
        ) from None
    share = _speakers(part, corpus, all_of_them=speakers) / max(speakers, 1)
    if not seconds or share <= 0:
        raise ValueError(f"corpus.parts.{name}: {recordings} has no speaker left for it; it names {speakers}")
    return Speech(hours=share * sum(seconds) / 3600, utterances=max(1, round(share * len(seconds))))


def _speakers(part: ManifestPart, corpus: Corpus, *, all_of_them: int) -> int:
    """Return how many speakers of a manifest belong to a part: all, a number, or those that others leave."""
    if part.speakers == "all":
        return all_of_them
    if part.speakers != "rest":
        return min(part.speakers, all_of_them)
    manifest = (part.folder, part.name)
    others = [other for other in corpus.parts.values() if isinstance(other, ManifestPart)]
    taken = [other.speakers for other in others if (other.folder, other.name) == manifest]
    return all_of_them - sum(number for number in taken if isinstance(number, int))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)
