"""What a run says about itself: CSV files that survive a kill, and TensorBoard."""

from __future__ import annotations

import csv
import io
import logging
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from geocyclegan.errors import OutputError
from geocyclegan.files import write_text, writing

log = logging.getLogger(__name__)


class CsvLog:
    """Rows by step; a run that goes on from an earlier step first drops the rows after it.

    Numbers have seven digits, what float32 can tell apart, and no clock times, so that the log of
    a resumed run is that of an uninterrupted one, byte for byte.

    Args:
        path: the file; made with the first row.
        step: the step to go on from: 0 for a new run.

    Raises:
        OutputError: the rows after that step cannot be dropped.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        self.path = path
        self._columns: list[str] = []
        self._last = -1
        if path.exists():
            with writing(path):
                self._truncate(step)

    @property
    def last(self) -> int:
        """The step of the last row, -1 if there is none."""
        return self._last

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a row. A name that no row had before becomes the last column, empty in those.

        Raises:
            OutputError: it cannot be written.
        """
        row = {"step": str(step)} | {k: _text(v) for k, v in values.items()}
        fresh = not self._columns
        if fresh:
            self._columns = list(row)
        new = [name for name in row if name not in self._columns]
        with writing(self.path):
            if new:
                self._widen(new)
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self._columns, lineterminator="\n")
                if fresh:
                    writer.writeheader()
                writer.writerow(row)
        self._last = step

    def column(self, name: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return the steps that have a number under a name, and these numbers."""
        if not self.path.exists():
            return (), ()
        with open(self.path, newline="", encoding="utf-8") as file:
            found = [(int(r["step"]), float(r[name])) for r in csv.DictReader(file) if r.get(name)]
        return tuple(step for step, _ in found), tuple(value for _, value in found)

    def flush(self) -> None:
        """Bring the rows to the disk; done before a checkpoint that relies on them.

        Raises:
            OutputError: it cannot be done.
        """
        if self.path.exists():
            with writing(self.path), open(self.path, "rb+") as file:
                os.fsync(file.fileno())

    def _widen(self, names: list[str]) -> None:
        """Add columns to the rows that are there."""
        with open(self.path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self._columns += names
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())

    def _truncate(self, step: int) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        # A kill may have left half a line.
        whole = [line for line in lines if line.endswith("\n")]
        kept = whole[:1]
        for line in whole[1:]:
            number = line.partition(",")[0]
            if not number.isdigit() or int(number) > step:
                break
            kept.append(line)
            self._last = int(number)
        if len(kept) < 2:
            self.path.unlink()
            return
        self._columns = next(csv.reader(kept[:1]))
        if kept != lines:
            write_text(self.path, "".join(kept))


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.7g}"


class TensorBoardLog:
    """Scalars and pictures for TensorBoard, as a context manager.

    Nothing depends on them: where the disk takes no more of them, that is said once, and the run
    goes on.

    Args:
        folder: where the event files lie.
        step: the step to go on from; TensorBoard then hides what an earlier process wrote after it.

    Raises:
        OutputError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        # Its import takes a second that other commands need not wait for.
        from torch.utils.tensorboard import SummaryWriter

        self._folder, self._broken = folder, False
        self._hook, threading.excepthook = threading.excepthook, self._on_error
        try:
            with writing(folder):
                purged = step + 1 if step else None
                self._writer: Any = SummaryWriter(str(folder), purge_step=purged)
        except OutputError:
            threading.excepthook = self._hook
            raise

    def __enter__(self) -> Self:
        return self

    def _on_error(self, args: Any) -> None:
        """Leave out the traceback of the writer's thread, whose error comes up in ours, too."""
        if not (
            isinstance(args.exc_value, OSError) and "AsyncWriter" in type(args.thread).__name__
        ):
            self._hook(args)

    def _write(self, write: Callable[[], object]) -> None:
        if self._broken:
            return
        try:
            write()
        except OSError as error:
            self._broken = True
            log.warning(
                "%s: cannot be written (%s); the run goes on without events for TensorBoard",
                *(self._folder, error.strerror or error),
            )

    def scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """Write numbers under `group/name`."""
        for name, value in values.items():
            self._write(partial(self._writer.add_scalar, f"{group}/{name}", value, step))

    def image(self, name: str, step: int, pixels: npt.NDArray[np.uint8]) -> None:
        """Write an RGB picture `(height, width, 3)`, 8 bits."""
        self._write(partial(self._writer.add_image, name, pixels, step, dataformats="HWC"))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._write(self._writer.close)
        threading.excepthook = self._hook
