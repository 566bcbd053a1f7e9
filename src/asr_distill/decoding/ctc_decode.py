"""Decode a CTC recogniser in every way a study compares: greedily, by beam search, by its attention decoder.

All searches run in one process on the same utterances, so that their real-time factors can be compared. What beam
search is free to choose is chosen on the dev parts alone. What the CTC head makes of the lower encoder layers is
decoded afterwards and not timed.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from asr_distill.devices import device_name
from asr_distill.experiment import ATTENTION, GREEDY, Decoding, LanguageModelSearch
from asr_distill.features.reading import FeatureReader, read_cuts
from asr_distill.files import replacing, write_json, write_json_lines
from asr_distill.models.attention_decoder import AttentionDecoder
from asr_distill.models.ctc import CTCModel
from asr_distill.text.tokenizer import Tokenizer

READING, ENCODER = "features", "encoder"
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
    below: Mapping[int, Tensor]
    """(B, N, D) after the layers below the final one that were asked for, counted from 1."""


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

    Writes `hypotheses.jsonl` (greedy), `searches/<name>.jsonl` for beam_<size>, attention and layer_<n>, which is
    greedy search on each encoder layer below the final one, `searches/tuning.csv` with all that was tried on the dev
    parts, and `decoding.json` with the seconds that everything but the layers took.

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
    given = {"corpus": corpus, "tokenizer": tokenizer}
    lines, timing = _decode_parts(model, [*dev, *test], searches=searches, **given)
    below = range(1, model.size.encoder.layers)
    if below:
        layers = {f"layer_{layer}": _layer_search(model, layer) for layer in below}
        lines |= _decode_parts(model, [*dev, *test], searches=layers, below=below, **given)[0]
    _write(lines, tuned, output=output)
    about = {"method": "ctc", "threads": torch.get_num_threads(), "device": device_name(model.feature_mean.device)}
    about |= {"batch_seconds": Decoding().batch_seconds, "parts": timing}
    write_json(output / "decoding.json", about)


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


def _layer_search(model: CTCModel, layer: int) -> Search:
    """Return greedy search with the CTC head on an encoder layer below the final one."""
    return lambda batch: greedy(_log_probs(model, batch.below[layer]), batch.lengths)


def _decode_parts(
    model: CTCModel,
    parts: Sequence[str],
    *,
    corpus: Path,
    searches: Mapping[str, Search],
    tokenizer: Tokenizer,
    below: Collection[int] = (),
) -> tuple[dict[str, list[dict[str, object]]], list[dict[str, object]]]:
    """Return the lines that each search finds in all parts, and what each part took."""
    lines: dict[str, list[dict[str, object]]] = defaultdict(list)
    timing = []
    for part in parts:
        cuts = list(read_cuts([corpus / part], originals_only=True))
        found, seconds = _decode_part(model, cuts, searches=searches, tokenizer=tokenizer, below=below)
        for name, hypotheses in found.items():
            lines[name] += [{"part": part, **line} for line in hypotheses]
        audio = sum(cut.duration for cut in cuts)
        timing.append({"part": part, "audio_seconds": round(audio, 2), "seconds": seconds})
    return lines, timing


def _decode_part(
    model: CTCModel,
    cuts: Sequence[Cut],
    *,
    searches: Mapping[str, Search],
    tokenizer: Tokenizer,
    below: Collection[int],
) -> tuple[dict[str, list[dict[str, object]]], dict[str, float]]:
    """Return the lines that each search finds, and the seconds of reading, the encoder and each search."""
    lines: dict[str, list[dict[str, object]]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    for batch, spent in _encoded(model, cuts, below=below):
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
    return lines, {name: round(value, 6) for name, value in seconds.items()}


@torch.inference_mode()
def _encoded(
    model: CTCModel, cuts: Sequence[Cut], *, below: Collection[int] = ()
) -> Iterator[tuple[Encoded, dict[str, float]]]:
    """Yield batches after the encoder, with the seconds of reading features and of encoder and CTC head."""
    reader = FeatureReader(cuts, cache_hours=0)
    device = model.feature_mean.device
    for batch in batches_of(cuts, seconds=Decoding().batch_seconds):
        started = time.perf_counter()
        features, lengths = reader.collate(batch)
        read = time.perf_counter()
        features = model.normalise(features.to(device), lengths)
        states, lower, frames = model.encode_layers(features, lengths, layers=below)
        log_probs = _log_probs(model, states)
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent = {READING: read - started, ENCODER: time.perf_counter() - read}
        yield Encoded(batch, states, log_probs, frames, lower), spent


@torch.inference_mode()
def _log_probs(model: CTCModel, states: Tensor) -> Tensor:
    """Return what the CTC head makes of the states (B, N, D) of any layer: (B, N, V)."""
    return torch.log_softmax(model.ctc_head(states).float(), dim=-1)


def _write(
    lines: Mapping[str, list[dict[str, object]]], tuned: Mapping[str, Sequence[TuningRow]], *, output: Path
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
