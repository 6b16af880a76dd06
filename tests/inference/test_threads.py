"""Reading ahead and writing behind: order, errors, and an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from geocyclegan.inference.threads import BackgroundWriter, prefetch


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()} & {"reader", "writer"}


def test_results_come_in_order_from_another_thread() -> None:
    def load(job: int) -> tuple[int, str]:
        return job * job, threading.current_thread().name

    found = list(prefetch(range(20), load))
    assert found == [(job, (job * job, "reader")) for job in range(20)]
    assert not _threads()


def test_an_error_comes_up_at_its_own_job() -> None:
    def load(job: int) -> int:
        if job == 3:
            raise ValueError("job three")
        return job

    ahead = prefetch(range(9), load)
    assert [next(ahead)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="job three"):
        next(ahead)

    def jobs() -> Iterator[int]:
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(prefetch(jobs(), load))
    assert not _threads()


def test_it_reads_no_further_ahead_than_asked_and_stops_when_closed() -> None:
    loaded: list[int] = []
    ahead = prefetch(range(1000), lambda job: loaded.append(job), depth=2)
    next(ahead)
    time.sleep(0.05)
    # One is taken, two wait, one is held by the thread.
    assert len(loaded) <= 4
    ahead.close()
    assert not _threads()


def test_writing_behind_keeps_the_order_and_finishes() -> None:
    written: list[int] = []

    def work(item: int) -> None:
        time.sleep(0.001)
        written.append(item)

    with BackgroundWriter(work) as writer:
        for item in range(20):
            writer.put(item)
    assert written == list(range(20))
    assert not _threads()


def test_an_error_of_the_writer_ends_the_work() -> None:
    def work(item: int) -> None:
        raise OSError(f"full at {item}")

    def write(items: range) -> None:
        with BackgroundWriter(work) as writer:
            for item in items:
                writer.put(item)

    for items in (range(1000), range(1)):
        with pytest.raises(OSError, match="full at 0"):
            write(items)
    assert not _threads()


def test_an_error_elsewhere_drops_what_waits() -> None:
    written: list[int] = []
    gate = threading.Event()

    def work(item: int) -> None:
        gate.wait(5)
        written.append(item)

    def fail() -> None:
        with BackgroundWriter(work) as writer:
            writer.put(0)
            writer.put(1)
            gate.set()
            raise KeyError("elsewhere")

    with pytest.raises(KeyError):
        fail()
    assert len(written) <= 2
    assert not _threads()
