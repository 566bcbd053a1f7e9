"""CTC beam search by flashlight-text's `LexiconFreeDecoder` with its KenLM, a referee for ours.

What that decoder does (flashlight-text 0.0.7, `decoder/LexiconFreeDecoder.cpp` and `decoder/Utils.h`):

- Hypotheses are merged where they agree in all tokens so far (not just in the language model's state), in the last
  frame's token, and in whether that was the blank. So a token sequence can take two of the `beam_size` places, once
  ending in the blank and once in its last token, and a beam of one place without a language model is greedy search.
- `log_add` sums when hypotheses are merged, before the beam is cut. `beam_threshold` cuts before they are merged, and
  once more after the last frame.
- `beam_size_token` counts the blank: in a frame where it is not among so many tokens, no alignment has a blank.
- A token's language model score is added where the token is appended; after the last frame that of `</s>` is. The first
  token follows `<s>`. KenLM's logarithms have base 10, so its weight is ours times log 10.
- There is no insertion score (the option `word_score` is `LexiconDecoder`'s), and KenLM cannot return positive scores.
  An insertion score goes through a language model in Python, which makes the search ten times slower.
- The first and the last token of a result stand for no frame. Frames' scores are single precision. Scores of -inf or
  NaN would break its sorting.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from asr_distill.decoding.ctc import BeamSettings
from asr_distill.decoding.hypothesis import Hypothesis
from asr_distill.text.tokenizer import BLANK, UNKNOWN


def flashlight_search(log_probs: Tensor, settings: BeamSettings, *, arpa: Path | None) -> Hypothesis:
    """Transcribe one utterance (N, V)."""
    decoder = pytest.importorskip("flashlight.lib.text.decoder", reason="no wheel of flashlight-text")
    frames = np.ascontiguousarray(log_probs.float().numpy())
    model = decoder.ZeroLM() if arpa is None else load_kenlm(arpa, vocabulary=frames.shape[1])
    model = _weighted(decoder, model, settings=settings)  # needs a name while the decoder lives, or Python frees it
    options = decoder.LexiconFreeDecoderOptions(
        beam_size=settings.beam_size,
        beam_size_token=settings.beam_size_token or frames.shape[1],
        beam_threshold=settings.beam_threshold,
        lm_weight=1.0,
        sil_score=0.0,
        log_add=settings.log_add,
        criterion_type=decoder.CriterionType.CTC,
    )
    search = decoder.LexiconFreeDecoder(options, model, BLANK, BLANK, [])
    best = search.decode(frames.ctypes.data, *frames.shape)[0]
    path = np.array(best.tokens[1:-1], dtype=np.int64)
    new = np.diff(path, prepend=BLANK) != 0
    return Hypothesis(tuple(path[new & (path != BLANK)].tolist()), best.score)


def load_kenlm(arpa: Path, *, vocabulary: int):
    """Return KenLM over token ids; what it prints goes to standard error."""
    kenlm = pytest.importorskip("flashlight.lib.text.decoder.kenlm", reason="no wheel of flashlight-text")
    from flashlight.lib.text.dictionary import Dictionary

    spellings = Dictionary()
    for token in range(vocabulary):
        spellings.add_entry("<unk>" if token == UNKNOWN else str(token))
    return kenlm.KenLM(str(arpa), spellings)


def _weighted(decoder, model, *, settings: BeamSettings):
    weight = settings.lm_weight * math.log(10)

    class Weighted(decoder.LM):
        def start(self, start_with_nothing):
            return model.start(start_with_nothing)

        def score(self, state, token):
            state, score = model.score(state, token)
            return state, weight * score + settings.insertion_score

        def finish(self, state):
            state, score = model.finish(state)
            return state, weight * score

    return Weighted()
