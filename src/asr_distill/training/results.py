"""What a training run leaves: its models, its learning curve, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from asr_distill.experiment import RunRecord
from asr_distill.files import replacing
from asr_distill.models.best_rq import BestRQ
from asr_distill.models.best_rq_storage import save_encoder
from asr_distill.models.ctc import CTCModel
from asr_distill.models.ctc_storage import save_ctc, save_decoder
from asr_distill.models.storage import save_model
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.build import AnyModel
from asr_distill.training.data import TrainingData, hours_by_part


def write_curve(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write a learning curve; rows may have more or fewer columns."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with replacing(path) as temporary:
        pd.DataFrame(rows, columns=columns).to_csv(temporary, index=False)


def save_models(model: AnyModel, output: Path, *, tokenizer: Tokenizer | None) -> None:
    """Write what is needed of the model later; of a CTC recogniser also its attention decoder, to be looked at."""
    if isinstance(model, BestRQ):
        save_encoder(model, output / "encoder.safetensors")
    elif isinstance(model, CTCModel):
        if model.decoder is not None:
            save_decoder(model.decoder, output / "decoder.safetensors", tokenizer=tokenizer.fingerprint)
        save_ctc(model, output / "model.safetensors", tokenizer=tokenizer.fingerprint)
    else:
        save_model(model, output / "model.safetensors", tokenizer=tokenizer.fingerprint)


def summary(run: RunRecord, *, model: AnyModel, data: TrainingData) -> dict[str, Any]:
    """Return what is known of a run before it starts: what it learns, from whom, and how much of it."""
    labelled, unlabelled = hours_by_part(run, data=data)
    return {
        "run": run.name,
        "seed": run.seed,
        **_learnt_from(run),
        "parameters": model.num_parameters(),
        "encoder_parameters": sum(p.numel() for p in model.encoder.parameters()),
        "steps": run.phase.steps,
        "effective_batch": run.phase.batch_utterances,
        "hours": labelled + unlabelled,
        "labelled_hours": labelled,
        "unlabelled_hours": unlabelled,
    }


def _learnt_from(run: RunRecord) -> dict[str, str | None]:
    """Return what the run learnt, from whom, and where it started."""
    if run.run.recogniser == "ctc":
        return {"targets": run.run.targets, "teacher": "BERT" if run.run.from_bert else None}
    initial = run.run.initial if run.run.recogniser == "transducer" else None
    return {"targets": run.run.targets, "teacher": run.run.teacher, "initial": initial}
