"""Slow, obvious references for the losses: whole lattices, every path, one node at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields

import torch
from torch import Tensor

from asr_distill.losses.joint import BLANK, JointInputs, LatticeLengths

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


def node_divergences(
    student: JointInputs,
    *,
    teacher: JointInputs,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    teacher_shift: int = 0,
) -> Tensor:
    """Return KL(teacher || student) of every place (B, T, U + 1), 0 at frames without a partner."""
    own = (whole_lattice(student) / student_temperature).log_softmax(dim=-1)
    its = (whole_lattice(teacher) / teacher_temperature).log_softmax(dim=-1).detach()
    frames = own.shape[1]
    nodes = 0 * own.sum(dim=-1)
    for t in range(teacher_shift, frames):
        partner = its[:, t - teacher_shift]
        nodes[:, t] = (partner.exp() * (partner - own[:, t])).sum(dim=-1)
    return nodes


def naive_divergence(student: JointInputs, *, lengths: LatticeLengths, **options: object) -> Tensor:
    """Return the summed divergence of all nodes (B,) (Hwang et al. 2022, eq. 1)."""
    nodes = node_divergences(student, **options)
    pairs = zip(lengths.frames.tolist(), lengths.labels.tolist(), strict=True)
    return torch.stack([nodes[b, :frames, : count + 1].sum() for b, (frames, count) in enumerate(pairs)])


def naive_collapsed(
    student: JointInputs, *, teacher: JointInputs, labels: Tensor, lengths: LatticeLengths, teacher_shift: int = 0
) -> Tensor:
    """Return the summed KL over three classes, (B,), node by node (Panchapagesan et al. 2020, eq. 7)."""
    own, its = (whole_lattice(joint).log_softmax(dim=-1) for joint in (student, teacher))
    its = its.detach()
    sums = []
    for b, (frames, count) in enumerate(zip(lengths.frames.tolist(), lengths.labels.tolist(), strict=True)):
        total = 0 * own[b].sum()
        for t, u in itertools.product(range(teacher_shift, frames), range(count + 1)):
            following = int(labels[b, u]) if u < count else BLANK
            others = [k for k in range(own.shape[-1]) if k not in (BLANK, following)]
            for members in ([BLANK], [following] if u < count else [], others):
                if members:
                    p, q = (x[members].logsumexp(0) for x in (its[b, t - teacher_shift, u], own[b, t, u]))
                    total = total + p.exp() * (p - q)
        sums.append(total)
    return torch.stack(sums)


def reference_terms(
    student: JointInputs,
    *,
    teacher: JointInputs,
    labels: Tensor,
    lengths: LatticeLengths,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    teacher_shift: int = 0,
    full_sum_distance: str = "absolute",
) -> dict[str, Tensor]:
    """Return every loss of `LatticeWeights`, (B,), from whole lattices and lists of all paths; for autograd."""
    divergences = node_divergences(
        student,
        teacher=teacher,
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
        teacher_shift=teacher_shift,
    )
    own, its = (whole_lattice(joint).log_softmax(dim=-1) for joint in (student, teacher))
    terms: dict[str, list[Tensor]] = {}
    for b, (frames, count) in enumerate(zip(lengths.frames.tolist(), lengths.labels.tolist(), strict=True)):
        nodes = divergences[b, :frames, : count + 1]
        following = torch.cat([labels[b, :count], torch.tensor([BLANK])])
        arcs = {}
        for name, x in (("student", own), ("teacher", its.detach())):
            x = x[b, :frames, : count + 1]
            scores = x[..., BLANK], x.gather(-1, following.expand(frames, -1)[..., None])[..., 0]
            arcs[name] = (*scores, *arc_probabilities(*scores, frames=frames, labels=count))
        best, _ = max(path_scores(*arcs["teacher"][:2], frames=frames, labels=count), key=lambda path: path[1])
        on_path = torch.zeros_like(nodes)
        on_path[[t for t, _, _ in best], [u for _, u, _ in best]] = 1.0

        def later(x: Tensor) -> Tensor:
            moved = torch.zeros_like(x)
            moved[teacher_shift:] = x[: max(0, len(x) - teacher_shift)]
            return moved

        _, label, total, by_blank, by_label = arcs["student"]
        distance = arcs["teacher"][2] - total
        values = {
            "transducer": -total,
            "fast_emit": -(by_label.detach() * label).sum(),
            "divergence": nodes.sum(),
            "one_best": (later(on_path) * nodes).sum(),
            "teacher_occupancy": (later(sum(arcs["teacher"][3:])) * nodes).sum(),
            "student_occupancy": ((by_blank + by_label).detach() * nodes).sum(),
            "full_sum": distance.abs() if full_sum_distance == "absolute" else distance.square(),
        }
        for name, value in values.items():
            terms.setdefault(name, []).append(value)
    sums = {name: torch.stack(values) for name, values in terms.items()}
    sums["collapsed"] = naive_collapsed(
        student, teacher=teacher, labels=labels, lengths=lengths, teacher_shift=teacher_shift
    )
    return sums
