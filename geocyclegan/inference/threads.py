"""Reading ahead and writing behind, in one background thread each, in order.

Rasters are read and written by one thread at a time, which GDAL asks for; what overlaps is reading,
translating and writing. Queues are short: memory is that of a few tiles.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Generic, Self, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_POLL_SECONDS = 0.1


def prefetch(
    jobs: Iterable[Job], load: Callable[[Job], Result], depth: int = 2
) -> Generator[tuple[Job, Result], None, None]:
    """Load ahead in a background thread.

    Args:
        jobs: what to load, in order; iterated in that thread.
        load: called for each in that thread.
        depth: how many results may wait.

    Yields:
        Each job and its result; an error of `load` comes up at its own job.
    """
    ready: queue.Queue[tuple[Job, Result] | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def offer(item: tuple[Job, Result] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=_POLL_SECONDS)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for job in jobs:
                if stopped.is_set():
                    return
                offer((job, load(job)))
            offer(None)
        except BaseException as error:
            offer(error)

    thread = threading.Thread(target=work, name="reader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


class BackgroundWriter(Generic[Job]):
    """Calls a function for each item in a background thread, in order; a context manager.

    A clean exit waits for the last item; an exit by an error drops what still waits.

    Args:
        work: called with each item.
        depth: how many items may wait.
    """

    def __init__(self, work: Callable[[Job], None], depth: int = 2) -> None:
        self._work = work
        self._waiting: queue.Queue[Job | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._dropping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def put(self, item: Job) -> None:
        """Hand over an item.

        Raises:
            Exception: what `work` raised for an earlier one.
        """
        if self._error is not None:
            raise self._error
        self._waiting.put(item)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._error is None and not self._dropping.is_set():
                try:
                    self._work(item)
                except BaseException as error:
                    self._error = error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._dropping.set()
        self._waiting.put(None)
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error
