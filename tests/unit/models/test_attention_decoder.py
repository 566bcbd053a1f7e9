"""Attention decoder: against PyTorch's, what it may look at, step by step, sizes."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from asr_distill.experiment import DecoderSize
from asr_distill.models.attention_decoder import AttentionDecoder, sinusoids

VOCABULARY, DIM, ENCODER_DIM = 7, 8, 6
SIZE = {"layers": 2, "heads": 2, "dim": DIM, "feed_forward": 12}


def decoder(*, encoder_dim=ENCODER_DIM, **changes):
    """Return a small decoder in evaluation mode and float64, always with the same weights."""
    torch.manual_seed(0)
    made = AttentionDecoder(DecoderSize(**(SIZE | changes)), vocabulary=VOCABULARY, encoder_dim=encoder_dim)
    for parameter in made.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=1.0)  # biases and normalisations that can be told apart
    return made.double().eval()


def speech(*shape, seed=1):
    return torch.randn(*shape, ENCODER_DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pytorch_decoder(model):
    """Return PyTorch's decoder with the parameters of ours."""
    layer = nn.TransformerDecoderLayer(DIM, 2, 12, dropout=0.0, batch_first=True, norm_first=True)
    theirs = nn.TransformerDecoder(layer, len(model.layers), norm=nn.LayerNorm(DIM)).double().eval()
    for own, its in zip(model.layers, theirs.layers, strict=True):
        for attention, other in ((own.self_attention, its.self_attn), (own.cross_attention, its.multihead_attn)):
            for name in ("weight", "bias"):
                joined = torch.cat([getattr(attention.query, name), getattr(attention.key_value, name)])
                getattr(other, f"in_proj_{name}").data = joined.detach()
            other.out_proj.load_state_dict(attention.output.state_dict())
        its.norm1.load_state_dict(own.self_norm.state_dict())
        its.norm2.load_state_dict(own.cross_norm.state_dict())
        for place, module in ((0, its.norm3), (1, its.linear1), (4, its.linear2)):
            module.load_state_dict(own.feed_forward[place].state_dict())
    theirs.norm.load_state_dict(model.norm.state_dict())
    return theirs


def test_it_computes_what_pytorch_computes():
    model = decoder()
    states, lengths = speech(2, 5), torch.tensor([5, 3])
    labels, label_lengths = torch.tensor([[3, 1, 4], [2, 6, 6]]), torch.tensor([3, 3])
    inputs = torch.tensor([[VOCABULARY, 3, 1, 4], [VOCABULARY, 2, 6, 6]])
    expected = pytorch_decoder(model)(
        model.embedding(inputs) + sinusoids(torch.arange(4), dim=DIM),
        model.states(states),
        tgt_mask=torch.ones(4, 4, dtype=torch.bool).triu(1),
        memory_key_padding_mask=torch.arange(5) >= lengths[:, None],
    )
    torch.testing.assert_close(model.hidden(states, lengths, labels, label_lengths), expected)
    logits = model(states, lengths, labels, label_lengths)
    torch.testing.assert_close(logits, expected @ model.output.weight.T + model.output.bias)
    assert logits.shape == (2, 4, VOCABULARY + 1)


@torch.inference_mode()
def test_a_row_knows_only_the_labels_before():
    model = decoder()
    states, lengths = speech(1, 5), torch.tensor([5])
    labels = torch.tensor([[3, 1, 4, 6]])
    before = model(states, lengths, labels, torch.tensor([4]))[0]
    for u in range(4):
        changed = labels.clone()
        changed[0, u] = 2
        after = model(states, lengths, changed, torch.tensor([4]))[0]
        assert torch.equal(after[: u + 1], before[: u + 1])
        assert (after[u + 1 :] != before[u + 1 :]).any(dim=1).all()


@torch.inference_mode()
def test_padding_and_the_other_utterances_change_nothing():
    model = decoder()
    frames, counts = [4, 1, 3], [2, 3, 0]
    states = torch.full((3, 7, ENCODER_DIM), 1e3, dtype=torch.float64)
    labels = torch.full((3, 5), -1)
    alone = []
    for b, (count, number) in enumerate(zip(frames, counts, strict=True)):
        states[b, :count] = speech(count, seed=b)
        labels[b, :number] = torch.arange(1, number + 1)
        own = states[b : b + 1, :count], torch.tensor([count]), labels[b : b + 1, :number], torch.tensor([number])
        alone.append(model(*own)[0])
    found = model(states, torch.tensor(frames), labels, torch.tensor(counts))
    for b, expected in enumerate(alone):
        torch.testing.assert_close(found[b, : counts[b] + 1], expected)
    assert torch.isfinite(found).all()


def test_no_gradient_reaches_padding():
    model = decoder()
    states = speech(2, 4).requires_grad_()
    logits = model(states, torch.tensor([4, 2]), torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1]))
    logits[1, :2].sum().backward()
    assert not states.grad[0].any()
    assert not states.grad[1, 2:].any()
    assert states.grad[1, :2].any(dim=1).all()


@torch.inference_mode()
def test_step_by_step_equals_the_whole_transcript():
    model = decoder()
    states, lengths = speech(2, 5), torch.tensor([5, 2])
    labels = torch.tensor([[3, 1, 1, 6], [2, 5, 4, 1]])
    memory = model.initial_memory(states, lengths)
    inputs = torch.cat([torch.full((2, 1), model.start), labels], dim=1)
    steps = [model.step(column, memory) for column in inputs.unbind(dim=1)]
    torch.testing.assert_close(torch.stack(steps, dim=1), model(states, lengths, labels, torch.tensor([4, 4])))
    assert memory.position == 5


def test_layers_read_together_share_one_set_of_parameters():
    model = decoder()
    labels, counts, lengths = torch.tensor([[3, 1], [2, 0]]), torch.tensor([2, 1]), torch.tensor([4, 2])
    layers = [speech(2, 4, seed=seed) for seed in range(3)]
    apart = torch.cat([model(states, lengths, labels, counts) for states in layers])
    together = model(torch.cat(layers), lengths.repeat(3), labels.repeat(3, 1), counts.repeat(3))
    torch.testing.assert_close(together, apart)
    expected = torch.autograd.grad(apart.square().sum(), list(model.parameters()))
    torch.testing.assert_close(torch.autograd.grad(together.square().sum(), list(model.parameters())), expected)


def test_positions_are_told_by_sines_and_cosines():
    table = sinusoids(torch.tensor([0, 3]), dim=4)
    angles = [3.0, 3.0 / 100]
    expected = torch.tensor([[0.0, 0.0, 1.0, 1.0], [*map(math.sin, angles), *map(math.cos, angles)]])
    torch.testing.assert_close(table, expected)


def test_states_are_mapped_only_where_dimensions_differ():
    assert isinstance(decoder(encoder_dim=DIM).states, nn.Identity)
    assert decoder().states.weight.shape == (DIM, ENCODER_DIM)


def test_the_papers_decoder_has_its_number_of_parameters():
    size = DecoderSize(layers=6, heads=8, dim=512, feed_forward=2048)
    with torch.device("meta"):
        model = AttentionDecoder(size, vocabulary=5001, encoder_dim=512)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(30.0e6, rel=0.02)  # Hentschel et al. 2024


def test_dropout_acts_in_training_only():
    model = decoder(dropout=0.5)
    arguments = speech(1, 5), torch.tensor([5]), torch.tensor([[1, 2, 3]]), torch.tensor([3])
    assert torch.equal(model(*arguments), model(*arguments))
    model.train()
    assert not torch.allclose(model(*arguments), model(*arguments))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "dim: 8 is no multiple of heads = 3"),
        ({"dim": 5, "heads": 5}, "dim: 5 is odd"),
        ({"head": 2}, "unknown key 'head'; did you mean 'heads'"),
    ],
)
def test_impossible_sizes_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        DecoderSize(**(SIZE | changes))
