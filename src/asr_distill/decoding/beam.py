"""Time-synchronous transducer beam search over a batch (Graves 2012, sec. 2.4, with a bound on tokens per frame).

Layout legend: B batch, K beam, N encoder frames, H joint, V vocabulary, L tokens so far.
In every frame the hypotheses of the beam may emit up to `max_symbols` tokens, the best K expansions at a time; those
that end the frame with a blank compete for the next beam. Hypotheses with the same tokens are merged by adding their
probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asr_distill.decoding.hypothesis import Hypothesis
from asr_distill.models.transducer import BLANK, LSTMState, Transducer

HASH_FACTOR = 6364136223846793005  # the multiplier of Knuth's MMIX generator; any large odd number serves


@dataclass
class Beam:
    """K hypotheses for each of B utterances."""

    scores: Tensor
    """(B, K) log-probabilities in float64; -inf marks an empty place."""
    tokens: Tensor
    """(B, K, L), padded with blanks."""
    lengths: Tensor
    """(B, K)."""
    hashes: Tensor
    """(B, K) equal for equal tokens."""
    projected: Tensor
    """(B, K, H) predictor output after the tokens, projected for the joint network."""
    lstm: tuple[Tensor, Tensor]
    """Each (B, K, layers, P)."""

    def select(self, index: Tensor, scores: Tensor) -> Beam:
        """Return the hypotheses at `index` (B, K') with new scores."""
        rows = torch.arange(index.shape[0], device=index.device)[:, None]
        fields = (self.tokens, self.lengths, self.hashes, self.projected)
        chosen = [field[rows, index] for field in fields]
        return Beam(scores, *chosen, (self.lstm[0][rows, index], self.lstm[1][rows, index]))


@torch.inference_mode()
def beam_search(
    model: Transducer, states: Tensor, lengths: Tensor, *, beam_size: int, max_symbols: int
) -> list[Hypothesis]:
    """Transcribe encoder states (B, N, D) with lengths (B,); return the best hypothesis of each utterance."""
    encoder = model.joint.encoder(states)
    beam = _initial_beam(model, batch=states.shape[0])
    for frame in range(states.shape[1]):
        after = _search_frame(model, encoder[:, frame], beam, beam_size=beam_size, max_symbols=max_symbols)
        running = (frame < lengths)[:, None]
        beam = _where(running, after, beam)
    best = beam.scores.argmax(dim=1)
    return [
        Hypothesis(tuple(beam.tokens[b, k, : int(beam.lengths[b, k])].tolist()), float(beam.scores[b, k]))
        for b, k in enumerate(best.tolist())
    ]


def _search_frame(model: Transducer, encoder: Tensor, beam: Beam, *, beam_size: int, max_symbols: int) -> Beam:
    """Return the beam after one frame, (B, H)."""
    finished: Beam | None = None
    for emitted in range(max_symbols + 1):
        logits = model.joint(encoder[:, None], beam.projected)
        log_probs = torch.log_softmax(logits.float(), dim=-1).double() + beam.scores[:, :, None]
        indices = torch.arange(beam.scores.shape[1], device=encoder.device).expand_as(beam.scores)
        ended = beam.select(indices, log_probs[:, :, BLANK])
        finished = ended if finished is None else _join(finished, ended)
        finished = _best(_merge(finished), beam_size)
        if emitted == max_symbols:
            break
        candidates = log_probs[:, :, BLANK + 1 :].flatten(1)
        scores, flat = candidates.topk(min(beam_size, candidates.shape[1]), dim=1)
        if finished.scores.shape[1] == beam_size:  # worse expansions than the worst of a full beam end here
            hopeful = scores > finished.scores.min(dim=1, keepdim=True).values
            if not bool(hopeful.any()):
                break
            scores = scores.masked_fill(~hopeful, -torch.inf)
        parents, label = flat // (model.vocabulary - 1), flat % (model.vocabulary - 1) + BLANK + 1
        beam = _extend(model, beam.select(parents, scores), label)
    return finished


def _extend(model: Transducer, beam: Beam, label: Tensor) -> Beam:
    """Append one token (B, K) to every hypothesis and advance the predictor."""
    batch, width = label.shape
    state: LSTMState = tuple(s.flatten(0, 1).transpose(0, 1).contiguous() for s in beam.lstm)
    output, new = model.predictor.step(label.flatten(), state)
    lstm = tuple(s.transpose(0, 1).unflatten(0, (batch, width)) for s in new)
    tokens = torch.nn.functional.pad(beam.tokens, (0, 1), value=BLANK)
    tokens = tokens.scatter(2, beam.lengths[:, :, None], label[:, :, None])
    projected = model.joint.predictor(output).unflatten(0, (batch, width))
    return Beam(beam.scores, tokens, beam.lengths + 1, beam.hashes * HASH_FACTOR + label, projected, lstm)


def _merge(beam: Beam) -> Beam:
    """Add the probabilities of hypotheses with equal tokens at their first place; empty the other places."""
    same = (beam.hashes[:, :, None] == beam.hashes[:, None, :]) & (beam.lengths[:, :, None] == beam.lengths[:, None, :])
    total = torch.where(same, beam.scores[:, None, :], -torch.inf).logsumexp(dim=2)
    earlier = same.tril(diagonal=-1).any(dim=2)
    beam.scores = total.masked_fill(earlier, -torch.inf)
    return beam


def _best(beam: Beam, beam_size: int) -> Beam:
    scores, index = beam.scores.topk(min(beam_size, beam.scores.shape[1]), dim=1)
    return beam.select(index, scores)


def _join(first: Beam, second: Beam) -> Beam:
    """Put two beams side by side."""
    missing = second.tokens.shape[2] - first.tokens.shape[2]
    first_tokens = torch.nn.functional.pad(first.tokens, (0, max(0, missing)), value=BLANK)
    second_tokens = torch.nn.functional.pad(second.tokens, (0, max(0, -missing)), value=BLANK)
    return Beam(
        torch.cat([first.scores, second.scores], dim=1),
        torch.cat([first_tokens, second_tokens], dim=1),
        *(torch.cat([getattr(first, f), getattr(second, f)], dim=1) for f in ("lengths", "hashes", "projected")),
        tuple(torch.cat(pair, dim=1) for pair in zip(first.lstm, second.lstm, strict=True)),
    )


def _where(condition: Tensor, new: Beam, old: Beam) -> Beam:
    """Take the new beam for the utterances (B, 1) that are still running, the old one for the others."""
    if bool(condition.all()):
        return new
    size = max(new.scores.shape[1], old.scores.shape[1])
    both = _join(_fill(new, size), _fill(old, size))
    places = torch.arange(size, device=condition.device)[None]
    index = torch.where(condition, places, places + size)
    return both.select(index, both.scores.gather(1, index))


def _fill(beam: Beam, size: int) -> Beam:
    """Widen a beam to `size` places; the new ones are empty."""
    width = beam.scores.shape[1]
    index = torch.arange(size, device=beam.scores.device).clamp_max(width - 1).expand(beam.scores.shape[0], size)
    scores = beam.scores.gather(1, index)
    scores[:, width:] = -torch.inf
    return beam.select(index, scores)


def _initial_beam(model: Transducer, *, batch: int) -> Beam:
    """Return a beam that holds the empty hypothesis."""
    output, state = model.predictor.initial_state(batch=batch)
    zeros = torch.zeros(batch, 1, dtype=torch.long, device=output.device)
    return Beam(
        zeros.double(),
        zeros[:, :, None][:, :, :0],
        zeros,
        zeros,
        model.joint.predictor(output)[:, None],
        tuple(s.transpose(0, 1)[:, None] for s in state),
    )
