"""The training loop: steps, averaged weights, looks at the dev sets, checkpoints, and the final model."""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from asr_distill.decoding.decode import DevSet
from asr_distill.devices import device_name, num_processes
from asr_distill.experiment import RunRecord
from asr_distill.files import write_json
from asr_distill.losses.checks import NonFiniteError, settle
from asr_distill.progress import Progress
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.build import AnyObjective, build_objective
from asr_distill.training.checkpoints import Checkpoints
from asr_distill.training.data import TrainingData, load_training_data
from asr_distill.training.objective import Batch
from asr_distill.training.optimisation import RelativeClip, learning_rate, make_optimizer
from asr_distill.training.paths import TrainingPaths, fingerprint
from asr_distill.training.ranks import Ranks
from asr_distill.training.results import save_models, summary, write_curve
from asr_distill.training.shares import Share, check_divisible

log = logging.getLogger(__name__)

MAX_NON_FINITE = 20
"""Batches in a row whose loss may be infinite or undefined before the run is given up."""
CURVE_EVERY = 20
"""Steps between two rows of the learning curve."""
LOG_EVERY = 100
"""Steps between two lines in the log."""


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
    check_divisible(run.phase, world=num_processes(), name=run.run.phase)
    ranks = Ranks(run.phase)
    tokenizer = _tokenizer(run, paths=paths)
    data = load_training_data(run, corpus=paths.corpus, tokenizer=tokenizer, pseudo_labels=paths.pseudo_labels)
    objective = build_objective(
        run, paths=paths, tokenizer=tokenizer, transcripts=data.transcripts(), device=ranks.device
    )
    trainer = Trainer(run, paths=paths, ranks=ranks, tokenizer=tokenizer, data=data, objective=objective)
    with ranks.together():
        trainer.run_to_end()
        trainer.export()


class Trainer:
    """One training run in progress, in one of its processes."""

    def __init__(
        self,
        run: RunRecord,
        *,
        paths: TrainingPaths,
        ranks: Ranks,
        tokenizer: Tokenizer | None,
        data: TrainingData,
        objective: AnyObjective,
    ):
        self.run, self.paths, self.ranks, self.tokenizer, self.data = run, paths, ranks, tokenizer, data
        self.model = objective.student
        unwrapped = copy.deepcopy(self.model) if ranks.sharded else self.model
        self.objective = ranks.setup(Unrefused(objective))
        self.optimizer = make_optimizer(self.model, phase=run.phase)
        self.clip = RelativeClip(run.phase.clip)
        averaged = ranks.averageable(unwrapped, like=self.model)
        self.average = AveragedModel(averaged, multi_avg_fn=get_ema_multi_avg_fn(run.phase.average_decay))
        self.generator = torch.Generator()
        self.dev = DevSet(
            run.dev, corpus=paths.corpus, limit=run.phase.dev_utterances, rank=ranks.rank, world=ranks.world
        )
        self.position = Position()
        self.checkpoints = Checkpoints(paths.output / "state", fingerprint=fingerprint(run, paths=paths))
        self.stop = False

    def run_to_end(self) -> None:
        """Take all steps that are left."""
        self._resume()
        signal.signal(signal.SIGTERM, self._request_stop)
        last_saved = time.monotonic()
        position, rank, world = self.position, self.ranks.rank, self.ranks.world
        batches = self.data.shares(epoch=position.epoch, position=position.batch, rank=rank, world=world)
        non_finite = 0
        self.objective.train()
        with Progress(self.run.name, total=self.run.phase.steps, done=self.position.step) as progress:
            while self.position.step < self.run.phase.steps:
                started = time.monotonic()
                shares, self.position.epoch, self.position.batch = next(batches)
                loss = self._step(shares)
                non_finite = 0 if math.isfinite(loss) else non_finite + 1
                if non_finite >= MAX_NON_FINITE:
                    raise ValueError(
                        f"{self.run.name}: the loss was not finite {non_finite} times in a row (step "
                        f"{self.position.step}); lower phases.{self.run.run.phase}.learning_rate"
                    )
                self._record(loss)
                self.position.seconds += time.monotonic() - started
                progress.advance(f"loss {loss:.3f}")
                due = self.ranks.first and time.monotonic() - last_saved > self.run.phase.checkpoint_seconds
                stop, due = self.ranks.sums(self.stop, due)
                if stop or due:
                    self._save()
                    last_saved = time.monotonic()
                if stop:
                    raise SystemExit(128 + signal.SIGTERM)

    def export(self) -> None:
        """Write the averaged model, the learning curve and what is known of the run; remove the checkpoints."""
        model, output = self.ranks.whole_model(self.average.module), self.paths.output
        if self.ranks.first:
            write_curve(self.position.curve, output / "curve.csv")
            write_json(output / "training.json", self._summary())
            save_models(model, output, tokenizer=self.tokenizer)
            self.checkpoints.remove()

    def _step(self, shares: Sequence[Share]) -> float:
        """Take one optimisation step and return the loss of the whole batch.

        A step is left out, in all processes, when loss or gradient are not finite in one.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.position.step, phase=self.run.phase)
        self.optimizer.zero_grad(set_to_none=True)
        value = self._gradients(shares)
        if math.isfinite(value):
            norm = self.clip([p for p in self.model.parameters() if p.grad is not None])
            value = value if math.isfinite(norm) else math.nan
        if math.isfinite(value):
            self.optimizer.step()
            self.average.update_parameters(self.model)
        else:
            log.warning("%s step %d: loss or gradient is not finite; skipped", self.run.name, self.position.step)
            self.position.skipped += 1
        self.position.step += 1
        return value

    def _gradients(self, shares: Sequence[Share]) -> float:
        """Add up the gradients of this process's shares, then those of all processes; return the loss of the batch."""
        fabric, value = self.ranks.fabric, 0.0
        for share in shares:
            with fabric.no_backward_sync(self.objective, enabled=share is not shares[-1]):
                loss = self._loss(share)
                value += self.ranks.sums(loss.detach() * share.weight)[0]
                if not math.isfinite(value):
                    self.ranks.forget_forward(self.objective)
                    break
                fabric.backward(loss * (share.weight * self.ranks.world))  # as the mean over processes is taken
        return value

    def _loss(self, share: Share) -> Tensor:
        """Return the mean loss of a share, not a number where it is refused."""
        step = self.position.step
        torch.manual_seed(_step_seed(self.run.seed, step, share.number))  # dropout: the same after a resume
        self.generator.manual_seed(_step_seed(self.run.seed + 1_000_003, step, share.number))
        batch = share.batch.to(self.ranks.device)
        return self.objective(batch, generator=self.generator, ctc_only=step < self._ctc_steps())

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
            model = self.ranks.whole_model(self.average.module).eval()
            errors = self.dev.word_error_rates(model, tokenizer=self.tokenizer, sums=self.ranks.sums)
            row |= {f"wer/{part}": wer for part, wer in errors.items()}
            shown = ", ".join(f"{part} {100 * wer:.1f} %" for part, wer in errors.items())
            log.info("%s step %d of %d: loss %.3f, WER %s", self.run.name, step, phase.steps, loss, shown)
        self.position.curve.append(row)

    def _save(self) -> None:
        state = {
            "position": vars(self.position),
            "model": self.ranks.whole(self.model.state_dict()),
            "average": self.ranks.whole(self.average.state_dict()),
            "optimizer": self.ranks.whole(self.optimizer.state_dict()),
            "clip": self.clip.mean,
        }
        if self.ranks.first:
            self.checkpoints.save(state, step=self.position.step)
        self.ranks.wait()  # so that none ends the job while the first still writes

    def _resume(self) -> None:
        """Go on where the first process finds the newest readable checkpoint, however many processes wrote it.

        Raises:
            ValueError: when it does not fit the model, or another process cannot read it.
        """
        state = self.checkpoints.load() if self.ranks.first else None
        (found,) = self.ranks.sums(0 if state is None else state["step"])
        if not found:
            return
        path = self.checkpoints.path(int(found))
        state = state or self.checkpoints.read(path)
        try:
            self.ranks.load(self.model, state["model"])
            self.ranks.load(self.average, state["average"])
            self.ranks.load_optimizer(self.optimizer, state["optimizer"])
            self.position, self.clip.mean = Position(**state["position"]), state["clip"]
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            folder = path.parent
            raise ValueError(f"{path}: does not fit this model ({reason}); remove {folder} to start anew") from None
        log.info("%s goes on from step %d", self.run.name, self.position.step)

    def _request_stop(self, *_: object) -> None:
        """On SIGTERM: finish the step, save, leave."""
        self.stop = True

    def _summary(self) -> dict[str, Any]:
        known = summary(self.run, model=self.average.module, data=self.data)
        return known | {
            "epochs": self.data.passes(self.position.epoch),
            "skipped_batches": self.position.skipped,
            "seconds": self.position.seconds,
            "device": device_name(self.ranks.device),
            "threads": torch.get_num_threads(),
            "processes": self.ranks.world,
        }


class Unrefused(nn.Module):
    """An objective whose loss is not a number where it refuses a batch, so that processes do not part ways there."""

    def __init__(self, objective: AnyObjective):
        super().__init__()
        self.objective = objective

    def forward(self, batch: Batch, **options: Any) -> Tensor:
        """Return the objective's loss."""
        try:
            loss = self.objective(batch, **options)
            settle()
        except NonFiniteError as error:
            log.warning("%s", error)
            return torch.tensor(math.nan, device=batch.features.device)
        return loss


def _tokenizer(run: RunRecord, *, paths: TrainingPaths) -> Tokenizer | None:
    """Return the tokens of a recogniser; pre-training of an encoder has none."""
    if run.run.recogniser == "best_rq":
        return None
    if paths.tokenizer is None:
        raise ValueError(f"{run.name}: learns transcripts, which takes tokens; give --tokenizer")
    return Tokenizer.load(paths.tokenizer)


def _step_seed(seed: int, step: int, share: int) -> int:
    """Return a seed of its own for every step and share of its batch, so that nothing random need be saved."""
    text = f"{seed}/{step}/{share}" if share else f"{seed}/{step}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
