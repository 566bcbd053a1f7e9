"""The training loop: steps, averaged weights, looks at the dev sets, checkpoints, and the final model."""

from __future__ import annotations

import hashlib
import logging
import math
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning_fabric
import pandas as pd
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from asr_distill.decoding.decode import DevSet
from asr_distill.devices import device_name
from asr_distill.experiment import RunRecord
from asr_distill.files import replacing, write_json
from asr_distill.losses.checks import NonFiniteError
from asr_distill.models.best_rq import BestRQ
from asr_distill.models.best_rq_storage import save_encoder
from asr_distill.models.ctc import CTCModel
from asr_distill.models.ctc_storage import save_ctc, save_decoder
from asr_distill.models.storage import save_model
from asr_distill.progress import Progress
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.build import AnyModel, AnyObjective, build_objective
from asr_distill.training.checkpoints import Checkpoints
from asr_distill.training.data import TrainingData, hours_by_part, load_training_data
from asr_distill.training.optimisation import RelativeClip, learning_rate, make_optimizer

log = logging.getLogger(__name__)

MAX_NON_FINITE = 20
"""Batches in a row whose loss may be infinite or undefined before the run is given up."""
CURVE_EVERY = 20
"""Steps between two rows of the learning curve."""
LOG_EVERY = 100
"""Steps between two lines in the log."""


@dataclass(frozen=True, kw_only=True)
class TrainingPaths:
    """Where a run's inputs lie and its outputs go."""

    corpus: Path
    """Folder of the prepared parts."""
    tokenizer: Path | None
    """Pre-training of an encoder needs none."""
    teacher: Path | None
    initial: Path | None = None
    """A pre-trained encoder or a transducer, from whose encoder that of the run starts."""
    soft_labels: Path | None = None
    """BERT's, for runs that learn from them."""
    pseudo_labels: Sequence[Path]
    output: Path
    """Folder for model.safetensors or encoder.safetensors, curve.csv, training.json and, until the end, state/."""


@dataclass
class Position:
    """Where training stands; everything here is in the checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Batches of the epoch already used."""
    seconds: float = 0.0
    skipped: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)


def train(run: RunRecord, *, paths: TrainingPaths) -> None:
    """Train one run to its end, going on from its newest checkpoint where there is one.

    Raises:
        ValueError: when inputs do not fit together, before anything is written, or the loss is not finite many times
            in a row.
    """
    torch.set_float32_matmul_precision(run.phase.matmul_precision)
    fabric = lightning_fabric.Fabric(accelerator="auto", devices=1, precision=run.phase.precision)
    tokenizer = _tokenizer(run, paths=paths)
    data = load_training_data(run, corpus=paths.corpus, tokenizer=tokenizer, pseudo_labels=paths.pseudo_labels)
    objective = build_objective(
        run, paths=paths, tokenizer=tokenizer, transcripts=data.transcripts(), device=fabric.device
    )
    trainer = Trainer(run, paths=paths, fabric=fabric, tokenizer=tokenizer, data=data, objective=objective)
    trainer.run_to_end()
    trainer.export()


class Trainer:
    """One training run in progress."""

    def __init__(
        self,
        run: RunRecord,
        *,
        paths: TrainingPaths,
        fabric: lightning_fabric.Fabric,
        tokenizer: Tokenizer | None,
        data: TrainingData,
        objective: AnyObjective,
    ):
        self.run, self.paths, self.fabric, self.tokenizer, self.data = run, paths, fabric, tokenizer, data
        self.model = objective.student
        optimizer = make_optimizer(self.model, phase=run.phase)
        self.objective, self.optimizer = fabric.setup(objective, optimizer)
        self.clip = RelativeClip(run.phase.clip)
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(run.phase.average_decay))
        self.generator = torch.Generator()
        self.dev = DevSet(run.dev, corpus=paths.corpus, limit=run.phase.dev_utterances)
        self.position = Position()
        self.checkpoints = Checkpoints(paths.output / "state", fingerprint=_fingerprint(run, paths=paths))
        self.stop = False

    def run_to_end(self) -> None:
        """Take all steps that are left."""
        self._resume()
        signal.signal(signal.SIGTERM, self._request_stop)
        last_saved = time.monotonic()
        batches = self.data.batches(epoch=self.position.epoch, position=self.position.batch)
        non_finite = 0
        self.objective.train()
        with Progress(self.run.name, total=self.run.phase.steps, done=self.position.step) as progress:
            while self.position.step < self.run.phase.steps:
                started = time.monotonic()
                batch, self.position.epoch, self.position.batch = next(batches)
                loss = self._step(batch.to(self.fabric.device))
                non_finite = 0 if math.isfinite(loss) else non_finite + 1
                if non_finite >= MAX_NON_FINITE:
                    raise ValueError(
                        f"{self.run.name}: the loss was not finite {non_finite} times in a row (step "
                        f"{self.position.step}); lower phases.{self.run.run.phase}.learning_rate"
                    )
                self._record(loss)
                self.position.seconds += time.monotonic() - started
                progress.advance(f"loss {loss:.3f}")
                if self.stop or time.monotonic() - last_saved > self.run.phase.checkpoint_seconds:
                    self._save()
                    last_saved = time.monotonic()
                if self.stop:
                    raise SystemExit(128 + signal.SIGTERM)

    def export(self) -> None:
        """Write the averaged model, the learning curve and what is known of the run; remove the checkpoints."""
        output = self.paths.output
        columns = list(dict.fromkeys(key for row in self.position.curve for key in row))
        with replacing(output / "curve.csv") as temporary:
            pd.DataFrame(self.position.curve, columns=columns).to_csv(temporary, index=False)
        write_json(output / "training.json", self._summary())
        _save_models(self.average.module, output, tokenizer=self.tokenizer)
        self.checkpoints.remove()

    def _step(self, batch: Any) -> float:
        """Take one optimisation step and return the loss; one whose loss or gradient is not finite is left out."""
        phase, step = self.run.phase, self.position.step
        torch.manual_seed(_step_seed(self.run.seed, step))  # dropout: the same after a resume
        self.generator.manual_seed(_step_seed(self.run.seed + 1_000_003, step))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, phase=phase)
        try:
            loss = self.objective(batch, generator=self.generator, ctc_only=step < self._ctc_steps())
            value = float(loss.detach())
        except NonFiniteError as error:
            log.warning("%s step %d: %s", self.run.name, step, error)
            value = math.nan
        if math.isfinite(value):
            self.optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(loss)
            norm = self.clip([p for p in self.model.parameters() if p.grad is not None])
            value = value if math.isfinite(norm) else math.nan
        if math.isfinite(value):
            self.optimizer.step()
            self.average.update_parameters(self.model)
        else:
            self.position.skipped += 1
        self.position.step += 1
        return value

    def _ctc_steps(self) -> float:
        """Return the number of first steps in which the auxiliary loss alone trains the encoder."""
        return self.run.phase.ctc_warmup_share * self.run.phase.steps

    def _record(self, loss: float) -> None:
        """Add to the learning curve, with the dev WER where it is due; a pre-trained encoder has none."""
        step, phase = self.position.step, self.run.phase
        last = step == phase.steps
        due = bool(self.run.dev) and step > self._ctc_steps() and (step % phase.dev_every == 0 or last)
        if not due and not last and step % CURVE_EVERY:
            return
        row = {
            "step": step,
            "seconds": self.position.seconds,
            "loss": loss,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }
        if not due and step % LOG_EVERY == 0:
            log.info("%s step %d of %d: loss %.3f", self.run.name, step, phase.steps, loss)
        if due:
            self.average.module.eval()
            errors = self.dev.word_error_rates(self.average.module, tokenizer=self.tokenizer)
            row |= {f"wer/{part}": wer for part, wer in errors.items()}
            shown = ", ".join(f"{part} {100 * wer:.1f} %" for part, wer in errors.items())
            log.info("%s step %d of %d: loss %.3f, WER %s", self.run.name, step, phase.steps, loss, shown)
        self.position.curve.append(row)

    def _save(self) -> None:
        state = {
            "position": vars(self.position),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "clip": self.clip.mean,
        }
        self.checkpoints.save(state, step=self.position.step)

    def _resume(self) -> None:
        state = self.checkpoints.load()
        if state is None:
            return
        self.position = Position(**state["position"])
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.clip.mean = state["clip"]
        log.info("%s goes on from step %d", self.run.name, self.position.step)

    def _request_stop(self, *_: object) -> None:
        """On SIGTERM: finish the step, save, leave."""
        self.stop = True

    def _summary(self) -> dict[str, Any]:
        labelled, unlabelled = hours_by_part(self.run, data=self.data)
        encoder = sum(p.numel() for p in self.model.encoder.parameters())
        device = self.fabric.device
        return {
            "run": self.run.name,
            "seed": self.run.seed,
            **_learnt_from(self.run),
            "parameters": self.model.num_parameters(),
            "encoder_parameters": encoder,
            "steps": self.run.phase.steps,
            "effective_batch": self.run.phase.batch_utterances,
            "hours": labelled + unlabelled,
            "labelled_hours": labelled,
            "unlabelled_hours": unlabelled,
            "epochs": self.position.epoch,
            "skipped_batches": self.position.skipped,
            "seconds": self.position.seconds,
            "device": device_name(device),
            "threads": torch.get_num_threads(),
        }


def _tokenizer(run: RunRecord, *, paths: TrainingPaths) -> Tokenizer | None:
    """Return the tokens of a recogniser; pre-training of an encoder has none."""
    if run.run.recogniser == "best_rq":
        return None
    if paths.tokenizer is None:
        raise ValueError(f"{run.name}: learns transcripts, which takes tokens; give --tokenizer")
    return Tokenizer.load(paths.tokenizer)


def _learnt_from(run: RunRecord) -> dict[str, str | None]:
    """Return what the run learnt, from whom, and where it started."""
    if run.run.recogniser == "ctc":
        return {"targets": run.run.targets, "teacher": "BERT" if run.run.from_bert else None}
    initial = run.run.initial if run.run.recogniser == "transducer" else None
    return {"targets": run.run.targets, "teacher": run.run.teacher, "initial": initial}


def _save_models(model: AnyModel, output: Path, *, tokenizer: Tokenizer | None) -> None:
    """Write what is needed of the model later; of a CTC recogniser also its attention decoder, to be looked at."""
    if isinstance(model, BestRQ):
        save_encoder(model, output / "encoder.safetensors")
    elif isinstance(model, CTCModel):
        if model.decoder is not None:
            save_decoder(model.decoder, output / "decoder.safetensors", tokenizer=tokenizer.fingerprint)
        save_ctc(model, output / "model.safetensors", tokenizer=tokenizer.fingerprint)
    else:
        save_model(model, output / "model.safetensors", tokenizer=tokenizer.fingerprint)


def _fingerprint(run: RunRecord, *, paths: TrainingPaths) -> str:
    """Return what a checkpoint depends on: the resolved run, tokens, teacher, first encoder and pseudo-labels."""
    digest = hashlib.sha256(run.to_yaml().encode())
    for path in (paths.tokenizer, paths.teacher, paths.initial, paths.soft_labels, *paths.pseudo_labels):
        if path is not None:
            with path.open("rb") as file:  # soft labels may take gigabytes
                digest.update(hashlib.file_digest(file, "sha256").digest())
    for part in (*run.labelled, *run.unlabelled, *run.normalised_by):
        digest.update((paths.corpus / part / "statistics.json").read_bytes())
    return digest.hexdigest()


def _step_seed(seed: int, step: int) -> int:
    """Return a seed of its own for every step, so that nothing random need be saved."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:8], "big") >> 1
