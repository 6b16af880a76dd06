"""A running mean of the generators' weights, which is calmer than the weights of any one step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_WARM_UP = 10


class RunningMean:
    """Exponential moving average of weights and buffers; none where the decay is 0.

    While the run is young the mean forgets faster, min(decay, (1 + t) / (10 + t)) after t steps, so
    that the initial weights do not linger.

    Args:
        networks: by name; their weights are read at each `update`.
        decay: share of the old mean in the new one.
    """

    def __init__(self, networks: Mapping[Any, nn.Module], decay: float) -> None:
        self.decay = decay
        self._live: dict[str, Tensor] = {}
        if decay:
            for name, network in networks.items():
                for key, tensor in network.state_dict(keep_vars=True).items():
                    self._live[f"{name}.{key}"] = tensor
        self._mean = {key: tensor.detach().clone() for key, tensor in self._live.items()}

    def update(self, step: int) -> None:
        """Add the weights after a step, counted from 1, to the mean."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (_WARM_UP + step))
        floating = [key for key, tensor in self._live.items() if tensor.is_floating_point()]
        with torch.no_grad():
            torch._foreach_lerp_(
                [self._mean[key] for key in floating],
                [self._live[key].detach() for key in floating],
                1 - decay,
            )
            for key in self._live.keys() - set(floating):
                self._mean[key].copy_(self._live[key])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the mean in the networks' place inside the block, and the weights back after it."""
        self._swap(self._live)
        try:
            yield
        finally:
            self._swap(self._live)

    def _swap(self, keys: Iterable[str]) -> None:
        for key in keys:
            live = self._live[key]
            live.data, self._mean[key] = self._mean[key], live.data

    def state_dict(self) -> dict[str, Tensor]:
        """Return the mean by name of network and weight; each of the shape of that weight."""
        return dict(self._mean)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            KeyError: a weight is missing.
        """
        for key, mean in self._mean.items():
            mean.copy_(state[key])
