"""Overview of all prepared parts, from their small files alone; keeps torch out of the reporting jobs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

COLUMNS = ("part", "use", "utterances", "hours", "speakers", "words", "quarantined")
_TRAINING = frozenset({"labelled", "unlabelled"})


def overview(folders: Mapping[str, Path]) -> pd.DataFrame:
    """Return one row per prepared part (name -> folder), `speakers` as a number.

    Raises:
        ValueError: where a speaker of a dev or test part is heard in a part of another use, or two parts have an
            utterance in common. Labelled and unlabelled parts may share speakers, as LibriSpeech and Libri-Light do.
    """
    parts = {name: _read_statistics(Path(folder)) for name, folder in folders.items()}
    for first, second in itertools.combinations(parts, 2):
        _check_speakers(first, parts[first], second, parts[second])
    _check_ids(folders)
    rows = [{**part, "part": name, "speakers": len(part["speakers"])} for name, part in parts.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def quarantine(folders: Mapping[str, Path]) -> pd.DataFrame:
    """Return what was left out of all prepared parts: part, id, reason, detail."""
    frames = [
        pd.read_csv(Path(folder) / "quarantine.csv", dtype=str, keep_default_na=False).assign(part=name)
        for name, folder in folders.items()
    ]
    columns = ["part", "id", "reason", "detail"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def _read_statistics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "statistics.json").read_text(encoding="utf-8"))


def _check_speakers(first: str, ours: Mapping[str, Any], second: str, theirs: Mapping[str, Any]) -> None:
    uses = {ours["use"], theirs["use"]}
    shared = sorted(set(ours["speakers"]) & set(theirs["speakers"]))
    if shared and len(uses) > 1 and uses != _TRAINING:
        raise ValueError(
            f"corpus.parts: {first} ({ours['use']}) and {second} ({theirs['use']}) share {len(shared)} speakers, "
            f"such as {', '.join(shared[:3])}; take parts with disjoint speakers"
        )


def _check_ids(folders: Mapping[str, Path]) -> None:
    owners: dict[str, str] = {}
    for name, folder in folders.items():
        with (Path(folder) / "references.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                key = json.loads(line)["id"]
                if owners.setdefault(key, name) != name:
                    raise ValueError(
                        f"corpus.parts: {owners[key]} and {name} both contain the utterance '{key}'; "
                        "leave one of them out or rename its utterances"
                    )
