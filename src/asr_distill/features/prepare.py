"""Prepares one part of a corpus: every utterance checked, its features stored, its transcript normalised.

The folder of a prepared part holds `cuts.jsonl.gz`, `features.lca`, `references.jsonl`, `quarantine.csv` and
`statistics.json`; that of a part in shards (prepare_shards.py) `shards/` and `shards.json` in place of the first two.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from lhotse import CutSet, LilcomChunkyWriter, MonoCut
from rich.progress import track

from asr_distill.corpus.adapters import read_speech
from asr_distill.corpus.validate import make_cuts
from asr_distill.experiment import CorpusRecord
from asr_distill.features.prepare_shards import prepare_shards
from asr_distill.features.statistics import PartStatistics
from asr_distill.features.utterances import QUARANTINE, Featuriser, check_share, reference_line, write_quarantine

STORAGE = "features.lca"
FILES = (STORAGE, "references.jsonl", QUARANTINE, "cuts.jsonl.gz", "statistics.json")
"""In the order in which they appear; the last one tells that all are there."""


def prepare(part: str, *, record: CorpusRecord, synthetic: Path, output: Path) -> None:
    """Prepare one part into the folder `output`, where its files appear once all of them are complete.

    Args:
        part: a name among `corpus.parts`.
        record: the corpus and features of the scale.
        synthetic: folder of the synthesised corpora.
        output: folder of the prepared part.

    Raises:
        ValueError: where the corpus is missing, nothing of it is usable, or more than `corpus.max_quarantined` is not;
            `quarantine.csv` is written even then.
    """
    use = record.corpus.parts[part].use
    speech = read_speech(part, record=record, synthetic=Path(synthetic))
    if part in record.corpus.sharded:
        prepare_shards(part, speech=speech, record=record, output=Path(output))
        return
    cuts, rejected = make_cuts(speech, corpus=record.corpus, transcribed=use != "unlabelled")
    statistics = PartStatistics(part=part, use=use, bins=record.features.mel_bins)
    featuriser = Featuriser.of(record, use=use)
    with _complete_or_absent(Path(output)) as folder:
        with (
            LilcomChunkyWriter(folder / STORAGE) as storage,
            CutSet.open_writer(folder / "cuts.jsonl.gz") as manifest,
            (folder / "references.jsonl").open("w", encoding="utf-8") as references,
        ):
            shown = track(cuts, description=f"Features of {part}", disable=not sys.stdout.isatty())
            for cut, copies in featuriser.usable(shown, rejected=rejected):
                for copy, features in copies:
                    if copy is cut:
                        statistics.add(cut, features)
                    manifest.write(_stored(copy, features, featuriser=featuriser, storage=storage))
                references.write(reference_line(cut))
        write_quarantine(folder / QUARANTINE, rejected)
        check_share(statistics.utterances, rejected, part=part, limit=record.corpus.max_quarantined, output=output)
        statistics.write(folder / "statistics.json", quarantined=len(rejected))


def _stored(cut: MonoCut, features: np.ndarray, *, featuriser: Featuriser, storage: LilcomChunkyWriter) -> MonoCut:
    """Store features (T, F) and return the cut with them."""
    key = storage.write(cut.id, features)
    manifest = featuriser.manifest(cut, features, kind=storage.name, path=STORAGE, key=key)
    return dataclasses.replace(cut, features=manifest)


@contextlib.contextmanager
def _complete_or_absent(output: Path) -> Iterator[Path]:
    """Hand out a folder to write into; without an error its files move to `output`, with one only the quarantine."""
    folder = output / ".incomplete"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in FILES:
        (output / name).unlink(missing_ok=True)
    try:
        yield folder
        for name in FILES:
            (folder / name).replace(output / name)
    except ValueError:
        if (folder / QUARANTINE).exists():
            (folder / QUARANTINE).replace(output / QUARANTINE)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
