"""What a recogniser learns from a masked language model (BERT): token distributions and hidden states.

Layout legend: B batch, T encoder frames, U labels, K tokens per distribution, V vocabulary (blank is 0), D model.
BERT tells, for each label of a transcript, the K tokens most likely in its place and their probabilities. They are
tokens of the recogniser other than blank, so K is at most V - 1. An attention decoder has V + 1 outputs, of which V is
the end of sentence; its row u is for the label after u labels. Losses are sums over an utterance, computed in float32
or better. BERT's tensors are data: nothing is differentiated for them.

What becomes of the tokens that are not among the K, `rest`:
- "bucket": they count as one further token on both sides. The student's is the sum of their probabilities, blank and
  end of sentence among them; BERT's is 1 minus the sum of the K, at least REST_FLOOR.
- "renormalise": both distributions are scaled to sum to 1 over the K tokens, whatever the others have.
- "zero": BERT's is scaled to sum to 1 over the K tokens, the student's is not: Futami et al. (2020, 2022). The student
  learns that all other tokens are impossible. Only for the forward direction; the reverse would be infinite.
A temperature t acts on the tokens so formed: p becomes p^(1/t), scaled to sum to 1. The bucket is therefore filled
before it is tempered, on both sides alike, so that equal distributions stay equal whatever t is. (BERT's probabilities
in the bucket are not known one by one; to temper the student's one by one would make its bucket the larger.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_distill.losses.ctc_alignment import NO_LABEL
from asr_distill.losses.joint import BLANK

Direction = Literal["reverse", "forward"]
Rest = Literal["bucket", "renormalise", "zero"]

REST_FLOOR = 1e-6
"""BERT's smallest probability for all tokens but the K together: 1 minus a float32 sum means nothing below it."""
TOKEN_FLOOR = 1e-30
"""BERT's smallest probability for one of the K, so that one rounded to 0 makes no divergence infinite."""


def topk_divergence(
    logits: Tensor,
    ids: Tensor,
    probabilities: Tensor,
    label_lengths: Tensor,
    *,
    direction: Direction = "reverse",
    rest: Rest = "bucket",
    temperature: float = 1.0,
) -> Tensor:
    """Return the divergence between an attention decoder's and BERT's distributions, (B,), summed over the labels.

    At the end of an utterance BERT has no distribution. There the target is the end of sentence alone, and its
    cross-entropy at temperature 1 is added in both directions: the reverse divergence from a certainty is infinite.

    Args:
        logits: (B, U + 1, V + 1).
        ids: (B, U, K), distinct at a label; what stands after an utterance's labels changes nothing, as below.
        probabilities: (B, U, K) at temperature 1, summing to 1 or less.
        label_lengths: (B,), on any device.
        direction: "reverse" is KL(student || BERT), as Hentschel et al. 2024 print it; "forward" KL(BERT || student).
        rest: what becomes of the tokens that are not among the K; see above.
        temperature: of both distributions.

    Raises:
        ValueError: when shapes do not fit, or the divergence would be infinite by definition.
    """
    if logits.shape[1] != ids.shape[1] + 1:
        raise ValueError(f"logits: {tuple(logits.shape)} do not fit ids {tuple(ids.shape)}; they need one row more")
    counts = label_lengths.to(logits.device, non_blocking=True)
    valid = torch.arange(ids.shape[1], device=logits.device) < counts[:, None]
    per_label = _divergence(
        logits[:, :-1],
        ids.where(valid[:, :, None], BLANK),
        probabilities.where(valid[:, :, None], 0.0),
        direction=direction,
        rest=rest,
        temperatures=(temperature, temperature),
        vocabulary=logits.shape[2] - 1,
    )
    at_end = logits.gather(1, counts[:, None, None].expand(-1, 1, logits.shape[2]))[:, 0]
    return per_label.where(valid, 0.0).sum(dim=1) - torch.log_softmax(_precise(at_end), dim=-1)[:, -1]


def frame_topk_divergence(
    logits: Tensor,
    ids: Tensor,
    probabilities: Tensor,
    alignment: Tensor,
    *,
    direction: Direction = "forward",
    rest: Rest = "zero",
    temperature: float = 3.0,
    student_temperature: float = 1.0,
) -> Tensor:
    """Return the divergence between a CTC head's and BERT's distributions, (B,), summed over the frames of labels.

    The defaults are those of Futami et al. 2022 (K = 8): every frame at which the best alignment emits a label, not
    only the first one, learns BERT's distribution for the label, tempered, against the CTC distribution, which is not.
    They report the cross-entropy, which differs by BERT's entropy, per such frame: divide by
    `(alignment >= 0).sum(dim=1)`.

    Args:
        logits: (B, T, V) of the CTC head.
        ids: (B, U, K), distinct at a label.
        probabilities: (B, U, K) at temperature 1, summing to 1 or less.
        alignment: (B, T), which label a frame emits, or -1; from `ctc_best_alignment`.
        direction: as for `topk_divergence`.
        rest: as for `topk_divergence`.
        temperature: of BERT's distributions.
        student_temperature: of the CTC head's distributions.

    Raises:
        ValueError: when shapes do not fit, or the divergence would be infinite by definition.
    """
    if logits.shape[:2] != alignment.shape:
        raise ValueError(f"alignment: {tuple(alignment.shape)} does not fit logits {tuple(logits.shape)}")
    valid = alignment != NO_LABEL
    rows = (alignment % (ids.shape[1] + 1))[:, :, None].expand(-1, -1, ids.shape[2])  # no label: an empty last row
    per_frame = _divergence(
        logits,
        F.pad(ids, (0, 0, 0, 1), value=BLANK).gather(1, rows),
        F.pad(probabilities, (0, 0, 0, 1)).gather(1, rows),
        direction=direction,
        rest=rest,
        temperatures=(student_temperature, temperature),
        vocabulary=logits.shape[2],
    )
    return per_frame.where(valid, 0.0).sum(dim=1)


def cross_entropy(logits: Tensor, labels: Tensor, label_lengths: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Return -log P(labels, end of sentence) of an attention decoder, (B,), from logits (B, U + 1, V + 1).

    With `smoothing`, that share of each target is spread evenly over all outputs but blank (Szegedy et al. 2016).

    Args:
        logits: (B, U + 1, V + 1).
        labels: (B, U); what stands after an utterance's labels changes nothing.
        label_lengths: (B,), on any device.
        smoothing: from 0 to 1.
    """
    counts = label_lengths.to(logits.device, non_blocking=True)[:, None]
    positions = torch.arange(logits.shape[1], device=logits.device)
    targets = F.pad(labels, (0, 1)).where(positions < counts, logits.shape[2] - 1)
    log_probs = torch.log_softmax(_precise(logits), dim=-1)
    per_row = -log_probs.gather(2, targets[:, :, None])[:, :, 0]
    if smoothing:
        per_row = (1 - smoothing) * per_row - smoothing * log_probs[:, :, BLANK + 1 :].mean(dim=2)
    return per_row.where(positions <= counts, 0.0).sum(dim=1)


def hidden_regression(
    predicted: Tensor, target: Tensor, label_lengths: Tensor, *, distance: Literal["l2", "cosine"] = "l2"
) -> Tensor:
    """Return the distance between predicted and BERT's hidden states, (B,), summed over the labels.

    Args:
        predicted: (B, U + 1, D'), where row u belongs to the label after u labels; the last one, for the end of
            sentence, has no counterpart and does not count.
        target: (B, U, D').
        label_lengths: (B,), on any device.
        distance: "l2" is the squared difference, averaged over the D' dimensions; "cosine" 1 minus the cosine.
    """
    predicted, target = _precise(predicted[:, :-1]), _precise(target)
    counts = label_lengths.to(predicted.device, non_blocking=True)
    valid = torch.arange(target.shape[1], device=predicted.device) < counts[:, None]
    target = target.where(valid[:, :, None], 0.0)
    if distance == "l2":
        per_label = (predicted - target).square().mean(dim=2)
    else:
        per_label = 1 - F.cosine_similarity(predicted, target, dim=2)
    return per_label.where(valid, 0.0).sum(dim=1)


def distillation_layers(layers: int, intermediate: int) -> list[int]:
    """Return which of an encoder's layers, counted from 1, are the intermediate ones: floor(m N / (M + 1)), m = 1..M.

    Raises:
        ValueError: when the encoder has not that many layers below the final one.
    """
    if not 0 <= intermediate < layers:
        raise ValueError(f"intermediate layers: {intermediate}; an encoder of {layers} layers has 0 to {layers - 1}")
    return [m * layers // (intermediate + 1) for m in range(1, intermediate + 1)]


def combine_layers(final: Tensor, intermediate: Sequence[Tensor], *, weight: float) -> Tensor:
    """Return (1 - weight) x the final layer's loss + weight x the mean of the intermediate layers' losses.

    Without intermediate layers it is the final layer's loss. For the divergence from BERT the weight is beta of
    Hentschel et al. 2024 (0.5), for the CTC loss that of intermediate CTC (0.3 in Lee & Watanabe 2021).
    """
    if not intermediate:
        return final
    return (1 - weight) * final + weight * torch.stack(list(intermediate)).mean(dim=0)


def _divergence(
    logits: Tensor,
    ids: Tensor,
    probabilities: Tensor,
    *,
    direction: Direction,
    rest: Rest,
    temperatures: tuple[float, float],
    vocabulary: int,
) -> Tensor:
    """Return the divergence at each place, (B, S), from logits (B, S, outputs) and BERT's top K, each (B, S, K).

    The temperatures are the student's and BERT's.
    """
    if ids.shape != probabilities.shape or ids.shape[:2] != logits.shape[:2] or not 1 <= ids.shape[2] < vocabulary:
        raise ValueError(
            f"ids {tuple(ids.shape)} and probabilities {tuple(probabilities.shape)} must be of one shape, fit logits "
            f"{tuple(logits.shape)} and name 1 to {vocabulary - 1} tokens"
        )
    if rest == "zero" and direction == "reverse":
        raise ValueError("rest: where BERT's rest is zero, the reverse divergence is infinite; use the forward one")
    student = _student_log_probs(_precise(logits), ids.long(), rest=rest, temperature=temperatures[0])
    bert = _bert_log_probs(_precise(probabilities), rest=rest, temperature=temperatures[1])
    above, below = (student, bert) if direction == "reverse" else (bert, student)
    return (above.exp() * (above - below)).sum(dim=2)


def _student_log_probs(logits: Tensor, ids: Tensor, *, rest: Rest, temperature: float) -> Tensor:
    """Return log-probabilities of the K tokens, and of the bucket with "bucket", (B, S, K or K + 1).

    The bucket's logit is a log-sum-exp over its own tokens, not a difference: it keeps its precision where it is small.
    """
    scores = logits.gather(2, ids)
    if rest != "renormalise":
        others = logits.scatter(2, ids, -torch.inf).logsumexp(dim=2, keepdim=True)
        scores = torch.cat([scores, others], dim=2)
    log_probs = torch.log_softmax(scores / temperature, dim=2)
    return log_probs[:, :, :-1] if rest == "zero" else log_probs


@torch.no_grad()
def _bert_log_probs(probabilities: Tensor, *, rest: Rest, temperature: float) -> Tensor:
    """Return log-probabilities of the same tokens as `_student_log_probs`, (B, S, K or K + 1)."""
    classes = probabilities.clamp_min(TOKEN_FLOOR)
    if rest == "bucket":
        remaining = (1 - probabilities.sum(dim=2, keepdim=True)).clamp_min(REST_FLOOR)
        classes = torch.cat([classes, remaining], dim=2)
    return torch.log_softmax(classes.log() / temperature, dim=2)


def _precise(x: Tensor) -> Tensor:
    """Return x in float32, or in float64 where it is that."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
