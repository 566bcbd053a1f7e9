"""Conformer encoder, bi-directional or streaming (Gulati et al. 2020, sizes and contexts as in Hwang et al. 2022).

Layout legend: B batch, T feature frames, N encoder frames (T / stack), F mel bins, D model, A heads.
Choices of ours: rotary instead of Transformer-XL positions, and layer instead of batch normalisation in the
convolution module, so that padding and the composition of a batch change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_distill.experiment import EncoderSize
from asr_distill.models.dropout import Dropout

ROTARY_BASE = 10_000.0  # Su et al. 2021, sec. 3.4.3


@dataclass
class LayerCache:
    """What a streaming layer remembers: keys and values (B, A, C, D / A), convolution inputs (B, kernel - 1, D)."""

    keys: Tensor
    values: Tensor
    convolution: Tensor


@dataclass
class StreamingState:
    """What a streaming encoder remembers between two chunks."""

    layers: list[LayerCache]
    position: int = 0
    """Encoder frames already seen."""


class Conformer(nn.Module):
    """Encoder from log-mel features (B, T, F), already normalised, to states (B, N, D)."""

    def __init__(self, size: EncoderSize, *, mel_bins: int):
        super().__init__()
        self.size = size
        self.input = nn.Linear(mel_bins * size.stack, size.dim)
        self.dropout = Dropout(size.dropout)
        self.layers = nn.ModuleList(ConformerLayer(size) for _ in range(size.layers))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode whole utterances.

        Args:
            features: (B, T, F).
            lengths: (B,) feature frames, on any device.

        Returns:
            states (B, N, D) and their lengths (B,), ceil(lengths / stack).
        """
        states, lengths = self.states_after([len(self.layers)], features, lengths)
        return states[len(self.layers)], lengths

    def states_after(
        self, layers: Collection[int], features: Tensor, lengths: Tensor
    ) -> tuple[dict[int, Tensor], Tensor]:
        """Encode whole utterances as `forward` does, up to the last of some layers, counted from 1.

        Returns:
            the states (B, N, D) after each of `layers`, and their lengths (B,).

        Raises:
            ValueError: when there is no such layer.
        """
        if not layers or not all(1 <= layer <= len(self.layers) for layer in layers):
            raise ValueError(f"layers: {list(layers)}; name some of the layers 1 to {len(self.layers)}")
        lengths = encoder_lengths(lengths, stack=self.size.stack)
        x = self.dropout(self.input(stack_frames(features, stack=self.size.stack)))
        positions = torch.arange(x.shape[1], device=x.device)
        padding = positions >= lengths.to(x.device, non_blocking=True)[:, None]  # (B, N)
        mask = self._window(positions, positions) & ~padding[:, None, None, :]
        mask = mask | torch.eye(x.shape[1], dtype=torch.bool, device=x.device)  # a padded frame may look at itself
        rotation = rotary_table(positions, dim=self.size.dim // self.size.heads)
        keep = (~padding)[:, :, None].to(x.dtype)
        states = {}
        for number, layer in enumerate(islice(self.layers, max(layers)), start=1):
            x = layer(x, mask=mask, rotation=rotation, keep=keep)
            if number in layers:
                states[number] = x
        return states, lengths

    def initial_state(self, *, batch: int = 1) -> StreamingState:
        """Return the state before the first chunk of `batch` parallel streams."""
        if not self.size.streaming:
            raise ValueError("encoder: only a streaming encoder decodes chunk by chunk; set encoder.streaming: true")
        size, like = self.size, self.input.weight
        heads = like.new_zeros(batch, size.heads, 0, size.dim // size.heads)
        history = like.new_zeros(batch, size.kernel - 1, size.dim)
        return StreamingState([LayerCache(heads, heads, history) for _ in self.layers])

    def stream(self, features: Tensor, state: StreamingState) -> Tensor:
        """Encode the next chunk (B, T, F), T a multiple of `stack` but for the last one; updates `state`."""
        x = self.input(stack_frames(features, stack=self.size.stack))
        first = state.position
        queries = torch.arange(first, first + x.shape[1], device=x.device)
        cached = state.layers[0].keys.shape[2]
        keys = torch.arange(first - cached, first + x.shape[1], device=x.device)
        mask = self._window(queries, keys)
        rotation = rotary_table(queries, dim=self.size.dim // self.size.heads)
        for layer, cache in zip(self.layers, state.layers, strict=True):
            x = layer(x, mask=mask, rotation=rotation, cache=cache)
        for cache in state.layers:
            cache.keys = cache.keys[:, :, -self.size.left_context :]
            cache.values = cache.values[:, :, -self.size.left_context :]
        state.position += x.shape[1]
        return x

    def _window(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return which key each query sees, (queries, keys), by left and right context."""
        distance = keys[None, :] - queries[:, None]
        return (distance >= -self.size.left_context) & (distance <= self.size.right_context)


class ConformerLayer(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, each pre-normalised and residual."""

    def __init__(self, size: EncoderSize):
        super().__init__()
        self.feed_forward_in = FeedForward(size)
        self.attention = Attention(size)
        self.convolution = Convolution(size)
        self.feed_forward_out = FeedForward(size)
        self.norm = nn.LayerNorm(size.dim)
        self.dropout = Dropout(size.dropout)

    def forward(
        self, x: Tensor, *, mask: Tensor, rotation: Tensor, keep: Tensor | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        """Map (B, N, D) to (B, N, D); `keep` is 0 on padding, `cache` is read and updated when streaming."""
        x = x + 0.5 * self.dropout(self.feed_forward_in(x))
        x = x + self.dropout(self.attention(x, mask=mask, rotation=rotation, cache=cache))
        x = x + self.dropout(self.convolution(x, keep=keep, cache=cache))
        x = x + 0.5 * self.dropout(self.feed_forward_out(x))
        return self.norm(x)


class FeedForward(nn.Module):
    """LayerNorm, expand, activation, contract."""

    def __init__(self, size: EncoderSize):
        super().__init__()
        self.norm = nn.LayerNorm(size.dim)
        self.expand = nn.Linear(size.dim, size.feed_forward)
        self.contract = nn.Linear(size.feed_forward, size.dim)
        self.dropout = Dropout(size.dropout)
        self.activation = ACTIVATIONS[size.activation]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        return self.contract(self.dropout(self.activation(self.expand(self.norm(x)))))


class Attention(nn.Module):
    """Multi-head self-attention within a window, with rotary positions."""

    def __init__(self, size: EncoderSize):
        super().__init__()
        self.heads = size.heads
        self.norm = nn.LayerNorm(size.dim)
        self.query_key_value = nn.Linear(size.dim, 3 * size.dim)
        self.output = nn.Linear(size.dim, size.dim)

    def forward(self, x: Tensor, *, mask: Tensor, rotation: Tensor, cache: LayerCache | None) -> Tensor:
        """Attend; mask True = may look, broadcast to (B, A, queries, keys)."""
        batch, frames, dim = x.shape
        projected = self.query_key_value(self.norm(x)).view(batch, frames, 3, self.heads, dim // self.heads)
        query, key = rotate(projected[:, :, :2], rotation).permute(2, 0, 3, 1, 4)
        value = projected[:, :, 2].transpose(1, 2)
        if cache is not None:
            key = cache.keys = torch.cat([cache.keys, key], dim=2)
            value = cache.values = torch.cat([cache.values, value], dim=2)
        mixed = attend(query, key, value, mask=mask)
        return self.output(mixed.transpose(1, 2).reshape(batch, frames, dim))


class Convolution(nn.Module):
    """Gated pointwise, depthwise (causal when streaming), normalisation, Swish, pointwise."""

    def __init__(self, size: EncoderSize):
        super().__init__()
        self.kernel = size.kernel
        self.causal = size.streaming
        self.norm = nn.LayerNorm(size.dim)
        self.gate = nn.Linear(size.dim, 2 * size.dim)
        self.depthwise = nn.Conv1d(size.dim, size.dim, size.kernel, groups=size.dim)
        self.depthwise_norm = nn.LayerNorm(size.dim)
        self.output = nn.Linear(size.dim, size.dim)

    def forward(self, x: Tensor, *, keep: Tensor | None, cache: LayerCache | None) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        x = F.glu(self.gate(self.norm(x)), dim=-1)
        if keep is not None:
            x = x * keep
        if cache is not None:
            x = torch.cat([cache.convolution, x], dim=1)
            cache.convolution = x[:, x.shape[1] - (self.kernel - 1) :]
        else:
            left = self.kernel - 1 if self.causal else self.kernel // 2
            x = F.pad(x, (0, 0, left, self.kernel - 1 - left))
        x = self._depthwise(x)
        return self.output(F.silu(self.depthwise_norm(x)))

    def _depthwise(self, x: Tensor) -> Tensor:
        """Convolve (B, N + kernel - 1, D) along time to (B, N, D)."""
        return self.depthwise(x.transpose(1, 2)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor) -> Tensor:
    """Return scaled dot-product attention, (B, A, queries, dim); mask True = may look.

    Spelled out on a CPU, where PyTorch's fused form is slower at our sizes, with bfloat16 products ten times slower.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
    bias = torch.zeros(mask.shape, dtype=scores.dtype).masked_fill_(~mask, -torch.inf)
    return torch.matmul(torch.softmax(scores + bias, dim=-1), value)


class _SquaredReLU(torch.autograd.Function):
    """With a gradient of one product, where PyTorch's for the square and the rectifier takes three slower passes."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive.square()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (gradient * positive).mul_(2)


def squared_relu(x: Tensor) -> Tensor:
    """Squared ReLU (So et al. 2021), used by Hwang et al. 2022, Table 3."""
    return _SquaredReLU.apply(x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"squared_relu": squared_relu, "swish": F.silu}


def normalise(features: Tensor, lengths: Tensor, *, mean: Tensor, deviation: Tensor) -> Tensor:
    """Return log-mels (B, T, F) with `mean` (F,) taken away, over `deviation` (F,); 0 behind the lengths (B,)."""
    lengths = lengths.to(features.device, non_blocking=True)
    valid = torch.arange(features.shape[1], device=features.device) < lengths[:, None]
    return (features - mean) / deviation * valid[:, :, None]


def encoder_lengths(lengths: Tensor, *, stack: int) -> Tensor:
    """Return the number of encoder frames for a number of feature frames."""
    return (lengths + stack - 1) // stack


def stack_frames(features: Tensor, *, stack: int) -> Tensor:
    """Join `stack` successive frames: (B, T, F) to (B, ceil(T / stack), stack * F), zeros after the end."""
    batch, frames, bins = features.shape
    features = F.pad(features, (0, 0, 0, -frames % stack))
    return features.reshape(batch, -1, stack * bins)


def rotary_table(positions: Tensor, *, dim: int) -> Tensor:
    """Return cosines and sines, (2, N, dim), of the rotation at each position (Su et al. 2021, eq. 34).

    Sines of the first half, which the second is taken from, are negative.
    """
    inverse = ROTARY_BASE ** (-torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32) / dim)
    angles = positions.float()[:, None] * inverse
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)])


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate (B, N, ..., dim) by its positions."""
    frames, dim = x.shape[1], x.shape[-1]
    cos, sin = rotation.to(x.dtype).view(2, frames, *[1] * (x.dim() - 3), dim)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([second, first], dim=-1) * sin
