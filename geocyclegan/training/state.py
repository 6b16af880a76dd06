"""Networks and optimisers on their device, and everything about them that a checkpoint holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor

from geocyclegan.device import is_shortage
from geocyclegan.errors import BundleError, OptionError, TrainingError
from geocyclegan.methods.base import Batch, Direction
from geocyclegan.models import Generator
from geocyclegan.training.config import TrainConfig, resolved
from geocyclegan.training.data import Chips
from geocyclegan.training.ema import RunningMean
from geocyclegan.training.engine import Engine
from geocyclegan.training.meter import LossMeter
from geocyclegan.training.placing import wants_compile
from geocyclegan.training.precision import PrecisionName
from geocyclegan.training.randomness import random_state, restore_random_state
from geocyclegan.training.ranks import Ranks
from geocyclegan.training.resolve import build, seed_of
from geocyclegan.training.schedule import Schedule
from geocyclegan.training.score import Scores
from geocyclegan.training.skips import Skips

log = logging.getLogger(__name__)


class TrainingState:
    """What training changes: weights, optimisers, pools, sums of the log, random generators.

    Seeds torch's global generator, from which weights are drawn.

    Args:
        fabric: places the networks on their device, and runs the backward pass.
        config: resolved.
        chips: the domains.
        checkpoint: what `to_checkpoint` gave; None for a fresh start.
        ranks: who trains together; alone, if left out.
        skips: chips that the run goes without; none, if left out.

    Raises:
        BundleError: the checkpoint is of another run.
        OptionError: it has more steps than this run shall have, or is of another number of
            processes.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: TrainConfig,
        chips: Chips,
        checkpoint: Mapping[str, Any] | None = None,
        ranks: Ranks | None = None,
        skips: Skips | None = None,
    ) -> None:
        self.skips = skips or Skips()
        self._fabric = fabric
        self._config = config
        self._ranks = ranks or Ranks()
        self._fingerprint = chips.fingerprint()
        self.schedule = Schedule(config.schedule, config.steps or 0, resolved(config.decay))
        self.scores = Scores()
        self.meter = LossMeter()
        self.step = 0
        torch.manual_seed(config.seed)
        # A checkpoint has the encoder's weights; the file they came from may be gone.
        fresh = config if checkpoint is None else replace(config, encoder_weights=None)
        self.method = build(fresh, chips, self._ranks.rank)
        # The networks themselves, which a bundle keeps; the engine wraps them below.
        self.generators = cast(dict[Direction, Generator], self.method.generators())
        self.makers = self.method.makers()
        if checkpoint is not None:
            self._check(checkpoint)
            _fitting(self._load_networks, checkpoint)
        self._engine = Engine(
            self.method,
            fabric,
            cast(PrecisionName, config.precision),
            ranks=self._ranks,
            deterministic=config.deterministic,
            memory_saving=config.memory_saving,
            across=config.norm == "scene" and self._ranks.size > 1,
            # By all steps, not by those that are left: a resumed run computes as it began.
            compiled=wants_compile(config.compile, self.device, self.schedule.total),
            recorded=config.cuda_graphs,
        )
        self.optimizers = self._engine.optimizers
        self.mean = RunningMean({**self.generators, **self.makers}, config.ema)
        if self._ranks.rank:
            # The weights are the same everywhere; what is drawn from here on is not.
            torch.manual_seed(seed_of(config, self._ranks.rank))
        if checkpoint is not None:
            _fitting(self._load_rest, checkpoint)
        self.lr = self.set_lr()

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self._fabric.device

    def advance(self, *batches: Batch) -> None:
        """Do one step.

        Args:
            batches: what each of its passes sees; all count alike.

        Raises:
            TrainingError: the device has not memory enough, or a recording of CUDA graphs failed.
        """
        self.method.set_progress(self.step / max(self.schedule.total, 1))
        try:
            losses = self._engine.step(*batches)
        except (RuntimeError, MemoryError) as error:
            said = self._explained(error)
            if said is None:
                raise
            raise TrainingError(f"step {self.step + 1}: {said}") from error
        self.step += 1
        self.meter.add(self.step, *losses)
        self.mean.update(self.step)
        self.lr = self.set_lr()

    def _explained(self, error: BaseException) -> str | None:
        """Say what to do about an error of a step; None if that is not known."""
        cause: BaseException | None = error
        while cause is not None:
            # Memory may run out within a recording, whose end then fails, too.
            if is_shortage(cause):
                less = "--no-cuda-graphs, " if self._engine.graphs.on else ""
                other = ", or --device cpu" if self.device.type == "cuda" else ""
                return (
                    f"out of memory on {self.device}; try {less}--memory-saving, a smaller --crop,"
                    f" --batch or --width{other}"
                )
            cause = cause.__context__
        return self._engine.graphs.explain(error)

    def finite(self) -> bool:
        """Whether every weight is a finite number."""
        checks = [torch.isfinite(weight).all() for weight in self.method.parameters()]
        return bool(torch.stack(checks).all())

    def to_checkpoint(self) -> dict[str, Any]:
        """Return everything, in types that `torch.load(weights_only=True)` takes.

        All processes must call it; what the first returns is of all of them, and only that is to be
        saved.
        """
        own = {
            "extra": self.method.extra_state(),
            "meter": self.meter.state_dict(),
            "random": random_state(),
            "skipped": self.skips.state(),
        }
        if self._ranks.size > 1:
            # Where another process would look for a device that is not its own.
            own = _on_cpu(own)
        first, *others = self._ranks.gather(own) or [own]
        return {
            "chips": self._fingerprint,
            "config": self._config.to_dict(),
            "torch_version": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "ranks": self._ranks.size,
            "networks": self.method.state_dict(),
            "optimizers": {name: each.state_dict() for name, each in self.optimizers.items()},
            "scaler": self._fabric.strategy.precision.state_dict(),
            "mean": self.mean.state_dict(),
            **first,
            "others": others,
        }

    def set_lr(self) -> float:
        """Set the learning rate of the next step, by the steps done and the scores so far."""
        rate, scores = resolved(self._config.lr), self.scores.until(self.step).values
        return self.schedule.apply(self.optimizers.values(), rate, self.step, scores)

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
        ranks = checkpoint.get("ranks", 1)
        if ranks != self._ranks.size:
            raise OptionError(
                f"--devices {self._config.devices}, --nodes {self._config.nodes}: the run"
                f" {self._config.name} has states of {ranks} processes, this would be"
                f" {self._ranks.size}; resume it with as many"
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
        rank = self._ranks.rank
        own = checkpoint["others"][rank - 1] if rank else checkpoint
        self.method.load_extra_state(own["extra"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(checkpoint["optimizers"][name])
            for group in optimizer.param_groups:
                # A run of an earlier version, or on another device, has its own idea of this.
                if "fused" in group:
                    group["fused"], group["foreach"] = True, None
        if checkpoint.get("scaler"):
            self._fabric.strategy.precision.load_state_dict(checkpoint["scaler"])
        self.mean.load_state_dict(checkpoint.get("mean", {}))
        self.meter.load_state_dict(own["meter"], self._fabric.device)
        # A run of an earlier version has skipped none.
        everybody = [each.get("skipped", {}) for each in (checkpoint, *checkpoint["others"])]
        self.skips.load(own.get("skipped", {}), everybody)
        restore_random_state(own["random"])


def _fitting(load: Any, checkpoint: Mapping[str, Any]) -> None:
    try:
        load(checkpoint)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        if isinstance(error, BundleError):
            raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BundleError(f"the checkpoint does not fit the run ({line})") from error


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, Mapping):
        return {key: _on_cpu(each) for key, each in value.items()}
    return [_on_cpu(each) for each in value] if isinstance(value, list | tuple) else value
