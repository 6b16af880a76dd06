"""Activations of a pass over a scene on disk, where they do not fit into memory.

One file for each tensor, written whole and read whole. Not memory-mapped: a mapped file that meets
a full disk kills the process, and a write says so.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from geocyclegan.errors import OutputError
from geocyclegan.files import make_folder, writing
from geocyclegan.models.norm import Core
from geocyclegan.models.passes import State

# Only the machine that made a folder can tell whether its process still runs.
_PREFIX = f".geocyclegan-states-{socket.gethostname()}-"


class DiskStore:
    """Holds states in files of a folder of its own; a context manager that removes it.

    Args:
        parent: where the folder is made.
        device: where tensors go when they are read.
        need: bytes that will be held at most.

    Raises:
        OutputError: the disk lacks the room, or a file cannot be written.
    """

    def __init__(self, parent: Path, device: torch.device, need: float) -> None:
        make_folder(parent)
        _remove_orphans(parent)
        free = shutil.disk_usage(parent).free
        if need > free:
            raise OutputError(
                f"--stats-disk: activations take up to {need / 1e9:.2f} GB, {free / 1e9:.2f} GB are"
                f" free in {parent}; leave it out, which takes a pass for each norm layer"
            )
        self._device = device
        with writing(parent):
            name = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent)
        self._folder = Path(name)
        self._states: dict[int, tuple[int, list[tuple[torch.dtype, tuple[int, ...]]]]] = {}
        # Masks and cores are small and stay in memory.
        self._rest: dict[int, tuple[Tensor | None, Core | None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def put(self, index: int, state: State) -> None:
        """Hold a state in place of the one of that number.

        Raises:
            OutputError: it cannot be written.
        """
        tensors = [state.x, *state.stack]
        try:
            for number, tensor in enumerate(tensors):
                raw = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
                raw.tofile(self._path(index, number))
        except OSError as error:
            raise OutputError(
                f"{self._folder}: activations cannot be written ({error.strerror or error}); leave"
                " --stats-disk out, or name another --out"
            ) from error
        self._states[index] = state.layer, [(t.dtype, tuple(t.shape)) for t in tensors]
        self._rest[index] = state.valid, state.core

    def get(self, index: int) -> State:
        """Return the state of a number.

        Raises:
            OutputError: a file of it is gone, damaged, or cannot be read.
        """
        layer, kinds = self._states[index]
        tensors = []
        for number, (dtype, shape) in enumerate(kinds):
            size = torch.Size(shape).numel() * dtype.itemsize
            try:
                data = bytearray(self._path(index, number).read_bytes())
            except OSError as error:
                raise OutputError(
                    f"{self._folder}: activations cannot be read ({error.strerror or error});"
                    " check the disk, or leave --stats-disk out"
                ) from error
            if len(data) != size:
                raise OutputError(f"{self._folder}: activations are damaged; check the disk")
            raw = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            tensors.append(raw.view(shape).to(self._device))
        return State(layer, tensors[0], tuple(tensors[1:]), *self._rest[index])

    def __len__(self) -> int:
        return len(self._states)

    def clear(self) -> None:
        """Hold none any more."""
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)
        self._states.clear()
        self._rest.clear()

    def _path(self, index: int, number: int) -> Path:
        return self._folder / f"{index}_{number}"


def _remove_orphans(parent: Path) -> None:
    """Remove what killed runs left; nothing goes on from it."""
    for folder in parent.glob(f"{_PREFIX}*"):
        number = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if number.isdigit() and not _is_running(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
