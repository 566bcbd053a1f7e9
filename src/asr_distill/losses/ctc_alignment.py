"""The most likely CTC alignment of a transcript, by a Viterbi search over all utterances of a batch at once.

Layout legend: B batch, T encoder frames, U labels, V vocabulary (blank is 0).
An alignment runs through the 2 U + 1 states blank, label 1, blank, label 2, ..., blank, one state per frame: it stays,
goes on to the next state, or leaves out a blank between two different labels (Graves et al. 2006, sec. 4.1).
`torchaudio.functional.forced_align` does the same for one utterance at a time and not for empty transcripts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_distill.losses.joint import BLANK, LatticeLengths

NO_LABEL = -1


@torch.no_grad()
def ctc_best_alignment(log_probs: Tensor, *, labels: Tensor, lengths: LatticeLengths) -> Tensor:
    """Return the position of the label that each frame emits in the most likely alignment, (B, T), or -1 for none.

    None is emitted by blanks, by padding, and by utterances with more labels than their frames can carry. Of equally
    likely alignments the one is taken whose last label begins first, then the label before it, and so on.

    Args:
        log_probs: (B, T, V), normalised or not: a constant per frame changes nothing.
        labels: (B, U); what stands after an utterance's labels changes nothing.
        lengths: encoder frames and labels of each utterance.
    """
    frames, counts = (x.to(log_probs.device, non_blocking=True) for x in (lengths.frames, lengths.labels))
    scores, may_skip = _states(log_probs, labels, counts)
    best, moves = _forward(scores, may_skip, frames)
    last = 2 * counts  # the final blank; the last label stands before it
    ends = torch.stack([best.gather(1, last[:, None])[:, 0], best.gather(1, (last - 1).clamp_min(0)[:, None])[:, 0]])
    state = torch.where((counts > 0) & (ends[1] >= ends[0]), last - 1, last)
    possible = ends.amax(dim=0) > -torch.inf
    alignment = torch.full(log_probs.shape[:2], NO_LABEL, device=log_probs.device)
    for t in range(log_probs.shape[1] - 1, -1, -1):
        emits = (state % 2 == 1) & (t < frames) & possible
        alignment[:, t] = torch.where(emits, state // 2, NO_LABEL)
        state = state - moves[t].gather(1, state[:, None])[:, 0].long()
    return alignment


def _states(log_probs: Tensor, labels: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the score of each state at each frame, (T, B, 2 U + 1), and whether the blank before it may be left out.

    Scores stay in float32 or better.
    """
    log_probs = log_probs.to(torch.promote_types(log_probs.dtype, torch.float32))
    used = torch.arange(labels.shape[1], device=labels.device) < counts[:, None]
    labels = labels.where(used, BLANK)
    tokens = F.pad(torch.stack([torch.full_like(labels, BLANK), labels], dim=2).flatten(1), (0, 1), value=BLANK)
    scores = log_probs.gather(2, tokens[:, None].expand(-1, log_probs.shape[1], -1)).transpose(0, 1)
    may_skip = tokens != F.pad(tokens, (2, 0), value=BLANK)[:, : tokens.shape[1]]  # never true of a blank
    return scores, may_skip


def _forward(scores: Tensor, may_skip: Tensor, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the best score of a path to each state at its utterance's last frame, (B, 2 U + 1), and all moves.

    moves[t] (B, 2 U + 1) tells by how many states the best path to a state at frame t has advanced from frame t - 1.
    """
    best = torch.full_like(scores[0], -torch.inf)
    best[:, :2] = scores[0, :, :2]
    moves = [torch.zeros_like(best, dtype=torch.int8)]
    for t in range(1, len(scores)):
        step = F.pad(best, (1, 0), value=-torch.inf)[:, :-1]
        skip = F.pad(best, (2, 0), value=-torch.inf)[:, : best.shape[1]].where(may_skip, -torch.inf)
        entered = torch.maximum(step, skip)
        move = torch.where(skip > step, 2, 1)
        move = torch.where(best >= entered, 0, move)
        inside = (t < frames)[:, None]
        best = torch.where(inside, torch.maximum(best, entered) + scores[t], best)
        moves.append(torch.where(inside, move, 0).to(torch.int8))
    return best, moves
