"""Read n-gram models over token ids from ARPA files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np

from asr_distill.text.ngram import BEGIN, NgramModel
from asr_distill.text.tokenizer import UNKNOWN


def read_arpa(path: Path, *, vocabulary: int) -> NgramModel:
    """Read what `NgramModel.write_arpa` or another program wrote for decimal token ids.

    Args:
        path: the file.
        vocabulary: the tokenizer's number of tokens, blank and unknown included.

    Raises:
        ValueError: naming the file, where it cannot be read, is no ARPA file, is cut short, or does not hold exactly
            the tokens of that tokenizer.
    """
    with _opened(path) as lines:
        return _read(lines, vocabulary=vocabulary, path=path)


def ngram_counts(path: Path) -> list[int]:
    """Return how many n-grams of each order a file promises, from 1 on; what follows its head is not read.

    Raises:
        ValueError: naming the file, where it cannot be read or is no ARPA file.
    """
    with _opened(path) as lines:
        return _sizes(lines, path=path)


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[str]]:
    try:
        with path.open(encoding="ascii") as lines:
            yield lines
    except OSError as error:
        raise ValueError(f"{path}: not readable as a language model: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: no ARPA file; name the text file that the n-gram was written to") from None


def _read(lines: Iterator[str], *, vocabulary: int, path: Path) -> NgramModel:
    sizes = _sizes(lines, path=path)
    if sizes[0] != vocabulary + 1:
        raise ValueError(
            f"{path}: holds {sizes[0] - 2} tokens, but the tokenizer has {vocabulary - 1} besides the blank; estimate "
            "the n-gram anew with this tokenizer"
        )
    words = {"<s>": BEGIN, "<unk>": UNKNOWN, "</s>": vocabulary} | {str(t): t for t in range(2, vocabulary)}
    keys, log_probs, backoffs = [], [], []
    for n, size in enumerate(sizes, start=1):
        _skip_to(f"\\{n}-grams:", lines, path=path)
        rows = [line.split() for line in islice(lines, size)]
        if len(rows) < size or min(map(len, rows)) <= n:
            raise ValueError(f"{path}: fewer than the promised {size} {n}-grams; write the file anew")
        try:
            grams = np.array([[words[word] for word in row[1 : n + 1]] for row in rows], dtype=np.int64)
        except KeyError as error:
            raise ValueError(f"{path}: {error} is no token of this tokenizer; estimate the n-gram anew") from None
        found = _keys(grams, keys, width=vocabulary + 1, path=path)
        order = np.argsort(found)
        if (np.diff(found[order]) == 0).any():
            raise ValueError(f"{path}: one of the {n}-grams stands twice; write the file anew")
        keys.append(found[order])
        log_probs.append(np.array([float(row[0]) for row in rows])[order] * math.log(10))
        backoffs.append(np.array([float(row[n + 1]) if len(row) > n + 1 else 0.0 for row in rows])[order])
    return NgramModel(vocabulary, tuple(keys), tuple(log_probs), tuple(w * math.log(10) for w in backoffs[:-1]))


def _sizes(lines: Iterator[str], *, path: Path) -> list[int]:
    """Return the promised numbers of n-grams of each order."""
    _skip_to("\\data\\", lines, path=path)
    sizes = []
    for line in lines:
        if not line.startswith("ngram "):
            break
        _, _, size = line.strip().partition("=")
        if not size.isdecimal():
            raise ValueError(f"{path}: '{line.strip()}' is no number of n-grams; write the file anew")
        sizes.append(int(size))
    if not sizes:
        raise ValueError(f"{path}: no ARPA file, it promises no n-grams; name the file that the n-gram was written to")
    return sizes


def _skip_to(heading: str, lines: Iterator[str], *, path: Path) -> None:
    if not any(line.strip() == heading for line in lines):
        raise ValueError(f"{path}: no ARPA file, {heading} is missing; name the file that the n-gram was written to")


def _keys(grams: np.ndarray, shorter: list[np.ndarray], *, width: int, path: Path) -> np.ndarray:
    """Return the keys (see `NgramModel`) of n-grams (count, n)."""
    histories = np.zeros(len(grams), dtype=np.int64)
    for word, known in zip(grams.T, shorter, strict=False):
        wanted = histories * width + word
        histories = np.searchsorted(known, wanted)
        if (known[np.minimum(histories, len(known) - 1)] != wanted).any():
            raise ValueError(f"{path}: an n-gram's beginning is no n-gram of the file; write the file anew")
    return histories * width + grams[:, -1]
