"""The nodes of transducer lattices: one implementation for CUDA (`fused`, Triton), one for everything (`portable`)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

from asr_distill.losses.joint import Arcs
from asr_distill.losses.kernels import portable
from asr_distill.losses.paths import Paths, path_sums

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The three computations that differ between device classes."""

    arc_log_probs: Callable[..., Arcs]
    node_gradients: Callable[..., tuple]
    path_sums: Callable[..., Paths]


PORTABLE = Kernels(arc_log_probs=portable.arc_log_probs, node_gradients=portable.node_gradients, path_sums=path_sums)


def kernels_for(device: torch.device, dtype: torch.dtype) -> Kernels:
    """Return the implementation for tensors of a device and a type."""
    return PORTABLE if device.type != "cuda" or dtype == torch.float64 else _accelerated()


@functools.cache
def _accelerated() -> Kernels:
    """Return the Triton kernels, or say once that there is no Triton."""
    try:
        from asr_distill.losses.kernels import fused
    except ImportError as error:
        log.warning(
            "Triton is missing (%s): the lattice losses run in plain PyTorch on the GPU, several times slower. "
            "Install the triton version that belongs to torch %s.",
            error,
            torch.__version__,
        )
        return PORTABLE
    return Kernels(arc_log_probs=fused.arc_log_probs, node_gradients=fused.node_gradients, path_sums=fused.path_sums)
