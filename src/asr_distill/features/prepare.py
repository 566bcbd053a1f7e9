"""Prepares one part of a corpus: every utterance checked, its features stored, its transcript normalised.

The folder of a prepared part holds `cuts.jsonl.gz`, `features.lca`, `references.jsonl`, `quarantine.csv` and
`statistics.json`.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from lhotse import CutSet, LilcomChunkyWriter, MonoCut
from lhotse.augmentation import Speed
from lhotse.features.base import Features as StoredFeatures
from rich.progress import track

from asr_distill.corpus.adapters import read_speech
from asr_distill.corpus.speech import Rejection
from asr_distill.corpus.validate import UnusableError, fit_length, load_samples, make_cuts
from asr_distill.experiment import CorpusRecord
from asr_distill.features.log_mel import LogMel, log_mel
from asr_distill.features.statistics import PartStatistics

STORAGE = "features.lca"
QUARANTINE = "quarantine.csv"
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
    cuts, rejected = make_cuts(speech, corpus=record.corpus, transcribed=use != "unlabelled")
    speeds = record.features.speed_perturbation if use in ("labelled", "unlabelled") else (1.0,)
    statistics = PartStatistics(part=part, use=use, bins=record.features.mel_bins)
    with _complete_or_absent(Path(output)) as folder:
        with (
            LilcomChunkyWriter(folder / STORAGE) as storage,
            CutSet.open_writer(folder / "cuts.jsonl.gz") as manifest,
            (folder / "references.jsonl").open("w", encoding="utf-8") as references,
        ):
            featuriser = _Featuriser(extractor=log_mel(record.features), storage=storage, speeds=speeds)
            for cut in track(cuts, description=f"Features of {part}", disable=not sys.stdout.isatty()):
                try:
                    samples = load_samples(cut, sampling_rate=record.features.sampling_rate)
                except UnusableError as unusable:
                    rejected.append(unusable.rejection(cut.id))
                    continue
                for stored in featuriser.store(cut, samples, statistics=statistics):
                    manifest.write(stored)
                references.write(_reference(cut))
        _write_quarantine(folder / QUARANTINE, rejected)
        _check_share(statistics.utterances, rejected, part=part, limit=record.corpus.max_quarantined, output=output)
        statistics.write(folder / "statistics.json", quarantined=len(rejected))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Featuriser:
    """Turns samples into stored features, at every speed."""

    extractor: LogMel
    storage: LilcomChunkyWriter
    speeds: Sequence[float]

    def store(self, cut: MonoCut, samples: np.ndarray, *, statistics: PartStatistics) -> Iterator[MonoCut]:
        """Yield a cut and then its copies at other speeds, `<id>_sp0.9`, each with its features; samples are (1, N)."""
        features = self.extractor.extract(samples, cut.sampling_rate)
        statistics.add(cut, features)
        yield self._with_features(cut, features)
        for speed in self.speeds:
            if speed != 1.0:
                copy = dataclasses.replace(cut.perturb_speed(speed), custom={"original": cut.id})
                resampled = fit_length(Speed(factor=speed)(samples, cut.sampling_rate), copy.num_samples)
                yield self._with_features(copy, self.extractor.extract(resampled, cut.sampling_rate))

    def _with_features(self, cut: MonoCut, features: np.ndarray) -> MonoCut:
        """Store features (T, F); their path is relative to the folder of the part, which may move."""
        manifest = StoredFeatures(
            type=self.extractor.name,
            num_frames=features.shape[0],
            num_features=features.shape[1],
            frame_shift=self.extractor.frame_shift,
            sampling_rate=cut.sampling_rate,
            start=cut.start,
            duration=cut.duration,
            storage_type=self.storage.name,
            storage_path=STORAGE,
            storage_key=self.storage.write(cut.id, features),
            recording_id=cut.recording_id,
            channels=cut.channel,
        )
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


def _reference(cut: MonoCut) -> str:
    (supervision,) = cut.supervisions
    values = {
        "id": cut.id,
        "speaker": supervision.speaker,
        "duration": cut.duration,
        "text": supervision.text,
    }
    return json.dumps(values, ensure_ascii=False) + "\n"


def _write_quarantine(path: Path, rejected: Sequence[Rejection]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=("id", "reason", "detail"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(rejection) for rejection in sorted(rejected, key=lambda item: item.id))


def _check_share(usable: int, rejected: Sequence[Rejection], *, part: str, limit: float, output: Path) -> None:
    total = usable + len(rejected)
    if usable and len(rejected) <= limit * total:
        return
    if total == 0:
        raise ValueError(f"corpus.parts.{part}: the corpus is there, but holds no utterance; is its folder complete?")
    ((reason, count),) = Counter(rejection.reason for rejection in rejected).most_common(1)
    raise ValueError(
        f"corpus.parts.{part}: {len(rejected)} of {total} utterances are unusable, most often ({count}) for: {reason}; "
        f"all are listed in {Path(output) / QUARANTINE}. Mend the corpus"
        + (f", or raise corpus.max_quarantined above {limit}" if usable else "; nothing is left of this part")
    )
