"""The training loop: from a configuration to a run folder with a model bundle."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from geocyclegan.bundle import load_bundle, save_bundle
from geocyclegan.device import choose_device
from geocyclegan.errors import (
    BundleError,
    GeoCycleGANError,
    Interrupted,
    OptionError,
    TrainingError,
)
from geocyclegan.files import make_folder
from geocyclegan.methods.base import Batch
from geocyclegan.progress import Progress
from geocyclegan.training.checkpoint import (
    checkpoint_path,
    checkpoints,
    load_latest,
    save_checkpoint,
)
from geocyclegan.training.config import TrainConfig, resolved
from geocyclegan.training.data import Batches, Budget, Chips, LevelReader, prefetched
from geocyclegan.training.report import Reporter
from geocyclegan.training.resolve import (
    require_same,
    resolve,
    sampler_of,
    warn_of_identity,
    warn_of_scenes,
)
from geocyclegan.training.run import RunFolder, claim, stored_config
from geocyclegan.training.signals import StopRequest
from geocyclegan.training.state import TrainingState
from geocyclegan.training.statistics import regime, training_statistics
from geocyclegan.training.validate import FixedCrops

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a finished run left behind.

    Attributes:
        run: the run folder.
        model: the model bundle in it.
        steps: steps done in total.
        losses: means of the last line of the log; empty if there was nothing left to do.
    """

    run: Path
    model: Path
    steps: int
    losses: dict[str, float]


def train(config: TrainConfig, *, resume: bool = False, overwrite: bool = False) -> TrainResult:
    """Train a translation model on chips.

    SIGINT and SIGTERM end it after the current step, with a checkpoint. It seeds torch's global
    random generator; on the CPU, with as many threads, a run that was resumed is bit for bit one
    that was never interrupted.

    Args:
        config: what to train.
        resume: go on with the run `config.name` up to `config.steps` in total.
        overwrite: replace a run of that name.

    Raises:
        OptionError: an option does not fit the chips, the networks or the run; nothing was written.
        NotFoundError: there is no run to resume.
        ChipsError: chips are missing, mixed or damaged.
        OutputError: the run exists, is being written, or cannot be written.
        BundleError: the checkpoint to resume from is damaged or of other chips.
        TrainingError: a loss or a weight is not finite, or memory does not suffice.
        Interrupted: a signal came; what was reached has been saved.
    """
    if resume and overwrite:
        raise OptionError("--resume and --overwrite: give one of them")
    stored = stored_config(config.out, config.name) if resume else None
    if stored is not None and config.steps is None and config.epochs is None:
        config = config.updated({"steps": stored.steps})
    device = choose_device(config.device)
    chips = Chips.open(config.chips)
    config = resolve(config, chips)
    if stored is not None:
        require_same(config, stored)
    with (
        StopRequest() as stop,
        claim(config.out, config.name, config.method, resume=resume, overwrite=overwrite) as run,
    ):
        config = config.updated({"name": run.path.name})
        warn_of_identity(config, chips)
        warn_of_scenes(config, chips)
        # One device; more processes, and other precisions, are Fabric's to add here.
        fabric = Fabric(accelerator=device.type, devices=1, precision="32-true")
        torch.backends.cudnn.benchmark = device.type == "cuda"
        checkpoint = _checkpoint_of(run) if resume else None
        state = TrainingState(fabric, config, chips, checkpoint)
        del checkpoint
        # Written first: what has a configuration can be resumed.
        make_folder(run.path)
        run.clean(state.step)
        config.save(run.config)
        return _Trainer(config, chips, run, state, stop).fit()


def _checkpoint_of(run: RunFolder) -> dict[str, Any] | None:
    checkpoint = load_latest(run.checkpoints)
    if checkpoint is None:
        if run.model.exists():
            raise BundleError(
                f"{run.checkpoints}: the checkpoints are gone, so the run cannot be resumed; put"
                " them back, or start anew with --overwrite or another --name"
            )
        log.warning("%s was stopped before its first checkpoint; it starts at step 0", run.path)
    return checkpoint


class _Trainer:
    """One process's way through a run."""

    def __init__(
        self,
        config: TrainConfig,
        chips: Chips,
        run: RunFolder,
        state: TrainingState,
        stop: StopRequest,
    ) -> None:
        self._config, self._chips, self._run = config, chips, run
        self._state, self._stop = state, stop
        self._device = state.device
        self._total, self._crop = config.steps or 0, config.crop or 0
        self._sampler = sampler_of(config, chips)
        budget = Budget()
        train_a, train_b = LevelReader(chips.train_a, budget), LevelReader(chips.train_b, budget)
        self._batches = Batches(
            train_a,
            train_b,
            self._sampler,
            crop=self._crop,
            flip=config.flip,
            pin=self._device.type == "cuda",
        )
        self._train = train_a, train_b
        together = config.scene_crops or 1
        held_out = FixedCrops(
            LevelReader(chips.val_a, budget), LevelReader(chips.val_b, budget), self._crop, together
        )
        shown = held_out if len(held_out) else FixedCrops(train_a, train_b, self._crop, together)
        self._reporter = Reporter(config, chips, run, state, held_out, shown)

    def fit(self) -> TrainResult:
        """Go to the last step, or to a signal."""
        with self._reporter as reporter:
            if self._state.step:
                # What was due after the checkpoint's step, when the run was stopped or killed.
                reporter.look(self._device, self._stop.__bool__)
                if not self._bundle_is_current():
                    self._save_model()
            self._go()
            if self._stop:
                self._interrupt()
        return TrainResult(self._run.path, self._run.model, self._state.step, reporter.losses)

    def _go(self) -> None:
        state, config, reporter = self._state, self._config, self._reporter
        # On the CPU training needs the cores itself.
        threads = 1 if self._device.type == "cpu" else 4
        ahead = prefetched(self._batches.load, range(state.step, self._total), threads=threads)
        with (
            Progress(self._total, "train", "step", done=state.step) as progress,
            closing(ahead) as batches,
        ):
            for batch in self._until_stopped(batches):
                lr = state.lr
                state.advance(batch.to(self._device, non_blocking=True))
                shown: dict[str, float] = {}
                is_logged = reporter.due(config.log_every)
                if is_logged or state.meter.cheap:
                    self._require_finite_losses()
                if is_logged:
                    shown = reporter.write_losses(self._sampler.epoch_of(state.step), lr)
                progress.update(1, **shown)
                if reporter.due(config.save_every):
                    self._save()
                reporter.look(self._device, self._stop.__bool__)

    def _until_stopped(self, batches: Iterator[tuple[int, Batch]]) -> Iterator[Batch]:
        while not self._stop and self._state.step < self._total:
            yield next(batches)[1]

    def _save(self) -> None:
        """Write a checkpoint, then the bundle; neither with a number that is not finite."""
        state = self._state
        self._require_finite_losses()
        if not state.finite():
            raise TrainingError(
                f"step {state.step}: a weight is not a finite number any more; {self._way_out()}"
            )
        self._reporter.flush()
        save_checkpoint(self._run.checkpoints, state.step, state.to_checkpoint())
        self._save_model()

    def _save_model(self) -> None:
        config, chips, state = self._config, self._chips, self._state
        statistics = training_statistics(state.generators, self._train, self._crop, self._device)
        save_bundle(
            self._run.model,
            method=config.method,
            generators={
                k: (resolved(config.generator), net) for k, net in state.generators.items()
            },
            domains={"a": chips.train_a.domain, "b": chips.train_b.domain},
            tile=self._crop,
            normalization=regime(config),
            statistics=statistics,
            training={
                "steps": state.step,
                "scenes": {"a": list(chips.train_a.scenes), "b": list(chips.train_b.scenes)},
                "chips": chips.to_json(),
                "options": config.to_dict(),
                "losses": self._reporter.losses,
                "device": str(self._device),
                "torch": str(torch.__version__),
            },
        )

    def _bundle_is_current(self) -> bool:
        try:
            return bool(load_bundle(self._run.model).training.get("steps") == self._state.step)
        except GeoCycleGANError:
            return False

    def _interrupt(self) -> None:
        step, name = self._state.step, self._run.path.name
        if not checkpoint_path(self._run.checkpoints, step).exists():
            self._save()
        raise Interrupted(
            f"stopped by {self._stop.name} at step {step} of {self._total}, saved in"
            f" {self._run.path}; go on with: geocyclegan train --name {name} --resume",
            exit_code=self._stop.exit_code,
        )

    def _require_finite_losses(self) -> None:
        bad = self._state.meter.bad()
        if bad is None:
            return
        step, values = bad
        said = ", ".join(f"{name} is {value}" for name, value in values.items())
        raise TrainingError(
            f"step {step}: {said}, on {self._batches.names(step - 1)}; {self._way_out()}"
        )

    def _way_out(self) -> str:
        saved = checkpoints(self._run.checkpoints)
        last = f"{saved[-1]} is the last good checkpoint" if saved else "nothing was saved yet"
        return f"{last}; look at these chips, or start another run with a lower --lr"
