"""The Triton kernels compile for GPUs, as they are launched, which shows what the interpreter lets pass."""

from __future__ import annotations

import pytest
import torch

from asr_distill.losses.joint import Coefficients, Distillation, JointInputs, Lattice

pytest.importorskip("triton")


@pytest.fixture
def deterministic():
    """One candidate of block sizes for each kernel."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("dtype", "matmul_precision", "instruction"),
    [(torch.bfloat16, "highest", "wgmma.mma_async.sync.aligned.m64n128k16"), (torch.float32, "highest", "fma.rn.f32")],
)
def test_kernels_compile_for_hopper(tmp_path, deterministic, dtype, matmul_precision, instruction):
    from triton_modules import compiled

    def joint(units):
        shapes = ((2, 5, units), (2, 4, units), (100, units), (100,))
        return JointInputs(**dict(zip(("encoder", "predictor", "weight", "bias"), map(zeros, shapes), strict=True)))

    def zeros(shape):
        return torch.zeros(shape, dtype=dtype)

    lattice = Lattice(labels=torch.ones(2, 3, dtype=torch.int64), frames=(5, 3), counts=(3, 1))
    places = torch.zeros(2, 5, 4)
    coefficients = Coefficients(blank=places, label=places, rest=places, log_rest=places, divergence=places)
    distillation = Distillation(teacher=joint(96), student_temperature=2.0, shift=1)
    with compiled("asr_distill.losses.kernels", "fused", capability=90, cache=tmp_path) as (fused, kernels):
        fused.arc_log_probs(joint(128), lattice, rest=True)
        fused.node_gradients(joint(128), lattice, coefficients, distillation=distillation)
        fused.path_sums(places, places, lattice.frames, lattice.counts)
    products = {"arcs_kernel", "normaliser_kernel", "gradient_kernel"}
    others = {"tabulate_kernel", "activation_kernel", "frame_kernel", "row_kernel", "sums_kernel", "posterior_kernel"}
    assert set(kernels) == products | others
    for name in products:
        assert instruction in kernels[name].asm["ptx"]
