"""The Triton kernels compile for GPUs, as they are launched, which shows what the interpreter lets pass."""

from __future__ import annotations

import pytest
import torch

from asr_distill.losses.joint import Coefficients, Distillation, JointInputs, Lattice

pytest.importorskip("triton")
PRODUCTS = {"arcs_kernel", "normaliser_kernel", "gradient_kernel"}
OTHERS = {"tabulate_kernel", "activation_kernel", "frame_kernel", "row_kernel", "sums_kernel", "posterior_kernel"}
INSTRUCTIONS = {"bf16": "wgmma.mma_async.sync.aligned.m64n128k16", "tf32": ".tf32.tf32", "ieee": "fma.rn.f32"}


@pytest.fixture
def in_tf32():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


def test_kernels_compile_for_hopper(tmp_path):
    kinds = ("blank", "label", "rest", "log_rest", "divergence")
    assert_compiles(tmp_path, precision="bf16", dtype=torch.bfloat16, kinds=kinds)


def test_kernels_compile_without_a_teacher(tmp_path, in_tf32):
    assert_compiles(tmp_path, precision="tf32", dtype=torch.float32, kinds=("blank", "label", "rest"))


def test_kernels_compile_for_a_teacher_alone(tmp_path):
    assert_compiles(tmp_path, precision="ieee", dtype=torch.float32, kinds=("divergence",))


def assert_compiles(cache, *, precision, dtype, kinds):
    from triton_modules import compiled

    lattice = Lattice(labels=torch.ones(2, 3, dtype=torch.int64), frames=(5, 3), counts=(3, 1))
    places = torch.zeros(2, 5, 4)
    student, teacher = (zeros(units=units, dtype=dtype) for units in (128, 100))
    distillation = Distillation(teacher=teacher, shift=1) if "divergence" in kinds else None
    with compiled("asr_distill.losses.kernels", "fused", capability=90, cache=cache) as (fused, kernels):
        fused.arc_log_probs(student, lattice, rest="log_rest" in kinds)
        fused.node_gradients(student, lattice, Coefficients(**dict.fromkeys(kinds, places)), distillation=distillation)
        fused.path_sums(places, places, lattice.frames, lattice.counts)
    assert set(kernels) == PRODUCTS | OTHERS
    for name in PRODUCTS:
        assert INSTRUCTIONS[precision] in kernels[name].asm["ptx"]


def zeros(*, units, dtype):
    shapes = {"encoder": (2, 5, units), "predictor": (2, 4, units), "weight": (90, units), "bias": (90,)}
    return JointInputs(**{name: torch.zeros(shape, dtype=dtype) for name, shape in shapes.items()})
