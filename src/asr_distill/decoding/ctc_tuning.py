"""Choose the free numbers of a beam search with a language model on the dev sets, in two steps.

First the weight of the language model and the insertion score, whose pooled word error rate is lowest. Then, with
these, the cheapest pruning that costs at most `TOLERANCE`.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import jiwer
from torch import Tensor

from asr_distill.decoding.ctc import BeamSettings
from asr_distill.decoding.ctc_beam import CTCBeamSearch
from asr_distill.text.normalise import normalise
from asr_distill.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)

TOLERANCE = 0.0005
"""How much worse the word error rate may become for speed: 0.05 percentage points."""


@dataclass(frozen=True)
class DevUtterances:
    """Some utterances of one dev part, as a CTC head sees them."""

    part: str
    log_probs: Tensor
    """(B, N, V), natural."""
    lengths: Tensor
    """(B,), in frames."""
    references: Sequence[str]


@dataclass(frozen=True)
class TuningRow:
    """What one setting gives on the dev sets."""

    step: Literal["weights", "pruning"]
    settings: BeamSettings
    word_error_rates: dict[str, float]
    """By part, as fractions."""
    pooled: float
    """Errors of all parts over words of all parts."""
    chosen: bool = False
    """Whether the step settled on it; the search uses what the last step did."""


def tune(
    dev: Sequence[DevUtterances],
    *,
    search: CTCBeamSearch,
    tokenizer: Tokenizer,
    lm_weights: Sequence[float],
    insertion_scores: Sequence[float],
    beam_size_tokens: Sequence[int | None] = (4, 8, 16),
    beam_thresholds: Sequence[float] = (math.inf,),
) -> list[TuningRow]:
    """Try all combinations on dev sets and return everything that was tried, with the choices marked.

    Equal error rates go to the smaller weight, then to the insertion score nearer to zero. Pruning is the cheaper the
    fewer tokens it lets through, and among these the lower its threshold (which saves no time in `CTCBeamSearch`); that
    of `search` is a candidate, too.

    Args:
        dev: utterances of the dev parts, in batches of any size.
        search: fixes all other settings, and the pruning of the first step.
        tokenizer: spells the tokens.
        lm_weights: to try.
        insertion_scores: to try.
        beam_size_tokens: to try in the second step.
        beam_thresholds: to try in the second step.

    Raises:
        ValueError: naming the argument that is empty, or where the references have no words.
    """
    grids = {"lm_weights": lm_weights, "insertion_scores": insertion_scores}
    grids |= {"beam_size_tokens": beam_size_tokens, "beam_thresholds": beam_thresholds, "dev": dev}
    for name, values in grids.items():
        if not len(values):
            raise ValueError(f"{name}: empty, so there is nothing to tune; write one value or more")
    pairs = itertools.product(dict.fromkeys(lm_weights), dict.fromkeys(insertion_scores))
    candidates = [replace(search.settings, lm_weight=weight, insertion_score=score) for weight, score in pairs]
    rows = [_measured(dev, search=search, tokenizer=tokenizer, settings=settings) for settings in candidates]
    best = min(rows, key=lambda row: (row.pooled, row.settings.lm_weight, abs(row.settings.insertion_score)))
    _note_edges(best.settings, lm_weights=lm_weights, insertion_scores=insertion_scores)

    pairs = itertools.product(beam_size_tokens, beam_thresholds)
    candidates = [replace(best.settings, beam_size_token=num, beam_threshold=width) for num, width in pairs]
    candidates = sorted(dict.fromkeys([*candidates, best.settings]), key=_cost)
    known = {best.settings: best}
    pruned = [
        replace(
            known.get(settings) or _measured(dev, search=search, tokenizer=tokenizer, settings=settings), step="pruning"
        )
        for settings in candidates
    ]
    allowed = min(row.pooled for row in pruned) + TOLERANCE + 1e-12
    cheapest = next(row for row in pruned if row.pooled <= allowed)
    log.info("dev sets: word error rate %.2f %% with %s", 100 * cheapest.pooled, cheapest.settings)
    return [replace(row, chosen=row is best) for row in rows] + [replace(row, chosen=row is cheapest) for row in pruned]


def _note_edges(best: BeamSettings, *, lm_weights: Sequence[float], insertion_scores: Sequence[float]) -> None:
    """Log where the best value is the largest that was tried: a still larger one might be better."""
    for name, chosen, tried in (
        ("lm_weights", best.lm_weight, lm_weights),
        ("insertion_scores", best.insertion_score, insertion_scores),
    ):
        if len(tried) > 1 and chosen == max(tried):
            log.warning("search.%s: the best one, %g, is the largest; try larger ones", name, chosen)


def chosen_settings(rows: Sequence[TuningRow]) -> BeamSettings:
    """Return what `tune` settled on in the end."""
    return [row for row in rows if row.chosen][-1].settings


def _measured(
    dev: Sequence[DevUtterances], *, search: CTCBeamSearch, tokenizer: Tokenizer, settings: BeamSettings
) -> TuningRow:
    """Decode the dev sets and count word errors."""
    search = search.with_settings(settings)
    errors, words = Counter(), Counter()
    for batch in dev:
        references = [normalise(text) for text in batch.references]
        found = [normalise(tokenizer.decode(each.tokens)) for each in search(batch.log_probs, batch.lengths)]
        counts = jiwer.process_words(references, found)
        errors[batch.part] += counts.substitutions + counts.deletions + counts.insertions
        words[batch.part] += counts.hits + counts.substitutions + counts.deletions
    if not all(words.values()):
        raise ValueError(f"dev: no words in the references of {min(words, key=words.__getitem__)}; name another part")
    rates = {part: errors[part] / words[part] for part in words}
    return TuningRow("weights", settings, rates, errors.total() / words.total())


def _cost(settings: BeamSettings) -> tuple[float, float]:
    return (math.inf if settings.beam_size_token is None else settings.beam_size_token, settings.beam_threshold)
