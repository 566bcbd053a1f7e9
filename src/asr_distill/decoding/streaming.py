"""Decoding as speech arrives: chunks of features in, the same transcript out as from the whole utterance."""

from __future__ import annotations

import torch
from torch import Tensor

from asr_distill.decoding.greedy import advance, initial_state
from asr_distill.decoding.hypothesis import Hypothesis
from asr_distill.models.transducer import Transducer


class StreamingDecoder:
    """Greedy search of one utterance by a streaming model, fed with log-mel features of any chunk size."""

    def __init__(self, model: Transducer, *, max_symbols: int):
        self.model, self.max_symbols = model, max_symbols
        self.encoder_state = model.encoder.initial_state()
        self.search_state = initial_state(model, batch=1)
        self.waiting = torch.zeros(0, model.mel_bins)
        """Feature frames that do not yet fill an encoder frame."""

    @torch.inference_mode()
    def accept(self, features: Tensor, *, last: bool = False) -> tuple[int, ...]:
        """Take the next features (T, F), not normalised; return all tokens found so far."""
        features = torch.cat([self.waiting.to(features), features])
        stack = self.model.size.encoder.stack
        usable = len(features) if last else len(features) - len(features) % stack
        now, self.waiting = features[:usable], features[usable:]
        if usable:
            normalised = self.model.normalise(now[None], torch.tensor([usable], device=now.device))
            states = self.model.encoder.stream(normalised, self.encoder_state)
            lengths = torch.tensor([states.shape[1]], device=states.device)
            advance(self.model, states, lengths, self.search_state, max_symbols=self.max_symbols)
        return tuple(self.search_state.tokens[0])

    def hypothesis(self) -> Hypothesis:
        """Return the transcript of everything heard so far."""
        (found,) = self.search_state.hypotheses()
        return found
