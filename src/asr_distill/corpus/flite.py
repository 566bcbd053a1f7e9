"""Speech from Flite, with the recorded voices of four people: the libraries of Debian's libflite1, through ctypes."""

import ctypes
import difflib
from dataclasses import dataclass
from functools import cache

import numpy as np
import soxr

SAMPLING_RATE = 16_000
"""Hertz; Flite's own, for every voice here."""

VOICES = {"awb": 130.0, "kal16": 95.0, "rms": 95.0, "slt": 175.0}
"""Mean fundamental frequency of each person in Hz, about what Flite takes: a Scottish man, two American men, a woman.

All but kal16, who is joined from recorded diphones, are statistical models of CMU's Arctic recordings (Kominek and
Black 2004).
"""
FEMALE_VOICES = frozenset({"slt"})
TRACTS = (0.85, 1.18)
"""Factors by which resonances are moved, so that four people sound like many."""

_NATURAL_RATE = 185
"""Words per minute of the voices as they are: about the mean of the four, measured on sentences of ten words."""


@dataclass(frozen=True)
class Voice:
    """Who speaks: one of `VOICES`, a factor for its resonances, words per minute (80 to 450), pitch (0 to 99).

    A pitch of 50 leaves the voice as it is; 60 more are an octave. The voice rms keeps its own, whatever is asked for,
    so that it moves with the resonances.
    """

    accent: str
    tract: float
    rate: int
    pitch: int

    @property
    def variant(self) -> str:
        """Return what tells the shape of the vocal tract."""
        return f"x{self.tract:.3f}"


def speak(text: str, *, voice: Voice) -> np.ndarray:
    """Return the samples (N,) of `text` read aloud: float32 in [-1, 1] at `SAMPLING_RATE`.

    The voice speaks slower and lower by the factor of the tract and is then played faster by it, which moves its
    resonances and leaves pitch and rate as asked for. Flite draws noise from the C library's generator, which is seeded
    for each text, so that the samples depend on text and voice alone. One thread only.

    Raises:
        ValueError: when the voice is none.
        RuntimeError: when Flite is not there or speaks nothing.
    """
    check_accent(voice.accent)
    if not (80 <= voice.rate <= 450 and 0 <= voice.pitch <= 99 and TRACTS[0] <= voice.tract <= TRACTS[1]):
        raise ValueError(f"found {voice}; write a rate of 80 to 450, a pitch of 0 to 99 and a tract within {TRACTS}")
    library, person = _library(), _person(voice.accent)
    pitch = VOICES[voice.accent] * 2 ** ((voice.pitch - 50) / 60)
    features = person.contents.features
    library.flite_feat_set_float(features, _STRETCH, _NATURAL_RATE / voice.rate * voice.tract)
    library.flite_feat_set_float(features, _PITCH, pitch / voice.tract)
    ctypes.CDLL(None).srand(1)
    # Lower case, because Flite spells out words in capitals.
    wave = library.flite_text_to_wave(text.lower().encode(), person)
    if not wave or wave.contents.num_samples == 0:
        raise RuntimeError(f"Flite spoke no sample of '{text}' with {voice}")
    samples = np.ctypeslib.as_array(wave.contents.samples, shape=(wave.contents.num_samples,)).copy()
    library.delete_wave(wave)
    return soxr.resample(samples.astype(np.float32) / 32768, SAMPLING_RATE * voice.tract, SAMPLING_RATE, "HQ")


def check_accent(accent: str, *, key: str = "accent") -> None:
    """Raise ValueError, naming the configuration's `key`, unless `accent` is one of `VOICES`."""
    if accent not in VOICES:
        nearest = difflib.get_close_matches(accent, VOICES, n=1, cutoff=0.0)[0]
        raise ValueError(f"{key}: found '{accent}'; did you mean '{nearest}'? Known: {', '.join(VOICES)}")


# ---------------------------------------------------------------- the C interface (flite.h)

_STRETCH, _PITCH = b"duration_stretch", b"int_f0_target_mean"  # for ever: Flite keeps pointers to the names of features


class _Wave(ctypes.Structure):
    """Beginning of cst_wave."""

    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Person(ctypes.Structure):
    """Beginning of cst_voice."""

    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


@cache
def _library() -> ctypes.CDLL:
    # The libraries name no others that they need, so each finds what was loaded before it.
    for name in ("flite", "flite_usenglish", "flite_cmulex"):
        library = _load(name)
    library = _load("flite")
    library.flite_text_to_wave.restype = ctypes.POINTER(_Wave)
    library.flite_text_to_wave.argtypes = [ctypes.c_char_p, ctypes.POINTER(_Person)]
    library.delete_wave.argtypes = [ctypes.POINTER(_Wave)]
    library.flite_feat_set_float.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float]
    library.flite_init()
    return library


@cache
def _person(voice: str) -> "ctypes._Pointer[_Person]":
    _library()
    register = getattr(_load(f"flite_cmu_us_{voice}"), f"register_cmu_us_{voice}")
    register.restype, register.argtypes = ctypes.POINTER(_Person), [ctypes.c_char_p]
    return register(None)


def _load(name: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(f"lib{name}.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise RuntimeError(f"Flite does not load: {error}; install it (Debian: apt-get install libflite1)") from error
