"""What a CTC recogniser minimises: CTC on final and intermediate layers, and what attention decoders learn there.

Layout legend: B batch, N encoder frames, U labels, K tokens per distribution, D model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from asr_distill.experiment import Augmentation, CTCRun
from asr_distill.features.augment import augment
from asr_distill.losses.ctc import ctc
from asr_distill.losses.ctc_alignment import ctc_best_alignment
from asr_distill.losses.joint import LatticeLengths
from asr_distill.losses.language_model import (
    combine_layers,
    cross_entropy,
    distillation_layers,
    frame_topk_divergence,
    hidden_regression,
    topk_divergence,
)
from asr_distill.models.ctc import CTCModel
from asr_distill.text.soft_labels import SoftLabels
from asr_distill.training.objective import Batch


class CTCObjective(nn.Module):
    """(1 - alpha) L_CTC + alpha L_decoders (Hentschel et al. 2024, eq. 5), summed over utterances, per encoder frame.

    Both are weighted means over layers: the CTC loss over the final and the intermediate ones with `interctc`, the
    decoders' loss with beta. Knowledge given to the frames takes its share of the CTC loss.
    """

    def __init__(
        self, student: CTCModel, *, run: CTCRun, augmentation: Augmentation, soft_labels: SoftLabels | None = None
    ):
        super().__init__()
        if run.from_bert is not None and soft_labels is None:
            raise ValueError("soft_labels: this run learns from BERT and needs them; name their file")
        self.student, self.run, self.augmentation = student, run, augmentation
        layers = student.size.encoder.layers
        self.read = distillation_layers(layers, run.intermediate)
        """Intermediate layers that decoders read."""
        self.heard = (self.read or distillation_layers(layers, 1)) if run.interctc else []
        """Intermediate layers with a CTC loss."""
        self.soft_labels = None if run.from_bert is None else soft_labels.top(run.from_bert.top_k)

    def forward(self, batch: Batch, *, generator: torch.Generator, ctc_only: bool = False) -> Tensor:
        """Return the loss of a batch; with `ctc_only` that of the CTC heads alone."""
        student, run = self.student, self.run
        clean = student.normalise(batch.features, batch.feature_lengths)
        heard = augment(clean, batch.feature_lengths, settings=self.augmentation, generator=generator)
        layers = {*self.read, *self.heard}
        final, intermediate, frames = student.encode_layers(heard, batch.feature_lengths, layers=layers)
        lengths = LatticeLengths(frames=frames, labels=batch.label_lengths)
        total = self._ctc([final, *(intermediate[layer] for layer in self.heard)], batch, lengths)
        if run.decoder != "none" and not ctc_only:
            read = [final, *(intermediate[layer] for layer in self.read)]
            of_decoders = combine_layers(*self._decoders(read, batch, lengths), weight=run.beta)
            total = (1 - run.alpha) * total + run.alpha * of_decoders
        return total.sum() / frames.sum()

    def _ctc(self, layers: Sequence[Tensor], batch: Batch, lengths: LatticeLengths) -> Tensor:
        """Return the CTC loss (B,) of the states of the final layer and of the intermediate ones, each (B, N, D)."""
        logits = self.student.ctc_head(torch.cat(list(layers)))
        of_all = _repeated(batch, len(layers))
        counts = LatticeLengths(frames=lengths.frames.repeat(len(layers)), labels=of_all.label_lengths)
        loss, *others = ctc(logits, labels=of_all.labels, lengths=counts).chunk(len(layers))
        if self.run.frame_knowledge is not None:
            weight = self.run.frame_knowledge.weight
            loss = (1 - weight) * loss + weight * self._frames(logits[: len(layers[0])], batch, lengths)
        return combine_layers(loss, others, weight=self.run.interctc)

    def _decoders(
        self, layers: Sequence[Tensor], batch: Batch, lengths: LatticeLengths
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Return what the decoder loses (B,) on the final layer's states (B, N, D), and on each intermediate one's."""
        loss, *others = self._decoder(
            torch.cat(list(layers)), lengths.frames.repeat(len(layers)), _repeated(batch, len(layers))
        ).chunk(len(layers))
        return loss, others

    def _decoder(self, states: Tensor, frames: Tensor, batch: Batch) -> Tensor:
        """Return what the decoder loses (B,) on states (B, N, D) of `frames` (B,)."""
        decoder, knowledge = self.student.decoder, self.run.knowledge
        if knowledge.hidden_states != "none":
            hidden = decoder.hidden(states, frames, batch.labels, batch.label_lengths)
            target = pad_sequence(
                [self.soft_labels.hidden_states(name) for name in batch.utterances], batch_first=True
            ).to(states)
            predicted = self.student.hidden_projection(hidden)
            return hidden_regression(predicted, target, batch.label_lengths, distance=knowledge.hidden_states)
        logits = decoder(states, frames, batch.labels, batch.label_lengths)
        if self.run.decoder == "cross_entropy":
            return cross_entropy(logits, batch.labels, batch.label_lengths, smoothing=self.run.label_smoothing)
        ids, probabilities = padded_soft_labels(self.soft_labels, batch.utterances, device=states.device)
        return topk_divergence(
            logits,
            ids,
            probabilities,
            batch.label_lengths,
            direction=knowledge.direction,
            rest=knowledge.rest,
            temperature=knowledge.temperature,
        )

    def _frames(self, logits: Tensor, batch: Batch, lengths: LatticeLengths) -> Tensor:
        """Return the divergence (B,), summed over the frames at which the best alignment emits a label."""
        with torch.no_grad():
            log_probs = torch.log_softmax(logits.float(), dim=-1)
            alignment = ctc_best_alignment(log_probs, labels=batch.labels, lengths=lengths)
        ids, probabilities = padded_soft_labels(self.soft_labels, batch.utterances, device=logits.device)
        temperature = self.run.frame_knowledge.temperature
        return frame_topk_divergence(logits, ids, probabilities, alignment, temperature=temperature)


def _repeated(batch: Batch, times: int) -> Batch:
    """Return the transcripts of a batch several times over, for states of several layers; features stay as they are."""
    return replace(
        batch,
        labels=batch.labels.repeat(times, 1),
        label_lengths=batch.label_lengths.repeat(times),
        utterances=batch.utterances * times,
    )


def padded_soft_labels(
    soft_labels: SoftLabels, utterances: Sequence[str], *, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the token ids and probabilities of utterances, both (B, U, K), padded with 0."""
    ids, probabilities = zip(*(soft_labels[name] for name in utterances), strict=True)
    padded = (pad_sequence(list(x), batch_first=True) for x in (ids, probabilities))
    ids, probabilities = (x.to(device, non_blocking=True) for x in padded)
    return ids.long(), probabilities
