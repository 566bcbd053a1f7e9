"""Greedy transducer search over a batch: at every node the most likely token.

Layout legend: B batch, N encoder frames, H joint, P predictor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asr_distill.decoding.hypothesis import Hypothesis
from asr_distill.models.transducer import BLANK, LSTMState, Transducer


@dataclass
class GreedyState:
    """Where the search stands in B parallel utterances; goes on where the last call stopped."""

    projected: Tensor
    """(B, H): predictor output after the tokens so far, projected for the joint network."""
    lstm: LSTMState
    tokens: list[list[int]]
    scores: Tensor
    """(B,) in float64."""
    frames: list[list[int]]
    """Encoder frame at which each token was emitted, counted from the first one of all calls."""
    searched: Tensor
    """(B,) encoder frames of all calls so far."""

    def hypotheses(self) -> list[Hypothesis]:
        """Return the transcripts of all frames searched so far."""
        found = zip(self.tokens, self.scores.tolist(), self.frames, strict=True)
        return [Hypothesis(tuple(tokens), score, tuple(frames)) for tokens, score, frames in found]


def greedy_search(model: Transducer, states: Tensor, lengths: Tensor, *, max_symbols: int) -> list[Hypothesis]:
    """Transcribe encoder states (B, N, D) with lengths (B,), emitting at most `max_symbols` tokens in one frame."""
    state = initial_state(model, batch=states.shape[0])
    advance(model, states, lengths, state, max_symbols=max_symbols)
    return state.hypotheses()


def initial_state(model: Transducer, *, batch: int) -> GreedyState:
    """Return the state before the first frame."""
    output, lstm = model.predictor.initial_state(batch=batch)
    scores = torch.zeros(batch, dtype=torch.float64, device=output.device)
    tokens, frames = ([[] for _ in range(batch)] for _ in range(2))
    searched = torch.zeros(batch, dtype=torch.long, device=output.device)
    return GreedyState(model.joint.predictor(output), lstm, tokens, scores, frames, searched)


@torch.inference_mode()
def advance(model: Transducer, states: Tensor, lengths: Tensor, state: GreedyState, *, max_symbols: int) -> None:
    """Search through more frames (B, N, D), updating `state`.

    Every utterance has its own position, so the loop runs as often as the longest utterance has frames plus tokens.
    """
    encoder = model.joint.encoder(states)
    batch = torch.arange(states.shape[0], device=states.device)
    frame = torch.zeros_like(lengths)
    emitted = torch.zeros_like(lengths)
    while bool((frame < lengths).any()):
        active = frame < lengths
        at = encoder[batch, frame.clamp_max(states.shape[1] - 1)]
        log_probs = torch.log_softmax(model.joint(at, state.projected).float(), dim=-1)
        best, token = log_probs.max(dim=-1)
        blank = log_probs[:, BLANK]
        full = emitted >= max_symbols
        emits = active & (token != BLANK) & ~full
        state.scores += torch.where(active, torch.where(full, blank, best), 0.0).double()
        if bool(emits.any()):
            _emit(model, state, token, emits, frame=state.searched + frame)
        moves = active & ~emits
        frame = frame + moves.long()
        emitted = torch.where(moves, 0, emitted + emits.long())
    state.searched = state.searched + lengths


def _emit(model: Transducer, state: GreedyState, token: Tensor, emits: Tensor, *, frame: Tensor) -> None:
    """Append the token where `emits` says so and advance the predictor there."""
    rows = emits.nonzero()[:, 0]
    output, (hidden, cell) = model.predictor.step(token[rows], tuple(s[:, rows].contiguous() for s in state.lstm))
    state.projected[rows] = model.joint.predictor(output)
    state.lstm[0][:, rows], state.lstm[1][:, rows] = hidden, cell
    for row, label, at in torch.stack([rows, token[rows], frame[rows]], dim=1).tolist():
        state.tokens[row].append(label)
        state.frames[row].append(at)
