"""Transcribe prepared parts with a trained model: test and dev sets, unlabelled speech, a sample while training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import jiwer
import torch
from lhotse.cut import Cut
from torch import Tensor

from asr_distill.decoding.beam import beam_search
from asr_distill.decoding.ctc import greedy
from asr_distill.decoding.greedy import greedy_search
from asr_distill.decoding.hypothesis import Hypothesis
from asr_distill.decoding.word_times import emission_times, write_word_times
from asr_distill.experiment import Decoding, PseudoLabels
from asr_distill.features.reading import FeatureReader, original_id, read_cuts
from asr_distill.features.shards import Shard, read_index
from asr_distill.files import replacing, write_json, write_json_lines
from asr_distill.models.ctc import CTCModel
from asr_distill.models.transducer import Transducer
from asr_distill.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)


def decode_parts(
    model: Transducer, *, parts: Sequence[str], corpus: Path, tokenizer: Tokenizer, settings: Decoding, output: Path
) -> None:
    """Transcribe parts into `output`/hypotheses.jsonl, and say in decoding.json how long that took.

    A greedily decoded streaming model tells in emissions.jsonl when it wrote each word.
    """
    encoder = model.size.encoder
    tells_times = encoder.streaming and settings.method == "greedy"
    lines, emissions, timing = [], [], []
    for part in parts:
        cuts = list(read_cuts([corpus / part], originals_only=True))
        reader = FeatureReader(cuts, cache_hours=0)
        seconds = 0.0
        for batch in batches_of(cuts, seconds=settings.batch_seconds):
            features, lengths = reader.collate(batch)
            started = time.perf_counter()
            hypotheses = transcribe(model, features, lengths, settings=settings)
            seconds += time.perf_counter() - started
            for cut, hypothesis in zip(batch, hypotheses, strict=True):
                text = tokenizer.decode(hypothesis.tokens)
                lines.append({"part": part, "id": cut.id, "text": text, "score": round(hypothesis.score, 4)})
            if tells_times:
                times = emission_times(hypotheses, batch, tokenizer=tokenizer, encoder=encoder)
                emissions += [(part, cut.id, words) for cut, words in zip(batch, times, strict=True)]
        audio = sum(cut.duration for cut in cuts)
        timing.append({"part": part, "audio_seconds": round(audio, 2), "seconds": round(seconds, 3)})
        log.info("%s: %.0f s of speech in %.1f s", part, audio, seconds)
    lines.sort(key=lambda line: (line["part"], line["id"]))
    write_json_lines(output / "hypotheses.jsonl", lines)
    if tells_times:
        write_word_times(output / "emissions.jsonl", emissions)
    summary = {"method": settings.method, "threads": torch.get_num_threads(), "parts": timing}
    write_json(output / "decoding.json", summary)


def pseudo_label(
    model: Transducer,
    *,
    part: str,
    corpus: Path,
    tokenizer: Tokenizer,
    settings: PseudoLabels,
    output: Path,
    block: tuple[int, int] = (0, 1),
) -> None:
    """Transcribe an unlabelled part into the file `output`: a line per utterance, and why it is dropped if it is.

    Of a part that is stored in shards, `block` = (number, of how many) tells which of its consecutive shards this job
    takes. They are transcribed one after the other, and the lines follow the order of the utterances.

    Raises:
        ValueError: when every line is dropped; of parts in shards `merge_pseudo_labels` sees that.
    """
    shards = read_index(corpus / part)
    if shards is not None:
        number, blocks = block
        mine = shards[len(shards) * number // blocks : len(shards) * (number + 1) // blocks]
        labels = chain.from_iterable(
            _shard_lines(model, shard, tokenizer=tokenizer, settings=settings) for shard in mine
        )
        write_json_lines(output, labels)
        return
    cuts = list(read_cuts([corpus / part], originals_only=True))
    lines = _pseudo_label_lines(model, cuts, tokenizer=tokenizer, settings=settings)
    kept = sum(line["kept"] for line in lines)
    log.info("%s: %d of %d pseudo-labels kept", part, kept, len(lines))
    if not kept:
        raise ValueError(_all_dropped(part, len(lines)))
    write_json_lines(output, sorted(lines, key=lambda line: line["id"]))


def merge_pseudo_labels(blocks: Sequence[Path], *, part: str, output: Path) -> None:
    """Put the transcripts of a part's blocks one after the other into the file `output`.

    Raises:
        ValueError: when every line is dropped.
    """
    kept = lines = 0
    with replacing(output) as temporary, temporary.open("wb") as merged:
        for path in blocks:
            with path.open("rb") as block:
                for line in block:
                    merged.write(line)
                    lines, kept = lines + 1, kept + (b'"kept": true' in line)
        if not kept:
            raise ValueError(_all_dropped(part, lines))
    log.info("%s: %d of %d pseudo-labels kept", part, kept, lines)


def _all_dropped(part: str, lines: int) -> str:
    return f"{part}: every one of {lines} pseudo-labels was dropped; relax pseudo_labels"


def _shard_lines(
    model: Transducer, shard: Shard, *, tokenizer: Tokenizer, settings: PseudoLabels
) -> list[dict[str, object]]:
    """Return a shard's transcripts in the order of its utterances, whose durations training asks for later."""
    cuts = [cut for cut in shard.read() if original_id(cut) == cut.id]
    lines = {line["id"]: line for line in _pseudo_label_lines(model, cuts, tokenizer=tokenizer, settings=settings)}
    return [lines[cut.id] | {"duration": cut.duration} for cut in cuts]


def _pseudo_label_lines(
    model: Transducer, cuts: Sequence[Cut], *, tokenizer: Tokenizer, settings: PseudoLabels
) -> list[dict[str, object]]:
    """Return the transcripts of some utterances, longest first."""
    reader = FeatureReader(cuts, cache_hours=0)
    lines = []
    for batch in batches_of(cuts, seconds=settings.batch_seconds):
        hypotheses = transcribe(model, *reader.collate(batch), settings=settings)
        for cut, hypothesis in zip(batch, hypotheses, strict=True):
            lines.append(_pseudo_label_line(cut, hypothesis, tokenizer=tokenizer, settings=settings))
    return lines


@torch.inference_mode()
def transcribe(
    model: Transducer | CTCModel, features: Tensor, lengths: Tensor, *, settings: Decoding
) -> list[Hypothesis]:
    """Transcribe a padded batch of log-mels (B, T, F) with lengths (B,); a CTC recogniser always greedily."""
    device = model.feature_mean.device
    features, lengths = features.to(device), lengths.to(device)
    states, frames = model.encode(model.normalise(features, lengths), lengths)
    if isinstance(model, CTCModel):
        return greedy(torch.log_softmax(model.ctc_head(states).float(), dim=-1), frames)
    if settings.method == "greedy":
        return greedy_search(model, states, frames, max_symbols=settings.max_symbols_per_frame)
    return beam_search(model, states, frames, beam_size=settings.beam_size, max_symbols=settings.max_symbols_per_frame)


class DevSet:
    """A fixed sample of the dev parts, transcribed greedily now and then during training, each process its share."""

    def __init__(self, parts: Sequence[str], *, corpus: Path, limit: int, rank: int = 0, world: int = 1):
        self.cuts = {}
        for part in parts:
            cuts = list(read_cuts([corpus / part], originals_only=True))
            sample = cuts[:: max(1, len(cuts) // limit)][:limit]  # spread over the speakers
            self.cuts[part] = sample[rank::world]
        self.reader = FeatureReader([cut for cuts in self.cuts.values() for cut in cuts], cache_hours=float("inf"))

    def word_error_rates(
        self,
        model: Transducer | CTCModel,
        *,
        tokenizer: Tokenizer,
        sums: Callable[..., Sequence[float]] = lambda *counts: counts,
    ) -> dict[str, float]:
        """Return the word error rate of each part's sample, as a fraction; `sums` adds up over the processes."""
        rates = {}
        for part, cuts in self.cuts.items():
            errors, words = sums(*self._word_errors(model, cuts, tokenizer=tokenizer))
            rates[part] = errors / words
        return rates

    def _word_errors(
        self, model: Transducer | CTCModel, cuts: Sequence[Cut], *, tokenizer: Tokenizer
    ) -> tuple[int, int]:
        """Return the number of wrong words in the transcripts of some utterances, and how many words were said."""
        settings = Decoding()
        references, hypotheses = [], []
        for batch in batches_of(cuts, seconds=settings.batch_seconds):
            transcribed = transcribe(model, *self.reader.collate(batch), settings=settings)
            references += [cut.supervisions[0].text for cut in batch]
            hypotheses += [tokenizer.decode(hypothesis.tokens) for hypothesis in transcribed]
        if not references:
            return 0, 0
        found = jiwer.process_words(references, hypotheses)
        wrong = found.substitutions + found.deletions + found.insertions
        return wrong, found.hits + found.substitutions + found.deletions


def _pseudo_label_line(
    cut: Cut, hypothesis: Hypothesis, *, tokenizer: Tokenizer, settings: PseudoLabels
) -> dict[str, object]:
    count = len(hypothesis.tokens)
    per_token = hypothesis.score / max(1, count)
    reason = ""
    if count < settings.min_tokens:
        reason = f"{count} tokens, fewer than {settings.min_tokens}"
    elif count / cut.duration > settings.max_tokens_per_second:
        reason = f"{count / cut.duration:.1f} tokens per second, more than {settings.max_tokens_per_second}"
    elif settings.min_score_per_token is not None and per_token < settings.min_score_per_token:
        reason = f"score per token {per_token:.3f}, below {settings.min_score_per_token}"
    return {
        "id": cut.id,
        "text": tokenizer.decode(hypothesis.tokens),
        "score": round(hypothesis.score, 4),
        "score_per_token": round(per_token, 4),
        "tokens": count,
        "tokens_per_second": round(count / cut.duration, 3),
        "kept": not reason,
        "reason": reason,
    }


def batches_of(cuts: Iterable[Cut], *, seconds: float) -> Iterator[list[Cut]]:
    """Yield batches of similar length, longest first, of at most `seconds` padded seconds."""
    batch: list[Cut] = []
    for cut in sorted(cuts, key=lambda cut: (-cut.duration, cut.id)):
        if batch and batch[0].duration * (len(batch) + 1) > seconds:
            yield batch
            batch = []
        batch.append(cut)
    if batch:
        yield batch
