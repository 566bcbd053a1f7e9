"""Prepares a part in shards, one after the other; a job that was killed goes on with the first that is not complete."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lhotse import MonoCut
from rich.progress import track

from asr_distill.corpus.speech import Rejection, Speech
from asr_distill.corpus.validate import stream_cuts
from asr_distill.experiment import CorpusRecord
from asr_distill.features.reading import original_id
from asr_distill.features.shards import FOLDER, INDEX, ArchivedFeaturesReader, Shard, ShardWriter, write_index
from asr_distill.features.statistics import PartStatistics
from asr_distill.features.utterances import QUARANTINE, Featuriser, check_share, reference_line, write_quarantine
from asr_distill.files import replacing, write_json

STATE = "state"
"""Folder of what is known of complete shards."""
FILES = ("references.jsonl", QUARANTINE, INDEX, "statistics.json")
"""Beside the shards, in the order in which they appear; the last one tells that all are there."""


def prepare_shards(part: str, *, speech: Speech, record: CorpusRecord, output: Path) -> None:
    """Prepare a part into shards in the folder `output`; at no time more than one shard's cuts are in memory.

    A shard is made of `corpus.shard_utterances` consecutive utterances, less those that turn out to be unusable.

    Raises:
        ValueError: where nothing is usable or more than `corpus.max_quarantined` is not, once all shards are written;
            what is mended then, or that limit, costs no work on the others.
    """
    use = record.corpus.parts[part].use
    for name in FILES:
        (output / name).unlink(missing_ok=True)
    for left_over in output.glob(".incomplete.*"):
        shutil.rmtree(left_over)
    (output / STATE).mkdir(parents=True, exist_ok=True)
    statistics = PartStatistics(part=part, use=use, bins=record.features.mel_bins)
    featuriser = Featuriser.of(record, use=use)
    rejected: list[Rejection] = []
    cuts = stream_cuts(speech, corpus=record.corpus, transcribed=use != "unlabelled", rejected=rejected)
    shards: list[Shard] = []
    for number, candidates in enumerate(_groups(cuts, size=record.corpus.shard_utterances)):
        shard, state = _prepared(number, candidates, output=output, record=record, featuriser=featuriser)
        shards += [shard] if shard.cuts else []
        statistics.add_state(state["statistics"])
        rejected += [Rejection(**values) for values in state["rejected"]]
    _remove_others(output, shards)
    with replacing(output / QUARANTINE) as temporary:
        write_quarantine(temporary, rejected)
    check_share(statistics.utterances, rejected, part=part, limit=record.corpus.max_quarantined, output=output)
    _write_references(output, shards)
    write_index(output, shards)
    with replacing(output / "statistics.json") as temporary:
        statistics.write(temporary, quarantined=len(rejected))


def _groups(cuts: Iterable[MonoCut], *, size: int) -> Iterator[list[MonoCut]]:
    iterator = iter(cuts)
    while group := list(islice(iterator, size)):
        yield group


def _prepared(
    number: int, candidates: Sequence[MonoCut], *, output: Path, record: CorpusRecord, featuriser: Featuriser
) -> tuple[Shard, dict[str, Any]]:
    """Return a shard and what is known of it, written now unless an earlier call did that from the same utterances."""
    path = output / STATE / f"{number:06d}.json"
    made_from = _fingerprint(candidates, record)
    state = _read_state(path)
    if state.get("made_from") == made_from:
        shard = Shard(folder=output, **state["shard"])
        if _sizes(shard) == state["bytes"]:
            return shard, state
    path.unlink(missing_ok=True)
    statistics = PartStatistics(part="", use="", bins=record.features.mel_bins)
    rejected: list[Rejection] = []
    with ShardWriter(output, number=number) as writer:
        shown = track(candidates, description=f"Shard {number}", disable=not sys.stdout.isatty())
        for cut, copies in featuriser.usable(shown, rejected=rejected):
            for copy, features in copies:
                if copy is cut:
                    statistics.add(cut, features)
                stored = {"kind": ArchivedFeaturesReader.name, "path": writer.shard.archive.name, "key": ""}
                manifest = featuriser.manifest(copy, features, **stored)
                writer.write(dataclasses.replace(copy, features=manifest), features)
        shard = writer.finish()
    state = {
        "made_from": made_from,
        "shard": {name: value for name, value in vars(shard).items() if name != "folder"},
        "bytes": _sizes(shard),
        "statistics": statistics.state(),
        "rejected": [dataclasses.asdict(rejection) for rejection in rejected],
    }
    write_json(path, state)
    return shard, state


def _fingerprint(candidates: Sequence[MonoCut], record: CorpusRecord) -> str:
    """Return what a shard depends on: its utterances as listed, and the features asked for."""
    digest = hashlib.sha256(record.features.model_dump_json().encode())
    for cut in candidates:
        (supervision,) = cut.supervisions
        listed = [cut.id, cut.start, cut.duration, supervision.speaker, supervision.text]
        digest.update(json.dumps([*listed, cut.recording.sources[0].source]).encode())
    return digest.hexdigest()


def _read_state(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _sizes(shard: Shard) -> list[int]:
    """Return the bytes of a shard's files, -1 for one that is missing."""
    return [path.stat().st_size if path.exists() else -1 for path in (shard.manifest, shard.archive)]


def _remove_others(output: Path, shards: Sequence[Shard]) -> None:
    """Remove what a former, longer list of utterances left."""
    mine = {path for shard in shards for path in (shard.manifest, shard.archive)}
    for path in (output / FOLDER).glob("*"):
        if path not in mine:
            path.unlink()


def _write_references(output: Path, shards: Sequence[Shard]) -> None:
    with replacing(output / "references.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
        for shard in shards:
            file.writelines(reference_line(cut) for cut in shard.read() if original_id(cut) == cut.id)
