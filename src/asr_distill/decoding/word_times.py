"""Words with times: when a greedy search wrote those of its hypotheses; groups of tokens; JSON lines for both sides.

Times are seconds from the beginning of the utterance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from lhotse.cut import Cut

from asr_distill.decoding.hypothesis import Hypothesis
from asr_distill.experiment import EncoderSize
from asr_distill.files import write_json_lines
from asr_distill.text.masked_lm import word_starts
from asr_distill.text.normalise import normalise
from asr_distill.text.tokenizer import Tokenizer

DECIMALS = 4
"""Of seconds: finer than any frame."""


class WordTime(NamedTuple):
    """A word, and when it ends in the speech or appears in a transcript."""

    word: str
    seconds: float


def emission_times(
    hypotheses: Sequence[Hypothesis], cuts: Sequence[Cut], *, tokenizer: Tokenizer, encoder: EncoderSize
) -> list[tuple[WordTime, ...]]:
    """Return when the last token of each word of each hypothesis was emitted; words are normalised as for scoring.

    A token appears when the encoder has heard all of the frame at which it is emitted, and the frames to the right
    that this frame's state depends on (`lookahead`; none for a streaming encoder): after
    (frame + 1 + lookahead) x stack x frame shift, but at the latest where the speech ends. Not counted: the time to
    compute, and the half of an analysis window that reaches beyond its frame, a few milliseconds for every model.

    Args:
        hypotheses: of greedy searches.
        cuts: their utterances, in the same order, with features.
        tokenizer: of the hypotheses.
        encoder: of the model that found them.

    Raises:
        ValueError: when a hypothesis does not tell its frames.
    """
    starts = word_starts(tokenizer).tolist()
    found = []
    for hypothesis, cut in zip(hypotheses, cuts, strict=True):
        if len(hypothesis.frames) != len(hypothesis.tokens):
            raise ValueError(
                f"{cut.id}: its search does not tell when tokens are emitted; write decoding.method: greedy"
            )
        words: list[WordTime] = []
        for span in word_spans(hypothesis.tokens, starts):
            frames = hypothesis.frames[span[-1]] + 1 + lookahead(encoder)
            seconds = round(min(frames * encoder.stack * cut.frame_shift, cut.duration), DECIMALS)
            text = normalise(tokenizer.decode(hypothesis.tokens[span.start : span.stop]))
            words += [WordTime(word, seconds) for word in text.split()]
        found.append(tuple(words))
    return found


def lookahead(encoder: EncoderSize) -> int:
    """Return how many later encoder frames the state of a frame depends on, by attention and convolution."""
    if encoder.streaming:
        return 0
    return encoder.layers * (encoder.right_context + encoder.kernel // 2)


def word_spans(tokens: Sequence[int], starts: Sequence[bool]) -> list[range]:
    """Return the places of each word's tokens; `starts` is the table from `word_starts`."""
    first = [place for place, token in enumerate(tokens) if place == 0 or starts[token]]
    return [range(*ends) for ends in pairwise([*first, len(tokens)])]


def write_word_times(path: Path, lines: Iterable[tuple[str, str, Sequence[WordTime]]]) -> None:
    """Write part, id and words of utterances as lines {"part", "id", "words": [[word, seconds], ...]}, sorted."""
    ordered = sorted(lines, key=lambda line: line[:2])
    write_json_lines(path, [{"part": part, "id": name, "words": words} for part, name, words in ordered])
