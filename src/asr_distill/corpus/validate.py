"""Checks every utterance of a part: what is usable becomes a cut, the rest is set aside with its reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from math import ceil
from pathlib import Path

import numpy as np
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import get_audio_duration_mismatch_tolerance
from lhotse.audio.backend import read_audio

from asr_distill.corpus.plain_audio import is_plain, read_plain
from asr_distill.corpus.speech import Rejection, Speech, first_cause
from asr_distill.experiment import Corpus
from asr_distill.text.normalise import normalise, unspeakable

BOUNDARY_TOLERANCE = 1e-3
"""Seconds by which a supervision may overshoot its recording, for rounding's sake (as in Lhotse)."""


class UnusableError(Exception):
    """An utterance cannot be used; caught by whoever keeps the quarantine."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.reason, self.detail = reason, detail

    def rejection(self, utterance: str) -> Rejection:
        """Return the line for the quarantine."""
        return Rejection(id=utterance, reason=self.reason, detail=self.detail)


def make_cuts(speech: Speech, *, corpus: Corpus, transcribed: bool) -> tuple[list[MonoCut], list[Rejection]]:
    """Return one cut per usable utterance, sorted by id, and the rest; nothing is read from the audio yet.

    A cut holds one supervision: the normalised transcript, or None in a part that is not `transcribed`, whatever its
    publisher knows. There, what is longer than `corpus.max_duration` becomes windows of that length, `<id>-w0000` on.
    """
    rejected: list[Rejection] = []
    found = stream_cuts(speech, corpus=corpus, transcribed=transcribed, rejected=rejected)
    cuts = {cut.id: cut for cut in found}
    return [cuts[key] for key in sorted(cuts)], rejected


def stream_cuts(speech: Speech, *, corpus: Corpus, transcribed: bool, rejected: list[Rejection]) -> Iterator[MonoCut]:
    """Yield the cuts of `make_cuts` one by one, sorted by the id of what they are cut from; add the rest to a list."""
    recordings = {recording.id: recording for recording in reversed(list(speech.recordings))}
    rejected.extend(speech.rejected)
    last = None
    for segment in sorted(speech.supervisions, key=lambda segment: str(segment.id)):
        try:
            if segment.id == last:
                raise UnusableError("duplicate id", "an utterance before has the same")
            recording = recordings.get(segment.recording_id)
            cut = _cut(segment, recording, transcribed=transcribed)
        except UnusableError as unusable:
            rejected.append(unusable.rejection(segment.id))
            continue
        for piece in [cut] if transcribed else _windows(cut, longest=corpus.max_duration):
            if problem := _duration_problem(piece, corpus=corpus):
                rejected.append(problem.rejection(piece.id))
            else:
                last = segment.id
                yield piece


def load_samples(cut: MonoCut, *, sampling_rate: int) -> np.ndarray:
    """Return a cut's samples (1, N), float32 in -1..1.

    Raises:
        UnusableError: for audio that cannot be read, is shorter than promised, silent, not a number, of several
            channels or of another sampling rate.
    """
    samples, rate = _read(cut)
    if samples.shape[0] != 1:
        raise UnusableError("more than one channel", f"{samples.shape[0]} channels; mix them down to one")
    if rate != sampling_rate:
        raise UnusableError("wrong sampling rate", f"{rate} Hz; features.sampling_rate: {sampling_rate}")
    if samples.shape[1] == 0:
        raise UnusableError("audio empty", "no samples")
    promised = cut.num_samples
    missing = promised - samples.shape[1]
    if missing > ceil(get_audio_duration_mismatch_tolerance() * rate):
        raise UnusableError("audio truncated", f"{promised} samples promised, {samples.shape[1]} found")
    if not np.isfinite(samples).all():
        raise UnusableError("audio not finite", f"{(~np.isfinite(samples)).sum()} samples are NaN or infinite")
    if not samples.any():
        raise UnusableError("audio silent", "every sample is zero")
    return fit_length(samples, promised)


def fit_length(samples: np.ndarray, length: int) -> np.ndarray:
    """Return samples (1, N) cut or padded with zeros to (1, length)."""
    return np.pad(samples[:, :length], ((0, 0), (0, max(length - samples.shape[1], 0))))


def _cut(segment: SupervisionSegment, recording: Recording | None, *, transcribed: bool) -> MonoCut:
    if recording is None:
        raise UnusableError("recording missing", f"no recording '{segment.recording_id}' in the manifest")
    if recording.num_channels != 1 or len(recording.sources) != 1:
        raise UnusableError("more than one channel", f"{recording.num_channels} channels; mix them down to one")
    if segment.start < -BOUNDARY_TOLERANCE or segment.end > recording.duration + BOUNDARY_TOLERANCE:
        raise UnusableError(
            "supervision outside its recording",
            f"{segment.start} s to {segment.end} s in a recording of {recording.duration} s",
        )
    start = max(segment.start, 0.0)
    duration = round(min(segment.end, recording.duration) - start, ndigits=8)
    text = _text(segment) if transcribed else None
    speaker = segment.speaker or recording.id
    only = SupervisionSegment(
        id=segment.id, recording_id=recording.id, start=0.0, duration=duration, speaker=speaker, text=text
    )
    channel = recording.channel_ids[0]
    return MonoCut(
        id=segment.id, start=start, duration=duration, channel=channel, recording=recording, supervisions=[only]
    )


def _text(segment: SupervisionSegment) -> str:
    if segment.text is None:
        raise UnusableError("transcript missing", "its text is null")
    text = normalise(segment.text)
    if reason := unspeakable(text):
        raise UnusableError(reason, repr(segment.text))
    return text


def _windows(cut: MonoCut, *, longest: float) -> Iterator[MonoCut]:
    """Cut into windows of `longest` seconds and a rest; one that is short enough stays whole."""
    if cut.duration <= longest:
        yield cut
        return
    for number in range(ceil(round(cut.duration / longest, ndigits=6))):
        offset = number * longest
        window = f"{cut.id}-w{number:04d}"
        duration = round(min(longest, cut.duration - offset), ndigits=8)
        supervision = dataclasses.replace(cut.supervisions[0], id=window, duration=duration)
        start = round(cut.start + offset, ndigits=8)
        yield dataclasses.replace(cut, id=window, start=start, duration=duration, supervisions=[supervision])


def _duration_problem(cut: MonoCut, *, corpus: Corpus) -> UnusableError | None:
    if cut.duration <= 0:
        return UnusableError("audio empty", "no samples")
    if cut.duration < corpus.min_duration:
        return UnusableError("shorter than min_duration", f"{cut.duration} s, the limit is {corpus.min_duration} s")
    if cut.duration > corpus.max_duration:
        return UnusableError("longer than max_duration", f"{cut.duration} s, the limit is {corpus.max_duration} s")
    return None


def _read(cut: MonoCut) -> tuple[np.ndarray, int]:
    """Return all channels of a cut's span (C, N) and their true sampling rate."""
    recording = cut.recording
    source = recording.sources[0]
    whole = cut.duration >= recording.duration - BOUNDARY_TOLERANCE
    span = {"offset": 0.0 if whole else cut.start, "duration": None if whole else cut.duration}
    if source.type != "file":  # a manifest may name a shell command as well
        raise UnusableError("audio not in a file", f"the manifest's source is of type '{source.type}'")
    if not Path(source.source).is_file():
        raise UnusableError("audio file missing", source.source)
    try:
        if recording.transforms:
            return recording.load_audio(**span), recording.sampling_rate
        if is_plain(source.source):
            return read_plain(source.source, **span)
        samples, rate = read_audio(source.source, **span, force_opus_sampling_rate=recording.sampling_rate)
    except Exception as error:
        raise UnusableError("audio unreadable", f"{source.source}: {first_cause(error)}") from None
    return np.atleast_2d(samples).astype(np.float32), rate
