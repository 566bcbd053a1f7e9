"""Synthetic speech: sentences of the grammar or of a text, laid out on disk as LibriSpeech and Libri-Light.

<folder>/LibriSpeech/<part>/<speaker>/<chapter>/<speaker>-<chapter>-<NNNN>.flac and <speaker>-<chapter>.trans.txt,
<folder>/LibriSpeech/SPEAKERS.TXT, <folder>/LibriLight/<part>/<speaker>/<book>/<NNNN>_<book>.flac and .json.
"""

import json
import logging
import multiprocessing
import random
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Literal, Protocol
from zlib import crc32

import numpy as np
import soundfile
import soxr

from asr_distill.corpus import effects, espeak, flite
from asr_distill.text import grammar

logger = logging.getLogger(__name__)

SAMPLING_RATE = 16_000
MOST_WORDS = 20
"""Of a sentence that is no sentence of the grammar: some ten seconds."""

_READABLE = re.compile("[A-Z' ]+")
_FIRST_SPEAKER, _FIRST_READER = 1001, 50_001
"""Numbers of speakers; those who read a text stand beside real speakers, whose numbers have four digits."""

Span = tuple[float, float]
Voice = espeak.Voice | flite.Voice


@dataclass(frozen=True)
class Condition:
    """How a speaker speaks and is recorded: ranges from which each is drawn evenly, per speaker or per utterance."""

    rate: tuple[int, int]
    """Words per minute, per speaker."""
    pitch: tuple[int, int] = (30, 75)
    """The synthesisers' scale of 0 to 99, per speaker."""
    level_db: Span = (-30.0, -22.0)
    """Root mean square relative to full scale."""
    silence: Span = (0.1, 0.25)
    """Seconds before and after the speech."""
    snr_db: Span | None = None
    """Signal-to-noise ratio."""
    rt60: Span | None = None
    """Seconds of reverberation."""
    direct_to_reverberant_db: Span = (6.0, 12.0)


CLEAN = Condition(rate=(120, 150))
OTHER = Condition(rate=(135, 165), snr_db=(20.0, 30.0), rt60=(0.05, 0.2), direct_to_reverberant_db=(9.0, 15.0))
CONDITIONS = {"clean": (CLEAN,), "other": (OTHER,), "mixed": (CLEAN, OTHER)}
"""What a part's condition may be; each speaker has one of them, each as likely."""
_ENGINES = {"espeak": espeak, "flite": flite}


class Part(Protocol):
    """What is asked of a part of the corpus."""

    layout: Literal["librispeech", "librilight"]
    condition: Literal["clean", "mixed", "other"]
    engine: Literal["espeak", "flite"]
    accents: tuple[str, ...]
    speakers: int
    utterances: int
    domains: tuple[str, ...]


@dataclass(frozen=True)
class Speaker:
    """One speaker of one part, and the sentences to say; `texts` maps an utterance's index in the part to its words."""

    id: int
    part: str
    layout: str
    voice: Voice
    condition: Condition
    texts: dict[int, str]
    seed: int


def synthesize(
    parts: Mapping[str, Part],
    *,
    folder: Path,
    seed: int,
    workers: int = 1,
    spoken: Collection[str] | None = None,
    sentences: Mapping[str, Collection[str]] | None = None,
) -> None:
    """Write the parts under `folder`, in the place of an earlier corpus; the same seed gives the same bytes.

    Speakers and sentences of different parts are disjoint; parts named dev... and test... have vocal tracts of their
    own. Parts added at the end leave those before them as they are. Where only some parts are to be `spoken`, these are
    what they would be among all. With several workers the caller's main module must be safe to import.

    Args:
        parts: by name, in the order of the config.
        folder: where nothing but an earlier corpus may be.
        seed: of voices, sentences and recording conditions.
        workers: processes.
        spoken: names of the parts that are written; all by default.
        sentences: normalised ones by part, of which those of up to `MOST_WORDS` words in English letters are drawn
            from; parts without take theirs from the grammar.

    Raises:
        ValueError: where a part asks for what is not there, such as more sentences or voices, naming its key.
    """
    folder = Path(folder)
    _check(parts, folder=folder)
    cast = _cast(parts, seed=seed, sentences=sentences or {})
    speakers = [speaker for speaker in cast if spoken is None or speaker.part in spoken]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        corpus = Path(scratch) / "new"
        corpus.mkdir()
        seconds = dict(zip([speaker.id for speaker in speakers], _record(speakers, corpus, workers), strict=True))
        _write_speakers_table(corpus, speakers, seconds)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        corpus.rename(folder)


# ---------------------------------------------------------------- who says what


def _check(parts: Mapping[str, Part], *, folder: Path) -> None:
    for name, part in parts.items():
        for accent in part.accents:
            _ENGINES[part.engine].check_accent(accent, key=f"parts.{name}.accents")
        for domain in part.domains or ("none",):
            if domain not in grammar.DOMAINS:
                known = ", ".join(grammar.DOMAINS)
                raise ValueError(f"parts.{name}.domains: found {domain}; write one or more of {known}")
        num_accents = len(set(part.accents))
        num_voices = num_accents * len(_variants(name)) if part.engine == "espeak" else part.utterances
        if part.speakers > min(part.utterances, num_voices):
            raise ValueError(
                f"parts.{name}.speakers: found {part.speakers} for {part.utterances} utterances and {num_voices} "
                f"distinct voices ({num_accents} accents); write at most {min(part.utterances, num_voices)}"
            )
    foreign = [path.name for path in folder.glob("*") if path.name not in _TOP.values()]
    if foreign:
        raise ValueError(f"folder: {folder} holds '{foreign[0]}', which is no corpus; write an empty or a new folder")


def _cast(parts: Mapping[str, Part], *, seed: int, sentences: Mapping[str, Collection[str]]) -> list[Speaker]:
    """Give each speaker a number, a voice and sentences, all of them unique in the corpus."""
    speakers: list[Speaker] = []
    taken_texts: set[str] = set()
    taken_voices: set[Voice] = set()
    for name, part in parts.items():
        if name in sentences:
            texts = _choose_texts(name, part, sentences[name], seed=seed, taken=taken_texts)
        else:
            texts = _draw_texts(name, part, seed=seed, taken=taken_texts)
        for number, (voice, condition) in enumerate(_draw_voices(name, part, seed=seed, taken=taken_voices)):
            own_texts = {index: texts[index] for index in range(number, part.utterances, part.speakers)}
            first = _FIRST_READER if name in sentences else _FIRST_SPEAKER
            speakers.append(Speaker(first + len(speakers), name, part.layout, voice, condition, own_texts, seed))
    return speakers


def _draw_texts(name: str, part: Part, *, seed: int, taken: set[str]) -> list[str]:
    """Draw the part's sentences, as many of each domain, and add them to `taken`."""
    rng = random.Random(f"{seed} {name}")
    most_draws = 1000 + 100 * part.utterances
    streams = [islice(grammar.sentences(rng, domains=(domain,)), most_draws) for domain in part.domains]
    texts: list[str] = []
    for stream in islice(cycle(streams), part.utterances):
        text = next((text for text in stream if text not in taken), None)
        if text is None:
            raise ValueError(
                f"parts.{name}.utterances: found {part.utterances}, but {', '.join(part.domains)} gave no more than "
                f"{len(texts)} new sentences; write fewer utterances or more domains"
            )
        taken.add(text)
        texts.append(text)
    rng.shuffle(texts)  # else a speaker might have one domain only
    return texts


def _choose_texts(name: str, part: Part, sentences: Collection[str], *, seed: int, taken: set[str]) -> list[str]:
    """Choose the part's sentences among some, and add them to `taken`."""
    readable = [text for text in sentences if _READABLE.fullmatch(text) and text.count(" ") < MOST_WORDS]
    new = list(dict.fromkeys(text for text in readable if text not in taken))
    if len(new) < part.utterances:
        raise ValueError(
            f"parts.{name}.utterances: found {part.utterances}, but its text has no more than {len(new)} sentences of "
            f"at most {MOST_WORDS} English words; write fewer utterances"
        )
    chosen = random.Random(f"{seed} {name}").sample(new, part.utterances)
    taken.update(chosen)
    return chosen


def _draw_voices(name: str, part: Part, *, seed: int, taken: set[Voice]) -> list[tuple[Voice, Condition]]:
    """Draw the part's voices and add them to `taken`; within a part no two share both accent and variant."""
    rng = _generator(seed, name, 0)
    if part.engine == "flite":
        return _draw_flite_voices(part, rng=rng, taken=taken)
    variants = [str(variant) for variant in rng.permutation(_variants(name))]
    accents = list(dict.fromkeys(part.accents))
    turns = [accents[i:] + accents[:i] for i in range(len(accents))]
    pairs = [pair for turn in turns for pair in zip(cycle(turn), variants)]
    drawn = []
    for accent, variant in pairs[: part.speakers]:
        condition = CONDITIONS[part.condition][rng.integers(len(CONDITIONS[part.condition]))]
        voice = None
        while voice is None or voice in taken:
            rate, pitch = (int(rng.integers(*span, endpoint=True)) for span in (condition.rate, condition.pitch))
            voice = espeak.Voice(accent, variant, rate, pitch)
        taken.add(voice)
        drawn.append((voice, condition))
    return drawn


def _draw_flite_voices(part: Part, *, rng: np.random.Generator, taken: set[Voice]) -> list[tuple[Voice, Condition]]:
    """Draw as many voices of each person, each with a vocal tract of its own."""
    drawn = []
    for accent in islice(cycle(dict.fromkeys(part.accents)), part.speakers):
        condition = CONDITIONS[part.condition][rng.integers(len(CONDITIONS[part.condition]))]
        rate, pitch = (int(rng.integers(*span, endpoint=True)) for span in (condition.rate, condition.pitch))
        voice = flite.Voice(accent, float(np.exp(rng.uniform(*np.log(flite.TRACTS)))), rate, pitch)
        taken.add(voice)
        drawn.append((voice, condition))
    return drawn


def _variants(part_name: str) -> tuple[str, ...]:
    return espeak.HELD_OUT_VARIANTS if part_name.startswith(("dev", "test")) else espeak.TRAIN_VARIANTS


def _generator(seed: int, part_name: str, *indices: int) -> np.random.Generator:
    return np.random.default_rng([seed, crc32(part_name.encode()), *indices])


# ---------------------------------------------------------------- recording


def _record(speakers: list[Speaker], corpus: Path, workers: int) -> Iterator[float]:
    """Write each speaker's files and yield the seconds of speech, in order; log a line as each part is done."""
    corpora = [corpus] * len(speakers)
    if workers == 1 or len(speakers) == 1:
        yield from _log_parts(speakers, map(_record_speaker, speakers, corpora))
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(speakers)), mp_context=spawn) as pool:
        yield from _log_parts(speakers, pool.map(_record_speaker, speakers, corpora))


def _log_parts(speakers: list[Speaker], seconds: Iterator[float]) -> Iterator[float]:
    of_part: list[float] = []
    for speaker, following, duration in zip(speakers, [*speakers[1:], None], seconds, strict=True):
        of_part.append(duration)
        yield duration
        if following is None or following.part != speaker.part:
            logger.info("%s: %d speakers, %.2f h", speaker.part, len(of_part), sum(of_part) / 3600)
            of_part = []


def _record_speaker(speaker: Speaker, corpus: Path) -> float:
    """Write all files of one speaker; return the seconds of speech."""
    write = {"librispeech": _write_librispeech, "librilight": _write_librilight}[speaker.layout]
    return write(speaker, corpus / _TOP[speaker.layout] / speaker.part / str(speaker.id))


def _utterances(speaker: Speaker) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the words and the samples (N,), int16 at `SAMPLING_RATE`, of each utterance."""
    for index, text in speaker.texts.items():
        rng = _generator(speaker.seed, speaker.part, 1, index)
        engine = flite if isinstance(speaker.voice, flite.Voice) else espeak
        speech = soxr.resample(engine.speak(text, voice=speaker.voice), engine.SAMPLING_RATE, SAMPLING_RATE, "HQ")
        yield text, _recording(speech, condition=speaker.condition, rng=rng)


def _recording(speech: np.ndarray, *, condition: Condition, rng: np.random.Generator) -> np.ndarray:
    """Return speech (M,) as recorded under a condition: int16 (N,), N the longer for the silence around it."""
    before, after = (round(seconds * SAMPLING_RATE) for seconds in rng.uniform(*condition.silence, size=2))
    signal = np.pad(speech, (before, after))
    if condition.rt60:
        rt60, ratio = rng.uniform(*condition.rt60), rng.uniform(*condition.direct_to_reverberant_db)
        signal = effects.reverberate(
            signal, rt60=rt60, direct_to_reverberant_db=ratio, sampling_rate=SAMPLING_RATE, rng=rng
        )
    if condition.snr_db:
        snr_db, kind = rng.uniform(*condition.snr_db), str(rng.choice(effects.NOISES))
        signal = effects.add_noise(signal, snr_db=snr_db, kind=kind, sampling_rate=SAMPLING_RATE, rng=rng)
    return effects.to_pcm16(signal, level_db=rng.uniform(*condition.level_db), rng=rng)


# ---------------------------------------------------------------- files

_TOP = {"librispeech": "LibriSpeech", "librilight": "LibriLight"}
_FIRST_CHAPTER = 100_000  # a speaker has one chapter


def _write_librispeech(speaker: Speaker, folder: Path) -> float:
    chapter = folder / str(_FIRST_CHAPTER + speaker.id)
    chapter.mkdir(parents=True)
    seconds, transcripts = 0.0, []
    for number, (text, samples) in enumerate(_utterances(speaker)):
        name = f"{speaker.id}-{chapter.name}-{number:04d}"
        seconds += _write_flac(chapter / f"{name}.flac", samples)
        transcripts.append(f"{name} {text}\n")
    (chapter / f"{speaker.id}-{chapter.name}.trans.txt").write_text("".join(transcripts))
    return seconds


def _write_librilight(speaker: Speaker, folder: Path) -> float:
    """Write speech and, beside it, metadata under Libri-Light's keys; the words are nowhere on disk."""
    book = folder / f"synthetic_{_FIRST_CHAPTER + speaker.id}"
    book.mkdir(parents=True)
    seconds = 0.0
    for number, (_, samples) in enumerate(_utterances(speaker)):
        path = book / f"{number:04d}_{book.name}.flac"
        duration = _write_flac(path, samples)
        metadata = {
            "speaker": str(speaker.id),
            "book_meta": {"id": book.name.removeprefix("synthetic_"), "title": book.name, "language": "English"},
            "voice_activity": [[0.0, duration]],
        }
        path.with_suffix(".json").write_text(json.dumps(metadata))
        seconds += duration
    return seconds


def _write_flac(path: Path, samples: np.ndarray) -> float:
    """Write int16 samples (N,) and return their duration in seconds."""
    soundfile.write(path, samples, SAMPLING_RATE, subtype="PCM_16")
    return len(samples) / SAMPLING_RATE


def _write_speakers_table(corpus: Path, speakers: list[Speaker], seconds: dict[int, float]) -> None:
    """Write LibriSpeech's SPEAKERS.TXT, one column more for what the synthesiser was told."""
    labelled = [speaker for speaker in speakers if speaker.layout == "librispeech"]
    if not labelled:
        return
    lines = [";ID  |SEX| SUBSET           |MINUTES| NAME        | COMMENT"]
    for speaker in labelled:
        voice = speaker.voice
        sex = "F" if voice.variant in espeak.FEMALE_VARIANTS or voice.accent in flite.FEMALE_VOICES else "M"
        lines.append(
            f"{speaker.id:<5}| {sex} | {speaker.part:<17}|{seconds[speaker.id] / 60:6.2f} | {voice.variant:<12}"
            f"| accent {voice.accent}, {voice.rate} words/min, pitch {voice.pitch}"
        )
    (corpus / _TOP["librispeech"] / "SPEAKERS.TXT").write_text("\n".join(lines) + "\n")
