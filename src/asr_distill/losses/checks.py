"""What the lattice losses refuse, without making a GPU wait: what lies on it is judged once it has been computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from asr_distill.losses.joint import BLANK, JointInputs, LatticeLengths


class NonFiniteError(ValueError):
    """A loss or the logits behind it are infinite or undefined."""


Complaint = Callable[[int], Exception]
"""Makes the error for an utterance."""


@dataclass(frozen=True)
class _Pending:
    flags: Tensor
    computed: torch.cuda.Event
    complaint: Complaint


_pending: deque[_Pending] = deque()


def refuse(flags: Tensor, complaint: Complaint) -> None:
    """Raise the complaint about the first flagged utterance of (B,): at once on a CPU, else when it has been computed.

    On a GPU that is at a later call of `refuse` or of `settle`.
    """
    if flags.device.type != "cuda":
        if flags.any():
            raise complaint(int(flags.nonzero()[0, 0]))
        return
    settle(wait=False)
    on_host = torch.empty(flags.shape, dtype=torch.bool, pin_memory=True).copy_(flags, non_blocking=True)
    computed = torch.cuda.Event()
    computed.record()
    _pending.append(_Pending(on_host, computed, complaint))


def settle(*, wait: bool = True) -> None:
    """Raise what has been found wrong by now on a GPU; with `wait`, after all of it has been computed."""
    while _pending and (wait or _pending[0].computed.query()):
        found = _pending.popleft()
        found.computed.synchronize()
        if found.flags.any():
            _pending.clear()
            raise found.complaint(int(found.flags.nonzero()[0, 0]))


def check_shapes(student: JointInputs, *, teacher: JointInputs | None, labels: Tensor) -> None:
    """Check that the tensors describe lattices of one size.

    Raises:
        ValueError: naming the tensor and both sizes.
    """
    batch = len(student.encoder)
    if student.predictor.shape[:2] != (batch, labels.shape[1] + 1) or len(labels) != batch:
        raise ValueError(
            f"predictor: {tuple(student.predictor.shape)} does not fit {batch} utterances with labels "
            f"{tuple(labels.shape)}; it needs one row more than there are labels"
        )
    for name, joint in {"student": student, "teacher": teacher}.items():
        if joint is None:
            continue
        hidden = {tensor.shape[-1] for tensor in (joint.encoder, joint.predictor, joint.weight)}
        if len(hidden) > 1 or joint.bias.shape != joint.weight.shape[:1]:
            sizes = ", ".join(str(tuple(tensor.shape)) for tensor in joint.tensors())
            raise ValueError(f"{name}: encoder, predictor, weight and bias do not fit together: {sizes}")
    if teacher is None:
        return
    for name in ("encoder", "predictor"):
        own, its = getattr(student, name).shape[:2], getattr(teacher, name).shape[:2]
        if own != its:
            raise ValueError(f"{name}: the teacher's lattice {tuple(its)} is not the student's {tuple(own)}")
    if len(teacher.weight) != len(student.weight):
        raise ValueError(f"weight: the teacher has {len(teacher.weight)} tokens, the student {len(student.weight)}")


def check_lengths(lengths: LatticeLengths, *, frames: int, labels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return frames and labels of each utterance as numbers.

    Raises:
        ValueError: naming the first utterance whose lengths are not within the tensors.
    """
    num_frames, counts = tuple(lengths.frames.tolist()), tuple(lengths.labels.tolist())
    for index, (own_frames, own_labels) in enumerate(zip(num_frames, counts, strict=True)):
        if not 1 <= own_frames <= frames or not 0 <= own_labels <= labels:
            raise ValueError(
                f"utterance {index}: {own_frames} frames and {own_labels} labels; "
                f"there must be 1 to {frames} frames and 0 to {labels} labels"
            )
    return num_frames, counts


def check_labels(labels: Tensor, counts: tuple[int, ...], *, vocabulary: int) -> None:
    """Refuse labels (B, U) that are blank or outside the vocabulary, naming utterance and labels."""
    used = torch.arange(labels.shape[1], device=labels.device) < torch.tensor(counts).to(labels.device)[:, None]
    wrong = ((labels <= BLANK) | (labels >= vocabulary)) & used

    def complaint(index: int) -> ValueError:
        found = labels[index][wrong[index]].tolist()
        return ValueError(f"utterance {index}: labels {found}; they must lie between 1 and {vocabulary - 1}")

    refuse(wrong.any(dim=1), complaint)
