"""Chips without files of their own: windows of scenes that stay open between reads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.manifest import (
    ChipRow,
    DomainName,
    DomainRecord,
    chip_command,
    domain_path,
)
from geocyclegan.chips.moved import find_moved, repoint
from geocyclegan.chips.source import OpenSource, Source, state_of_files
from geocyclegan.errors import ChipsError, NotFoundError, SceneError
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.windows import Window

# For each thread. A scene may be a dozen files, and systems let a process open some hundreds.
_MOST_SOURCES = 4
_MOST_FILES = 16


class OpenSources:
    """Sources that stay open between reads, a few for each thread, those that it used last.

    To open a scene may cost more than to read a chip of it: headers are fetched, blocks decoded and
    tiles warped again. A handle of GDAL is for one thread: each has its own, and closes them when
    it ends; those of the main thread go with this object.
    """

    def __init__(self) -> None:
        self._own = threading.local()

    def __reduce__(self) -> tuple[type[OpenSources], tuple[()]]:
        """Other processes open their own."""
        return OpenSources, ()

    def read(
        self, source: Source, window: Window
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read a window of a source, see `OpenSource.read`.

        Raises:
            NotFoundError, SceneError, OptionError: it cannot be opened or read; the next read opens
                it again.
        """
        kept = getattr(self._own, "kept", None)
        if kept is None:
            kept = self._own.kept = _Kept()
        with gdal_env():
            try:
                return kept.of(source).read(window)
            except BaseException:
                kept.drop(source)
                raise


class _Kept:
    """The open sources of one thread, the one used last at the end."""

    def __init__(self) -> None:
        # By identity, since to compare sources takes its time. Those here stay alive, so no other
        # one gets their number.
        self._open: OrderedDict[int, tuple[Source, OpenSource, int]] = OrderedDict()

    def of(self, source: Source) -> OpenSource:
        found = self._open.get(id(source))
        if found is not None:
            self._open.move_to_end(id(source))
            return found[1]
        files = len(source.files())
        while self._open and (
            len(self._open) >= _MOST_SOURCES
            or files + sum(count for _, _, count in self._open.values()) > _MOST_FILES
        ):
            _, (_, oldest, _) = self._open.popitem(last=False)
            oldest.close()
        opened = source.open()
        self._open[id(source)] = source, opened, files
        return opened

    def drop(self, source: Source) -> None:
        found = self._open.pop(id(source), None)
        if found is not None:
            found[1].close()

    def __del__(self) -> None:
        # What a thread holds goes when the thread does, in that thread.
        for _, opened, _ in self._open.values():
            opened.close()


@dataclass(frozen=True)
class VirtualChip:
    """A chip without a file of its own: a window of a scene.

    Attributes:
        source: how the scene is looked at.
        window: which pixels of it.
    """

    source: Source
    window: Window

    def read(self, opened: OpenSources) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read it from the scene.

        Args:
            opened: what is open already, and stays so.

        Returns:
            Pixels `(bands, height, width)` in the source's type and stored units, and the valid
            mask `(height, width)`. Invalid pixels hold anything.

        Raises:
            ChipsError: the scene cannot be read any more.
        """
        try:
            return opened.read(self.source, self.window)
        except (SceneError, NotFoundError) as error:
            raise ChipsError(str(error)) from error


def virtual_chips(
    root: Path, domain: DomainName, record: DomainRecord, rows: Sequence[ChipRow]
) -> tuple[VirtualChip, ...]:
    """Return the windows of a virtual set.

    Raises:
        ChipsError: a file that they are read from is gone or has changed, or its record is damaged.
    """
    sources: dict[str, Source] = {}
    again = f"chip it again: {chip_command(root, domain)} --virtual"
    for entry in record.scenes:
        moved = find_moved(entry.files, entry.relative, root)
        now = state_of_files(list(entry.files))
        for path, state in entry.files.items():
            if now.get(path) != state and path not in moved:
                raise ChipsError(
                    f"{path}: {'changed' if path in now else 'gone'} since it was chipped into the"
                    f" virtual set {root}; {again}"
                )
        try:
            sources[entry.id] = Source.from_json(repoint(entry.source, moved))
        except (KeyError, TypeError, ValueError) as error:
            raise ChipsError(
                f"{domain_path(root, domain)}: it does not say how {entry.path} is read"
                f" ({type(error).__name__}: {error}); {again}"
            ) from error
    return tuple(
        VirtualChip(sources[row.scene_id], Window(row.row, row.col, record.size, record.size))
        for row in rows
    )
