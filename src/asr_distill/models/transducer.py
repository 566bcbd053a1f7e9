"""RNN-T: Conformer encoder, LSTM prediction network, joint network, and an auxiliary CTC head for training.

Layout legend: B batch, T feature frames, N encoder frames, U labels, V vocabulary (blank is 0), H joint.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from asr_distill.experiment import ModelSize, PredictorSize
from asr_distill.models.conformer import Conformer, normalise
from asr_distill.models.dropout import Dropout

BLANK = 0

LSTMState = tuple[Tensor, Tensor]


class Transducer(nn.Module):
    """Recurrent neural network transducer (Graves 2012)."""

    def __init__(self, size: ModelSize, *, vocabulary: int, mel_bins: int):
        super().__init__()
        self.size, self.vocabulary, self.mel_bins = size, vocabulary, mel_bins
        self.register_buffer("feature_mean", torch.zeros(mel_bins))
        self.register_buffer("feature_deviation", torch.ones(mel_bins))
        self.encoder = Conformer(size.encoder, mel_bins=mel_bins)
        self.predictor = Predictor(size.predictor, vocabulary=vocabulary)
        self.joint = Joint(size, vocabulary=vocabulary)
        self.ctc_head = nn.Linear(size.encoder.dim, vocabulary)

    def normalise(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Bring log-mels (B, T, F) to mean 0 and deviation 1 over the labelled training speech; padding becomes 0."""
        return normalise(features, lengths, mean=self.feature_mean, deviation=self.feature_deviation)

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return states (B, N, D) of normalised features (B, T, F), and their lengths (B,)."""
        return self.encoder(features, lengths)

    def num_parameters(self) -> int:
        """Return the number of parameters that decoding needs: all but the auxiliary CTC head."""
        auxiliary = sum(p.numel() for p in self.ctc_head.parameters())
        return sum(p.numel() for p in self.parameters()) - auxiliary


class Predictor(nn.Module):
    """Prediction network: embedding and LSTM over the labels emitted so far."""

    def __init__(self, size: PredictorSize, *, vocabulary: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size.dim)
        units, projected = (size.dim, 0) if size.units is None else (size.units, size.dim)
        self.lstm = nn.LSTM(size.dim, units, num_layers=size.layers, batch_first=True, proj_size=projected)
        self.dropout = Dropout(size.dropout)

    def forward(self, labels: Tensor) -> Tensor:
        """Return states (B, U + 1, P) before the first, between and after the labels (B, U)."""
        started = nn.functional.pad(labels, (1, 0), value=BLANK)
        return self.dropout(self._run(self.dropout(self.embedding(started)))[0])

    def initial_state(self, *, batch: int) -> tuple[Tensor, LSTMState]:
        """Return the output (B, P) and the LSTM state before any label."""
        start = torch.full((batch,), BLANK, dtype=torch.long, device=self.embedding.weight.device)
        output_dim = self.lstm.proj_size or self.lstm.hidden_size
        output, cells = (
            self.embedding.weight.new_zeros(self.lstm.num_layers, batch, dim)
            for dim in (output_dim, self.lstm.hidden_size)
        )
        return self.step(start, (output, cells))

    def step(self, labels: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Advance by one label (B,): output (B, P) and the new LSTM state."""
        output, state = self._run(self.embedding(labels)[:, None], state)
        return output[:, 0], state

    def _run(self, inputs: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        """Run the LSTM over (B, U, P); on CPUs PyTorch would warn that oneDNN has no projections, which is no harm."""
        if not self.lstm.proj_size:
            return self.lstm(inputs, state)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "LSTM with projections is not supported with oneDNN")
            return self.lstm(inputs, state)


class Joint(nn.Module):
    """tanh of the summed projections, then one linear layer to the vocabulary."""

    def __init__(self, size: ModelSize, *, vocabulary: int):
        super().__init__()
        self.encoder = nn.Linear(size.encoder.dim, size.joint)
        self.predictor = nn.Linear(size.predictor.dim, size.joint, bias=False)
        self.output = nn.Linear(size.joint, vocabulary)

    def forward(self, encoder: Tensor, predictor: Tensor) -> Tensor:
        """Return logits (..., V) for projected states (..., H) of matching shapes."""
        return self.output(torch.tanh(encoder + predictor))
