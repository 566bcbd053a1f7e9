"""What becomes of an utterance while its part is prepared: features at every speed, a reference, or a rejection."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from lhotse import MonoCut
from lhotse.augmentation import Speed
from lhotse.features.base import Features as StoredFeatures

from asr_distill.corpus.speech import Rejection
from asr_distill.corpus.validate import UnusableError, fit_length, load_samples
from asr_distill.experiment import CorpusRecord
from asr_distill.features.log_mel import LogMel, log_mel

QUARANTINE = "quarantine.csv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Featuriser:
    """Turns samples into features, at every speed."""

    extractor: LogMel
    sampling_rate: int
    speeds: Sequence[float]

    @classmethod
    def of(cls, record: CorpusRecord, *, use: str) -> Featuriser:
        """Return the featuriser of a part; only speech that is trained on has copies at other speeds."""
        speeds = record.features.speed_perturbation if use in ("labelled", "unlabelled") else (1.0,)
        return cls(extractor=log_mel(record.features), sampling_rate=record.features.sampling_rate, speeds=speeds)

    def usable(
        self, cuts: Iterable[MonoCut], *, rejected: list[Rejection]
    ) -> Iterator[tuple[MonoCut, Iterator[tuple[MonoCut, np.ndarray]]]]:
        """Yield each cut whose audio can be used, with what `copies` yields for it; add the others to a list."""
        for cut in cuts:
            try:
                samples = load_samples(cut, sampling_rate=self.sampling_rate)
            except UnusableError as unusable:
                rejected.append(unusable.rejection(cut.id))
                continue
            yield cut, self.copies(cut, samples)

    def copies(self, cut: MonoCut, samples: np.ndarray) -> Iterator[tuple[MonoCut, np.ndarray]]:
        """Yield a cut and then its copies at other speeds, `<id>_sp0.9`, each with features (T, F); samples (1, N)."""
        yield cut, self.extractor.extract(samples, cut.sampling_rate)
        for speed in self.speeds:
            if speed != 1.0:
                copy = dataclasses.replace(cut.perturb_speed(speed), custom={"original": cut.id})
                resampled = fit_length(Speed(factor=speed)(samples, cut.sampling_rate), copy.num_samples)
                yield copy, self.extractor.extract(resampled, cut.sampling_rate)

    def manifest(self, cut: MonoCut, features: np.ndarray, *, kind: str, path: str, key: str) -> StoredFeatures:
        """Return where a cut's features (T, F) are stored; the path is relative to their folder, which may move."""
        return StoredFeatures(
            type=self.extractor.name,
            num_frames=features.shape[0],
            num_features=features.shape[1],
            frame_shift=self.extractor.frame_shift,
            sampling_rate=cut.sampling_rate,
            start=cut.start,
            duration=cut.duration,
            storage_type=kind,
            storage_path=path,
            storage_key=key,
            recording_id=cut.recording_id,
            channels=cut.channel,
        )


def reference_line(cut: MonoCut) -> str:
    """Return a cut's line of references.jsonl."""
    (supervision,) = cut.supervisions
    values = {
        "id": cut.id,
        "speaker": supervision.speaker,
        "duration": cut.duration,
        "text": supervision.text,
    }
    return json.dumps(values, ensure_ascii=False) + "\n"


def write_quarantine(path: Path, rejected: Sequence[Rejection]) -> None:
    """Write what was left out, sorted by id."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=("id", "reason", "detail"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(rejection) for rejection in sorted(rejected, key=lambda item: item.id))


def check_share(usable: int, rejected: Sequence[Rejection], *, part: str, limit: float, output: Path) -> None:
    """Raise ValueError where nothing of a part is usable, or a larger share than `limit` is not."""
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
