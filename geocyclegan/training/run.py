"""The run folder: what lies where, and who may write it."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from geocyclegan.errors import NotFoundError, OptionError, OutputError
from geocyclegan.files import make_folder, output_lock
from geocyclegan.training.config import TrainConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Attributes:
        path: `<out>/<name>`.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration; written first, so a folder without it is no run."""
        return self.path / "config.yaml"

    @property
    def log(self) -> Path:
        """Losses by step."""
        return self.path / "log.csv"

    @property
    def validation(self) -> Path:
        """Errors on validation chips by step."""
        return self.path / "validation.csv"

    @property
    def tensorboard(self) -> Path:
        """Events for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def panels(self) -> Path:
        """Pictures by step."""
        return self.path / "panels"

    @property
    def checkpoints(self) -> Path:
        """Training state by step; the last two."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The model bundle."""
        return self.path / "model"

    @property
    def best(self) -> Path:
        """The model bundle of the validation with the best score."""
        return self.path / "best"

    @property
    def has_result(self) -> bool:
        """Whether anything came of it that can be gone on with, or used."""
        saved = any(self.checkpoints.glob("step_*"))
        return saved or self.model.exists() or self.best.exists()

    def set_aside(self) -> Path | None:
        """Move what a run logged into a folder in it; None if there is nothing.

        The configuration is copied, so that whenever this is cut short, it is a run still.
        """
        records = [self.log, self.validation, self.tensorboard, self.panels]
        found = [path for path in records if path.exists()]
        if not found:
            return None
        number = 1
        while (aside := self.path / f"unfinished-{number}").exists():
            number += 1
        aside.mkdir()
        shutil.copy2(self.config, aside)
        for path in found:
            path.rename(aside / path.name)
        return aside

    def panel(self, step: int) -> Path:
        """The panel of a step."""
        return self.panels / f"step_{step:07d}.png"

    def clean(self, step: int) -> None:
        """Remove what a killed process left: temporary files, and panels of steps after `step`.

        The caller holds the lock.
        """
        for panel in self.panels.glob("step_*.png"):
            if panel > self.panel(step):
                panel.unlink()
        for folder in (self.path, self.panels, self.checkpoints):
            for part in folder.glob(".*.part*"):
                if part.is_dir():
                    shutil.rmtree(part, ignore_errors=True)
                else:
                    part.unlink(missing_ok=True)


def stored_config(out: Path, name: str | None) -> TrainConfig:
    """Read the configuration of a run that is to be resumed.

    Raises:
        OptionError: no name was given.
        NotFoundError: there is no such run.
    """
    there = ", ".join(sorted(path.parent.name for path in out.glob("*/config.yaml"))) or "none"
    if name is None:
        raise OptionError(f"--resume: say which run with --name; in {out} there are: {there}")
    run = RunFolder(out / name)
    if not run.config.is_file():
        raise NotFoundError(
            f"--resume: no run {name} in {out} (there are: {there}); leave --resume out to start it"
        )
    return TrainConfig.load(run.config)


@contextmanager
def claim(
    out: Path, name: str | None, method: str, *, resume: bool, overwrite: bool
) -> Iterator[RunFolder]:
    """Hold a run folder for this process; nothing else is made yet.

    A run that ended before its first checkpoint does not keep its name; what it logged is moved
    into a folder of its own.

    Args:
        out: the folder of runs.
        name: name of the run; None: the method's name and the next free number.
        method: name of the method.
        resume: the run must exist.
        overwrite: the run may exist; it is removed.

    Raises:
        OutputError: the run exists, is being written, or cannot be written.
    """
    make_folder(out)
    with ExitStack() as stack:
        if name is None:
            name = _claim_number(stack, out, method)
        else:
            stack.enter_context(output_lock(out / name))
        run = RunFolder(out / name)
        if run.path.exists() and not resume:
            _make_room(run, overwrite)
        yield run


def _claim_number(stack: ExitStack, out: Path, method: str) -> str:
    pattern = re.compile(rf"{re.escape(method)}-(\d+)")
    taken = [int(m[1]) for p in out.iterdir() if (m := pattern.fullmatch(p.name))]
    first = max(taken, default=0) + 1
    for number in range(first, first + 100):
        name = f"{method}-{number:03d}"
        try:
            stack.enter_context(output_lock(out / name))
        except OutputError:
            # Another run that started at the same moment; anything else fails again below.
            continue
        if not (out / name).exists():
            return name
    raise OutputError(f"{out}: no free name found for the run; give one with --name")


def _make_room(run: RunFolder, overwrite: bool) -> None:
    path = run.path
    if path.is_dir() and not any(path.iterdir()):
        return
    if not overwrite and run.config.is_file() and not run.has_result:
        try:
            aside = run.set_aside()
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
        log.warning(
            "%s: the run of this name ended before its first checkpoint, so it starts anew%s",
            *(path, "" if aside is None else f"; what that one logged is in {aside}"),
        )
        return
    if not overwrite:
        hint = "--resume to go on with it, --overwrite to start anew" if run.config.exists() else ""
        raise OutputError(f"{path}: it exists; give {hint + ', or ' if hint else ''}another --name")
    if not run.config.is_file():
        raise OutputError(
            f"{path}: it holds no config.yaml, so it is not a run and --overwrite leaves it alone;"
            " give another --name"
        )
    try:
        # Out of the way in one step, so that a kill leaves the old run or none.
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        path.rename(old)
        shutil.rmtree(old)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed ({error.strerror or error})") from error
