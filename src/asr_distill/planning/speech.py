"""How much speech the parts of a corpus hold, before and after they are prepared."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_distill.corpus.speakers import choose_speakers
from asr_distill.experiment import Corpus, PublishedPart, SpeakersPart, SyntheticPart


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
PUBLISHED = {
    ("an4", "train"): (0.707, 948, 74),
    ("an4", "test"): (0.099, 130, 10),
    ("speechocean762", "train"): (2.876, 2500, 125),
    ("speechocean762", "test"): (2.691, 2500, 125),
}
"""Hours, utterances and speakers, as counted on the corpora."""
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
    if isinstance(part, SpeakersPart):
        return _listed(name, corpus, folder=data / part.folder)
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


def _listed(name: str, corpus: Corpus, *, folder: Path) -> Speech:
    """Count the utterances of the speakers that a part takes from a list, by its manifest or as known of the corpus."""
    part = corpus.parts[name]
    path = folder / f"supervisions_{part.name}.jsonl.gz"
    if isinstance(part, PublishedPart) and not path.exists():
        return _known_share(part, corpus)
    ages: dict[str, int | None] = {}
    spoken: dict[str, list[float]] = {}
    try:
        for line in _lines(path):
            speaker, age = line.get("speaker") or line["recording_id"], str((line.get("custom") or {}).get("age", ""))
            ages[speaker] = int(age) if age.isdecimal() else None
            spoken.setdefault(speaker, []).append(line["duration"])
    except FileNotFoundError as error:
        raise ValueError(
            f"corpus.parts.{name}: {error.filename} is missing, so nobody knows how much speech there is; name the "
            "folder of the corpora: --data <folder>"
        ) from None
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"corpus.parts.{name}: {path} is not readable: {error}") from None
    chosen = choose_speakers(name, corpus=corpus, speakers=ages)
    return Speech(
        hours=sum(sum(spoken[speaker]) for speaker in chosen) / 3600,
        utterances=sum(len(spoken[speaker]) for speaker in chosen),
    )


def _known_share(part: PublishedPart, corpus: Corpus) -> Speech:
    """Return the share of a published list that its number of speakers, some of them of an age group, stands for."""
    hours, utterances, speakers = PUBLISHED[part.source, part.name]
    same = [other for other in corpus.parts.values() if isinstance(other, PublishedPart) and other.name == part.name]
    groups = max(1, len({other.ages for other in same if other.ages is not None}))  # taken to be of equal size
    taken = sum(other.speakers for other in same if other.ages == part.ages and isinstance(other.speakers, int))
    number = part.speakers if isinstance(part.speakers, int) else speakers / groups - taken
    share = min(1.0, max(0.0, number / speakers))
    return Speech(hours=share * hours, utterances=max(1, round(share * utterances)))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)
