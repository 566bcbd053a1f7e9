"""Transcript normalisation, the same for training and scoring."""

from __future__ import annotations

import unicodedata

_APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u201b\u02bc\u02bb\u02b9\u00b4`\u2032\ua78b\ua78c"), "'")
_KEPT_CATEGORIES = ("L", "M", "N")
"""First letters of the Unicode categories that stay: letters, their combining marks, and digits, so that
`unspeakable` can find those."""


def normalise(text: str) -> str:
    """Return text in upper case: NFKC, letters and apostrophes kept, other punctuation to spaces, spaces squeezed.

    Digits stay, for nobody can tell how they were spoken: `unspeakable` reports them. Idempotent.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).upper().translate(_APOSTROPHES))
    kept = "".join(character if _is_kept(character) else " " for character in folded)
    return " ".join(word for word in kept.split() if word.strip("'"))


def unspeakable(text: str) -> str | None:
    """Return why a normalised transcript can be neither trained on nor scored, or None if it can."""
    if not text:
        return "transcript empty"
    if any(unicodedata.category(character).startswith("N") for character in text):
        return "transcript contains digits"
    if not any(character.isalpha() for character in text):
        return "transcript without letters"
    return None


def _is_kept(character: str) -> bool:
    return character == "'" or unicodedata.category(character)[0] in _KEPT_CATEGORIES
