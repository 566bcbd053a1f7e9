"""Modules of Triton kernels as a machine without GPU can run them: interpreted, or compiled without being launched."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.interpreter import InterpretedFunction

LANGUAGE = (tl, tl.core, tl.standard, tl.math, tl.tensor, tl.dtype, tl.core.tensor_descriptor_base)


@contextmanager
def interpreted(package: str, prefix: str) -> Iterator[ModuleType]:
    """Import modules of a package anew, with kernels that are Python functions on CPU tensors.

    Triton decides when a function is decorated whether it is to be compiled or interpreted, and so it did for its own
    library when it was first imported. Setting TRITON_INTERPRET=1 only helps who imports Triton first. The interpreter
    also changes the language as it goes along, and does not always change it back.
    """
    with pytest.MonkeyPatch.context() as patch, knobs.runtime.scope(), np.errstate(all="ignore"), restored(*LANGUAGE):
        knobs.runtime.interpret = True
        patch.setattr(InterpretedFunction, "rewritten_fn", {})
        for library in (tl, tl.core, tl.standard, tl.math):
            for key, value in vars(library).items():
                if isinstance(value, triton.JITFunction):
                    setattr(library, key, InterpretedFunction(value.fn))
        with fresh_modules(package, prefix) as module:
            yield module


@contextmanager
def restored(*objects: object) -> Iterator[None]:
    """Put the attributes of modules and classes back as they were."""
    before = [dict(vars(thing)) for thing in objects]
    yield
    for thing, attributes in zip(objects, before, strict=True):
        now = dict(vars(thing))
        for name in now.keys() - attributes.keys():
            delattr(thing, name)
        for name, value in attributes.items():
            if now.get(name) is not value:
                setattr(thing, name, value)


@contextmanager
def compiled(package: str, prefix: str, *, capability: int, cache: Path) -> Iterator[tuple[ModuleType, dict]]:
    """Import modules of a package anew; a launch compiles the kernel for a GPU, and notes it by its name, instead."""
    if knobs.runtime.interpret:
        pytest.skip("TRITON_INTERPRET=1: nothing can be compiled")
    kernels = {}
    run = triton.JITFunction.run

    def compile_only(self, *args, grid, warmup, **kwargs):
        kernels[self.__name__] = run(self, *args, grid=grid, warmup=True, **kwargs)

    with (
        untuned(),
        pytest.MonkeyPatch.context() as patch,
        knobs.cache.scope(),
        fresh_modules(package, prefix) as module,
    ):
        knobs.cache.dir = str(cache)
        patch.setattr(driver, "_active", _NoDriver(capability))
        patch.setattr(triton.JITFunction, "run", compile_only)
        yield module, kernels


@contextmanager
def untuned() -> Iterator[None]:
    """Take the first candidate of a kernel's block sizes: to try them all would take long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
        yield


@contextmanager
def fresh_modules(package: str, prefix: str) -> Iterator[ModuleType]:
    """Import a package's modules that begin with a prefix anew; return the one that bears the prefix as its name."""
    parent = importlib.import_module(package)
    with pytest.MonkeyPatch.context() as patch:
        for key in _names(package, prefix):
            patch.delitem(sys.modules, key)
            patch.delattr(parent, key.rpartition(".")[2])
        try:
            yield importlib.import_module(f"{package}.{prefix}")
        finally:
            for key in _names(package, prefix):
                del sys.modules[key]
                delattr(parent, key.rpartition(".")[2])


def _names(package: str, prefix: str) -> list[str]:
    return [key for key in sys.modules if key.startswith(f"{package}.{prefix}")]


class _NoDriver:
    """What Triton asks of a GPU before it compiles for it."""

    def __init__(self, capability: int):
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_benchmarker(self):
        def call_once(kernel_call, quantiles):
            kernel_call()
            return [0.0] * len(quantiles)

        return call_once
