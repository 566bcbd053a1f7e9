"""Sizes of recognisers: encoders, what makes them transducers, and the attention decoders that teach CTC heads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from asr_distill.experiment.base import Count, Fraction, PositiveInt, Record, unset

Activation = Literal["squared_relu", "swish"]


def _differences(own: Record, other: Record) -> list[str]:
    needed, found = own.model_dump(exclude={"dropout"}), other.model_dump(exclude={"dropout"})
    keys = [key for key in {**needed, **found} if found.get(key) != needed.get(key)]
    return [f"{key} {found.get(key)} instead of {needed.get(key)}" for key in keys]


class EncoderSize(Record):
    """Conformer encoder."""

    layers: PositiveInt
    dim: PositiveInt
    heads: PositiveInt
    feed_forward: PositiveInt
    kernel: PositiveInt = 5
    """Width of the depthwise convolution in frames (Hwang et al. 2022: 5)."""
    stack: PositiveInt = 4
    """Feature frames stacked into one encoder frame."""
    streaming: bool = False
    """Causal convolution and attention."""
    left_context: PositiveInt = 128
    """Encoder frames that attention sees to the left (Hwang et al. 2022: 128)."""
    right_context: Count = 128
    """Encoder frames that attention sees to the right; must be 0 when streaming."""
    activation: Activation = "squared_relu"
    dropout: Fraction = 0.1

    def differences(self, other: EncoderSize) -> list[str]:
        """Return where the weights of another encoder do not fit, as "dim 8 instead of 16"; dropout is no matter."""
        return _differences(self, other)

    @model_validator(mode="after")
    def _check(self) -> EncoderSize:
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim: {self.dim} is no multiple of 2 x heads = {2 * self.heads}")
        if self.streaming and self.right_context:
            raise ValueError("right_context: a streaming encoder cannot look ahead; write right_context: 0")
        if not self.streaming and self.kernel % 2 == 0:
            raise ValueError(f"kernel: {self.kernel} has no middle; write an odd number")
        return self


class PredictorSize(Record):
    """LSTM prediction network."""

    layers: PositiveInt = 1
    dim: PositiveInt
    units: PositiveInt | None = Field(default=None, exclude_if=unset)
    """Memory cells of each layer, whose output is projected to `dim` (Hwang et al. 2022: 2,048 to 640); by default
    there are `dim` of them and no projection."""
    dropout: Fraction = 0.1

    @model_validator(mode="after")
    def _check(self) -> PredictorSize:
        if self.units is not None and self.units <= self.dim:
            raise ValueError(f"units: {self.units} are projected to fewer, not to dim: {self.dim}; write more or none")
        return self


class ModelSize(Record):
    """A transducer: encoder, predictor and the width of the joint network."""

    encoder: EncoderSize
    predictor: PredictorSize
    joint: PositiveInt

    def differences(self, other: ModelSize) -> list[str]:
        """Return where the weights of another transducer do not fit, as "predictor dim 8 instead of 16"."""
        joint = [f"joint {other.joint} instead of {self.joint}"] if self.joint != other.joint else []
        parts = {"encoder": (self.encoder, other.encoder), "predictor": (self.predictor, other.predictor)}
        found = [f"{part} {line}" for part, (own, its) in parts.items() for line in _differences(own, its)]
        return [*found, *joint]

    def with_activation(self, activation: Activation | None) -> ModelSize:
        """Return the same size with another activation of the encoder's feed-forward modules, if there is one."""
        if activation is None:
            return self
        encoder = self.encoder.model_copy(update={"activation": activation})
        return self.model_copy(update={"encoder": encoder})


class DecoderSize(Record):
    """Transformer attention decoder (Vaswani et al. 2017); reads any encoder layer, with one set of parameters."""

    layers: PositiveInt
    heads: PositiveInt
    dim: PositiveInt
    feed_forward: PositiveInt
    dropout: Fraction = 0.1

    @model_validator(mode="after")
    def _check(self) -> DecoderSize:
        if self.dim % self.heads:
            raise ValueError(f"dim: {self.dim} is no multiple of heads = {self.heads}")
        if self.dim % 2:
            raise ValueError(f"dim: {self.dim} is odd; a position is told by pairs of sine and cosine")
        return self


class CTCSize(Record):
    """A CTC recogniser: the encoder, and the attention decoder of its training where there is one."""

    encoder: EncoderSize
    decoder: DecoderSize | None = None
    """Reads the final and intermediate encoder layers while training; the exported recogniser has none."""
