"""Networks and optimisers on their device, and everything about them that a checkpoint holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from torch.optim import Optimizer

from geocyclegan.errors import BundleError, OptionError, TrainingError
from geocyclegan.methods.base import Batch, Direction
from geocyclegan.models import Generator
from geocyclegan.training.config import TrainConfig, resolved
from geocyclegan.training.data import Chips
from geocyclegan.training.meter import LossMeter
from geocyclegan.training.randomness import random_state, restore_random_state
from geocyclegan.training.resolve import build
from geocyclegan.training.schedule import LinearDecay

log = logging.getLogger(__name__)


class TrainingState:
    """What training changes: weights, optimisers, pools, sums of the log, random generators.

    Seeds torch's global generator, from which weights are drawn.

    Args:
        fabric: places the networks on their device, and runs the backward pass.
        config: resolved.
        chips: the domains.
        checkpoint: what `to_checkpoint` gave; None for a fresh start.

    Raises:
        BundleError: the checkpoint is of another run.
        OptionError: it has more steps than this run shall have.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: TrainConfig,
        chips: Chips,
        checkpoint: Mapping[str, Any] | None = None,
    ) -> None:
        self._fabric = fabric
        self._config = config
        self._fingerprint = chips.fingerprint()
        self.schedule = LinearDecay(config.steps or 0, resolved(config.decay))
        self.meter = LossMeter()
        self.step = 0
        torch.manual_seed(config.seed)
        self.method = build(config, chips)
        # The networks themselves, which a bundle keeps; Fabric wraps them below.
        self.generators = cast(dict[Direction, Generator], self.method.generators())
        if checkpoint is not None:
            self._check(checkpoint)
            _fitting(self._load_networks, checkpoint)
        self._place_networks()
        self.optimizers = self.method.optimizers()
        if checkpoint is not None:
            _fitting(self._load_rest, checkpoint)
        # Kept apart from the plain ones, whose state and rates are read and set.
        self._wrapped = {
            name: cast(Optimizer, fabric.setup_optimizers(optimizer))
            for name, optimizer in self.optimizers.items()
        }
        self.lr = self._set_lr()

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self._fabric.device

    def advance(self, batch: Batch) -> None:
        """Do one step.

        Raises:
            TrainingError: the device has not memory enough.
        """
        try:
            losses = self.method.step(batch, self._wrapped, self._fabric.backward)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"step {self.step + 1}: out of memory on {self.device}; try a smaller --crop,"
                " --batch or --width, or --device cpu"
            ) from error
        self.step += 1
        self.meter.add(self.step, losses)
        self.lr = self._set_lr()

    def finite(self) -> bool:
        """Whether every weight is a finite number."""
        checks = [torch.isfinite(weight).all() for weight in self.method.parameters()]
        return bool(torch.stack(checks).all())

    def to_checkpoint(self) -> dict[str, Any]:
        """Return everything, in types that `torch.load(weights_only=True)` takes."""
        return {
            "chips": self._fingerprint,
            "config": self._config.to_dict(),
            "torch_version": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "networks": self.method.state_dict(),
            "extra": self.method.extra_state(),
            "optimizers": {name: each.state_dict() for name, each in self.optimizers.items()},
            "meter": self.meter.state_dict(),
            "random": random_state(),
        }

    def _set_lr(self) -> float:
        return self.schedule.apply(self.optimizers.values(), resolved(self._config.lr), self.step)

    def _place_networks(self) -> None:
        # One by one, so that precision and strategy of the engine act on each network's forward.
        for name, network in list(self.method.named_children()):
            if any(True for _ in network.parameters()):
                setattr(self.method, name, self._fabric.setup_module(network))

    def _check(self, checkpoint: Mapping[str, Any]) -> None:
        step, total = int(checkpoint.get("step", 0)), self.schedule.total
        if step > total:
            raise OptionError(
                f"--steps {total}: the run {self._config.name} has {step} steps already; --steps is"
                " the total, so give more"
            )
        if checkpoint.get("chips") != self._fingerprint:
            raise BundleError(
                f"{self._config.chips}: the chips are not those that the run {self._config.name}"
                " was started with (others, or fitted anew); put those back, or start another run"
                " with another --name"
            )
        threads = checkpoint.get("threads")
        if self._fabric.device.type == "cpu" and threads != torch.get_num_threads():
            log.warning(
                "the run was started with %s threads and goes on with %d, so its last digits will"
                " differ from those of an uninterrupted one; set OMP_NUM_THREADS=%s to avoid that",
                threads,
                torch.get_num_threads(),
                threads,
            )

    def _load_networks(self, checkpoint: Mapping[str, Any]) -> None:
        self.step = int(checkpoint["step"])
        self.method.load_state_dict(checkpoint["networks"])

    def _load_rest(self, checkpoint: Mapping[str, Any]) -> None:
        self.method.load_extra_state(checkpoint["extra"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(checkpoint["optimizers"][name])
        self.meter.load_state_dict(checkpoint["meter"], self._fabric.device)
        restore_random_state(checkpoint["random"])


def _fitting(load: Any, checkpoint: Mapping[str, Any]) -> None:
    try:
        load(checkpoint)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        if isinstance(error, BundleError):
            raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BundleError(f"the checkpoint does not fit the run ({line})") from error
