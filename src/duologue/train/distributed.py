"""One process or many, behind the same few calls. Many: started by torchrun, set up by accelerate (DDP or FSDP)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from duologue.errors import TrainError


class Processes:
    """Which process this is, and what the processes of a run do together."""

    def __init__(self, *, device: str = "auto", shard: bool = False, shard_layers: tuple[str, ...] = ()):
        """
        Args:
            shard: FSDP instead of DDP: weights, gradients and optimizer are spread over the processes.
            shard_layers: names of the classes that FSDP gathers one at a time; those that do not occur are ignored.
        Raises:
            TrainError: no accelerate, or no such device.
        """
        self._accelerator: Any = None
        self.shard_layers = shard_layers
        self.rank, self.count, self.shard = 0, 1, False
        if torch.distributed.is_available() and (
            torch.distributed.is_initialized() or torch.distributed.is_torchelastic_launched()
        ):
            self._accelerator = _accelerator(cpu=device == "cpu", shard=shard)
            self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes
            self.device = self._accelerator.device
            self.shard = shard and self.count > 1
            return
        if device == "cuda" and not torch.cuda.is_available():
            raise TrainError("device=cuda: this machine or this torch has no CUDA. Use device=cpu or device=auto.")
        self.device = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
        if self.device.type == "cuda":
            # cuDNN's attention plans anew for every shape (18 ms on an H100), and no two of our batches have the same.
            torch.backends.cuda.enable_cudnn_sdp(False)

    @property
    def main(self) -> bool:
        """True in the one process that writes files and speaks to the user."""
        return self.rank == 0

    def prepare(
        self, module: nn.Module, make_optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Puts the module on the device and wraps it for the other processes."""
        if self._accelerator is None:
            module = module.to(self.device)
            return module, make_optimizer(module)
        if self.shard:
            present = {type(part).__name__ for part in module.modules()}
            plugin = self._accelerator.state.fsdp_plugin
            plugin.transformer_cls_names_to_wrap = [name for name in self.shard_layers if name in present]
        module = module.to(self.device)
        wrapped, optimizer = self._accelerator.prepare(module, make_optimizer(module))
        return wrapped, optimizer.optimizer

    def no_sync(self, wrapped: nn.Module) -> AbstractContextManager[Any]:
        """Gradients of a backward pass in here stay in this process, to be added to later ones."""
        return nullcontext() if self._accelerator is None else self._accelerator.no_sync(wrapped)

    def settle(self, wrapped: nn.Module) -> None:
        """After a forward pass without a backward one: sharded weights are parts again."""
        for module in wrapped.modules() if self.shard else ():
            if isinstance(module, FSDPModule):
                module.reshard()

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same in each."""
        return values if self.count == 1 else self._accelerator.reduce(values.to(self.device), "sum").to(values.device)

    def wait(self) -> None:
        """Returns once every process has come here."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()


def to_device(batch: Any, device: torch.device) -> Any:
    """The same batch with every tensor on `device`."""
    if isinstance(batch, (Tensor, nn.Module)):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: to_device(item, device) for key, item in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(item, device) for item in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(item, device) for item in batch)
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: to_device(getattr(batch, f.name), device) for f in fields(batch) if f.init})
    return batch


def multiplies_bf16(device: str) -> bool:
    """Whether products of bfloat16 are faster there than of float32; on older CPUs they are made of those."""
    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _accelerator(*, cpu: bool, shard: bool) -> Any:
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    except ImportError as error:
        raise TrainError("several processes need accelerate: pip install duologue[train]") from error
    if not shard:
        return Accelerator(cpu=cpu, kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
    )
    accelerator = Accelerator(cpu=cpu, fsdp_plugin=plugin)
    if accelerator.num_processes > 1 and accelerator.device.type == "cpu":
        # Accelerate turns its plugin on only beside an accelerator card, though torch shards over gloo as well.
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin
    return accelerator
