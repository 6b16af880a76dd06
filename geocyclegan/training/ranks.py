"""The processes that train together: how many, who leads, and what they tell each other.

Each has a whole copy of the networks and its own part of every batch; gradients are averaged where
an optimiser steps, by `optimizers`. Lightning's wrapper for data parallelism is left out: it counts
on one forward pass for each backward pass through weights that all need gradients, and a CycleGAN
sends several images through a generator first and looks at frozen discriminators.

Besides the devices' own channel there is one on the CPU, for decisions: it never makes a device
wait.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.distributed.distributed_c10d import default_pg_timeout

from geocyclegan.errors import GeoCycleGANError, OptionError, TrainingError
from geocyclegan.training.meeting import meet, require_launcher
from geocyclegan.training.precision import PrecisionName, fabric_precision

T = TypeVar("T")

_BUCKET_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Layout:
    """How many processes train together.

    Attributes:
        devices: on each machine.
        nodes: machines.
    """

    devices: int
    nodes: int


def layout(devices: int | None, nodes: int | None, device: torch.device) -> Layout:
    """Read off what was asked for, or what torchrun has started.

    Raises:
        OptionError: torchrun started another number, there are not so many devices, or nothing
            says which of several machines this is.
    """
    if dist.is_torchelastic_launched():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        machines = int(os.environ["WORLD_SIZE"]) // local
        for name, asked, found in (("devices", devices, local), ("nodes", nodes, machines)):
            if asked is not None and asked != found:
                raise OptionError(f"--{name} {asked}: torchrun started {found}; leave it out")
        devices, nodes = local, machines
    planned = Layout(devices or 1, nodes or 1)
    if not dist.is_torchelastic_launched():
        require_launcher(planned.nodes, planned.devices)
    if device.type == "cuda" and planned.devices > torch.cuda.device_count():
        raise OptionError(
            f"--devices {planned.devices}: this machine has {torch.cuda.device_count()} CUDA"
            " devices"
        )
    return planned


class _Copies(DDPStrategy):
    """Processes with a copy of the networks each, which are left as they are."""

    def setup_environment(self) -> None:
        """Meet the others first, unless torchrun has seen to that; Lightning does the rest."""
        if not dist.is_torchelastic_launched():
            environment = cast(ClusterEnvironment, self.cluster_environment)
            environment.set_global_rank(self.node_rank * self.num_processes + self.local_rank)
            environment.set_world_size(self.num_nodes * self.num_processes)
            try:
                store = meet(environment)
            except GeoCycleGANError:
                for child in getattr(self._launcher, "procs", ()):
                    child.terminate()
                raise
            device = self.root_device
            dist.init_process_group(
                self.process_group_backend,
                store=store,
                rank=environment.global_rank(),
                world_size=environment.world_size(),
                timeout=default_pg_timeout,
                device_id=None if device.type == "cpu" else device,
            )
        super().setup_environment()

    def setup_module(self, module: nn.Module) -> Any:
        return module


def launch(planned: Layout, device: torch.device, precision: PrecisionName) -> Fabric:
    """Start the processes, unless torchrun or a cluster has started them, and name their device.

    The others run the same command line again, up to here.

    Raises:
        OptionError: the scheduler started another number of processes.
        TrainingError: not all processes came in time.
        Interrupted: SIGINT or SIGTERM while waiting for them.
    """
    plugin = fabric_precision(precision)
    if planned.devices * planned.nodes == 1:
        return Fabric(accelerator=device.type, devices=1, precision=plugin)
    fabric = Fabric(
        accelerator=device.type,
        devices=planned.devices,
        num_nodes=planned.nodes,
        strategy=_Copies(process_group_backend="nccl" if device.type == "cuda" else "gloo"),
        precision=plugin,
    )
    try:
        fabric.launch()
    except ValueError as error:
        # Lightning compares with what the scheduler says.
        line = " ".join(str(error).split())
        asked = f"--devices {planned.devices} --nodes {planned.nodes}"
        raise OptionError(f"{asked}: the scheduler started something else ({line})") from error
    return fabric


class Ranks:
    """What processes do together; where there is only one, each of these is a plain call.

    Args:
        rank: number of this process.
        size: how many there are; more than one needs torch.distributed to be set up.
        local_rank: number of this process on its machine.

    Attributes:
        failed_alone: whether this process has an error that the others do not know of.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self.failed_alone = False
        self._talk: dist.ProcessGroup | None = None
        if size > 1:
            self._talk = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def lead(self, call: Callable[[], T]) -> T:
        """Let the first process do something; all get what it returns, or raise what it raised."""
        if self.size == 1:
            return call()
        told: list[Any] = [None, None]
        fault: BaseException | None = None
        if self.leads:
            try:
                told[0] = call()
            except GeoCycleGANError as error:
                fault, told[1] = error, error
            except Exception as error:
                # The others must not wait for an answer that never comes.
                fault, told[1] = error, TrainingError(f"{type(error).__name__}: {error}")
        dist.broadcast_object_list(told, src=0, group=self._talk)
        if fault is not None:
            raise fault
        if told[1] is not None:
            raise told[1]
        return cast(T, told[0])

    def gather(self, value: T) -> list[T]:
        """Give the first process everybody's value, in order; the others get none."""
        if self.size == 1:
            return [value]
        found: list[Any] | None = [None] * self.size if self.leads else None
        dist.gather_object(value, found, dst=0, group=self._talk)
        return [] if found is None else found

    def share(self, value: T) -> list[T]:
        """Give everybody everybody's value, in order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self._talk)
        return found

    def largest(self, number: int) -> int:
        """Return the largest of everybody's numbers."""
        if self.size == 1:
            return number
        shared = torch.tensor(number)
        dist.all_reduce(shared, dist.ReduceOp.MAX, group=self._talk)
        return int(shared)

    def together(self, call: Callable[[], T]) -> T:
        """Do something in every process; if one fails, all raise the error of the first that did.

        Only for what does not wait for others itself.
        """
        if self.size == 1:
            return call()
        value: T | None = None
        fault: Exception | None = None
        try:
            value = call()
        except Exception as error:
            fault = error
        if self.largest(int(fault is not None)):
            said = None if fault is None else _as_ours(fault)
            everybody: list[Any] = [None] * self.size
            dist.all_gather_object(everybody, said, group=self._talk)
            if fault is not None and not isinstance(fault, GeoCycleGANError):
                raise fault
            raise next(error for error in everybody if error is not None)
        return cast(T, value)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Let each process do its part of a step, in which it may fail alone.

        `failed_alone` tells afterwards that no other process has the error: it must be said here.
        """
        try:
            yield
        except GeoCycleGANError as error:
            if self.size > 1:
                self.failed_alone = True
                error.args = (f"process {self.rank}: {error}",)
            raise

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the means of everybody's numbers by name."""
        if self.size == 1 or not values:
            return dict(values)
        shared = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(shared, group=self._talk)
        return dict(zip(values, (shared / self.size).tolist(), strict=True))

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace gradients by their means over all processes, on the devices' own channel.

        Args:
            parameters: weights of any shape, the same in each process; those without a gradient
                are left out, and must be so in every process.
        """
        if self.size == 1:
            return
        waiting = []
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            waiting.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        for bucket, flat, work in waiting:
            work.wait()
            flat /= self.size
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))


def _buckets(gradients: list[Tensor]) -> list[list[Tensor]]:
    """Put gradients together until they are worth a message."""
    found: list[list[Tensor]] = []
    held = _BUCKET_BYTES
    for gradient in gradients:
        if held >= _BUCKET_BYTES or found[-1][0].dtype != gradient.dtype:
            found.append([])
            held = 0
        found[-1].append(gradient)
        held += gradient.nbytes
    return found


def _as_ours(error: Exception) -> GeoCycleGANError:
    if isinstance(error, GeoCycleGANError):
        return error
    return TrainingError(f"{type(error).__name__}: {error}")


def is_broken(error: BaseException) -> bool:
    """Whether an error says that another process, which this one wants something of, is gone."""
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in said for words in ("gloo", "nccl", "connection closed", "connection reset")
    )
