"""Greedy search with an attention decoder, token by token, all utterances of a batch at once.

Layout legend: B batch, N encoder frames, V vocabulary (blank is 0).
"""

from __future__ import annotations

import torch
from torch import Tensor

from asr_distill.decoding.hypothesis import Hypothesis
from asr_distill.models.attention_decoder import BLANK, AttentionDecoder


@torch.inference_mode()
def attention_search(
    decoder: AttentionDecoder, states: Tensor, lengths: Tensor, *, max_tokens: int
) -> list[Hypothesis]:
    """Transcribe encoder states (B, N, encoder_dim) with lengths (B,), at every step the most likely token.

    An utterance ends with the end of sentence, whose probability counts in its score, or after `max_tokens` tokens;
    the loop runs until all have ended.
    """
    memory = decoder.initial_memory(states, lengths)
    batch, device = states.shape[0], states.device
    token = torch.full((batch,), decoder.start, device=device)
    ended = torch.zeros(batch, dtype=torch.bool, device=device)
    scores = torch.zeros(batch, dtype=torch.float64, device=device)
    chosen: list[Tensor] = []
    for _ in range(max_tokens):
        log_probs = torch.log_softmax(decoder.step(token, memory).float(), dim=-1)
        best, token = log_probs[:, BLANK + 1 :].max(dim=-1)
        token = torch.where(ended, decoder.end, token + BLANK + 1)
        scores += torch.where(ended, 0.0, best).double()
        chosen.append(token)
        ended = token == decoder.end
        if bool(ended.all()):
            break
    rows = torch.stack(chosen, dim=1).tolist() if chosen else [[]] * batch
    tokens = [tuple(token for token in row if token != decoder.end) for row in rows]
    return [Hypothesis(t, s) for t, s in zip(tokens, scores.tolist(), strict=True)]
