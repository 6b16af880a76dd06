"""Networks and optimisers on their device, and everything about them that a checkpoint holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from geocyclegan.errors import BundleError, OptionError, TrainingError
from geocyclegan.methods.base import Batch, Direction
from geocyclegan.models import Generator
from geocyclegan.models.norm import sum_over_ranks
from geocyclegan.models.padding import replace_padding
from geocyclegan.training.config import TrainConfig, resolved
from geocyclegan.training.data import Chips
from geocyclegan.training.ema import RunningMean
from geocyclegan.training.graphs import Graphs
from geocyclegan.training.meter import LossMeter
from geocyclegan.training.optimizers import Passes, fused, one_scale, wrap
from geocyclegan.training.placing import (
    compile_networks,
    lay,
    save_memory,
    wants_compile,
)
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
        # The networks themselves, which a bundle keeps; Fabric wraps them below.
        self.generators = cast(dict[Direction, Generator], self.method.generators())
        self.makers = self.method.makers()
        if checkpoint is not None:
            self._check(checkpoint)
            _fitting(self._load_networks, checkpoint)
        self._networks = self._place_networks()
        self.optimizers = {name: fused(each) for name, each in self.method.optimizers().items()}
        self.mean = RunningMean({**self.generators, **self.makers}, config.ema)
        if self._ranks.rank:
            # The weights are the same everywhere; what is drawn from here on is not.
            torch.manual_seed(seed_of(config, self._ranks.rank))
        if checkpoint is not None:
            _fitting(self._load_rest, checkpoint)
        self._passes = Passes()
        # Kept apart from the plain ones, whose state and rates are read and set.
        self._wrapped = wrap(self.optimizers, fabric, self._passes, self._ranks)
        self.lr = self.set_lr()
        self._graphs = Graphs(config.cuda_graphs)
        asked = True if config.cuda_graphs else config.compile
        if wants_compile(asked, self.device, (config.steps or 0) - self.step):
            shape = resolved(config.batch), resolved(config.crop)
            compile_networks(self._networks, shape, fabric, self._graphs)
        self._passes.lent = self._graphs.on

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
        losses = []
        self._passes.count = len(batches)
        try:
            with one_scale(self._fabric):
                for number, batch in enumerate(batches):
                    self._passes.number = number
                    self._graphs.begin(batch)
                    moved = batch.to(self.device, non_blocking=True)
                    losses.append(self.method.step(moved, self._wrapped, self._backward))
        except RuntimeError as error:
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
            if isinstance(cause, torch.OutOfMemoryError):
                less = "--no-cuda-graphs, " if self._graphs.on else ""
                return (
                    f"out of memory on {self.device}; try {less}--memory-saving, a smaller --crop,"
                    " --batch or --width, or --device cpu"
                )
            cause = cause.__context__
        return self._graphs.explain(error)

    def _backward(self, loss: Tensor) -> None:
        count = self._passes.count
        self._fabric.backward(loss if count == 1 else loss / count)

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

    def _place_networks(self) -> list[nn.Module]:
        """Put the networks on their device, in the engine's hands; return them without these."""
        config, placed = self._config, []
        # One by one, so that the engine's precision acts on each network's forward.
        for name, network in list(self.method.named_children()):
            if any(True for _ in network.parameters()):
                lay(network, self.device, cast(PrecisionName, config.precision))
                placed.append(network)
                setattr(self.method, name, self._fabric.setup_module(network))
        if config.memory_saving:
            save_memory(placed)
        if self.device.type == "cuda":
            replace_padding(placed, repeatable=config.deterministic)
        if config.norm == "scene" and self._ranks.size > 1:
            for generator in self.generators.values():
                for norm in generator.norm_layers():
                    norm.across = sum_over_ranks
        # Fewer launches on a GPU, fewer readings of the weights on a CPU.
        self.method.joined = True
        return placed

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
