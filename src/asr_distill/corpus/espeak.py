"""Speech from eSpeak NG: the shared library of the `espeakng-loader` wheel, called through ctypes."""

import atexit
import ctypes
import difflib
import os
import shutil
import tempfile
from _ctypes import dlclose
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import espeakng_loader
import numpy as np

SAMPLING_RATE = 22050
"""Hertz; eSpeak's own, for every voice."""

ACCENTS = (
    "gmw/en",
    "gmw/en-029",
    "gmw/en-GB-scotland",
    "gmw/en-GB-x-gbclan",
    "gmw/en-GB-x-gbcwmd",
    "gmw/en-GB-x-rp",
    "gmw/en-US",
    "gmw/en-US-nyc",
)
"""British, Caribbean, Scottish, Lancashire, West Midlands, Received Pronunciation, American, New York City."""

# Left out: whispers, robots and echoes, variants that sound nearly the same as another one (klatt6 as adam, steph2 as
# steph), and those whose cepstra lie almost as far from the default voice as another sentence does (Alicia, zac, ...),
# and two whose breath comes from the C library's rand(), which no seed of eSpeak's reaches (Reed, caleb).
TRAIN_VARIANTS = (
    *("Alex", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo", "Jacky", "Lee"),
    *("Mario", "RicishayMax", "Storm", "Tweaky", "adam", "anika", "antonio", "aunty", "belinda", "benjamin"),
    *("croak", "david", "ed", "edward2", "f1", "f3", "f4", "grandpa", "gustave", "iven", "iven3", "john", "klatt"),
    *("klatt3", "klatt5", "linda", "m2", "m4", "m5", "m6", "m8", "marcelo", "max", "michel", "miguel", "mike2"),
    *("norbert", "paul", "pedro", "victor"),
)
"""Shapes of the vocal tract for training speakers."""

HELD_OUT_VARIANTS = (
    *("Michael", "Mike", "Nguyen", "boris", "edward", "f2", "f5", "grandma", "m1", "m3", "m7", "pablo", "quincy"),
    *("rob", "robert", "sandro", "steph", "travis"),
)
"""The same for development and test speakers; variants that sound much alike all stand on one side."""

FEMALE_VARIANTS = frozenset(
    ("Andrea", "Annie", "anika", "aunty", "belinda", "f1", "f2", "f3", "f4", "f5", "grandma", "linda", "steph")
)
"""As eSpeak's own variant files have it."""


@dataclass(frozen=True)
class Voice:
    """Who speaks: one of `ACCENTS`, a variant of the vocal tract, words per minute (80 to 450), pitch (0 to 99)."""

    accent: str
    variant: str
    rate: int
    pitch: int


def speak(text: str, *, voice: Voice) -> np.ndarray:
    """Return the samples (N,) of `text` read aloud: float32 in [-1, 1] at `SAMPLING_RATE`.

    The library is opened afresh for each text: it keeps the phase of its pitch flutter in a static variable that no
    call resets, so that otherwise the samples would depend on what was spoken before. Opening takes about 0.5 ms of 7.
    One thread only.
    """
    _check(voice)
    with _espeak() as library:
        return _synthesize(library, text, voice)


def check_accent(accent: str, *, key: str = "accent") -> None:
    """Raise ValueError, naming the configuration's `key`, unless `accent` is one of `ACCENTS`."""
    if accent not in ACCENTS:
        nearest = difflib.get_close_matches(accent, ACCENTS, n=1, cutoff=0.0)[0]
        raise ValueError(f"{key}: found '{accent}'; did you mean '{nearest}'? Known: {', '.join(ACCENTS)}")


def _check(voice: Voice) -> None:
    # eSpeak itself takes a variant that does not exist for none.
    check_accent(voice.accent)
    if not (Path(_data_folder()) / "voices" / "!v" / voice.variant).is_file():
        raise ValueError(f"variant: found '{voice.variant}'; write one of TRAIN_VARIANTS or HELD_OUT_VARIANTS")
    if not (80 <= voice.rate <= 450 and 0 <= voice.pitch <= 99):
        raise ValueError(f"found {voice}; write a rate of 80 to 450 and a pitch of 0 to 99")


# ---------------------------------------------------------------- the C interface (speak_lib.h)

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: in this thread, samples handed to the callback
_BUFFER_MS = 2000
_DO_NOT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT
_UTF8 = 1  # espeakCHARS_UTF8
_OK = 0
_PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "range": 4, "punctuation": 5, "capitals": 6, "wordgap": 7}
_VOLUME = 20  # where 100 is the default, at which a third of the variants clip

_LONGEST_DATA_PATH = 120  # characters; from 160 on eSpeak finds nothing (N_PATH_HOME), names of files included

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@contextmanager
def _espeak():
    """Open the library, start it, and leave nothing of it in memory."""
    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except OSError as error:
        raise RuntimeError(f"eSpeak NG does not load: {error}; reinstall the package espeakng-loader") from error
    try:
        found = library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, os.fsencode(_data_folder()), _DO_NOT_EXIT)
        if found != SAMPLING_RATE:
            raise RuntimeError(f"eSpeak NG does not start: espeak_Initialize returned {found} for {_data_folder()}")
        yield library
    finally:
        library.espeak_Terminate()
        dlclose(library._handle)


def _synthesize(library: ctypes.CDLL, text: str, voice: Voice) -> np.ndarray:
    chunks: list[np.ndarray] = []

    @_Callback
    def collect(samples, num_samples, _events):
        if samples and num_samples > 0:
            chunks.append(np.ctypeslib.as_array(samples, shape=(num_samples,)).copy())
        return 0

    library.espeak_SetSynthCallback(collect)
    _set_voice(library, voice)
    # Lower case, because eSpeak may spell out words in capitals (US).
    encoded = text.lower().encode() + b"\0"
    status = library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded)), 0, 1, 0, _UTF8, None, None)
    if status != _OK or not chunks:
        raise RuntimeError(f"eSpeak NG spoke no sample of '{text}' with {voice}: espeak_Synth returned {status}")
    return np.concatenate(chunks).astype(np.float32) / 32768


def _set_voice(library: ctypes.CDLL, voice: Voice) -> None:
    name = f"{voice.accent}+{voice.variant}"
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # breath and aspiration are noise
    status = library.espeak_SetVoiceByName(name.encode())
    if status != _OK:
        raise RuntimeError(f"eSpeak NG refuses the voice '{name}': espeak_SetVoiceByName returned {status}")
    values = {"rate": voice.rate, "volume": _VOLUME, "pitch": voice.pitch, "range": 50}
    for parameter, number in _PARAMETERS.items():
        library.espeak_SetParameter(number, values.get(parameter, 0), 0)


@cache
def _data_folder() -> str:
    """Return the path of espeak-ng-data, through a short link where the environment lies too deep for eSpeak."""
    folder = espeakng_loader.get_data_path()
    if len(os.fsencode(folder)) <= _LONGEST_DATA_PATH:
        return folder
    short = tempfile.mkdtemp(prefix="espeak")
    atexit.register(shutil.rmtree, short, ignore_errors=True)
    link = Path(short) / "espeak-ng-data"
    link.symlink_to(folder)
    return str(link)
