"""Crews: the processes that tasks run in, on this machine or on a Dask cluster.

Both take functions of this package with arguments that can be pickled, and both run a task again
when its process dies. Whoever uses a crew must see to it that a task may run twice.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Protocol, Self

from geocyclegan import __version__
from geocyclegan.errors import ClusterError, GeoCycleGANError, OptionError
from geocyclegan.workers import follow_parent

log = logging.getLogger(__name__)

# A task that raised something unexpected (a file system that hiccups) is tried again; a worker that
# died is replaced by another, up to Dask's own allowed-failures.
_RETRIES = 2
_CONNECT_SECONDS = 10
_WORKERS_SECONDS = 60


class Task(Protocol):
    """What a crew is doing."""

    def result(self) -> Any:
        """Wait for the result."""
        ...

    def cancel(self) -> Any:
        """Drop the task if it has not begun."""
        ...

    def add_done_callback(self, call: Callable[[Any], Any]) -> Any:
        """Call when it is done, from some thread."""
        ...


class Crew(Protocol):
    """Processes that take tasks."""

    name: str

    def __len__(self) -> int:
        """How many tasks run at a time."""
        ...

    def ask(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """Run a function once in each process; results by the name of the process."""
        ...

    def submit(self, function: Callable[..., Any], *args: Any, near: str | None = None) -> Task:
        """Begin a task, at a process of that name if it is there and free."""
        ...

    def close(self) -> None:
        """Drop what has not begun, and let the processes go."""
        ...


def attempt(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function; return, not raise, what is wrong with the data, so it is not tried again."""
    try:
        return function(*args)
    except GeoCycleGANError as error:
        return error


def result_of(task: Task) -> Any:
    """Wait for a task that `attempt`s something.

    Raises:
        GeoCycleGANError: what was wrong with the data.
        ClusterError: its processes died, or the crew is gone.
    """
    try:
        found = task.result()
    except (GeoCycleGANError, KeyboardInterrupt):
        raise
    except (CancelledError, BrokenProcessPool) as error:
        raise ClusterError("the workers are gone; the same command goes on from here") from error
    except Exception as error:
        kind = type(error).__name__
        if kind == "KilledWorker":
            raise ClusterError(
                "several workers died of one task, most likely for want of memory; give them more,"
                " or choose a smaller --tile; the same command goes on from here"
            ) from error
        if "Cancelled" in kind or "CommClosed" in kind:
            raise ClusterError("the cluster is gone; the same command goes on from here") from error
        lines = str(error).strip().splitlines()
        raise ClusterError(f"a worker failed: {kind}: {lines[0] if lines else ''}") from error
    if isinstance(found, GeoCycleGANError):
        raise found
    return found


class LocalCrew:
    """Processes of this machine; a context manager.

    Args:
        count: how many.
        environments: variables of each, such as the GPU that it sees.
    """

    def __init__(self, count: int, environments: Sequence[dict[str, str]]) -> None:
        self.name = f"{count} processes of this machine"
        self._count, self._environments = count, list(environments)
        self._lock = threading.Lock()
        self._closed = False
        self._pool = self._new_pool()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self._count

    def ask(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """Run a function here: all processes are alike."""
        return {"this machine": attempt(function, *args)}

    def submit(self, function: Callable[..., Any], *args: Any, near: str | None = None) -> Task:
        """Begin a task; if its process dies, in another one."""
        outer: Future[Any] = Future()
        self._start(outer, function, args, tries=1)
        return outer

    def _start(
        self, outer: Future[Any], function: Callable[..., Any], args: tuple[Any, ...], tries: int
    ) -> None:
        with self._lock:
            pool = self._pool
            try:
                inner = pool.submit(attempt, function, *args)
            except RuntimeError:  # broken since, or closed
                if self._closed:
                    outer.cancel()
                    return
                pool = self._pool = self._new_pool()
                inner = pool.submit(attempt, function, *args)

        def done(inner: Future[Any]) -> None:
            if outer.cancelled():
                return
            error = None if inner.cancelled() else inner.exception()
            if inner.cancelled():
                outer.cancel()
            elif isinstance(error, BrokenProcessPool) and tries <= _RETRIES and not self._closed:
                with self._lock:
                    if self._pool is pool:
                        log.warning("a worker process was killed; its work is done again")
                        self._pool = self._new_pool()
                self._start(outer, function, args, tries + 1)
            elif isinstance(error, BrokenProcessPool):
                outer.set_exception(
                    ClusterError(
                        "worker processes were killed again and again, most likely for want of"
                        " memory; choose fewer --devices, or a smaller --tile"
                    )
                )
            elif error is not None:
                outer.set_exception(error)
            else:
                outer.set_result(inner.result())

        inner.add_done_callback(done)

    def close(self) -> None:
        """Drop what has not begun, and let the processes go."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _new_pool(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        places = context.SimpleQueue()
        for environment in self._environments:
            places.put(environment)
        return ProcessPoolExecutor(
            self._count, context, initializer=_take_place, initargs=(places,)
        )


def _take_place(places: Any) -> None:
    os.environ.update(places.get())
    follow_parent()


class DaskCrew:
    """The workers of a Dask cluster; a context manager.

    Args:
        address: of the scheduler, such as tcp://host:8786, or "local" or "local:N" for N processes
            of this machine.

    Raises:
        OptionError: the address is none, or the extra is not installed.
        ClusterError: nobody answers there, or there are no workers.
    """

    def __init__(self, address: str) -> None:
        distributed = _distributed()
        self._cluster: Any = None
        scheduler: Any = address
        kind, _, count = address.partition(":")
        try:
            if kind == "local":
                if count and not (count.isdigit() and int(count)):
                    raise OptionError(f"--cluster {address}: expected local:N, such as local:4")
                self._cluster = scheduler = distributed.LocalCluster(
                    n_workers=int(count) if count else _cores(),
                    threads_per_worker=1,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                )
            elif "://" not in address:
                raise OptionError(
                    f"--cluster {address}: expected the address of a Dask scheduler, such as"
                    " tcp://host:8786, or local:N"
                )
            self._client = distributed.Client(
                scheduler, timeout=_CONNECT_SECONDS, set_as_default=False
            )
        except (OSError, ValueError) as error:
            self._close_cluster()
            if isinstance(error, OptionError):
                raise
            raise ClusterError(
                f"--cluster {address}: no Dask scheduler answers there; start one with dask"
                " scheduler, and workers with dask worker"
            ) from error
        except RuntimeError as error:
            # A process that is killed, or that gets no memory, while it starts.
            self._close_cluster()
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ClusterError(
                f"--cluster {address}: its processes cannot be started ({line}); run the same"
                " command again"
            ) from error
        self.name = f"the cluster at {address}"
        try:
            self._client.wait_for_workers(1, timeout=_WORKERS_SECONDS)
        except Exception as error:
            self.close()
            raise ClusterError(
                f"--cluster {address}: it has no workers; start some with dask worker {address}"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return max(len(self._client.nthreads()), 1)

    def ask(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """Run a function once in each worker.

        Raises:
            ClusterError: a worker cannot run it.
        """
        found: dict[str, Any] = self._client.run(attempt, function, *args, on_error="return")
        # One that dies just now is none of ours; its work goes to others.
        found = {name: answer for name, answer in found.items() if not isinstance(answer, OSError)}
        for worker, answer in found.items():
            if isinstance(answer, GeoCycleGANError) or not isinstance(answer, BaseException):
                continue
            line = (str(answer).strip().splitlines() or [type(answer).__name__])[0]
            raise ClusterError(
                f"worker {worker} cannot take part ({line}); install geocyclegan {__version__}"
                " there"
            )
        return found

    def submit(self, function: Callable[..., Any], *args: Any, near: str | None = None) -> Task:
        """Begin a task; if its worker dies, at another one."""
        task: Task = self._client.submit(
            attempt,
            function,
            *args,
            pure=False,
            retries=_RETRIES,
            workers=None if near is None else [near],
            allow_other_workers=near is not None,
        )
        return task

    def close(self) -> None:
        """Drop what has not begun, and let the workers go."""
        try:
            self._client.close(timeout=_CONNECT_SECONDS)
        finally:
            self._close_cluster()

    def _close_cluster(self) -> None:
        if self._cluster is not None:
            self._cluster.close(timeout=_CONNECT_SECONDS)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise OptionError(
            '--cluster: it needs Dask; run pip install "geocyclegan[dask]" here and on all workers'
        ) from None
    # What goes wrong reaches the user as one line of ours.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    return distributed


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
