"""Word and character errors of every utterance: hypotheses joined to references by id, aligned by jiwer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jiwer
import pandas as pd

from asr_distill.text.normalise import normalise

COLUMNS = ["part", "id", "speaker", "words", "substitutions", "deletions", "insertions", "errors"]
CHARACTER_COLUMNS = ["characters", "character_errors"]
Aligner = Callable[[list[str], list[str]], jiwer.WordOutput | jiwer.CharacterOutput]


def word_errors(
    references: pd.DataFrame, hypotheses: pd.DataFrame, *, characters: bool = False, batch_size: int = 10_000
) -> pd.DataFrame:
    """Count the word errors of each reference utterance, after normalising both sides.

    Args:
        references: columns part, id, speaker, text.
        hypotheses: columns part, id, text; an utterance without a hypothesis counts as all deletions.
        characters: count character errors too.
        batch_size: utterances aligned in one call of jiwer.

    Returns:
        One row per reference in the references' order: part, id, speaker, words (of the reference), substitutions,
        deletions, insertions, and errors, their sum. With `characters` also characters (of the reference, the spaces
        between words included) and character_errors, aligned by themselves.

    Raises:
        ValueError: for an id that stands twice on one side, a hypothesis that no reference knows, or a part without
            a single hypothesis.
    """
    _check_ids(references, hypotheses)
    found = dict(zip(_keys(hypotheses), hypotheses["text"], strict=True))
    expected = [normalise(text) for text in references["text"]]
    heard = [normalise(found.get(key, "")) for key in _keys(references)]

    def count(process: Aligner) -> pd.DataFrame:
        counts = [
            count
            for start in range(0, len(expected), batch_size)
            for count in _count(expected[start : start + batch_size], heard[start : start + batch_size], process)
        ]
        return pd.DataFrame(counts, columns=COLUMNS[3:], index=references.index).astype("int64")

    tables = [references[COLUMNS[:3]], count(jiwer.process_words)]
    if characters:
        counted = count(jiwer.process_characters)[["words", "errors"]]
        tables.append(counted.set_axis(CHARACTER_COLUMNS, axis="columns"))
    return pd.concat(tables, axis="columns").reset_index(drop=True)


def read_references(paths: Mapping[str, Path]) -> pd.DataFrame:
    """Read the references.jsonl of several parts, by name of the part: columns part, id, speaker, duration, text."""
    lines = [{"part": part, **line} for part, path in paths.items() for line in _read_lines(path)]
    return _frame(
        lines, columns=["part", "id", "speaker", "duration", "text"], where=", ".join(map(str, paths.values()))
    )


def read_hypotheses(path: Path) -> pd.DataFrame:
    """Read a hypotheses.jsonl: columns part, id, text, score."""
    return _frame(list(_read_lines(path)), columns=["part", "id", "text", "score"], where=str(path))


def _count(references: list[str], hypotheses: list[str], process: Aligner) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield words (or characters), substitutions, deletions, insertions and errors of each pair."""
    output = process(references, hypotheses)
    for words, chunks in zip(output.references, output.alignments, strict=True):
        substitutions = sum(c.ref_end_idx - c.ref_start_idx for c in chunks if c.type == "substitute")
        deletions = sum(c.ref_end_idx - c.ref_start_idx for c in chunks if c.type == "delete")
        insertions = sum(c.hyp_end_idx - c.hyp_start_idx for c in chunks if c.type == "insert")
        yield len(words), substitutions, deletions, insertions, substitutions + deletions + insertions


def _check_ids(references: pd.DataFrame, hypotheses: pd.DataFrame) -> None:
    for side, frame in (("references", references), ("hypotheses", hypotheses)):
        twice = frame[frame.duplicated(["part", "id"])]
        if len(twice):
            first = twice.iloc[0]
            raise ValueError(f"{side}: utterance '{first['id']}' of {first['part']} stands twice; keep one line for it")
    known = set(_keys(references))
    unknown = [key for key in _keys(hypotheses) if key not in known]
    if unknown:
        part, utterance = unknown[0]
        raise ValueError(
            f"hypotheses: {len(unknown)} without a reference, such as '{utterance}' of {part}; "
            "decode the same parts that are scored, or leave other parts out"
        )
    for part in references["part"].unique():
        if part not in set(hypotheses["part"]):
            raise ValueError(f"hypotheses: none for the part {part}; decode it before scoring")


def _keys(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(frame["part"], frame["id"], strict=True))


def _read_lines(path: Path) -> Iterator[dict[str, object]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}:{number}: no JSON ({error.msg}); write this file again") from None


def _frame(lines: list[dict[str, object]], *, columns: list[str], where: str) -> pd.DataFrame:
    for line in lines:
        missing = [column for column in columns if column not in line]
        if missing:
            raise ValueError(f"{where}: a line lacks {', '.join(missing)}: {line}; write this file again")
    return pd.DataFrame(lines, columns=columns).astype(
        {"id": "str"} | ({"speaker": "str"} if "speaker" in columns else {})
    )
