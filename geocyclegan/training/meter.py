"""Losses between two lines of the log, without making the device wait."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class LossMeter:
    """Sums losses on their device and watches for what is not finite.

    On the CPU every step is looked at; elsewhere that would stall the device, so the first bad step
    is remembered there, to be fetched by `bad()` together with the line of the log, and before
    anything is saved.
    """

    def __init__(self) -> None:
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
        wrong = ~torch.isfinite(values).all(dim=1)
        first = (self._bad_step < 0) & wrong.any()
        place = wrong.long().argmax()
        # Not values[place]: to index with a number on the device is to fetch it first.
        worst = values.index_select(0, place[None])[0]
        self._bad_step = torch.where(first, step, self._bad_step)
        self._bad_pass = torch.where(first, place, self._bad_pass)
        self._bad_values = torch.where(first, worst, self._bad_values)

    @property
    def cheap(self) -> bool:
        """Whether `bad()` costs next to nothing, as on the CPU."""
        return self._bad_step is None or self._bad_step.device.type == "cpu"

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
