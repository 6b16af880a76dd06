"""Saves that training does not wait for: copied at their step, written by a thread.

A save is whole or absent whoever writes it, see `files`. There is one at a time: the next one waits
for it, and so does the end of a run. Until it is done, the checkpoint before it is the last.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

log = logging.getLogger(__name__)


def overlaps(device: torch.device) -> bool:
    """Whether saves of a run on a device are to be written beside the training.

    Where the CPU trains, it has the cores and the memory for itself: a save takes as much of both
    in a thread, and a copy of the weights and the optimisers besides.
    """
    return device.type == "cuda"


class Saver:
    """Writes saves, one at a time; to be used as a context manager, which waits for the last.

    Args:
        overlap: copy what is to be saved to host memory and write it in a thread; otherwise each
            `save` writes before it returns. The copy is kept for the next save.
    """

    def __init__(self, *, overlap: bool) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="save") if overlap else None
        self._running: Future[None] | None = None
        self._copies = _Copies()

    def save(self, content: Any, write: Callable[[Any], None]) -> None:
        """Write something, as it is now.

        Args:
            content: tensors, numbers, texts, and lists, tuples and dictionaries of these.
            write: writes it, or a copy of it on the CPU.

        Raises:
            OutputError: it cannot be written, or what was saved before could not.
        """
        self.wait()
        if self._pool is None:
            write(content)
            return
        copied = self._copies.take(content)
        arrived = self._copies.arrival()

        def work() -> None:
            arrived()
            write(copied)

        self._running = self._pool.submit(work)

    def check(self) -> None:
        """Raise the error of a save that has failed by now; nothing is waited for.

        Raises:
            OutputError: it could not be written.
        """
        if self._running is not None and self._running.done():
            self.wait()

    def wait(self) -> None:
        """Wait until what was saved is on the disk.

        Raises:
            OutputError: it could not be written; said once.
        """
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def settle(self) -> None:
        """Wait until nothing is being written; what failed is raised later."""
        if self._running is not None:
            self._running.exception()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except Exception as failed:
            if error is None:
                raise
            # The run ends by another error, which is the one to be told by its exit.
            log.warning("%s", failed)
        finally:
            if self._pool is not None:
                self._pool.shutdown()


class _Copies:
    """Copies of tensors in host memory, page-locked where they come from CUDA, used again."""

    def __init__(self) -> None:
        self._held: dict[tuple[Any, ...], Tensor] = {}
        self._device: torch.device | None = None

    def take(self, content: Any) -> Any:
        """Copy something, in the form that it has, once what was copied before is done with."""
        before, self._held = self._held, {}
        # What is one tensor under two names stays one.
        known: dict[tuple[Any, ...], Tensor] = {}
        return self._copy(content, (), before, known)

    def arrival(self) -> Callable[[], None]:
        """Return what waits until all copies have their values."""
        if self._device is None:
            return lambda: None
        # The thread sleeps until then, instead of taking a core.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event.synchronize

    def _copy(
        self,
        value: Any,
        path: tuple[Any, ...],
        before: Mapping[tuple[Any, ...], Tensor],
        known: dict[tuple[Any, ...], Tensor],
    ) -> Any:
        if isinstance(value, Tensor):
            same = (value.data_ptr(), value.dtype, value.shape, value.stride(), value.device)
            if same not in known or not value.numel():
                known[same] = self._held[path] = self._fill(value.detach(), before.get(path))
            return known[same]
        if isinstance(value, dict):
            # With what a state_dict knows beside its entries.
            made = copy.copy(value)
            for key, each in value.items():
                made[key] = self._copy(each, (*path, key), before, known)
            return made
        if isinstance(value, list | tuple):
            items = [self._copy(each, (*path, i), before, known) for i, each in enumerate(value)]
            return items if isinstance(value, list) else tuple(items)
        return value

    def _fill(self, value: Tensor, held: Tensor | None) -> Tensor:
        cuda = value.device.type == "cuda"
        if held is None or _form(held) != _form(value):
            held = torch.empty_like(value, device="cpu", pin_memory=cuda)
        if cuda:
            self._device = value.device
        # In the order of the device: after all that came before, and before the next step.
        return held.copy_(value, non_blocking=cuda)


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype
