"""The lattice losses to compare: ours, the bare matrix products that none can do without, and peers."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from asr_distill.losses.lattice import LatticeWeights, lattice_losses
from benchmarks import peers
from benchmarks.inputs import Example, Shape, make_example
from benchmarks.measure import Precision, Setting, Subject, Task

WARM_UP = {"batch": 1, "frames": 16, "labels": 8}
"""Few nodes, but enough for the code that multiplies large matrices."""
CHUNKS = {"cpu": (2**17, 2**18, 2**20), "cuda": (2**24, 2**26)}
"""Logits at a time that the bare products try, beside all at once."""
TRIES = 3
WITHOUT_TEACHER, WITH_TEACHER = 3, 4
"""Products of the size of the lattice: the student's logits, and the gradients of its joint states and of its output
weights; with a teacher, its logits too."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A loss to measure; `compute` returns it by utterance, (B,)."""

    label: str
    compute: Callable[[Example], Tensor]
    products: int
    value: str = ""
    """Losses of equal value are to agree."""
    bf16: bool = True
    """Whether it is also measured with bf16 products."""


def ours(example: Example, *, weights: LatticeWeights, teacher: bool) -> Tensor:
    """Return our loss."""
    losses = lattice_losses(
        example.student,
        labels=example.labels,
        lengths=example.lengths,
        weights=weights,
        teacher=example.teacher if teacher else None,
    )
    return losses.total


def _ours(label: str, *, teacher: bool, value: str = "", **weights: float) -> Loss:
    chosen = LatticeWeights(**({"transducer": 0.0} | weights))
    return Loss(
        label=f"ours: {label}",
        compute=functools.partial(ours, weights=chosen, teacher=teacher),
        products=WITH_TEACHER if teacher else WITHOUT_TEACHER,
        value=value,
    )


LOSSES: dict[str, Loss] = {
    "ours_transducer": _ours("RNN-T", teacher=False, value="transducer", transducer=1.0),
    "ours_both": _ours("RNN-T + full KL in one pass", teacher=True, value="both", transducer=1.0, divergence=1.0),
    "ours_divergence": _ours("full KL", teacher=True, value="divergence", divergence=1.0),
    "ours_collapsed": _ours("collapsed KL", teacher=True, value="collapsed", collapsed=1.0),
    "ours_one_best": _ours("one-best path", teacher=True, one_best=1.0),
    "ours_teacher_occupancy": _ours("KL weighted by the teacher's occupancy", teacher=True, teacher_occupancy=1.0),
    "ours_student_occupancy": _ours("KL weighted by the student's occupancy", teacher=True, student_occupancy=1.0),
    "ours_full_sum": _ours("full sum", teacher=True, full_sum=1.0),
    "torchaudio_transducer": Loss(
        label="torchaudio: RNN-T",
        compute=peers.torchaudio_transducer,
        products=WITHOUT_TEACHER,
        value="transducer",
    ),
    "plain_transducer": Loss(
        label="plain PyTorch: RNN-T",
        compute=peers.plain_transducer,
        products=WITHOUT_TEACHER,
        value="transducer",
    ),
    "speechbrain_transducer": Loss(
        label="SpeechBrain: RNN-T",
        compute=peers.speechbrain_transducer,
        products=WITHOUT_TEACHER,
        value="transducer",
        bf16=False,
    ),
    "numba_transducer": Loss(
        label="warprnnt-numba: RNN-T",
        compute=peers.numba_transducer,
        products=WITHOUT_TEACHER,
        value="transducer",
        bf16=False,
    ),
    "torchaudio_both": Loss(
        label="torchaudio RNN-T + plain PyTorch full KL",
        compute=peers.torchaudio_both,
        products=WITH_TEACHER,
        value="both",
    ),
    "plain_divergence": Loss(
        label="plain PyTorch: full KL",
        compute=peers.plain_divergence,
        products=WITH_TEACHER,
        value="divergence",
    ),
    "plain_collapsed": Loss(
        label="plain PyTorch: collapsed KL",
        compute=peers.plain_collapsed,
        products=WITH_TEACHER,
        value="collapsed",
    ),
}
SLOW = "numba_transducer"
"""Takes tens of seconds a call on a CPU."""


def lattice_subjects(shape: Shape, names: list[str], precisions: tuple[Precision, ...]) -> list[Subject]:
    """Return the bare products and the named losses, in every precision that applies."""
    subjects = [products_subject(shape, products, p) for products in (3, 4) for p in precisions]
    for precision in precisions:
        chosen = [name for name in names if precision == "float32" or LOSSES[name].bf16]
        subjects += [loss_subject(shape, name, precision) for name in chosen]
    return subjects


def loss_subject(shape: Shape, name: str, precision: Precision) -> Subject:
    """Return one loss on one shape."""
    loss = LOSSES[name]
    return Subject(
        name=name,
        label=loss.label,
        prepare=functools.partial(prepare_loss, name, shape),
        precision=precision,
        value=loss.value,
        products=loss.products,
    )


def prepare_loss(name: str, shape: Shape, setting: Setting) -> Task:
    """Return one loss with its inputs made; called in the subject's process."""
    device = torch.device(setting.device)
    compute = LOSSES[name].compute
    # a CPU rounds the factors of float32 products if it may; on CUDA bf16 must be asked for
    autocast = setting.precision == "bf16" and device.type == "cuda"

    def call(example: Example) -> Tensor:
        for leaf in example.student.tensors():
            leaf.grad = None
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            losses = compute(example)
        losses.sum().backward()
        return losses.detach()

    example, small = (make_example(s, device=device) for s in (shape, replace(shape, **WARM_UP)))
    return Task(
        call=functools.partial(call, example),
        warm_up=functools.partial(call, small),
        leaves=example.student.tensors(),
    )


# ---------------------------------------------------------------- bare matrix products


def products_subject(shape: Shape, products: int, precision: Precision) -> Subject:
    """Return the matrix products alone: three, or four with the teacher's."""
    return Subject(
        name=f"products_{products}",
        label=f"bare matrix products, {'three' if products == WITHOUT_TEACHER else 'four'}",
        prepare=functools.partial(prepare_products, products, shape),
        precision=precision,
        products=products,
    )


def prepare_products(products: int, shape: Shape, setting: Setting) -> Task:
    """Return the products, of all nodes at once or of some at a time, whichever took least time when tried."""
    device = torch.device(setting.device)
    nodes = make_example(shape, device=torch.device("cpu")).nodes
    sizes = [size // shape.vocabulary for size in CHUNKS[device.type]]
    steps = sorted({min(nodes, max(1, size)) for size in sizes} | {nodes})
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    inputs = _Products(shape, nodes=nodes, products=products, device=device, dtype=dtype)
    times = {step: min(_time(inputs, step) for _ in range(TRIES)) for step in steps}
    best = min(steps, key=times.__getitem__)
    note = f"{'all' if best == nodes else best} nodes at a time, {inputs.operations / times[best] / 1e9:.0f} GFLOP/s"
    call = functools.partial(inputs.run, best)
    return Task(call=call, warm_up=call, note=note, memory=False)


def _time(inputs: _Products, step: int) -> float:
    started = time.perf_counter()
    inputs.run(step)
    if inputs.weight.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


class _Products:
    """The products' factors, and memory for their results, so that nothing but products is timed."""

    def __init__(self, shape: Shape, *, nodes: int, products: int, device: torch.device, dtype: torch.dtype):
        self.nodes, self.products = nodes, products
        self.operations = 2 * products * nodes * shape.joint * shape.vocabulary
        generator = torch.Generator().manual_seed(0)
        self.hidden = torch.randn(nodes, shape.joint, generator=generator).tanh_().to(device, dtype)
        weight = torch.randn(shape.vocabulary, shape.joint, generator=generator)
        self.weight = (weight * shape.joint**-0.5).to(device, dtype)
        self.hidden_gradient = torch.empty_like(self.hidden)
        self.weight_gradient = torch.empty_like(self.weight)
        self.logits = self.hidden.new_empty(nodes, shape.vocabulary)

    def run(self, step: int) -> Tensor:
        """Multiply; the logits serve as their own gradient."""
        for start in range(0, self.nodes, step):
            hidden = self.hidden[start : start + step]
            logits = self.logits[: hidden.shape[0]]  # always the same memory, which stays in a cache if it fits
            for _ in range(self.products - 2):
                torch.mm(hidden, self.weight.t(), out=logits)
            torch.mm(logits, self.weight, out=self.hidden_gradient[start : start + step])
            self.weight_gradient.addmm_(logits.t(), hidden, beta=0 if start == 0 else 1)
        return self.weight.new_empty(0)
