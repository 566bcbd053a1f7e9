"""The processes that train one model together, one per GPU: what they share, and what each holds a part of.

Every process computes on its share of each batch. Weights are copied to all of them (DDP), or spread over them (FSDP2)
where the phase says `sharded`. One process is a team, too, and then nothing here costs anything.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning_fabric
import torch
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from asr_distill.devices import num_processes, num_processes_here
from asr_distill.experiment import Phase
from asr_distill.models.conformer import ConformerLayer
from asr_distill.training.launch import LOST_OTHERS

log = logging.getLogger(__name__)

_PARTED: list[torch.distributed.ProcessGroup] = []
"""Groups that were left. The last owner of a group waits for its threads when it lets go; DDP's reducer would do so
while it holds the interpreter's lock, which one of those threads may need to end (seen with PyTorch 2.11)."""


class Ranks:
    """One process among those that torchrun started; alone, if it started none."""

    def __init__(self, phase: Phase):
        """Meet the others.

        Raises:
            ValueError: when there are fewer GPUs than processes on this machine.
        """
        self.world = num_processes()
        here = num_processes_here()
        if torch.cuda.is_available() and torch.cuda.device_count() < here:
            raise ValueError(
                f"--processes: {here} is more than the {torch.cuda.device_count()} GPUs that this job has; start one "
                "process per GPU"
            )
        alone = self.world == 1
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        self.fabric = lightning_fabric.Fabric(
            accelerator="auto",
            devices=here,
            num_nodes=self.world // here,
            strategy="auto" if alone else _strategy(phase, world=self.world),
            precision=phase.precision,
            plugins=[LightningEnvironment() if alone else TorchElasticEnvironment()],
        )
        self.fabric.launch()
        self.rank = self.fabric.global_rank
        self.device = self.fabric.device
        self.sharded = phase.sharded and not alone

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def sums(self, *values: float | Tensor) -> list[float]:
        """Return each value summed over all processes, the same in all of them; what is not finite stays so."""
        if self.world == 1:
            return [float(value) for value in values]
        own = [torch.as_tensor(value, dtype=torch.float64, device=self.device) for value in values]
        return self.fabric.all_reduce(torch.stack(own), reduce_op="sum").tolist()

    def setup(self, module: nn.Module) -> nn.Module:
        """Return the module on this process's device, joined with those of the others."""
        return self.fabric.setup_module(module)

    def averageable(self, model: nn.Module, *, like: nn.Module) -> nn.Module:
        """Return `model`, from before `setup`, holding what this process holds of the weights of `like`, from after."""
        if not self.sharded:
            return like
        held = dict(like.named_parameters())
        return _with_parameters(model, lambda name, _: held[name].detach().clone()).to(self.device)

    def whole(self, value: Any) -> Any:
        """Return nested dicts and lists of tensors with whole tensors for those spread over processes, on the CPU.

        All processes must take part; all but the first get None in their place.
        """
        if isinstance(value, dict):
            return {key: self.whole(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.whole(item) for item in value]
        if isinstance(value, DTensor):
            gathered = value.full_tensor()
            return gathered.cpu() if self.first else None
        return value

    def whole_model(self, model: nn.Module) -> nn.Module:
        """Return the model with all of its weights in every process, to transcribe with or to write."""
        if not self.sharded:
            return model
        return _with_parameters(model, lambda _, held: held.full_tensor().detach())

    def load(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        """Load whole tensors into a module of which this process may hold a part."""
        held = module.state_dict()
        module.load_state_dict({name: _part(tensor, like=held.get(name)) for name, tensor in state.items()})

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Load the whole state of an optimiser of which this process may hold a part."""
        optimizer.load_state_dict(state)
        for parameter, held in optimizer.state.items():
            for name, tensor in held.items():
                if tensor.shape == parameter.shape:
                    held[name] = _part(tensor, like=parameter)

    def forget_forward(self, module: nn.Module) -> None:
        """Free the weights that a forward pass has gathered, where no backward pass follows."""
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.fabric.barrier()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work together; where the others are lost, because one of them was killed or failed, leave in one line."""
        try:
            yield
            self.wait()
        except RuntimeError as error:
            if self.world == 1 or not _of_communication(error):
                raise
            reason = " ".join(str(error).split())[:200]
            log.error("process %d lost the others (%s)", self.rank, reason)
            raise SystemExit(LOST_OTHERS) from None
        except SystemExit:
            self._part()
            raise
        self._part()

    def _part(self) -> None:
        if self.world > 1:
            _PARTED.append(torch.distributed.group.WORLD)
            torch.distributed.destroy_process_group()


def _of_communication(error: RuntimeError) -> bool:
    """Return whether an error says that another process cannot be reached; gloo has no class of its own."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _strategy(phase: Phase, *, world: int) -> Strategy:
    if phase.sharded:
        return ModelParallelStrategy(_shard, data_parallel_size=world, tensor_parallel_size=1)
    # which parameters get a gradient depends on the losses of a run, and is another in its CTC warm-up
    return DDPStrategy(find_unused_parameters=True, broadcast_buffers=False, gradient_as_bucket_view=True)


def _shard(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Spread a module over processes: encoders layer by layer, which are nearly all, and the rest at once."""
    for layer in [part for part in module.modules() if isinstance(part, ConformerLayer)]:
        fully_shard(layer, mesh=mesh["data_parallel"])
    return fully_shard(module, mesh=mesh["data_parallel"])


def _with_parameters(model: nn.Module, change: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """Return a copy of the model with other parameters."""
    model = copy.deepcopy(model)
    for name, parameter in list(model.named_parameters()):
        owner = model.get_submodule(name.rpartition(".")[0])
        changed = nn.Parameter(change(name, parameter), requires_grad=parameter.requires_grad)
        setattr(owner, name.rpartition(".")[2], changed)
    return model


def _part(tensor: Tensor, *, like: Tensor | None) -> Tensor:
    """Return what this process holds of a whole tensor, if of `like` it holds but a part."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
