"""Speeds of machines: of a CPU core as fitted to recorded runs, of GPUs as assumed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from asr_distill.experiment import Phase, nearest
from asr_distill.planning.workload import Workload

UTILISATION = 0.2
"""Assumed share of a GPU's peak that training reaches; no run of ours has been timed on any GPU."""
GPU_LATTICE_SHARE = 0.5
"""Assumed speed of products over lattice nodes, by that of all others; on CPUs theirs are alike."""
USABLE = 0.9
"""Share of a GPU's memory that is filled at most."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One GPU, or one CPU core, that a job computes on."""

    name: str
    operations_per_second: float
    """Sustained, of float32 matrix products (on GPUs TF32)."""
    fast_operations_per_second: float
    """Sustained, with bfloat16 products."""
    lattice_share: float
    """Speed of products over lattice nodes, by that of others."""
    layer_seconds: float
    """What a layer costs each time that it is run through, however small it is."""
    search_seconds: float
    """Of one step of a greedy search, for a whole batch."""
    gigabytes: float
    """Memory of a GPU; 0 for a core, whose memory is the machine's."""
    assumed: bool
    """Whether the speed is assumed, not fitted to recorded runs."""

    def seconds(self, work: Workload, *, fast: bool = False) -> float:
        """Return how long some work takes here; `fast` where its products are of bfloat16 numbers."""
        rate = self.fast_operations_per_second if fast else self.operations_per_second
        products = work.operations + work.lattice_operations / self.lattice_share
        return work.layers * self.layer_seconds + products / rate


CORE = Machine(
    name="CPU core",
    operations_per_second=30e9,
    fast_operations_per_second=30e9,
    lattice_share=1.0,
    layer_seconds=2.8e-3,
    search_seconds=2.5e-3,
    gigabytes=0.0,
    assumed=False,
)
"""Least relative squares over the 30 runs of results/published/mini: 2.84 ms a layer, 30.3e9 operations a second. So
two numbers explain the steps of those runs, by factors of 0.63 to 1.66; of the 11 of an4, which took no part in the
fit, by factors of 1.1 to 1.6. tests/unit/planning/test_plan_against_records.py holds the bills against the records."""

TERA = 1e12
PEAKS = {
    "h100": (494 * TERA, 989 * TERA, 80.0),
    "h200": (494 * TERA, 989 * TERA, 141.0),
    "a100": (156 * TERA, 312 * TERA, 80.0),
    "rtx4090": (82.6 * TERA, 165 * TERA, 24.0),
}
"""Dense operations a second with TF32 and bfloat16 products, and gigabytes, as NVIDIA's data sheets give them."""


def gpu(name: str, *, throughput: float | None = None) -> Machine:
    """Return a GPU by its name, with the speed that its user measured, in 10^12 operations a second, or an assumed one.

    Raises:
        ValueError: naming the nearest known GPU, or a speed that none has.
    """
    if name not in PEAKS:
        raise ValueError(f"--gpu: '{name}' is not known{nearest(name, PEAKS)}")
    full, fast, gigabytes = PEAKS[name]
    if throughput is not None and not 0 < throughput * TERA <= fast:
        raise ValueError(
            f"--throughput: {throughput:g} is in 10^12 operations a second, and the peak of '{name}' is "
            f"{fast / TERA:g}; write what training reaches, such as {UTILISATION * fast / TERA:.0f}"
        )
    share = UTILISATION if throughput is None else throughput * TERA / fast
    return Machine(
        name=name,
        operations_per_second=share * full,
        fast_operations_per_second=share * fast,
        lattice_share=GPU_LATTICE_SHARE,
        layer_seconds=0.5e-3,
        search_seconds=0.5e-3,
        gigabytes=gigabytes,
        assumed=throughput is None,
    )


def is_fast(phase: Phase) -> bool:
    """Return whether a phase's products are of bfloat16 numbers."""
    return phase.precision == "bf16-mixed" or phase.matmul_precision == "medium"


def several(machine: Machine, *, count: int) -> Machine:
    """Return so many GPUs that share the batches of one job."""
    if count == 1:
        return machine
    speed = count * DATA_PARALLEL
    return dataclasses.replace(
        machine,
        operations_per_second=speed * machine.operations_per_second,
        fast_operations_per_second=speed * machine.fast_operations_per_second,
    )


DATA_PARALLEL = 0.9
"""Assumed share of its speed that a GPU keeps where several share the batches of a job."""
