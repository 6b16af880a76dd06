"""What a run reports on its way: the log, validation and panels."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import torch

from geocyclegan.raster.picture import save_png
from geocyclegan.training.agreement import agreement
from geocyclegan.training.classes import ClassCheck
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import Chips
from geocyclegan.training.evidence import EARLIEST_STEP, Finding
from geocyclegan.training.features import Features
from geocyclegan.training.logs import CsvLog, TensorBoardLog
from geocyclegan.training.pairs import FixedPairs
from geocyclegan.training.panels import draw_panel
from geocyclegan.training.run import RunFolder
from geocyclegan.training.score import SCORE, Scores, score_of
from geocyclegan.training.state import TrainingState
from geocyclegan.training.validate import FixedBatches, RealSides, validate

log = logging.getLogger(__name__)


def is_due(step: int, every: int, total: int) -> bool:
    """Whether a step ends an interval, or the run; an interval of 0 never ends."""
    return every > 0 and (step % every == 0 or step == total)


class Reporter:
    """Writes the log, validates and draws panels at their intervals, and at the last step.

    It is a context manager, since TensorBoard's writer is one.

    Args:
        config: resolved.
        chips: names the bands of both domains.
        run: where to write.
        state: what to report on; rows after its step, of an earlier process, are dropped.
        held_out: validation crops, none or more.
        shown: crops for the panels.
        pairs: pairs on which translations are compared with the truth; None: there are none.
        classes: compares classes of both domains; None: there are no labels to do it with.
    """

    def __init__(
        self,
        config: TrainConfig,
        chips: Chips,
        run: RunFolder,
        state: TrainingState,
        held_out: FixedBatches,
        shown: FixedBatches,
        pairs: FixedPairs | None = None,
        classes: ClassCheck | None = None,
    ) -> None:
        self._config, self._run, self._state = config, run, state
        self._domains = chips.train_a.domain, chips.train_b.domain
        self._held_out, self._shown, self._pairs = held_out, shown, pairs
        self._classes = classes
        self._features, self._real = Features.of_run(config, chips), RealSides()
        self._has_warned = False
        self._log = CsvLog(run.log, state.step)
        self._validation = CsvLog(run.validation, state.step)
        self._board = TensorBoardLog(run.tensorboard, state.step)
        self._stack = ExitStack()
        if config.val_every and not len(held_out) and pairs is None and classes is None:
            log.warning("no validation: %s has not both domains' validation chips", chips.folder)

    def __enter__(self) -> Self:
        self._stack.enter_context(self._board)
        return self

    def scores(self) -> Scores:
        """Return the scores of the validations so far, with the digits of the file."""
        return Scores(*self._validation.column(SCORE))

    def write_losses(self, losses: dict[str, float], epoch: int, lr: float) -> dict[str, float]:
        """Write a line of the log: means since the last one, and the rate of the current step.

        Returns:
            The few numbers to show beside the progress bar.
        """
        state, where = self._state, {"epoch": epoch, "lr": lr}
        self._log.write(state.step, where | losses)
        self._board.scalars("losses", state.step, losses)
        self._board.scalars("schedule", state.step, where)
        totals = losses.keys() & state.optimizers.keys()
        return {name: round(losses[name], 3) for name in sorted(totals)}

    def look(self, device: torch.device, stop: Callable[[], bool]) -> None:
        """Validate and draw, where due and not done yet; what `stop` cuts short, a resume does.

        Raises:
            ChipsError: a chip cannot be read.
            OutputError: a file cannot be written.
        """
        step, method = self._state.step, self._state.method
        known = len(self._held_out) > 0 or self._pairs or self._classes
        wanted = self._due(self._config.val_every) and known
        if wanted and self._validation.last != step:
            errors = self._errors(device, stop)
            if errors is None:
                return
            score = score_of(errors)
            errors |= {} if score is None else {SCORE: score}
            self._validation.write(step, errors)
            self._board.scalars("validation", step, errors)
        panel = self._run.panel(step)
        if self._due(self._config.panel_every) and not panel.exists() and not stop():
            image = draw_panel(method, self._shown, self._domains, device)
            save_png(panel, image)
            self._board.image("panel", step, image)

    def _errors(self, device: torch.device, stop: Callable[[], bool]) -> dict[str, float] | None:
        """Validate on held-out chips, pairs and classes, as far as there are any."""
        method = self._state.method
        errors: dict[str, float] | None = {}
        if len(self._held_out):
            known = self._features, self._real
            errors = validate(method, self._held_out, device, stop, *known)
        if errors is None:
            return None
        found: list[Finding | None] = []
        if self._pairs is not None:
            found.append(agreement(method, self._pairs, self._domains, device, stop))
        if self._classes is not None:
            found.append(self._classes(method, device, stop))
        signs: list[str] = []
        for each in found:
            if each is None:
                return None
            errors |= each.columns
            signs += each.signs
        self._warn(signs)
        return errors

    def _warn(self, signs: list[str]) -> None:
        """Tell of signs of a flip, once when it begins, and at the end.

        Most of the steps in between would say the same, and the first ones nothing.
        """
        step = self._state.step
        if step < EARLIEST_STEP:
            return
        if signs and (not self._has_warned or step == self._config.steps):
            log.warning(
                "step %d: %s: the meaning may be flipped; look at the panels, and let pairs tell it"
                " with --pairs",
                step,
                "; ".join(signs),
            )
        self._has_warned = bool(signs)

    def _due(self, every: int) -> bool:
        return is_due(self._state.step, every, self._config.steps or 0)

    def flush(self) -> None:
        """Bring the logs to the disk."""
        self._log.flush()
        self._validation.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
