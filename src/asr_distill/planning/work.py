"""How many parameters models have, and how many operations an utterance costs them: from their sizes, without torch.

Operations are floating-point ones, two for a multiplication with its addition, of matrix products alone: everything
else is left to the machine's measured or assumed share of its peak. Layout legend: T encoder frames, U labels, V
vocabulary with blank, D width.
"""

from __future__ import annotations

from asr_distill.experiment import BertSize, CTCSize, DecoderSize, EncoderSize, ModelSize, PredictorSize

SPECIAL_TOKENS = 3
"""Of BERT, beside the recogniser's: beginning, end, mask."""


def encoder_parameters(size: EncoderSize, *, mel_bins: int) -> int:
    """Return the parameters of a Conformer: input, and per layer two feed-forwards, attention, convolution, norms."""
    dim, wide = size.dim, size.feed_forward
    feed_forward = 2 * dim + _linear(dim, wide) + _linear(wide, dim)
    attention = 2 * dim + _linear(dim, 3 * dim) + _linear(dim, dim)
    convolution = 2 * dim + _linear(dim, 2 * dim) + (size.kernel + 1) * dim + 2 * dim + _linear(dim, dim)
    return _linear(mel_bins * size.stack, dim) + size.layers * (2 * feed_forward + attention + convolution + 2 * dim)


def predictor_parameters(size: PredictorSize, *, vocabulary: int) -> int:
    """Return the parameters of the embedding and the LSTM, whose layers have two biases, and maybe a projection."""
    units = size.units or size.dim
    projection = size.dim * units if size.units else 0
    return vocabulary * size.dim + size.layers * (4 * units * (2 * size.dim + 2) + projection)


def transducer_parameters(size: ModelSize, *, vocabulary: int, mel_bins: int) -> int:
    """Return the parameters that decoding needs: all but the auxiliary CTC head."""
    joint = _linear(size.encoder.dim, size.joint) + size.predictor.dim * size.joint + _linear(size.joint, vocabulary)
    encoder = encoder_parameters(size.encoder, mel_bins=mel_bins)
    return encoder + predictor_parameters(size.predictor, vocabulary=vocabulary) + joint


def ctc_parameters(size: CTCSize, *, vocabulary: int, mel_bins: int) -> int:
    """Return the parameters of encoder and CTC head."""
    return encoder_parameters(size.encoder, mel_bins=mel_bins) + _linear(size.encoder.dim, vocabulary)


def decoder_parameters(size: DecoderSize, *, vocabulary: int, encoder_dim: int) -> int:
    """Return the parameters of an attention decoder over V tokens and the end of sentence."""
    dim, wide = size.dim, size.feed_forward
    attention = 2 * dim + _linear(dim, dim) + _linear(dim, 2 * dim) + _linear(dim, dim)
    layer = 2 * attention + 2 * dim + _linear(dim, wide) + _linear(wide, dim)
    states = _linear(encoder_dim, dim) if encoder_dim != dim else 0
    ends = (vocabulary + 1) * dim + _linear(dim, vocabulary + 1)
    return ends + states + size.layers * layer + 2 * dim


def bert_parameters(size: BertSize, *, vocabulary: int) -> int:
    """Return the parameters of BERT, whose output layer shares the weights of its embedding."""
    dim, wide, tokens = size.dim, size.feed_forward, vocabulary + SPECIAL_TOKENS
    layer = 4 * _linear(dim, dim) + _linear(dim, wide) + _linear(wide, dim) + 4 * dim
    embedding = (tokens + size.max_tokens + 1) * dim + 2 * dim
    return embedding + size.layers * layer + _linear(dim, dim) + 2 * dim + tokens


def encoder_operations(size: EncoderSize, *, frames: float, mel_bins: int) -> float:
    """Return the operations of encoding T frames; attention is computed for all pairs of them, masked or not."""
    dim = size.dim
    layer = 4 * dim * size.feed_forward + 7 * dim * dim + size.kernel * dim
    attention = 2 * dim * frames
    return 2 * frames * (mel_bins * size.stack * dim + size.layers * (layer + attention))


def predictor_operations(size: PredictorSize, *, labels: float) -> float:
    """Return the operations of the LSTM over the start and U labels."""
    units = size.units or size.dim
    projection = size.dim * units if size.units else 0
    return 2 * (labels + 1) * size.layers * (8 * units * size.dim + projection)


def projection_operations(size: ModelSize, *, frames: float, labels: float) -> float:
    """Return the operations of bringing T encoder states and U + 1 predictor states to the width of the joint."""
    return 2 * size.joint * (frames * size.encoder.dim + (labels + 1) * size.predictor.dim)


def lattice_operations(size: ModelSize, *, frames: float, labels: float, vocabulary: int) -> float:
    """Return the operations of one product of the joint's output layer with all T x (U + 1) nodes of a lattice."""
    return 2 * size.joint * vocabulary * frames * (labels + 1)


def head_operations(dim: int, *, rows: float, classes: int) -> float:
    """Return the operations of a linear layer to `classes`."""
    return 2 * rows * dim * classes


def decoder_operations(size: DecoderSize, *, frames: float, labels: float, vocabulary: int, encoder_dim: int) -> float:
    """Return the operations of an attention decoder that reads one layer of T frames, and U labels."""
    dim, rows = size.dim, labels + 1
    own = 4 * dim * dim + 2 * dim * rows
    across = 2 * dim * dim + 2 * dim * frames
    per_row = own + across + 2 * dim * size.feed_forward
    keys = frames * 2 * dim * dim
    states = frames * encoder_dim * dim if encoder_dim != dim else 0
    return 2 * (size.layers * (rows * per_row + keys) + states + rows * dim * (vocabulary + 1))


def bert_operations(size: BertSize, *, tokens: float, length: float, guessed: float, vocabulary: int) -> float:
    """Return the operations of BERT on some tokens in lines of `length`, of which `guessed` go through the head."""
    dim = size.dim
    layer = 4 * dim * dim + 2 * dim * size.feed_forward + 2 * dim * length
    head = dim * dim + dim * (vocabulary + SPECIAL_TOKENS)
    return 2 * (tokens * size.layers * layer + guessed * head)


def _linear(inputs: int, outputs: int) -> int:
    """Return the parameters of a linear layer with biases."""
    return (inputs + 1) * outputs
