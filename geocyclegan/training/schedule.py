"""The learning rate over the steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
        return set_rate(optimizers, lr * self.factor(done))


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a share of `--lr`, from what is known at a step; nothing is to save.

    - "linear": `LinearDecay`;
    - "constant": 1;
    - "cosine": from 1 to exactly 0 over the whole run (Loshchilov and Hutter, ICLR 2017, without
      restarts);
    - "one-cycle": up from 1/25 over the first 30 % of the steps, down to 1/250,000 over the others,
      both along a cosine (Smith and Topin, 2018);
    - "plateau": times 0.2 whenever five validations in a row have not bettered the score by 1 %.

    Attributes:
        kind: one of these.
        total: steps of the run.
        decay: share of them in which "linear" falls.
    """

    kind: str
    total: int
    decay: float = 0.5

    def factor(self, done: int, scores: Sequence[float] = ()) -> float:
        """Return what to multiply the learning rate with after so many steps.

        Args:
            done: steps done; the next one, number `done` from 0, uses the rate.
            scores: of the validations so far, in order; less is better.
        """
        share = min(1.0, done / self.total) if self.total else 1.0
        if self.kind == "linear":
            return LinearDecay(self.total, self.decay).factor(done)
        if self.kind == "cosine":
            return _cosine(1.0, 0.0, share)
        if self.kind == "one-cycle":
            if share < _RISE:
                return _cosine(1 / 25, 1.0, share / _RISE)
            return _cosine(1.0, 1 / 250_000, (share - _RISE) / (1 - _RISE))
        if self.kind == "plateau":
            return float(_PLATEAU_FACTOR ** _plateaus(scores))
        return 1.0

    def apply(
        self, optimizers: Iterable[Optimizer], lr: float, done: int, scores: Sequence[float] = ()
    ) -> float:
        """Set the learning rate for the next step, and return it."""
        return set_rate(optimizers, lr * self.factor(done, scores))


def set_rate(optimizers: Iterable[Optimizer], rate: float) -> float:
    """Set the learning rate of all weights, and return it."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
    return rate


_RISE = 0.3
_PLATEAU_FACTOR, _PLATEAU_PATIENCE, _PLATEAU_GAIN = 0.2, 5, 0.01


def _cosine(start: float, end: float, share: float) -> float:
    """Return a value on half a wave; both ends are met exactly."""
    if share >= 1.0:
        return end
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


def _plateaus(scores: Sequence[float]) -> int:
    """Count how often the rate has fallen."""
    best, waited, found = math.inf, 0, 0
    for score in scores:
        if score < best * (1 - _PLATEAU_GAIN):
            best, waited = score, 0
        else:
            waited += 1
        if waited >= _PLATEAU_PATIENCE:
            found, waited = found + 1, 0
    return found
