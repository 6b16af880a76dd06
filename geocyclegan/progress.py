"""Progress for people (a bar with its remaining time) and for machines (JSON lines).

Both go to standard error; standard output is for results.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self, get_args

from geocyclegan.errors import OptionError

ProgressKind = Literal["bar", "json", "none"]

_kind: ProgressKind = "none"


def set_progress(kind: ProgressKind) -> None:
    """Choose how this process shows progress; the command line calls it once.

    Raises:
        OptionError: it is none of the kinds.
    """
    global _kind
    if kind not in get_args(ProgressKind):
        raise OptionError(f"progress {kind!r}: expected {', '.join(get_args(ProgressKind))}")
    _kind = kind


def print_line(text: str) -> None:
    """Print a line to standard error: above the bar, if one is shown, not across it."""
    if sys.stderr is None:
        # As under pythonw; both ways to print would take standard output in its stead.
        return
    # Imported by whoever draws a bar; without one there is nothing to step around.
    bars = sys.modules.get("tqdm")
    # Whoever read it may be gone, or its disk full; that is no reason to lose the work.
    with suppress(OSError):
        if bars is None:
            print(text, file=sys.stderr, flush=True)
        else:
            bars.tqdm.write(text, file=sys.stderr)


class LineHandler(logging.Handler):
    """Logs by `print_line`."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        try:
            print_line(self.format(record))
        except Exception:
            # As all of logging's handlers do: a lost line is no reason to lose the work.
            self.handleError(record)


class Progress:
    """One stage of work, as a context manager.

    Args:
        total: how many units there are.
        stage: what is being done, one or two words.
        unit: what is counted.
        done: units that an earlier run did already.
        kind: how to show it; None means what the command line chose.
    """

    def __init__(
        self,
        total: int,
        stage: str,
        unit: str = "it",
        *,
        done: int = 0,
        kind: ProgressKind | None = None,
    ) -> None:
        self._kind = _kind if kind is None else kind
        if sys.stderr is None:
            self._kind = "none"
        self._total, self._stage, self._unit, self._done = total, stage, unit, done
        self._initial = done
        self._fields: dict[str, Any] = {}
        self._bar: Any = None
        self._started = self._printed = time.monotonic()

    def __enter__(self) -> Self:
        if self._kind == "bar":
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._total,
                initial=self._done,
                desc=self._stage,
                unit=self._unit,
                dynamic_ncols=True,
                mininterval=0.2,
                file=sys.stderr,
            )
        self._started = time.monotonic()
        self._emit()
        return self

    def update(self, n: int = 1, **fields: Any) -> None:
        """Count `n` more units; `fields` are the numbers to show beside the bar."""
        self._done += n
        self._fields.update(fields)
        if self._bar is not None:
            if fields:
                self._bar.set_postfix(self._fields, refresh=False)
            self._bar.update(n)
        elif time.monotonic() - self._printed >= 0.5 or self._done >= self._total:
            self._emit()

    def _emit(self) -> None:
        if self._kind != "json":
            return
        self._printed = time.monotonic()
        elapsed = self._printed - self._started
        fresh = self._done - self._initial
        line: dict[str, Any] = {
            "event": "progress",
            "stage": self._stage,
            "done": self._done,
            "total": self._total,
            "unit": self._unit,
            "elapsed_s": round(elapsed, 2),
        }
        if fresh > 0:
            line["eta_s"] = round(elapsed / fresh * (self._total - self._done), 2)
        # As in `print_line`.
        with suppress(OSError):
            print(json.dumps(line | self._fields), file=sys.stderr, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
