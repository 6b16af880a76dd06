"""The learning rate over the steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch.optim import Optimizer


@dataclass(frozen=True)
class LinearDecay:
    """Constant, then linear to exactly zero: the paper's 100 + 100 epochs, by step.

    It knows the total only, so a run that is resumed with more steps follows the new total from
    there on: the rate jumps to where the longer schedule would be.

    Attributes:
        total: steps of the run.
        decay: share of them in which the rate falls; 0: none.
    """

    total: int
    decay: float

    def factor(self, done: int) -> float:
        """Return what to multiply the learning rate with after so many steps.

        Step number `done` (from 0) uses it. It is 1 before the decay and exactly 0 at the end.
        """
        falling = round(self.decay * self.total)
        if falling == 0:
            return 1.0
        return min(1.0, max(0, self.total - done) / falling)

    def apply(self, optimizers: Iterable[Optimizer], lr: float, done: int) -> float:
        """Set the learning rate for the next step, and return it."""
        rate = lr * self.factor(done)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        return rate
