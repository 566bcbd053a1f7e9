"""A BERT that others trained on the recogniser's tokens: checked, measured like one trained here, and taken over."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from asr_distill.experiment import BertTraining
from asr_distill.text.masked_lm import ABOUT, bert_hash, load_bert, read_json, save_bert
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.bert import write_curve
from asr_distill.training.bert_data import split_text

log = logging.getLogger(__name__)


def take_over_bert(
    folder: Path,
    lines: Sequence[str],
    *,
    tokenizer: Tokenizer,
    training: BertTraining,
    seed: int,
    output: Path,
    device: torch.device | str = "cpu",
) -> None:
    """Write the BERT of `folder` into the folder `output`, as if it had been trained here on these normalised lines.

    Its perplexities are those of the same held-out lines, if it takes lines as long; whether it has read them before
    is not known. `bert.json` tells where it came from and what came with it; `curve.csv` has a header and no rows.

    Raises:
        ValueError: when there is no BERT, or one of other tokens, or it makes no sense of the lines; nothing is written
            then.
    """
    if not folder.is_dir():
        raise ValueError(f"language_models.bert.pretrained: {folder} is no folder; give one below that of the corpora")
    model = load_bert(folder, tokenizer=tokenizer).to(device)
    longest = model.config.max_position_embeddings
    kept, held_out, too_long = split_text(
        lines, tokenizer=tokenizer, max_tokens=longest, dev_lines=training.dev_lines, seed=seed
    )
    measured = held_out.summary(model, training=training)
    perplexity = measured["perplexity"]["masked"]["bert"]
    if not math.isfinite(perplexity):
        raise ValueError(f"{folder}: the perplexity of held-out lines is {perplexity}; copy the BERT there anew")
    about = {
        "pretrained": {"folder": str(folder), "hash": bert_hash(folder), "about": read_json(folder / ABOUT)},
        "vocabulary": model.config.vocab_size,
        "training": training.model_dump(mode="json", include={"mask", "mask_share", "batch_tokens", "dev_lines"}),
        "seed": seed,
        "parameters": model.num_parameters(),
        "lines": len(kept),
        "tokens": len(kept.tokens),
        "too_long_lines": too_long,
        **measured,
    }
    log.info("BERT of %s: perplexity of held-out lines %.1f", folder, perplexity)
    output.mkdir(parents=True, exist_ok=True)
    write_curve(output, [])
    save_bert(model, output, tokenizer=tokenizer.fingerprint, about=about)
