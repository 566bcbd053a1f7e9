"""Search the output of a CTC head for the best tokens: greedy, and what all beam searches share.

Layout legend: B utterances, N frames, V vocabulary (blank is 0). Log-probabilities are natural.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from asr_distill.decoding.hypothesis import Hypothesis
from asr_distill.text.tokenizer import BLANK


@torch.inference_mode()
def greedy(log_probs: Tensor, lengths: Tensor) -> list[Hypothesis]:
    """Take the best token of every frame of (B, N, V) up to lengths (B,), collapse repeats and remove blanks.

    The score is the log-probability of that alignment, the likeliest one.
    """
    best, tokens = log_probs.max(dim=-1)
    valid = torch.arange(log_probs.shape[1], device=log_probs.device) < lengths.to(log_probs.device)[:, None]
    repeats = torch.zeros_like(valid)
    repeats[:, 1:] = tokens[:, 1:] == tokens[:, :-1]
    kept = valid & ~repeats & (tokens != BLANK)
    scores = best.double().masked_fill(~valid, 0).sum(dim=1).tolist()
    sequences = tokens[kept].cpu().split(kept.sum(dim=1).tolist())
    return [Hypothesis(tuple(tokens.tolist()), score) for tokens, score in zip(sequences, scores, strict=True)]


@dataclass(frozen=True)
class BeamSettings:
    """How a beam search weighs and what it leaves out.

    The score of a token sequence is
    log P_CTC(tokens) + `lm_weight` * log P_LM(tokens, sentence end) + `insertion_score` * number of tokens.
    """

    beam_size: int = 10
    beam_size_token: int | None = None
    """Only so many of a frame's likeliest tokens extend a hypothesis; None allows all."""
    beam_threshold: float = math.inf
    """Hypotheses whose score is lower than the best one's by more than this are left out."""
    lm_weight: float = 0.0
    insertion_score: float = 0.0
    log_add: bool = True
    """P_CTC sums over the alignments that the beam kept; else it is the best alignment's."""

    def __post_init__(self):
        if self.beam_size < 1:
            raise ValueError(f"beam_size: {self.beam_size} keeps no hypothesis; write 1 or more")
        if self.beam_size_token is not None and self.beam_size_token < 1:
            raise ValueError(f"beam_size_token: {self.beam_size_token} allows no token; write 1 or more, or None")
        if not self.beam_threshold > 0:
            raise ValueError(f"beam_threshold: {self.beam_threshold} keeps no hypothesis; write a positive number")
        if not (0 <= self.lm_weight < math.inf):
            raise ValueError(f"lm_weight: {self.lm_weight} is no weight; write 0 or a positive number")
        if not math.isfinite(self.insertion_score):
            raise ValueError(f"insertion_score: {self.insertion_score} is not finite; write a number")
