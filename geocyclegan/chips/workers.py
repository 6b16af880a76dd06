"""Run a function over many tasks, here or in other processes, with results in order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from geocyclegan.crew import Crew, result_of
from geocyclegan.errors import ChipsError
from geocyclegan.threads import usable_cores
from geocyclegan.workers import follow_parent

Task = TypeVar("Task")
Result = TypeVar("Result")

# Below this many samples (pixels x bands) starting processes costs more than they save.
_SMALL_JOB = 150_000_000
_MOST_WORKERS = 16


def choose_workers(asked: int | None, samples: int) -> int:
    """Return the number of processes for a job; 1 means this one."""
    if asked is not None:
        return asked
    if samples < _SMALL_JOB:
        return 1
    return min(usable_cores(), _MOST_WORKERS)


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int | Crew,
) -> Iterator[Result]:
    """Yield `function(task)` for each task, in order.

    Processes are spawned, not forked (GDAL and threads do not survive a fork), so a script that
    calls this must guard its main part with `if __name__ == "__main__"`.

    Args:
        function: of this package.
        tasks: its arguments.
        workers: processes of this machine, of which 1 means this one; or a crew.

    Raises:
        ChipsError: a process died.
        ClusterError: workers of the crew died of a task.
    """
    if not isinstance(workers, int):
        begun = [workers.submit(function, task) for task in tasks]
        try:
            for one in begun:
                yield result_of(one)
        finally:
            for one in begun:
                one.cancel()
        return
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
        return
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=follow_parent
    )
    try:
        yield from pool.map(function, tasks)
    except BrokenProcessPool as error:
        raise ChipsError(
            "a worker process was killed, most likely for want of memory; try --workers 1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
