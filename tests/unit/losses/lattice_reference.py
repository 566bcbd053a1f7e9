"""Slow, obvious references for the losses: whole lattices, every path, one node at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields

import torch
from torch import Tensor

from asr_distill.losses.lattice import BLANK, JointInputs, LatticeLengths

Arc = tuple[int, int, bool]
"""Frame and label row of the node that is left, and whether a label leaves it."""


def paths(frames: int, labels: int) -> Iterator[list[Arc]]:
    """Yield every path through one lattice."""

    def walk(t: int, u: int, arcs: list[Arc]) -> Iterator[list[Arc]]:
        if u < labels:
            yield from walk(t, u + 1, [*arcs, (t, u, True)])
        if t < frames - 1:
            yield from walk(t + 1, u, [*arcs, (t, u, False)])
        elif u == labels:
            yield [*arcs, (t, u, False)]

    return walk(0, 0, [])


def path_scores(blank: Tensor, label: Tensor, *, frames: int, labels: int) -> list[tuple[list[Arc], Tensor]]:
    """Return every path of one lattice with its log-probability; scores are (T, U + 1)."""
    every = paths(frames, labels)
    return [(arcs, sum((label if up else blank)[t, u] for t, u, up in arcs)) for arcs in every]


def arc_probabilities(blank: Tensor, label: Tensor, *, frames: int, labels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the log-likelihood of one lattice and how likely its paths take each blank and each label arc."""
    scored = path_scores(blank, label, frames=frames, labels=labels)
    total = torch.stack([score for _, score in scored]).logsumexp(dim=0)
    by_blank, by_label = torch.zeros_like(blank), torch.zeros_like(label)
    for arcs, score in scored:
        for t, u, up in arcs:
            (by_label if up else by_blank)[t, u] += (score - total).exp()
    return total, by_blank, by_label


def random_lattice(
    seed: int, *, frames: list[int], labels: list[int], vocabulary: int = 5, dtype: torch.dtype = torch.float64
) -> tuple[JointInputs, JointInputs, Tensor, LatticeLengths]:
    """Return student, teacher, labels and lengths; the teacher's joint network is wider than the student's."""
    generator = torch.Generator().manual_seed(seed)
    batch, longest, most = len(frames), max(frames), max(labels)

    def inputs(joint: int) -> JointInputs:
        shapes = ((batch, longest, joint), (batch, most + 1, joint), (vocabulary, joint), (vocabulary,))
        return JointInputs(
            **{
                field.name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
                for field, shape in zip(fields(JointInputs), shapes, strict=True)
            }
        )

    student, teacher = inputs(3), inputs(4)
    tokens = torch.randint(BLANK + 1, vocabulary, (batch, most), generator=generator)
    return student, teacher, tokens, LatticeLengths(frames=torch.tensor(frames), labels=torch.tensor(labels))


def tensors(inputs: JointInputs) -> list[Tensor]:
    """Return encoder, predictor, weight and bias."""
    return [getattr(inputs, field.name) for field in fields(inputs)]


def with_gradients(inputs: JointInputs) -> JointInputs:
    """Return a copy whose tensors collect gradients."""
    return JointInputs(**{f.name: getattr(inputs, f.name).clone().requires_grad_() for f in fields(inputs)})


def whole_lattice(inputs: JointInputs) -> Tensor:
    """Return the logits of all nodes, (B, T, U + 1, V)."""
    hidden = torch.tanh(inputs.encoder[:, :, None] + inputs.predictor[:, None])
    return hidden @ inputs.weight.t() + inputs.bias


def naive_transducer(student: JointInputs, *, labels: Tensor, lengths: LatticeLengths) -> Tensor:
    """Return the transducer loss (B,) by the textbook recursion, node by node (Graves 2012, eq. 16)."""
    log_probs = whole_lattice(student).log_softmax(dim=-1)
    losses = []
    for b, (frames, count) in enumerate(zip(lengths.frames.tolist(), lengths.labels.tolist(), strict=True)):
        alpha = {}
        for t, u in itertools.product(range(frames), range(count + 1)):
            entering = []
            if t > 0:
                entering.append(alpha[t - 1, u] + log_probs[b, t - 1, u, BLANK])
            if u > 0:
                entering.append(alpha[t, u - 1] + log_probs[b, t, u - 1, labels[b, u - 1]])
            alpha[t, u] = torch.stack(entering).logsumexp(dim=0) if entering else log_probs.new_zeros(())
        losses.append(-(alpha[frames - 1, count] + log_probs[b, frames - 1, count, BLANK]))
    return torch.stack(losses)


def naive_divergence(
    student: JointInputs,
    *,
    teacher: JointInputs,
    lengths: LatticeLengths,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Tensor:
    """Return the summed KL(teacher || student) of all nodes (B,) (Hwang et al. 2022, eq. 1)."""
    student = (whole_lattice(student) / student_temperature).log_softmax(dim=-1)
    teacher = (whole_lattice(teacher) / teacher_temperature).log_softmax(dim=-1).detach()
    nodes = (teacher.exp() * (teacher - student)).sum(dim=-1)
    pairs = zip(lengths.frames.tolist(), lengths.labels.tolist(), strict=True)
    return torch.stack([nodes[b, :frames, : count + 1].sum() for b, (frames, count) in enumerate(pairs)])
