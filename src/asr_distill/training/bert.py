"""Training BERT (Devlin et al. 2019) from random weights on the recogniser's tokens, with checkpoints and resume."""

from __future__ import annotations

import hashlib
import logging
import math
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from asr_distill.devices import device_name
from asr_distill.experiment import BertSize, BertTraining
from asr_distill.files import replacing
from asr_distill.progress import Progress
from asr_distill.text.masked_lm import new_bert, save_bert
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training.bert_data import Perplexity, batches, guess_loss, mask_tokens, split_text, text_hash
from asr_distill.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from transformers import BertForMaskedLM

log = logging.getLogger(__name__)

CURVE_EVERY = 20
"""Steps between two rows of the learning curve."""
LOOKS = 10
"""How often in a training the held-out lines are looked at."""
LARGEST_NORM = 1.0
"""Gradients are clipped at this norm, as Devlin et al. do."""


@dataclass
class Position:
    """Where training stands; everything here is in the checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Batches of the epoch already used."""
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


def train_bert(
    lines: Sequence[str], *, tokenizer: Tokenizer, size: BertSize, training: BertTraining, seed: int, output: Path
) -> None:
    """Train BERT on normalised lines to the end, going on from its newest checkpoint where there is one.

    Writes into the folder `output`: `model.safetensors` and `config.json` as transformers do, `bert.json` with what is
    known of the training, `curve.csv`, and, until the end, `state/`.

    Raises:
        ValueError: when settings do not fit the text or each other, or the loss is not finite.
    """
    if training.batch_tokens < size.max_tokens:
        raise ValueError(
            f"batch_tokens: {training.batch_tokens} cannot hold one line of max_tokens: {size.max_tokens}; write at "
            f"least {size.max_tokens}"
        )
    output.mkdir(parents=True, exist_ok=True)
    trainer = BertTrainer(lines, tokenizer=tokenizer, size=size, training=training, seed=seed, output=output)
    trainer.run_to_end()
    trainer.export()


class BertTrainer:
    """One training of BERT in progress."""

    def __init__(
        self,
        lines: Sequence[str],
        *,
        tokenizer: Tokenizer,
        size: BertSize,
        training: BertTraining,
        seed: int,
        output: Path,
    ):
        self.size, self.training, self.seed, self.output = size, training, seed, output
        self.fingerprint = tokenizer.fingerprint
        self.lines, self.held_out, self.too_long = split_text(
            lines, tokenizer=tokenizer, max_tokens=size.max_tokens, dev_lines=training.dev_lines, seed=seed
        )
        self.vocabulary, self.starts = self.held_out.vocabulary, self.held_out.starts
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(seed)
        self.model = new_bert(size, vocabulary=self.vocabulary).to(self.device)
        self.optimizer = _optimizer(self.model, training=training)
        self.position = Position()
        described = [size.model_dump_json(), training.model_dump_json(), str(seed), self.fingerprint, text_hash(lines)]
        fingerprint = hashlib.sha256("\n".join(described).encode()).hexdigest()
        self.checkpoints = Checkpoints(output / "state", fingerprint=fingerprint)
        self.stop = False

    def run_to_end(self) -> None:
        """Take all steps that are left."""
        self._resume()
        signal.signal(signal.SIGTERM, self._request_stop)
        last_saved = time.monotonic()
        order = batches(
            self.lines,
            batch_tokens=self.training.batch_tokens,
            seed=self.seed,
            epoch=self.position.epoch,
            position=self.position.batch,
        )
        self.model.train()
        with Progress("BERT", total=self.training.steps, done=self.position.step) as progress:
            while self.position.step < self.training.steps:
                started = time.monotonic()
                batch, self.position.epoch, self.position.batch = next(order)
                loss = self._step(batch)
                self._record(loss)
                self.position.seconds += time.monotonic() - started
                progress.advance(f"loss {loss:.3f}")
                if self.stop or time.monotonic() - last_saved > self.training.checkpoint_seconds:
                    self._save()
                    last_saved = time.monotonic()
                if self.stop:
                    raise SystemExit(128 + signal.SIGTERM)

    def export(self) -> None:
        """Write BERT, the learning curve and what is known of the training; remove the checkpoints."""
        write_curve(self.output, self.position.curve)
        about = self._summary()
        save_bert(self.model, self.output, tokenizer=self.fingerprint, about=about)
        self.checkpoints.remove()

    def _step(self, batch: Sequence[int]) -> float:
        """Take one optimisation step on some lines and return the loss."""
        step = self.position.step
        torch.manual_seed(_step_seed(self.seed, step))  # dropout: the same after a resume
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, training=self.training)
        inputs = self.lines.batch(batch, vocabulary=self.vocabulary)
        shown, chosen = mask_tokens(
            inputs,
            vocabulary=self.vocabulary,
            mask=self.training.mask,
            share=self.training.mask_share,
            starts=self.starts,
            generator=torch.Generator().manual_seed(_step_seed(self.seed + 1_000_003, step)),
        )
        here = {"shown": shown.to(self.device), "chosen": chosen.to(self.device)}
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = guess_loss(self.model, inputs.to(self.device), **here).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(f"BERT: the loss is {value} at step {step}; lower the learning_rate")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_NORM)
        self.optimizer.step()
        self.position.step += 1
        return value

    def _record(self, loss: float) -> None:
        """Add to the learning curve, with the perplexity of held-out lines where it is due."""
        step, steps = self.position.step, self.training.steps
        due = step % max(1, steps // LOOKS) == 0 or step == steps
        if not due and step % CURVE_EVERY:
            return
        rate = self.optimizer.param_groups[0]["lr"]
        row = {"step": step, "seconds": self.position.seconds, "loss": loss, "learning_rate": rate}
        if due:
            perplexity = self._masked_perplexity()
            row["perplexity"] = perplexity.bert
            log.info(
                "BERT step %d of %d: loss %.3f, perplexity of held-out lines %.1f (unigram %.1f)",
                step,
                steps,
                loss,
                perplexity.bert,
                perplexity.unigram,
            )
        self.position.curve.append(row)

    def _masked_perplexity(self) -> Perplexity:
        self.model.eval()
        training = self.training
        perplexity = self.held_out.masked(
            self.model, mask=training.mask, share=training.mask_share, batch_tokens=training.batch_tokens
        )
        self.model.train()
        return perplexity

    def _save(self) -> None:
        state = {
            "position": vars(self.position),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        self.checkpoints.save(state, step=self.position.step)

    def _resume(self) -> None:
        state = self.checkpoints.load()
        if state is None:
            return
        self.position = Position(**state["position"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        log.info("BERT goes on from step %d", self.position.step)

    def _request_stop(self, *_: object) -> None:
        """On SIGTERM: finish the step, save, leave."""
        self.stop = True

    def _summary(self) -> dict[str, Any]:
        return {
            "vocabulary": self.vocabulary.size,
            "size": self.size.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
            "seed": self.seed,
            "parameters": self.model.num_parameters(),
            "steps": self.position.step,
            "epochs": self.position.epoch,
            "lines": len(self.lines),
            "tokens": len(self.lines.tokens),
            "too_long_lines": self.too_long,
            **self.held_out.summary(self.model.eval(), training=self.training),
            "seconds": self.position.seconds,
            "device": device_name(self.device),
            "threads": torch.get_num_threads(),
        }


def write_curve(folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write a learning curve, which has no rows where nothing was learnt here, as curve.csv."""
    columns = ["step", "seconds", "loss", "learning_rate", "perplexity"]
    with replacing(folder / "curve.csv") as temporary:
        pd.DataFrame(rows, columns=columns).to_csv(temporary, index=False)


def learning_rate(step: int, *, training: BertTraining) -> float:
    """Return the learning rate of a step counted from 0: linear up, then linear down to zero."""
    rising = (step + 1) / (training.warmup_steps + 1)
    falling = (training.steps - step) / (training.steps - training.warmup_steps)
    return training.learning_rate * min(rising, falling)


def _optimizer(model: BertForMaskedLM, *, training: BertTraining) -> torch.optim.AdamW:
    """Return AdamW; only matrices are decayed, not biases and normalisations."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


def _step_seed(seed: int, step: int) -> int:
    """Return a seed of its own for every step, so that nothing random need be saved."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:8], "big") >> 1
