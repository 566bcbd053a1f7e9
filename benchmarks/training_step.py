"""Whole training steps of Conformer transducers of about two million parameters: ours, torchaudio's, SpeechBrain's.

Layout legend: B batch, T feature frames, N encoder frames, F mel bins, U labels, V vocabulary (blank is 0).
A step is: forward pass, transducer loss, backward pass, AdamW. No augmentation, clipping or averaging in any of them.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from asr_distill.experiment import ModelSize, Phase
from asr_distill.losses.joint import BLANK, LatticeLengths
from asr_distill.losses.lattice import LatticeWeights, lattice_losses
from asr_distill.models.transducer import Transducer
from asr_distill.training.objective import Batch, joint_inputs
from asr_distill.training.optimisation import make_optimizer
from benchmarks.measure import Precision, Setting, Subject, Task, Unavailable

MEL_BINS = 80
STACK = 4
"""Feature frames of 10 ms to one encoder frame of 40 ms."""
HEADS, KERNEL, DROPOUT = 4, 5, 0.1


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of the models and the batch."""

    name: str
    batch: int
    feature_frames: int
    labels: int
    vocabulary: int
    layers: int
    dim: int

    @property
    def speech_seconds(self) -> float:
        """Speech in a batch."""
        return self.batch * self.feature_frames / 100


MEDIUM = Size(name="2M", batch=16, feature_frames=400, labels=20, vocabulary=256, layers=3, dim=152)
TINY = Size(name="tiny", batch=2, feature_frames=40, labels=3, vocabulary=16, layers=1, dim=16)
WARM_UP = {"feature_frames": 40, "labels": 2}


def make_batch(size: Size) -> Batch:
    """Return random speech, the same for every toolkit; all utterances are equally long."""
    generator = torch.Generator().manual_seed(0)
    return Batch(
        features=torch.randn(size.batch, size.feature_frames, MEL_BINS, generator=generator),
        feature_lengths=torch.full((size.batch,), size.feature_frames),
        labels=torch.randint(1, size.vocabulary, (size.batch, size.labels), generator=generator),
        label_lengths=torch.full((size.batch,), size.labels),
    )


# ---------------------------------------------------------------- three toolkits


class Ours(nn.Module):
    """The model and the loss of this project; the auxiliary CTC head, which others lack, is left out."""

    def __init__(self, size: Size):
        super().__init__()
        encoder = {"layers": size.layers, "dim": size.dim, "heads": HEADS, "feed_forward": 4 * size.dim}
        encoder |= {"kernel": KERNEL, "stack": STACK, "activation": "swish", "dropout": DROPOUT}
        predictor = {"dim": size.dim, "dropout": DROPOUT}
        record = ModelSize.model_validate({"encoder": encoder, "predictor": predictor, "joint": size.dim})
        self.model = Transducer(record, vocabulary=size.vocabulary, mel_bins=MEL_BINS)
        for parameter in self.model.ctc_head.parameters():
            parameter.requires_grad_(False)

    def forward(self, batch: Batch) -> Tensor:
        """Return losses (B,)."""
        features = self.model.normalise(batch.features, batch.feature_lengths)
        states, frames = self.model.encode(features, batch.feature_lengths)
        losses = lattice_losses(
            joint_inputs(self.model, states, batch.labels),
            labels=batch.labels,
            lengths=LatticeLengths(frames=frames, labels=batch.label_lengths),
            weights=LatticeWeights(transducer=1.0),
        )
        return losses.total


class Torchaudio(nn.Module):
    """torchaudio's Conformer with the prediction and joint network of its RNN-T."""

    def __init__(self, size: Size):
        super().__init__()
        self.input = nn.Linear(MEL_BINS * STACK, size.dim)
        self.encoder = torchaudio.models.Conformer(
            input_dim=size.dim,
            num_heads=HEADS,
            ffn_dim=4 * size.dim,
            num_layers=size.layers,
            depthwise_conv_kernel_size=KERNEL,
            dropout=DROPOUT,
        )
        self.output = nn.Linear(size.dim, size.dim)
        rnnt = torchaudio.models.emformer_rnnt_model(  # only this factory is public; its encoder is not used
            input_dim=MEL_BINS,
            encoding_dim=size.dim,
            num_symbols=size.vocabulary,
            segment_length=STACK,
            right_context_length=0,
            time_reduction_input_dim=HEADS,
            time_reduction_stride=STACK,
            transformer_num_heads=HEADS,
            transformer_ffn_dim=1,
            transformer_num_layers=1,
            transformer_dropout=0.0,
            transformer_activation="gelu",
            transformer_left_context_length=1,
            transformer_max_memory_size=0,
            transformer_weight_init_scale_strategy="depthwise",
            transformer_tanh_on_mem=True,
            symbol_embedding_dim=size.dim,
            num_lstm_layers=1,
            lstm_layer_norm=False,
            lstm_layer_norm_epsilon=1e-5,
            lstm_dropout=DROPOUT,
        )
        self.predictor, self.joiner = rnnt.predictor, rnnt.joiner

    def forward(self, batch: Batch) -> Tensor:
        """Return losses (B,)."""
        frames, counts = (x.to(batch.features.device) for x in (batch.feature_lengths // STACK, batch.label_lengths))
        states, frames = self.encoder(self.input(_stacked(batch.features)), frames)
        started = F.pad(batch.labels, (1, 0), value=BLANK).int()
        predicted, _, _ = self.predictor(started, counts + 1, None)
        logits, _, _ = self.joiner(self.output(states), frames, predicted, counts)
        return _rnnt_loss(logits, batch)


class SpeechBrain(nn.Module):
    """SpeechBrain's Conformer, LSTM and joint network, as its transducer recipes put them together.

    The loss is torchaudio's: SpeechBrain's own runs on CUDA only.
    """

    def __init__(self, size: Size):
        super().__init__()
        if importlib.util.find_spec("speechbrain") is None:
            raise Unavailable("not installed")
        from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
        from speechbrain.nnet.RNN import LSTM
        from speechbrain.nnet.transducer.transducer_joint import Transducer_joint

        self.encoder = TransformerASR(
            tgt_vocab=size.vocabulary,
            input_size=MEL_BINS * STACK,
            d_model=size.dim,
            nhead=HEADS,
            num_encoder_layers=size.layers,
            num_decoder_layers=0,
            d_ffn=4 * size.dim,
            dropout=DROPOUT,
            encoder_module="conformer",
            attention_type="RelPosMHAXL",
            kernel_size=KERNEL,
            normalize_before=True,
            causal=False,
        )
        self.embedding = nn.Embedding(size.vocabulary, size.dim)
        self.lstm = LSTM(hidden_size=size.dim, input_shape=[None, None, size.dim])
        self.dropout = nn.Dropout(DROPOUT)
        self.project_encoder = nn.Linear(size.dim, size.dim)
        self.project_predictor = nn.Linear(size.dim, size.dim, bias=False)
        self.joint = Transducer_joint(joint="sum", nonlinearity=nn.Tanh)
        self.output = nn.Linear(size.dim, size.vocabulary)

    def forward(self, batch: Batch) -> Tensor:
        """Return losses (B,)."""
        shares = (batch.feature_lengths / batch.features.shape[1]).to(batch.features.device)
        states = self.encoder.encode(_stacked(batch.features), wav_len=shares)
        started = F.pad(batch.labels, (1, 0), value=BLANK)
        predicted = self.dropout(self.lstm(self.dropout(self.embedding(started)))[0])
        hidden = self.joint(self.project_encoder(states)[:, :, None], self.project_predictor(predicted)[:, None])
        return _rnnt_loss(self.output(hidden), batch)


def _stacked(features: Tensor) -> Tensor:
    """Join successive frames: (B, T, F) to (B, N, STACK F)."""
    return features.reshape(features.shape[0], -1, STACK * MEL_BINS)


def _rnnt_loss(logits: Tensor, batch: Batch) -> Tensor:
    frames, counts = (x.int().to(logits.device) for x in (batch.feature_lengths // STACK, batch.label_lengths))
    return torchaudio.functional.rnnt_loss(
        logits.float(), batch.labels.int(), frames, counts, blank=BLANK, reduction="none"
    )


# ---------------------------------------------------------------- subjects

SYSTEMS: dict[str, tuple[str, Callable[[Size], nn.Module]]] = {
    "ours": ("ours", Ours),
    "torchaudio": ("torchaudio: Conformer, RNN-T networks and loss", Torchaudio),
    "speechbrain": ("SpeechBrain: Conformer and RNN-T networks; torchaudio's loss", SpeechBrain),
}


def training_subjects(size: Size, precisions: tuple[Precision, ...]) -> list[Subject]:
    """Return every toolkit in every precision."""
    return [
        Subject(name=name, label=label, prepare=functools.partial(prepare_step, name, size), precision=precision)
        for precision in precisions
        for name, (label, _) in SYSTEMS.items()
    ]


def prepare_step(name: str, size: Size, setting: Setting) -> Task:
    """Return a training step with model, optimiser and batch made; called in the subject's process."""
    device = torch.device(setting.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that warn about themselves when they are imported
        system = SYSTEMS[name][1](size).to(device).train()
    optimizer = make_optimizer(system, phase=Phase(steps=1, batch_utterances=1, learning_rate=1e-4, warmup_steps=0))
    autocast = setting.precision == "bf16" and device.type == "cuda"

    def step(batch: Batch) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            losses = system(batch)
        optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()
        optimizer.step()
        return losses.detach()

    batch, small = (make_batch(s).to(device) for s in (size, replace(size, **WARM_UP)))
    trained = sum(parameter.numel() for parameter in system.parameters() if parameter.requires_grad)
    return Task(
        call=functools.partial(step, batch),
        warm_up=functools.partial(step, small),
        note=f"{trained / 1e6:.2f} M parameters",
    )
