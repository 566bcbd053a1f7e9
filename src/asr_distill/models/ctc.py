"""CTC recogniser: Conformer encoder and a CTC head; for training, an attention decoder that reads the same encoder.

Layout legend: B batch, T feature frames, F mel bins, N encoder frames, V vocabulary (blank is 0), D model.
The one CTC head serves the final and the intermediate layers (Lee & Watanabe 2021), and so does the one attention
decoder (Hentschel et al. 2024).
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from asr_distill.experiment import CTCSize
from asr_distill.models.attention_decoder import AttentionDecoder
from asr_distill.models.conformer import Conformer, normalise

TRAINING_ONLY = ("decoder.", "hidden_projection.")
"""Beginnings of the names of parameters that the exported recogniser does without."""


class CTCModel(nn.Module):
    """Connectionist temporal classification (Graves et al. 2006) on a Conformer."""

    def __init__(self, size: CTCSize, *, vocabulary: int, mel_bins: int, hidden_dim: int | None = None):
        """Build the recogniser, with an attention decoder where `size` has one.

        With `hidden_dim`, `hidden_projection` maps the decoder's hidden states to that many numbers, to be compared
        with the hidden states of a language model.
        """
        super().__init__()
        if hidden_dim is not None and size.decoder is None:
            raise ValueError("hidden_dim: hidden states are an attention decoder's; give the model a decoder")
        self.size, self.vocabulary, self.mel_bins = size, vocabulary, mel_bins
        self.register_buffer("feature_mean", torch.zeros(mel_bins))
        self.register_buffer("feature_deviation", torch.ones(mel_bins))
        self.encoder = Conformer(size.encoder, mel_bins=mel_bins)
        self.ctc_head = nn.Linear(size.encoder.dim, vocabulary)
        self.decoder: AttentionDecoder | None = None
        self.hidden_projection: nn.Linear | None = None
        if size.decoder is not None:
            self.decoder = AttentionDecoder(size.decoder, vocabulary=vocabulary, encoder_dim=size.encoder.dim)
            if hidden_dim is not None:
                self.hidden_projection = nn.Linear(size.decoder.dim, hidden_dim)

    def normalise(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Bring log-mels (B, T, F) to mean 0 and deviation 1 over the labelled training speech; padding becomes 0."""
        return normalise(features, lengths, mean=self.feature_mean, deviation=self.feature_deviation)

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return states (B, N, D) of normalised features (B, T, F), and their lengths (B,)."""
        return self.encoder(features, lengths)

    def encode_layers(
        self, features: Tensor, lengths: Tensor, *, layers: Collection[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor], Tensor]:
        """Return final states (B, N, D), those after each of `layers` (counted from 1), and the lengths (B,) of all."""
        last = self.size.encoder.layers
        states, lengths = self.encoder.states_after({last, *layers}, features, lengths)
        return states[last], {layer: states[layer] for layer in layers}, lengths

    def num_parameters(self) -> int:
        """Return the number of parameters that decoding needs: those of the encoder and the CTC head."""
        return sum(p.numel() for name, p in self.named_parameters() if not name.startswith(TRAINING_ONLY))

    def exported_state(self) -> dict[str, Tensor]:
        """Return parameters and buffers of the recogniser alone: no decoder, no projection of its hidden states."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(TRAINING_ONLY)}
