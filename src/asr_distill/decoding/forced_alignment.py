"""When each word of a transcript ends in the speech, by forced alignment with a bi-directional transducer.

Layout legend: B batch, T feature frames, N encoder frames, U labels, V vocabulary.

The most likely alignment tells at which encoder frame each token is emitted. A transducer needs no more than the
onset of a word to emit all of its tokens, so where its last token is emitted is no measure of where a word ends; the
first token of the *next* word is one. In between may lie a pause, as after the last word: a word ends with the last
loud feature frame before the next word's first token.

Two alignments are offered. Held against the true word ends of the embedded corpus, which eSpeak NG reports when it
speaks (8,010 words of both test parts of the scale mini, encoder frames of 60 ms, the teacher of soft_vs_hard), the
mean error (negative: too early) and the mean absolute error were

* -4 and 40 ms by the best path through the transducer's lattice, the default (end of the frame of the word's last
  token instead: -91 and 97 ms),
* -3 and 63 ms by the CTC head (end of the last token's last frame instead: -45 and 70 ms).

A streaming model emits late, and would align as late: by 140 to 180 ms there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from lhotse.cut import Cut
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr_distill.decoding.decode import batches_of
from asr_distill.decoding.word_times import DECIMALS, WordTime, word_spans, write_word_times
from asr_distill.features.reading import FeatureReader, read_cuts
from asr_distill.losses.ctc_alignment import ctc_best_alignment
from asr_distill.losses.joint import JointInputs, Lattice, LatticeLengths
from asr_distill.losses.kernels import kernels_for
from asr_distill.losses.paths import best_path
from asr_distill.models.transducer import Transducer
from asr_distill.text.masked_lm import word_starts
from asr_distill.text.tokenizer import Tokenizer

QUIET, LOUD = 0.05, 0.95
"""Quantiles of an utterance's levels that count as silence and as full speech."""
LOUD_SHARE = 0.3
"""A frame is loud that is above silence by more than this share of the way to full speech; 0.2 to 0.4 moved the mean
error on the embedded corpus by 3 ms or less."""

Aligner = Callable[[Transducer, Tensor, Tensor, LatticeLengths], tuple[Tensor, Tensor]]
"""From a model, encoder states (B, N, D), labels (B, U) and their lengths to the first and the last encoder frame of
each label, each (B, U); -1 in an utterance that has no alignment; anything in padding."""


def transducer_alignment(
    model: Transducer, states: Tensor, labels: Tensor, lengths: LatticeLengths
) -> tuple[Tensor, Tensor]:
    """Return the frame of each label on the likeliest path through the lattice, twice: (B, U), (B, U)."""
    joint = JointInputs(
        encoder=model.joint.encoder(states),
        predictor=model.joint.predictor(model.predictor(labels)),
        weight=model.joint.output.weight,
        bias=model.joint.output.bias,
    )
    lattice = Lattice(labels=labels, frames=tuple(lengths.frames.tolist()), counts=tuple(lengths.labels.tolist()))
    arcs = kernels_for(states.device, states.dtype).arc_log_probs(joint, lattice)
    visited = best_path(arcs.blank, arcs.label, lattice.frames, lattice.counts)
    _, last = _extent(visited[:, :, :-1])  # a row of the lattice is left by its label
    return last, last


def ctc_alignment(model: Transducer, states: Tensor, labels: Tensor, lengths: LatticeLengths) -> tuple[Tensor, Tensor]:
    """Return the first and the last frame of each label in the CTC head's likeliest alignment: (B, U), (B, U)."""
    log_probs = torch.log_softmax(model.ctc_head(states).float(), dim=-1)
    alignment = ctc_best_alignment(log_probs, labels=labels, lengths=lengths)
    return _extent(alignment[:, :, None] == torch.arange(labels.shape[1], device=states.device))


def align(
    model: Transducer,
    cuts: Iterable[Cut],
    *,
    tokenizer: Tokenizer,
    batch_seconds: float = 60.0,
    aligner: Aligner = transducer_alignment,
) -> Iterator[tuple[str, tuple[WordTime, ...]]]:
    """Yield the id of each utterance and the words of its transcript with the seconds at which they end.

    The longest utterances come first. Ends never go back, and lie within the speech.

    Args:
        model: a bi-directional transducer, in evaluation mode.
        cuts: prepared utterances with normalised transcripts.
        tokenizer: of the model.
        batch_seconds: most seconds of padded speech in a batch; lattices of (B, N, U + 1) are kept.
        aligner: `transducer_alignment` or `ctc_alignment`.

    Raises:
        ValueError: for a streaming model, and for an utterance too short for its transcript: one with more words than
            encoder frames, or with more tokens than a CTC alignment can carry.
    """
    if model.size.encoder.streaming:
        raise ValueError("alignment: a streaming model hears words late and would align them late; use its teacher")
    cuts = list(cuts)
    reader = FeatureReader(cuts, cache_hours=0)
    starts = word_starts(tokenizer).tolist()
    for batch in batches_of(cuts, seconds=batch_seconds):
        features, lengths = reader.collate(batch)
        tokens = [tokenizer.encode(cut.supervisions[0].text) for cut in batch]
        first, last, frames = _token_frames(model, features, lengths, tokens, aligner=aligner)
        for row, (cut, labels) in enumerate(zip(batch, tokens, strict=True)):
            words, spans = cut.supervisions[0].text.split(), word_spans(labels, starts)
            if len(words) > frames[row] or -1 in last[row][: len(labels)]:
                raise ValueError(
                    f"{cut.id}: {cut.duration:g} s are too short for its transcript of {len(words)} words and "
                    f"{len(labels)} tokens; leave it out"
                )
            heard = features[row, : lengths[row]]
            ends = _word_ends(first[row], last[row], spans, heard, stack=model.size.encoder.stack)
            seconds = [round(min(end * cut.frame_shift, cut.duration), DECIMALS) for end in ends]
            yield cut.id, tuple(WordTime(*pair) for pair in zip(words, seconds, strict=True))


def write_alignment(
    model: Transducer, *, parts: Sequence[str], corpus: Path, tokenizer: Tokenizer, output: Path
) -> None:
    """Write where each word of the transcripts of prepared parts ends, as `write_word_times` does, to `output`.

    Raises:
        ValueError: as `align`.
    """
    lines = []
    for part in parts:
        cuts = read_cuts([corpus / part], originals_only=True)
        lines += [(part, name, words) for name, words in align(model, cuts, tokenizer=tokenizer)]
    write_word_times(output, lines)


@torch.inference_mode()
def _token_frames(
    model: Transducer, features: Tensor, lengths: Tensor, tokens: Sequence[Sequence[int]], *, aligner: Aligner
) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Return first and last encoder frame of each token, padded, and the number of encoder frames, by utterance."""
    device = model.feature_mean.device
    features, lengths = features.to(device), lengths.to(device)
    states, frames = model.encode(model.normalise(features, lengths), lengths)
    labels = pad_sequence([torch.tensor(row, dtype=torch.long) for row in tokens], batch_first=True).to(device)
    sizes = LatticeLengths(frames=frames.cpu(), labels=torch.tensor([len(row) for row in tokens]))
    first, last = aligner(model, states, labels, sizes)
    return first.tolist(), last.tolist(), frames.tolist()


def _extent(emits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the last frame at which each label is emitted, each (B, U), of emissions (B, N, U).

    -1 where there is none.
    """
    num_frames = emits.shape[1]
    place = torch.arange(num_frames, device=emits.device)[:, None]
    last = torch.where(emits, place, -1).amax(dim=1)
    first = torch.where(emits, place, num_frames).amin(dim=1)
    return first.where(last >= 0, -1), last


def _word_ends(
    first: Sequence[int], last: Sequence[int], spans: Sequence[range], features: Tensor, *, stack: int
) -> list[int]:
    """Return after how many feature frames each word ends.

    Args:
        first: first encoder frame of each token.
        last: last encoder frame of each token.
        spans: the places of each word's tokens.
        features: (T, F) log-mels of the utterance.
        stack: feature frames in an encoder frame.
    """
    num_frames = len(features)
    level = features.mean(dim=1)
    quiet, loud = level.quantile(torch.tensor([QUIET, LOUD]))
    speech = level > quiet + LOUD_SHARE * (loud - quiet)
    count = torch.arange(1, num_frames + 1)
    loud_until = [0, *torch.where(speech, count, 0).cummax(dim=0).values.tolist()]
    ends = []
    for span in spans:
        following = first[span.stop] * stack if span is not spans[-1] else num_frames
        own = min((last[span[-1]] + 1) * stack, following)
        ends.append(max(own, loud_until[following]))
    return ends
