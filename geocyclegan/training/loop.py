"""The training loop: from a configuration to a run folder with a model bundle."""

from __future__ import annotations

import logging
import shlex
import signal
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from geocyclegan.bundle import Packed, load_bundle, write_bundle
from geocyclegan.catalogue import method_info
from geocyclegan.device import choose_device
from geocyclegan.errors import (
    GeoCycleGANError,
    Interrupted,
    OptionError,
    TrainingError,
)
from geocyclegan.progress import Progress
from geocyclegan.threads import prefetched
from geocyclegan.training.checkpoint import (
    checkpoint_path,
    checkpoints,
    save_checkpoint,
)
from geocyclegan.training.classes import class_check
from geocyclegan.training.config import TrainConfig, resolved
from geocyclegan.training.data import Chips
from geocyclegan.training.feed import make_feed
from geocyclegan.training.hints import hinted, known_pairs
from geocyclegan.training.levels import Budget
from geocyclegan.training.pace import Pace
from geocyclegan.training.placing import settings_kept
from geocyclegan.training.precision import (
    PrecisionName,
    describe_choice,
    is_worth_saying,
)
from geocyclegan.training.ranks import Ranks, is_broken
from geocyclegan.training.report import Reporter, is_due
from geocyclegan.training.resolve import (
    require_same,
    resolve,
    warn_of_identity,
    warn_of_scenes,
)
from geocyclegan.training.run import RunFolder, stored_config
from geocyclegan.training.saving import Saver, overlaps
from geocyclegan.training.score import Scores
from geocyclegan.training.signals import StopRequest
from geocyclegan.training.starting import (
    cached,
    checkpoint_of,
    claimed,
    config_on,
    end,
    prepare,
    skips_of,
    start,
)
from geocyclegan.training.state import TrainingState
from geocyclegan.training.writing import pack_model

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a finished run left behind.

    Attributes:
        run: the run folder.
        model: the model bundle in it.
        steps: steps done in total.
        losses: means of the last line of the log; empty if there was nothing left to do.
        skipped: chips that could not be read and were skipped, by folder and file name.
        leads: whether this is the process that speaks for all of a run.
    """

    run: Path
    model: Path
    steps: int
    losses: dict[str, float]
    skipped: tuple[str, ...] = ()
    leads: bool = True


@settings_kept()
def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> TrainResult:
    """Train a translation model on chips.

    SIGINT and SIGTERM end it after the current step, with a checkpoint. It seeds torch's global
    random generator; on the CPU, with as many threads, a run that was resumed is bit for bit one
    that was never interrupted.

    Args:
        config: what to train.
        resume: go on with the run `config.name` up to `config.steps` in total.
        overwrite: replace a run of that name.
        say: takes what a user should know: that training is in less than single precision, or
            that it will take hours on a CPU. Called in one process only.

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
    sides, absent = method_info(config.method).sides, config.max_bad
    chips = Chips.open(config.chips, sides, absent=absent)
    chips = chips.with_hints(config.pairs, config.weak_pairs, absent=absent)
    asked = config.precision
    config = resolve(config_on(config, device), chips, resume=resume)
    if stored is not None:
        require_same(config, stored)
    fabric, ranks = start(config, device)
    chosen = cast(PrecisionName, config.precision)
    if ranks.leads and asked == "auto" and is_worth_saying(chosen, device):
        say(describe_choice(chosen, device))
    try:
        with StopRequest() as stop, claimed(config, ranks, resume, overwrite) as run:
            config = config.updated({"name": run.path.name})
            if ranks.leads:
                warn_of_identity(config, chips)
                warn_of_scenes(config, chips)
            checkpoint = ranks.lead(lambda: checkpoint_of(run)) if resume else None
            state = TrainingState(fabric, config, chips, checkpoint, ranks, skips_of(config))
            del checkpoint
            ranks.lead(lambda: prepare(run, config, state.step))
            with cached(config.cache, run.path, ranks, state.skips) as budget:
                return _Trainer(config, chips, run, state, stop, ranks, budget, say).fit()
    except GeoCycleGANError as error:
        if ranks.leads or ranks.failed_alone:
            raise
        # The first process says it, once.
        log.debug("process %d ends: %s", ranks.rank, error)
        raise SystemExit(0) from error
    except RuntimeError as error:
        if ranks.size == 1 or not is_broken(error):
            raise
        if not ranks.leads:
            raise SystemExit(1) from error
        raise TrainingError(
            "another of the processes that train together has ended; it said why if it could; what"
            " was saved before is as it was, and --resume goes on from there"
        ) from error
    finally:
        end(ranks)


class _Trainer:
    """One process's way through a run."""

    def __init__(
        self,
        config: TrainConfig,
        chips: Chips,
        run: RunFolder,
        state: TrainingState,
        stop: StopRequest,
        ranks: Ranks,
        budget: Budget,
        say: Callable[[str], None],
    ) -> None:
        self._config, self._chips, self._run = config, chips, run
        self._state, self._stop, self._ranks = state, stop, ranks
        self._total, self._crop = config.steps or 0, config.crop or 0
        cuda = state.device.type == "cuda"
        self._say, self._pace = say, None if cuda else Pace(config, self._total)
        self._feed = feed = make_feed(config, chips, budget, ranks, cuda=cuda)
        self._batches = hinted(feed.batches, config, chips, budget, ranks, cuda=cuda)
        self._reporter: Reporter | None = None
        if ranks.leads:
            known = known_pairs(config, chips, budget), class_check(config, chips, budget)
            self._reporter = Reporter(config, chips, run, state, feed.held_out, feed.shown, *known)
        self._saver = Saver(overlap=ranks.leads and overlaps(state.device))
        self._losses: dict[str, float] = {}
        self._signal = 0

    def fit(self) -> TrainResult:
        """Go to the last step, to a signal, or to where validations do not get better."""
        state = self._state
        with self._reporter or nullcontext(), self._saver:
            state.scores = self._lead(lambda reporter: reporter.scores())
            state.lr = state.set_lr()
            if state.step:
                # What was due after the checkpoint's step, when the run was stopped or killed.
                self._look()
                self._ranks.lead(self._renew_model)
            self._go()
            if self._signal:
                self._interrupt()
            self._ranks.lead(self._saver.wait)
        return TrainResult(
            *(self._run.path, self._run.model, state.step, self._losses),
            skipped=state.skips.names,
            leads=self._ranks.leads,
        )

    def _go(self) -> None:
        state, config = self._state, self._config
        # On the CPU training needs the cores itself.
        threads = config.workers or (1 if state.device.type == "cpu" else 4)
        count = config.accumulate
        passes = range(state.step * count, self._total * count)
        ahead = prefetched(self._batches.load, passes, threads=threads)
        with (
            self._progress() as progress,
            closing(ahead) as batches,
        ):
            while self._goes_on():
                lr = state.lr
                found = self._ranks.together(lambda: [next(batches)[1] for _ in range(count)])
                state.skips.settle(self._ranks)
                with self._ranks.apart():
                    state.advance(*found)
                is_logged = self._due(config.log_every)
                if is_logged or state.meter.cheap or self._is_noticed():
                    self._ranks.together(self._require_finite_losses)
                progress.update(1, **(self._write_losses(lr) if is_logged else {}))
                self._advise()
                if self._due(config.save_every):
                    self._save()
                self._look()

    def _progress(self) -> Progress:
        return Progress(self._total, "train", "step", done=self._state.step)

    def _goes_on(self) -> bool:
        """Whether there is another step to do; all processes come to the same answer."""
        self._signal = self._ranks.largest(self._stop.signal or 0)
        if self._signal or self._state.step >= self._total:
            return False
        return not self._has_waited()

    def _is_noticed(self) -> bool:
        """Whether word of a loss that is not finite has come from any of the devices."""
        return self._ranks.largest(int(self._state.meter.noticed())) > 0

    def _has_waited(self) -> bool:
        """Whether the scores have not been getting better for as long as --patience allows."""
        patience, scores = self._config.patience, self._state.scores
        if patience is None or scores.waited() < patience:
            return False
        step = self._state.step
        if self._ranks.leads:
            log.warning(
                "stopped at step %d of %d: no better score in %d validations; the best is that of"
                " step %s, kept in %s",
                *(step, self._total, scores.waited(), scores.best, self._run.best),
            )
        self._save_once()
        return True

    def _advise(self) -> None:
        advice = None if self._pace is None else self._pace.advice(self._state.step)
        if advice is not None and self._ranks.leads:
            self._say(advice)

    def _due(self, every: int) -> bool:
        return is_due(self._state.step, every, self._total)

    def _lead(self, call: Callable[[Reporter], T]) -> T:
        """Let the first process, which has the reporter, do something, and tell all the result."""
        return self._ranks.lead(lambda: call(resolved(self._reporter)))

    def _look(self) -> None:
        """Validate and draw panels, where due, and keep the best model so far."""
        state, config = self._state, self._config
        if not (self._due(config.val_every) or self._due(config.panel_every)):
            return

        def look(reporter: Reporter) -> Scores:
            before = reporter.scores().steps
            with state.mean.applied():
                reporter.look(state.device, self._stop.__bool__)
            scores = reporter.scores()
            if scores.best == state.step and state.step not in before:
                write_bundle(self._run.best, self._packed())
            return scores

        state.scores = self._lead(look)
        state.lr = state.set_lr()

    def _write_losses(self, lr: float) -> dict[str, float]:
        state, losses = self._state, self._ranks.mean(self._state.meter.take())
        self._losses = losses
        epoch = self._feed.sampler.epoch_of(state.step)

        def write(reporter: Reporter) -> dict[str, float]:
            self._saver.check()
            return reporter.write_losses(losses, epoch, lr)

        return self._lead(write)

    def _save(self) -> None:
        """Write a checkpoint, then the bundle; neither with a number that is not finite."""
        state, run = self._state, self._run
        self._ranks.together(self._require_finite)
        content = state.to_checkpoint()

        def save(reporter: Reporter) -> None:
            reporter.flush()
            step, packed = state.step, self._packed()

            def write(saved: tuple[dict[str, Any], dict[str, Any]]) -> None:
                save_checkpoint(run.checkpoints, step, saved[0])
                write_bundle(run.model, replace(packed, tensors=saved[1]))

            self._saver.save((content, packed.tensors), write)

        self._lead(save)

    def _save_once(self) -> None:
        """Save, unless that was just done."""
        path = checkpoint_path(self._run.checkpoints, self._state.step)

        def is_saved() -> bool:
            self._saver.wait()
            return path.exists()

        # One process decides for all: a shared disk may show a file to one before another.
        if not self._ranks.lead(is_saved):
            self._save()

    def _packed(self) -> Packed:
        """Return the bundle of this step."""
        with self._state.mean.applied():
            return pack_model(
                self._config, self._chips, self._state, self._feed.train, self._losses
            )

    def _renew_model(self) -> None:
        """Write the bundle of the state's step, unless it is there."""
        try:
            if load_bundle(self._run.model).training.get("steps") == self._state.step:
                return
        except GeoCycleGANError:
            pass
        write_bundle(self._run.model, self._packed())

    def _interrupt(self) -> None:
        step, name, runs = self._state.step, self._run.path.name, self._run.path.parent
        out = "" if runs == Path("runs") else f" --out {shlex.quote(str(runs))}"
        self._save_once()
        self._ranks.lead(self._saver.wait)
        raise Interrupted(
            f"stopped by {signal.Signals(self._signal).name} at step {step} of {self._total}, saved"
            f" in {self._run.path}; go on with: geocyclegan train{out} --name {name}"
            " --resume",
            exit_code=128 + self._signal,
        )

    def _require_finite(self) -> None:
        self._require_finite_losses()
        if not self._state.finite():
            raise TrainingError(
                f"step {self._state.step}: a weight is not a finite number any more;"
                f" {self._way_out()}"
            )

    def _require_finite_losses(self) -> None:
        bad = self._state.meter.bad()
        if bad is None:
            return
        step, number, values = bad
        said = ", ".join(f"{name} is {value}" for name, value in values.items())
        count, where = self._config.accumulate, ""
        if self._ranks.size > 1:
            where += f" of process {self._ranks.rank}"
        if count > 1:
            where += f", pass {number + 1} of {count}"
        names = self._batches.names((step - 1) * count + number)
        raise TrainingError(f"step {step}{where}: {said}, on {names}; {self._way_out()}")

    def _way_out(self) -> str:
        self._saver.settle()
        saved = checkpoints(self._run.checkpoints)
        last = f"{saved[-1]} is the last good checkpoint" if saved else "nothing was saved yet"
        return f"{last}; look at these chips, or start another run with a lower --lr"
