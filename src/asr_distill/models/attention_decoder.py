"""Transformer attention decoder over encoder states: the way by which a language model teaches the encoder.

Layout legend: B batch, N encoder frames, U labels, S input positions (U + 1, or 1 in a search), V vocabulary (blank is
0), D model (the decoder's), A heads.
As Vaswani et al. 2017, pre-normalised. Choices of ours: sinusoidal positions (an utterance may be longer than any in
training), and input and output embeddings that are not tied. Index V is the start symbol at the input and the end of
sentence at the output. No target is ever blank, index 0, and a search does not choose it. Nothing in the decoder
belongs to one encoder layer: all layers that it reads share its parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asr_distill.experiment import DecoderSize
from asr_distill.models.conformer import attend
from asr_distill.models.dropout import Dropout

BLANK = 0
POSITION_BASE = 10_000.0  # Vaswani et al. 2017, sec. 3.5

KeysAndValues = tuple[Tensor, Tensor]
"""Each (B, A, positions, D / A)."""


@dataclass
class Memory:
    """What the decoder looks at besides its inputs."""

    speech: list[KeysAndValues]
    """Keys and values of the encoder states, for each layer."""
    mask: Tensor
    """(B, 1, 1, N), True where there is speech."""
    past: list[KeysAndValues | None]
    """Keys and values of the inputs so far, for each layer; None before the first one."""
    position: int = 0
    """Inputs so far."""


class AttentionDecoder(nn.Module):
    """Predicts each label, and the end of sentence, from the labels before it and from encoder states."""

    def __init__(self, size: DecoderSize, *, vocabulary: int, encoder_dim: int):
        super().__init__()
        self.size, self.vocabulary, self.encoder_dim = size, vocabulary, encoder_dim
        self.start = self.end = vocabulary
        self.embedding = nn.Embedding(vocabulary + 1, size.dim)
        self.states = nn.Linear(encoder_dim, size.dim) if encoder_dim != size.dim else nn.Identity()
        self.dropout = Dropout(size.dropout)
        self.layers = nn.ModuleList(DecoderLayer(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.dim)
        self.output = nn.Linear(size.dim, vocabulary + 1)

    def forward(self, states: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor) -> Tensor:
        """Return logits (B, U + 1, V + 1): row u is for the label after u labels, or for the end of sentence.

        The arguments are those of `hidden`.
        """
        return self.output(self.hidden(states, lengths, labels, label_lengths))

    def hidden(self, states: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor) -> Tensor:
        """Return the last hidden states (B, U + 1, D), from which `output` makes logits, for given transcripts.

        Args:
            states: (B, N, encoder_dim).
            lengths: (B,) encoder frames, at least 1, on any device.
            labels: (B, U); what stands after an utterance's labels changes nothing.
            label_lengths: (B,) labels, on any device.
        """
        positions = torch.arange(labels.shape[1], device=labels.device)
        used = positions < label_lengths.to(labels.device, non_blocking=True)[:, None]
        inputs = nn.functional.pad(labels.where(used, BLANK), (1, 0), value=self.start)
        return self._read(inputs, self.initial_memory(states, lengths))

    def initial_memory(self, states: Tensor, lengths: Tensor) -> Memory:
        """Return what `step` starts from: encoder states (B, N, encoder_dim) with lengths (B,), and no input so far."""
        frames = torch.arange(states.shape[1], device=states.device)
        mask = (frames < lengths.to(states.device, non_blocking=True)[:, None])[:, None, None, :]
        states = self.states(states)
        speech = [layer.cross_attention.keys_and_values(states) for layer in self.layers]
        return Memory(speech, mask, [None] * len(self.layers))

    def step(self, inputs: Tensor, memory: Memory) -> Tensor:
        """Return logits (B, V + 1) after one more input (B,), at first the start symbol; updates `memory`."""
        return self.output(self._read(inputs[:, None], memory)[:, 0])

    def _read(self, inputs: Tensor, memory: Memory) -> Tensor:
        """Return hidden states (B, S, D) for inputs (B, S) that follow those in `memory`, which is updated."""
        before, after = memory.position, memory.position + inputs.shape[1]
        positions = torch.arange(before, after, device=inputs.device)
        x = self.embedding(inputs)
        x = self.dropout(x + sinusoids(positions, dim=self.size.dim).to(x.dtype))
        mask = torch.arange(after, device=inputs.device) <= positions[:, None]  # (S, inputs so far)
        for index, layer in enumerate(self.layers):
            x, memory.past[index] = layer(
                x, mask=mask, past=memory.past[index], speech=memory.speech[index], speech_mask=memory.mask
            )
        memory.position = after
        return self.norm(x)


class DecoderLayer(nn.Module):
    """Self-attention, attention to the encoder states, feed-forward, each pre-normalised and residual."""

    def __init__(self, size: DecoderSize):
        super().__init__()
        self.self_norm = nn.LayerNorm(size.dim)
        self.self_attention = MultiHeadAttention(size)
        self.cross_norm = nn.LayerNorm(size.dim)
        self.cross_attention = MultiHeadAttention(size)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(size.dim),
            nn.Linear(size.dim, size.feed_forward),
            nn.ReLU(),
            Dropout(size.dropout),
            nn.Linear(size.feed_forward, size.dim),
        )
        self.dropout = Dropout(size.dropout)

    def forward(
        self, x: Tensor, *, mask: Tensor, past: KeysAndValues | None, speech: KeysAndValues, speech_mask: Tensor
    ) -> tuple[Tensor, KeysAndValues]:
        """Map (B, S, D) to (B, S, D), and return the keys and values of all inputs so far; mask True = may look."""
        normed = self.self_norm(x)
        inputs = self.self_attention.keys_and_values(normed)
        if past is not None:
            inputs = (torch.cat([past[0], inputs[0]], dim=2), torch.cat([past[1], inputs[1]], dim=2))
        x = x + self.dropout(self.self_attention(normed, inputs, mask=mask))
        x = x + self.dropout(self.cross_attention(self.cross_norm(x), speech, mask=speech_mask))
        return x + self.dropout(self.feed_forward(x)), inputs


class MultiHeadAttention(nn.Module):
    """Multi-head attention whose keys and values are computed apart from its queries, so that they can be kept."""

    def __init__(self, size: DecoderSize):
        super().__init__()
        self.heads = size.heads
        self.query = nn.Linear(size.dim, size.dim)
        self.key_value = nn.Linear(size.dim, 2 * size.dim)
        self.output = nn.Linear(size.dim, size.dim)

    def keys_and_values(self, x: Tensor) -> KeysAndValues:
        """Return keys and values, each (B, A, positions, D / A), of (B, positions, D)."""
        batch, positions, dim = x.shape
        key, value = self.key_value(x).view(batch, positions, 2, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        return key, value

    def forward(self, x: Tensor, keys_and_values: KeysAndValues, *, mask: Tensor) -> Tensor:
        """Attend from (B, S, D); mask True = may look, broadcast to (B, A, S, positions)."""
        batch, queries, dim = x.shape
        query = self.query(x).view(batch, queries, self.heads, dim // self.heads).transpose(1, 2)
        mixed = attend(query, *keys_and_values, mask=mask)
        return self.output(mixed.transpose(1, 2).reshape(batch, queries, dim))


def sinusoids(positions: Tensor, *, dim: int) -> Tensor:
    """Return sines, then cosines, of each position, (S, dim), in float32 (Vaswani et al. 2017, sec. 3.5)."""
    inverse = POSITION_BASE ** (-torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32) / dim)
    angles = positions.float()[:, None] * inverse
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
