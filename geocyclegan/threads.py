"""Threads: how many are worth having, and work that they do ahead, in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Return how many cores this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prefetched(
    load: Callable[[Item], Result], items: Iterable[Item], *, threads: int, name: str = "ahead"
) -> Generator[tuple[Item, Result], None, None]:
    """Load ahead in background threads, in order; up to `2 * threads + 1` results are held.

    Yields:
        Each item and what `load` gives for it; an error of `load` comes up at its own item.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        ahead: deque[tuple[Item, Future[Result]]] = deque()
        try:
            for item in items:
                ahead.append((item, pool.submit(load, item)))
                if len(ahead) > 2 * threads:
                    first, future = ahead.popleft()
                    yield first, future.result()
            while ahead:
                first, future = ahead.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
