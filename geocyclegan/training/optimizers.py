"""Optimisers as methods call them, once for each pass, where a step may take several passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from lightning.fabric import Fabric
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim import Adam, AdamW, Optimizer

from geocyclegan.training.ranks import Ranks


class Passes:
    """Which of a step's passes is under way.

    Attributes:
        count: passes of the step.
        number: the current one, from 0.
        lent: whether a pass leaves gradients in memory that the next one writes over, as CUDA
            graphs do (see `graphs`).
    """

    def __init__(self) -> None:
        self.count, self.number = 1, 0
        self.lent = False

    @property
    def is_first(self) -> bool:
        """Whether gradients start from nothing."""
        return self.number == 0

    @property
    def is_last(self) -> bool:
        """Whether the weights may move."""
        return self.number == self.count - 1


class PassOptimizer:
    """Forgets gradients in the first pass of a step, and steps in the last.

    Gradients in memory that is lent are copied before it is claimed back, and forgotten by the step
    that was their purpose.

    Args:
        optimizer: wrapped by the engine, whose gradient scaler acts in its `step`.
        fabric: the engine.
        passes: shared by all optimisers of a method.
        ranks: whose gradients are averaged first.
    """

    def __init__(self, optimizer: Optimizer, fabric: Fabric, passes: Passes, ranks: Ranks) -> None:
        self.plain = optimizer
        self._wrapped = cast(Optimizer, fabric.setup_optimizers(optimizer))
        self._passes, self._ranks = passes, ranks

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the optimiser itself."""
        return self.plain.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget gradients, unless earlier passes of this step have left theirs."""
        if self._passes.is_first:
            self.plain.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Move the weights, once all passes of all processes have been through."""
        if self._passes.is_last:
            self._ranks.average_gradients(self._weights())
            self._wrapped.step()
            if self._passes.lent:
                self.plain.zero_grad(set_to_none=True)
        elif self._passes.lent:
            for weight in self._weights():
                if weight.grad is not None:
                    weight.grad = weight.grad.clone()

    def _weights(self) -> Iterator[Tensor]:
        return (weight for group in self.plain.param_groups for weight in group["params"])


@contextmanager
def one_scale(fabric: Fabric) -> Iterator[None]:
    """Keep the scale of fp16's gradients until the end of the block, a step.

    The engine would fit it anew after each optimiser: gradients that the next one has from earlier
    passes would be of another scale than those of the last pass.
    """
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    if scaler is None:
        yield
        return
    scaler.update = lambda new_scale=None: None
    try:
        yield
    finally:
        # The method of its class again.
        del scaler.update
    scaler.update()


def fused(optimizer: Optimizer) -> Optimizer:
    """Return Adam as one kernel over all weights; any other optimiser as it is.

    The fused kernels know the gradient scaler of fp16, too, and skip a step without asking the CPU.
    """
    kind = type(optimizer)
    if kind not in (Adam, AdamW):
        return optimizer
    # Left in the groups, these would outweigh the argument.
    own = ("fused", "foreach")
    groups = [{k: v for k, v in g.items() if k not in own} for g in optimizer.param_groups]
    one = kind(groups, fused=True)
    # PyTorch's fused kernels do not say that they changed the weights (2.10 to 2.15), and what is
    # computed from weights and kept, as `models.winograd` does, would outlive them.
    one.register_step_post_hook(_say_changed)
    return one


def _say_changed(optimizer: Optimizer, *_: object) -> None:
    for group in optimizer.param_groups:
        increment_version(group["params"])


def wrap(
    optimizers: Mapping[str, Optimizer], fabric: Fabric, passes: Passes, ranks: Ranks
) -> dict[str, Optimizer]:
    """Return what a method's step is given in place of its optimisers."""
    return {
        name: cast(Optimizer, PassOptimizer(optimizer, fabric, passes, ranks))
        for name, optimizer in optimizers.items()
    }
