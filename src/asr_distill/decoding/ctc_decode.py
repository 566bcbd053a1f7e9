"""Decode a CTC recogniser in every way a study compares: greedily, by beam search, by its attention decoder.

All searches run in one process on the same utterances, so that their real-time factors can be compared. What beam
search is free to choose is chosen on the dev parts alone.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from lhotse.cut import Cut
from torch import Tensor

from asr_distill.decoding.attention import attention_search
from asr_distill.decoding.ctc import BeamSettings, greedy
from asr_distill.decoding.ctc_beam import CTCBeamSearch
from asr_distill.decoding.ctc_tuning import DevUtterances, TuningRow, chosen_settings, tune
from asr_distill.decoding.decode import batches_of
from asr_distill.decoding.hypothesis import Hypothesis
from asr_distill.experiment import Decoding, LanguageModelSearch
from asr_distill.features.reading import FeatureReader, read_cuts
from asr_distill.files import replacing, write_json, write_json_lines
from asr_distill.models.attention_decoder import AttentionDecoder
from asr_distill.models.ctc import CTCModel
from asr_distill.text.tokenizer import Tokenizer

GREEDY, ATTENTION = "greedy", "attention"
READING = "features"
ENCODER = "encoder"
"""Names of what is timed beside the searches."""


@dataclass(frozen=True)
class Encoded:
    """A batch of utterances after the encoder."""

    cuts: Sequence[Cut]
    states: Tensor
    """(B, N, D)."""
    log_probs: Tensor
    """(B, N, V) of the CTC head."""
    lengths: Tensor
    """(B,) encoder frames."""


Search = Callable[[Encoded], list[Hypothesis]]


def decode_ctc(
    model: CTCModel,
    *,
    decoder: AttentionDecoder | None,
    dev: Sequence[str],
    test: Sequence[str],
    corpus: Path,
    tokenizer: Tokenizer,
    settings: LanguageModelSearch,
    arpa: Path,
    output: Path,
) -> None:
    """Transcribe dev and test parts with every search.

    Writes `hypotheses.jsonl` (greedy), `searches/<name>.jsonl` for beam_<size> and attention, `searches/tuning.csv`
    with all that was tried on the dev parts, and `decoding.json` with the seconds that everything took.

    Raises:
        ValueError: when the n-gram was made for other tokens, or nothing was given to try.
    """
    searches: dict[str, Search] = {GREEDY: lambda batch: greedy(batch.log_probs, batch.lengths)}
    beams, tuned = _tuned_beams(model, dev=dev, corpus=corpus, tokenizer=tokenizer, settings=settings, arpa=arpa)
    searches |= beams
    if decoder is not None:
        searches[ATTENTION] = lambda batch: attention_search(
            decoder, batch.states, batch.lengths, max_tokens=batch.states.shape[1]
        )
    lines: dict[str, list[dict[str, object]]] = defaultdict(list)
    timing = []
    for part in (*dev, *test):
        cuts = list(read_cuts([corpus / part], originals_only=True))
        found, seconds = _decode_part(model, cuts, searches=searches, tokenizer=tokenizer)
        for name, hypotheses in found.items():
            lines[name] += [{"part": part, **line} for line in hypotheses]
        audio = sum(cut.duration for cut in cuts)
        timing.append({"part": part, "audio_seconds": round(audio, 2), "seconds": seconds})
    _write(lines, tuned, timing, output=output)


def _tuned_beams(
    model: CTCModel,
    *,
    dev: Sequence[str],
    corpus: Path,
    tokenizer: Tokenizer,
    settings: LanguageModelSearch,
    arpa: Path,
) -> tuple[dict[str, Search], dict[str, list[TuningRow]]]:
    """Return beam searches with what was best on samples of the dev parts, and what was tried."""
    sample = []
    for part in dev:
        cuts = list(read_cuts([corpus / part], originals_only=True))
        cuts = cuts[:: max(1, len(cuts) // settings.tune_utterances)][: settings.tune_utterances]
        for batch, _ in _encoded(model, cuts):
            texts = [cut.supervisions[0].text for cut in batch.cuts]
            sample.append(DevUtterances(part, batch.log_probs, batch.lengths, texts))
    searches, tried = {}, {}
    plain = CTCBeamSearch(BeamSettings(), vocabulary=tokenizer.vocabulary, arpa=arpa)
    for size in settings.beam_sizes:
        name = f"beam_{size}"
        tried[name] = tune(
            sample,
            search=plain.with_settings(BeamSettings(beam_size=size)),
            tokenizer=tokenizer,
            lm_weights=settings.lm_weights,
            insertion_scores=settings.insertion_scores,
            beam_size_tokens=settings.beam_size_tokens,
        )
        best = plain.with_settings(chosen_settings(tried[name]))
        searches[name] = lambda batch, best=best: best(batch.log_probs, batch.lengths)
    return searches, tried


def _decode_part(
    model: CTCModel, cuts: Sequence[Cut], *, searches: Mapping[str, Search], tokenizer: Tokenizer
) -> tuple[dict[str, list[dict[str, object]]], dict[str, float]]:
    """Return the lines that each search finds, and the seconds of reading, the encoder and each search."""
    lines: dict[str, list[dict[str, object]]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    for batch, spent in _encoded(model, cuts):
        for name, value in spent.items():
            seconds[name] += value
        for name, search in searches.items():
            started = time.perf_counter()
            hypotheses = search(batch)
            texts = [tokenizer.decode(hypothesis.tokens) for hypothesis in hypotheses]
            seconds[name] += time.perf_counter() - started
            lines[name] += [
                {"id": cut.id, "text": text, "score": round(hypothesis.score, 4)}
                for cut, text, hypothesis in zip(batch.cuts, texts, hypotheses, strict=True)
            ]
    return lines, {name: round(value, 4) for name, value in seconds.items()}


@torch.inference_mode()
def _encoded(model: CTCModel, cuts: Sequence[Cut]) -> Iterator[tuple[Encoded, dict[str, float]]]:
    """Yield batches after the encoder, with the seconds of reading features and of encoder and CTC head."""
    reader = FeatureReader(cuts, cache_hours=0)
    device = model.feature_mean.device
    for batch in batches_of(cuts, seconds=Decoding().batch_seconds):
        started = time.perf_counter()
        features, lengths = reader.collate(batch)
        read = time.perf_counter()
        states, frames = model.encode(model.normalise(features.to(device), lengths), lengths)
        log_probs = torch.log_softmax(model.ctc_head(states).float(), dim=-1)
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent = {READING: read - started, ENCODER: time.perf_counter() - read}
        yield Encoded(batch, states, log_probs, frames), spent


def _write(
    lines: Mapping[str, list[dict[str, object]]],
    tuned: Mapping[str, Sequence[TuningRow]],
    timing: Sequence[Mapping[str, object]],
    *,
    output: Path,
) -> None:
    folder = output / "searches"
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in lines.items():
        path = output / "hypotheses.jsonl" if name == GREEDY else folder / f"{name}.jsonl"
        write_json_lines(path, sorted(found, key=lambda line: (line["part"], line["id"])))
    rows = [
        {
            "search": name,
            "step": row.step,
            **asdict(row.settings),
            **{f"wer/{part}": rate for part, rate in row.word_error_rates.items()},
            "pooled": row.pooled,
            "chosen": row.chosen,
        }
        for name, tried in tuned.items()
        for row in tried
    ]
    with replacing(folder / "tuning.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\n")
    write_json(output / "decoding.json", {"method": "ctc", "threads": torch.get_num_threads(), "parts": timing})
