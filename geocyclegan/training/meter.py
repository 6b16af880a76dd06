"""Losses between two lines of the log, without making the device wait."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class Arrival(Protocol):
    """An event of CUDA, as far as it is needed."""

    def record(self) -> None:
        """Mark this place among what the device has to do."""
        ...

    def query(self) -> bool:
        """Whether the device has come there."""
        ...


class Mail:
    """Brings a number from a device without waiting for it, one at a time.

    Args:
        there: a scalar on the CPU, which the device can write to by itself.
        arrival: tells when it has.
    """

    def __init__(self, there: Tensor, arrival: Arrival) -> None:
        self._there, self._arrival = there, arrival
        self._under_way = False
        self._latest = -1

    def send(self, number: Tensor) -> None:
        """Send a scalar, unless an earlier one has not come yet."""
        self.latest()
        if not self._under_way:
            self._there.copy_(number, non_blocking=True)
            self._arrival.record()
            self._under_way = True

    def latest(self) -> int:
        """Return the last number that has come; -1 before the first."""
        if self._under_way and self._arrival.query():
            self._latest, self._under_way = int(self._there), False
        return self._latest


def cuda_mail(device: torch.device) -> Mail | None:
    """Return what brings numbers from a device of CUDA; None for others."""
    if device.type != "cuda":
        return None
    with torch.cuda.device(device):
        there = torch.empty((), dtype=torch.int64, pin_memory=True)
        return Mail(there, torch.cuda.Event())  # type: ignore[no-untyped-call]


class LossMeter:
    """Sums losses on their device and watches for what is not finite.

    On the CPU every step is looked at; elsewhere that would stall the device, so the first bad step
    is remembered there, to be fetched by `bad()` together with the line of the log, and before
    anything is saved. CUDA sends word of it meanwhile, which `noticed()` looks for.

    Args:
        mail: what sends word, for a device; None: nothing does.
    """

    def __init__(self, mail: Callable[[torch.device], Mail | None] | None = None) -> None:
        self._open_mail = cuda_mail if mail is None else mail
        self._mail: Mail | None = None
        self.names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._count = 0
        self._bad_step: Tensor | None = None
        self._bad_pass: Tensor | None = None
        self._bad_values: Tensor | None = None

    def add(self, step: int, *losses: Mapping[str, Tensor]) -> None:
        """Count the losses of a step.

        Args:
            step: its number.
            *losses: of each of its passes, detached scalars by name; the names are always the same.
        """
        if not self.names:
            self.names = tuple(losses[0])
        # (passes, names)
        values = torch.stack(
            [torch.stack([found[name].double() for name in self.names]) for found in losses]
        )
        mean = values.mean(dim=0)
        self._sums = mean if self._sums is None else self._sums + mean
        self._count += 1
        if self._bad_step is None or self._bad_values is None or self._bad_pass is None:
            self._bad_step = torch.full((), -1, device=values.device)
            self._bad_pass = torch.zeros((), dtype=torch.long, device=values.device)
            self._bad_values = torch.zeros_like(mean)
            self._mail = self._open_mail(values.device)
        wrong = ~torch.isfinite(values).all(dim=1)
        first = (self._bad_step < 0) & wrong.any()
        place = wrong.long().argmax()
        # Not values[place]: to index with a number on the device is to fetch it first.
        worst = values.index_select(0, place[None])[0]
        self._bad_step = torch.where(first, step, self._bad_step)
        self._bad_pass = torch.where(first, place, self._bad_pass)
        self._bad_values = torch.where(first, worst, self._bad_values)
        if self._mail is not None:
            self._mail.send(self._bad_step)

    @property
    def cheap(self) -> bool:
        """Whether `bad()` costs next to nothing, as on the CPU."""
        return self._bad_step is None or self._bad_step.device.type == "cpu"

    def noticed(self) -> bool:
        """Whether word of a bad step has come; it is never waited for.

        That is a step or two after the device has done the bad one. Then `bad()` tells more.
        """
        return self._mail is not None and self._mail.latest() >= 0

    def bad(self) -> tuple[int, int, dict[str, float]] | None:
        """Return the first step whose losses are not all finite; None if there is none.

        Returns:
            The step, the first such pass of it, and its losses that are not finite.
        """
        if self._bad_step is None or self._bad_values is None or int(self._bad_step) < 0:
            return None
        values = dict(zip(self.names, self._bad_values.tolist(), strict=True))
        wrong = {name: value for name, value in values.items() if not math.isfinite(value)}
        return int(self._bad_step), int(self._bad_pass or 0), wrong

    def take(self) -> dict[str, float]:
        """Return the means since the last call, and start anew."""
        if self._sums is None:
            return {}
        means = (self._sums / self._count).tolist()
        self._sums, self._count = None, 0
        return dict(zip(self.names, means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of a line that is not full yet."""
        return {"names": list(self.names), "sums": self._sums, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what `state_dict` gave."""
        self.names = tuple(str(name) for name in state["names"])
        sums = state["sums"]
        self._sums = None if sums is None else sums.to(device)
        self._count = int(state["count"])
