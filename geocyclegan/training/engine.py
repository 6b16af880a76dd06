"""A method on its device: networks placed and compiled, optimisers wrapped, and one step.

The one way in which training, the benchmark and the tests on GPUs put a step together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from geocyclegan.methods.base import Batch, Method
from geocyclegan.models import Generator
from geocyclegan.models.norm import sum_over_ranks
from geocyclegan.models.padding import replace_padding
from geocyclegan.training.graphs import Graphs
from geocyclegan.training.optimizers import Passes, fused, one_scale, wrap
from geocyclegan.training.placing import compile_networks, lay, save_memory
from geocyclegan.training.precision import PrecisionName
from geocyclegan.training.ranks import Ranks


class Engine:
    """Runs the steps of a method.

    Weights are loaded into the method before, states of optimisers and pools afterwards.

    Args:
        method: its networks are moved to the device and wrapped.
        fabric: knows the device and the precision, and runs the backward pass.
        precision: what the networks run in; that of `fabric`.
        ranks: who trains together; alone, if left out.
        deterministic: only operations that give the same bits every time.
        memory_saving: generators compute activations again instead of keeping them.
        across: norm layers that pool over the crops of a scene do so over all processes.
        compiled: whether the networks are compiled, in the first step.
        recorded: whether they run from CUDA graphs; then they are compiled, too.

    Attributes:
        method: the method.
        networks: its networks as a bundle keeps them, without the wrapping.
        optimizers: the plain ones by name, whose state and rates are read and set.
        graphs: whether networks run from recordings.
        passes: which of a step's passes is under way.

    Raises:
        OptionError: `memory_saving` is not for these networks.
    """

    def __init__(
        self,
        method: Method,
        fabric: Fabric,
        precision: PrecisionName,
        *,
        ranks: Ranks | None = None,
        deterministic: bool = False,
        memory_saving: bool = False,
        across: bool = False,
        compiled: bool = False,
        recorded: bool = False,
    ) -> None:
        self.method = method
        self._fabric = fabric
        generators = [g for g in method.generators().values() if isinstance(g, Generator)]
        self.networks = _placed(method, fabric, precision)
        if memory_saving:
            save_memory(self.networks)
        if self.device.type == "cuda":
            replace_padding(self.networks, repeatable=deterministic)
        if across:
            for generator in generators:
                for norm in generator.norm_layers():
                    norm.across = sum_over_ranks
        # Fewer launches on a GPU, fewer readings of the weights on a CPU.
        method.joined = True
        self.optimizers = {name: fused(each) for name, each in method.optimizers().items()}
        self.passes = Passes()
        self._wrapped = wrap(self.optimizers, fabric, self.passes, ranks or Ranks())
        self.graphs = Graphs(recorded)
        self._to_compile = compiled or recorded

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self._fabric.device

    def step(self, *batches: Batch) -> list[dict[str, Tensor]]:
        """Do one step; networks that shall be compiled are so before the first.

        Args:
            batches: what each of its passes sees, on any device; all count alike.

        Returns:
            The losses of each pass, see `Method.step`.
        """
        self.prepare(batches[0])
        losses = []
        self.passes.count = len(batches)
        with one_scale(self._fabric):
            for self.passes.number, batch in enumerate(batches):
                self.graphs.begin(batch)
                moved = batch.to(self.device, non_blocking=True)
                losses.append(self.method.step(moved, self._wrapped, self._backward))
        return losses

    def prepare(self, batch: Batch) -> None:
        """Compile networks that shall be compiled and are not yet; the first step does so, too.

        A step that changes nothing shows each network every form in which it is called: images of
        one domain or joined ones, with gradients of the images or without, judges that learn and
        frozen ones.

        Args:
            batch: what steps will see, on any device.
        """
        if not self._to_compile:
            return
        self._to_compile = False
        seen = batch.to(self.device)
        still: Mapping[str, Optimizer] = {
            name: cast(Optimizer, _Still(each)) for name, each in self.optimizers.items()
        }

        def trial() -> None:
            self.passes.count, self.passes.number = 1, 0
            with _undone(self.method, self.device):
                self.method.step(seen, still, self._backward)

        compile_networks(self.networks, trial, self.device, self.graphs)
        self.passes.lent = self.graphs.on

    def _backward(self, loss: Tensor) -> None:
        count = self.passes.count
        self._fabric.backward(loss if count == 1 else loss / count)


class _Still:
    """An optimiser for a trial: it forgets gradients, and moves nothing."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._optimizer.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        pass


def _placed(method: Method, fabric: Fabric, precision: PrecisionName) -> list[nn.Module]:
    """Put networks on the device, in the engine's hands; return them without these."""
    placed = []
    # One by one, so that the engine's precision acts on each network's forward.
    for name, network in list(method.named_children()):
        if any(True for _ in network.parameters()):
            lay(network, fabric.device, precision)
            placed.append(network)
            setattr(method, name, fabric.setup_module(network))
    return placed


@contextmanager
def _undone(method: Method, device: torch.device) -> Iterator[None]:
    """Put back afterwards what a step changes, but for weights, which only optimisers move."""
    # Spectral norms move with each pass, and so do means and variances of batches.
    buffers = [(buffer, buffer.clone()) for buffer in method.buffers()]
    pools = method.extra_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        method.zero_grad(set_to_none=True)
        method.load_extra_state(pools)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
