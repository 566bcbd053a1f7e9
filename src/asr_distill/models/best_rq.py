"""BEST-RQ: self-supervised pre-training of the encoder on the codes of hidden speech (Chiu et al. 2022).

Layout legend: B batch, T feature frames, F mel bins, N encoder frames, M encoder frames that are asked about,
D model, K codebooks, C codes of a codebook, H numbers of a code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_distill.experiment import EncoderSize, SpanMasking
from asr_distill.models.conformer import Conformer, encoder_lengths, normalise, stack_frames

EXPORTED = ("encoder.", "feature_mean", "feature_deviation")
"""Beginnings of the names of what initialises a recogniser."""


class RandomProjectionQuantizer(nn.Module):
    """Tells of a vector the nearest code of a random codebook, after a random projection; nothing of it is trained.

    arg min_i || c_i / |c_i| - A x / |A x| || (Chiu et al. 2022). Several codebooks with a projection each give several
    labels (Zhang et al. 2023, Google USM: 16). All are buffers, so that a resumed training has the same targets.
    """

    def __init__(self, dim: int, *, seed: int, codebooks: int = 1, codes: int = 8192, code_dim: int = 16):
        """Draw projections and codebooks from `seed` alone; 8192 codes of 16 numbers as in Chiu et al. 2022."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        bound = (6 / (dim + code_dim)) ** 0.5  # Glorot & Bengio 2010, eq. 16, "Xavier"
        projection = bound * (2 * torch.rand(codebooks, dim, code_dim, generator=generator) - 1)
        codebook = torch.randn(codebooks, codes, code_dim, generator=generator)
        self.register_buffer("projection", projection)
        self.register_buffer("codebook", F.normalize(codebook, dim=-1))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the codes (M, K) of vectors (M, dim).

        In float64, so that neither mixed precision nor faster products of float32 change a target.
        """
        x = x.double()
        books = zip(self.projection.double(), self.codebook.double(), strict=True)
        # The nearest of the codes, all of length 1, is that of the largest product, however long A x is.
        return torch.stack([(x @ matrix @ codes.T).argmax(dim=-1) for matrix, codes in books], dim=-1)


class BestRQ(nn.Module):
    """Conformer that tells the codes of hidden frames from what is around them."""

    def __init__(
        self,
        size: EncoderSize,
        *,
        mel_bins: int,
        quantizer_seed: int,
        codebooks: int = 1,
        codes: int = 8192,
        code_dim: int = 16,
    ):
        super().__init__()
        self.size, self.mel_bins = size, mel_bins
        self.register_buffer("feature_mean", torch.zeros(mel_bins))
        self.register_buffer("feature_deviation", torch.ones(mel_bins))
        self.encoder = Conformer(size, mel_bins=mel_bins)
        self.quantizer = RandomProjectionQuantizer(
            mel_bins * size.stack, seed=quantizer_seed, codebooks=codebooks, codes=codes, code_dim=code_dim
        )
        self.head = nn.Linear(size.dim, codebooks * codes)

    def normalise(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Bring log-mels (B, T, F) to mean 0 and deviation 1 over the training speech; padding becomes 0.

        Without it the projections of all speech would lie near few codes (Chiu et al. 2022).
        """
        return normalise(features, lengths, mean=self.feature_mean, deviation=self.feature_deviation)

    def targets(self, features: Tensor, asked: Tensor) -> Tensor:
        """Return the codes (M, K) of the encoder frames `asked`, (B, N) booleans, of normalised features (B, T, F)."""
        return self.quantizer(stack_frames(features, stack=self.size.stack)[asked])

    def logits(self, features: Tensor, lengths: Tensor, asked: Tensor) -> Tensor:
        """Return logits (M, K, C) at the encoder frames `asked`, (B, N) booleans; features as the encoder hears them.

        Whatever is not asked about costs no softmax.
        """
        states, _ = self.encoder(features, lengths)
        return self.head(states[asked]).unflatten(-1, self.quantizer.codebook.shape[:2])

    def num_parameters(self) -> int:
        """Return the number of parameters that outlive the pre-training: those of the encoder."""
        return sum(p.numel() for p in self.encoder.parameters())

    def exported_state(self) -> dict[str, Tensor]:
        """Return encoder and feature statistics, under the names that they have in a recogniser."""
        return {name: tensor for name, tensor in self.state_dict().items() if name.startswith(EXPORTED)}


def mask_spans(
    features: Tensor, lengths: Tensor, *, stack: int, masking: SpanMasking, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide spans of normalised features (B, T, F) behind noise; the input stays as it is, and so does the padding.

    Encoder frames are hidden as a whole, so that none shows a part of what is asked: one begins a span where one of
    its feature frames would, and spans are rounded to encoder frames. Every utterance has at least one span.

    Args:
        features: (B, T, F).
        lengths: (B,) feature frames.
        stack: feature frames of an encoder frame.
        masking: how often, how long, how loud.
        generator: where all draws come from, on its own device.

    Returns:
        the features (B, T, F), and which encoder frames are hidden, (B, N) on the generator's device.
    """
    frames, device = features.shape[1], generator.device
    lengths = lengths.to(device)
    ends = encoder_lengths(lengths, stack=stack)[:, None]
    positions = torch.arange(-(-frames // stack), device=device)
    draws = torch.rand(len(lengths), len(positions) + 1, generator=generator, device=device)
    starts = (draws[:, 1:] < 1 - (1 - masking.probability) ** stack) & (positions < ends)
    only = (draws[:, :1] * ends).long().minimum(ends - 1)
    starts |= ~starts.any(dim=1, keepdim=True) & (positions == only)
    begun = starts.cumsum(dim=1)
    over = F.pad(begun, (max(1, round(masking.span / stack)), 0))[:, : len(positions)]
    hidden = (begun > over) & (positions < ends)
    behind = hidden.repeat_interleave(stack, dim=1)[:, :frames]
    behind = behind & (torch.arange(frames, device=device) < lengths[:, None])
    noise = masking.noise * torch.randn(int(behind.sum()), features.shape[2], generator=generator, device=device)
    return features.masked_scatter(behind.to(features.device)[:, :, None], noise.to(features)), hidden
