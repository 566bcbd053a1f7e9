"""From a resolved run to the new model and what it minimises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch

from asr_distill.experiment import RunRecord
from asr_distill.features.reading import global_mean_and_std
from asr_distill.models.best_rq import BestRQ
from asr_distill.models.best_rq_storage import load_encoder
from asr_distill.models.ctc import CTCModel
from asr_distill.models.storage import load_model
from asr_distill.models.transducer import Transducer
from asr_distill.text.soft_labels import SoftLabels
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.best_rq_objective import BestRQObjective
from asr_distill.training.ctc_objective import CTCObjective
from asr_distill.training.objective import Objective

AnyModel = Transducer | CTCModel | BestRQ
AnyObjective = Objective | CTCObjective | BestRQObjective


class Inputs(Protocol):
    """The inputs of a training run that models are built from."""

    corpus: Path
    teacher: Path | None
    initial: Path | None
    soft_labels: Path | None


def build_objective(
    run: RunRecord,
    *,
    paths: Inputs,
    tokenizer: Tokenizer | None,
    transcripts: Mapping[str, Sequence[int]],
    device: torch.device,
) -> AnyObjective:
    """Return the loss of a run around a new model, whose random weights depend on the seed alone.

    Args:
        run: the resolved run.
        paths: its inputs.
        tokenizer: of the corpus; None for a run that pre-trains an encoder.
        transcripts: what the run trains on, token ids by utterance id.
        device: where the teacher computes.

    Raises:
        ValueError: when teacher or soft labels do not fit the tokens, soft labels do not fit run and transcripts, or
            what the run starts from is of another size or has other tokens.
    """
    if run.run.recogniser == "best_rq":
        return _best_rq_objective(run, corpus=paths.corpus)
    if run.run.recogniser == "ctc":
        return _ctc_objective(run, paths=paths, tokenizer=tokenizer, transcripts=transcripts)
    teacher = None
    if paths.teacher is not None:
        teacher = load_model(paths.teacher, tokenizer=tokenizer.fingerprint, device=device)
    torch.manual_seed(run.seed)
    model = Transducer(run.model, vocabulary=tokenizer.vocabulary, mel_bins=run.features.mel_bins)
    if paths.initial is not None:
        _start_from(paths.initial, model, whole=run.run.whole_initial, tokenizer=tokenizer)
    _set_statistics(model, run, corpus=paths.corpus, teacher=teacher)
    return Objective(
        model,
        teacher=teacher,
        run=run.run,
        phase=run.phase,
        augmentation=run.augmentation,
        teacher_augmentation=run.teacher_augmentation,
        teacher_shift=run.teacher_shift,
    )


def _ctc_objective(
    run: RunRecord, *, paths: Inputs, tokenizer: Tokenizer, transcripts: Mapping[str, Sequence[int]]
) -> CTCObjective:
    soft_labels = None
    if run.run.from_bert is not None and paths.soft_labels is not None:
        soft_labels = SoftLabels.load(paths.soft_labels, tokenizer=tokenizer.fingerprint)
        soft_labels.check(transcripts, mask=run.run.from_bert.mask)
    size, hidden_dim = run.model, None
    if run.run.decoder == "none":
        size = size.model_copy(update={"decoder": None})
    elif soft_labels is not None and run.run.knowledge.hidden_states != "none":
        hidden_dim = soft_labels.hidden_dim
    torch.manual_seed(run.seed)
    model = CTCModel(size, vocabulary=tokenizer.vocabulary, mel_bins=run.features.mel_bins, hidden_dim=hidden_dim)
    _set_statistics(model, run, corpus=paths.corpus, teacher=None)
    return CTCObjective(model, run=run.run, augmentation=run.augmentation, soft_labels=soft_labels)


def _best_rq_objective(run: RunRecord, *, corpus: Path) -> BestRQObjective:
    asked = run.pretraining
    torch.manual_seed(run.seed)
    model = BestRQ(
        run.model.encoder,
        mel_bins=run.features.mel_bins,
        quantizer_seed=run.seed,
        codebooks=asked.codebooks,
        codes=asked.codes,
        code_dim=asked.code_dim,
    )
    _set_statistics(model, run, corpus=corpus, teacher=None)
    return BestRQObjective(model, masking=asked.masking)


def _start_from(path: Path, model: Transducer, *, whole: bool, tokenizer: Tokenizer) -> None:
    """Give the model the weights of another one, or of its encoder and nothing else."""
    if whole:
        other = load_model(path, tokenizer=tokenizer.fingerprint)
        differences = model.size.differences(other.size)
        if model.mel_bins != other.mel_bins:
            differences.append(f"mel_bins {other.mel_bins} instead of {model.mel_bins}")
        if differences:
            raise ValueError(f"{path}: holds a transducer with {', '.join(differences)}; train one of the run's size")
        model.load_state_dict(other.state_dict())
        return
    tensors = load_encoder(path, size=model.size.encoder, mel_bins=model.mel_bins)
    model.load_state_dict({name: x for name, x in tensors.items() if name.startswith("encoder.")}, strict=False)


def _set_statistics(model: AnyModel, run: RunRecord, *, corpus: Path, teacher: Transducer | None) -> None:
    """Give the model the teacher's feature statistics, if it listens too, else those of the parts that the run names.

    So that both normalise alike.
    """
    if teacher is not None:
        mean, deviation = teacher.feature_mean, teacher.feature_deviation
    else:
        parts = run.normalised_by or run.labelled or run.unlabelled
        mean, deviation = global_mean_and_std([corpus / part / "statistics.json" for part in parts])
    model.feature_mean.copy_(mean)
    model.feature_deviation.copy_(deviation)
