"""Encoder: lengths, padding, contexts, streaming, rotary positions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_distill.experiment import EncoderSize
from asr_distill.models.conformer import (
    Conformer,
    FeedForward,
    encoder_lengths,
    rotary_table,
    rotate,
    squared_relu,
    stack_frames,
)

BINS = 5
STREAMING = {"streaming": True, "right_context": 0}


def encoder(**changes):
    """Return a small encoder in evaluation mode and float64, always with the same weights."""
    size = {"layers": 2, "dim": 8, "heads": 2, "feed_forward": 12, "kernel": 3, "stack": 2, **changes}
    torch.manual_seed(0)
    return Conformer(EncoderSize(**size), mel_bins=BINS).double().eval()


def speech(*shape, seed=1):
    return torch.randn(*shape, BINS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.inference_mode()
def states(model, features):
    """Encode one utterance (T, F) alone."""
    return model(features[None], torch.tensor([len(features)]))[0][0]


def changed_states(model, features, *, frame):
    """Return the encoder frames whose states change with the features of one encoder frame."""
    other = features.clone()
    stack = model.size.stack
    other[frame * stack : (frame + 1) * stack] += 1
    difference = (states(model, features) - states(model, other)).abs().amax(dim=-1)
    return (difference > 1e-12).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("stack", [1, 2, 3, 8])
@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9])
def test_stacking_loses_no_frame_and_tells_the_length(frames, stack):
    features = speech(2, frames)
    stacked = stack_frames(features, stack=stack)
    length = int(encoder_lengths(torch.tensor([frames]), stack=stack))
    assert stacked.shape == (2, length, stack * BINS)
    flat = stacked.reshape(2, -1, BINS)
    assert torch.equal(flat[:, :frames], features)
    assert not flat[:, frames:].any()
    assert (length - 1) * stack < frames <= length * stack


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 13), min_size=1, max_size=4), st.booleans(), st.integers(1, 4))
def test_padding_and_the_other_utterances_change_nothing(frames, streaming, stack):
    model = encoder(stack=stack, left_context=3, **(STREAMING if streaming else {"right_context": 2}))
    features = torch.full((len(frames), max(frames) + 2 * stack, BINS), 1e3, dtype=torch.float64)
    alone = []
    for b, count in enumerate(frames):
        features[b, :count] = speech(count, seed=b)
        features[b, count : -(-count // stack) * stack] = 0  # the last encoder frame is filled up with zeros
        alone.append(states(model, features[b, :count].clone()))
    with torch.inference_mode():
        found, lengths = model(features, torch.tensor(frames))
    assert lengths.tolist() == [-(-count // stack) for count in frames]
    for b, expected in enumerate(alone):
        torch.testing.assert_close(found[b, : lengths[b]], expected)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("frame", [0, 4, 9])
def test_a_streaming_encoder_never_looks_ahead(frame):
    model = encoder(**STREAMING)
    assert changed_states(model, speech(20), frame=frame) == list(range(frame, 10))


def test_a_bidirectional_encoder_looks_both_ways():
    assert changed_states(encoder(), speech(20), frame=5) == list(range(10))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_every_layer_adds_its_left_context(layers):
    model = encoder(layers=layers, left_context=2, kernel=2, **STREAMING)
    reach = layers * (2 + 1)  # attention, and a causal convolution of width 2
    assert changed_states(model, speech(40), frame=3) == list(range(3, 3 + reach + 1))


@pytest.mark.parametrize("layers", [1, 2])
def test_every_layer_adds_its_left_and_right_context(layers):
    model = encoder(layers=layers, left_context=3, right_context=1, kernel=3)
    left, right = layers * (3 + 1), layers * (1 + 1)
    assert changed_states(model, speech(60), frame=15) == list(range(15 - right, 15 + left + 1))


@settings(max_examples=40, deadline=None)
@given(
    chunks=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    rest=st.integers(0, 2),
    left_context=st.integers(1, 7),
    kernel=st.integers(1, 5),
)
def test_chunk_by_chunk_equals_the_whole_utterance(chunks, rest, left_context, kernel):
    stack = 3
    model = encoder(stack=stack, left_context=left_context, kernel=kernel, **STREAMING)
    sizes = [stack * chunk for chunk in chunks] + [rest] * bool(rest)
    features = speech(sum(sizes))
    state = model.initial_state()
    with torch.inference_mode():
        pieces = [model.stream(chunk[None], state)[0] for chunk in features.split(sizes)]
    torch.testing.assert_close(torch.cat(pieces), states(model, features))
    assert state.position == sum(-(-size // stack) for size in sizes)
    assert state.layers[0].keys.shape[2] <= left_context


def test_parallel_streams_do_not_mix():
    model = encoder(**STREAMING)
    features = speech(2, 8)
    state = model.initial_state(batch=2)
    with torch.inference_mode():
        found = torch.cat([model.stream(chunk, state) for chunk in features.split(4, dim=1)], dim=1)
    torch.testing.assert_close(found, torch.stack([states(model, utterance) for utterance in features]))


def test_a_bidirectional_encoder_refuses_to_stream():
    with pytest.raises(ValueError, match=r"only a streaming encoder decodes chunk by chunk; set encoder\.streaming"):
        encoder().initial_state()


def test_activations():
    x = torch.tensor([-2.0, 0.0, 3.0])
    assert torch.equal(squared_relu(x), torch.tensor([0.0, 0.0, 9.0]))
    spread = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(squared_relu, spread)
    inputs = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0))
    for name, function in (("squared_relu", lambda x: x.clamp_min(0) ** 2), ("swish", lambda x: x * x.sigmoid())):
        size = EncoderSize(layers=1, dim=8, heads=2, feed_forward=12, activation=name)
        layer = FeedForward(size).eval()
        torch.testing.assert_close(layer(inputs), layer.contract(function(layer.expand(layer.norm(inputs)))))


@settings(max_examples=30, deadline=None)
@given(first=st.integers(0, 50), second=st.integers(0, 50), shift=st.integers(1, 500))
def test_rotary_scores_depend_on_the_distance_alone(first, second, shift):
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def product(query_position, key_position):
        turned = [
            rotate(x, rotary_table(torch.tensor([position]), dim=8))
            for x, position in ((query, query_position), (key, key_position))
        ]
        return float((turned[0] * turned[1]).sum())

    assert product(first, second) == pytest.approx(product(first + shift, second + shift), abs=1e-4)


def test_rotation_keeps_lengths_and_tells_positions_apart():
    x = torch.randn(1, 1, 1, 8, generator=torch.Generator().manual_seed(0)).expand(1, 40, 1, 8)
    turned = rotate(x, rotary_table(torch.arange(40), dim=8))[0, :, 0]
    torch.testing.assert_close(turned.norm(dim=-1), x[0, :, 0].norm(dim=-1))
    torch.testing.assert_close(turned[0], x[0, 0, 0])
    apart = torch.cdist(turned, turned) + torch.eye(40)
    assert apart.min() > 1e-2


def test_dropout_acts_in_training_only():
    model = encoder(dropout=0.5)
    features, lengths = speech(1, 12), torch.tensor([12])
    assert torch.equal(model(features, lengths)[0], model(features, lengths)[0])
    model.train()
    assert not torch.allclose(model(features, lengths)[0], model(features, lengths)[0])
