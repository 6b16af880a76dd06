"""Room for warped tiles that all scenes share, so that many open ones take no more than one."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import OrderedDict, deque
from typing import Any

import numpy as np
import numpy.typing as npt

from geocyclegan.raster.windows import Window

Tile = tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]
"""Pixels `(bands, height, width)` and valid mask `(height, width)`, not to be changed."""


class TileCache:
    """The tiles that were used last, up to a number of bytes; safe to use from many threads.

    Args:
        most_bytes: how many; the newest tile is kept in any case.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._tiles: OrderedDict[tuple[int, Window], Tile] = OrderedDict()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        # Owners are collected at any moment, even within a method of this class, so that the lock
        # may not be asked for then.
        self._gone: deque[int] = deque()

    @property
    def held_bytes(self) -> int:
        """Bytes of all tiles."""
        return self._bytes

    def owner(self, of: object) -> int:
        """Return a number for the tiles of an object; they go when the object does."""
        number = next(self._numbers)
        weakref.finalize(of, self._gone.append, number).atexit = False
        return number

    def get(self, owner: int, tile: Window) -> Tile | None:
        """Return a tile, None if it is not there."""
        with self._lock:
            found = self._tiles.get((owner, tile))
            if found is not None:
                self._tiles.move_to_end((owner, tile))
            return found

    def put(self, owner: int, tile: Window, found: Tile) -> None:
        """Keep a tile, and drop those that were not used for the longest time."""
        with self._lock:
            while self._gone:
                self._drop(self._gone.popleft())
            self._take((owner, tile))
            self._tiles[owner, tile] = found
            self._bytes += _size(found)
            while self._bytes > self._most and len(self._tiles) > 1:
                self._take(next(iter(self._tiles)))

    def drop(self, owner: int) -> None:
        """Drop the tiles of an owner, which are not right any more."""
        with self._lock:
            self._drop(owner)

    def _drop(self, owner: int) -> None:
        for key in [key for key in self._tiles if key[0] == owner]:
            self._take(key)

    def _take(self, key: tuple[int, Window]) -> None:
        found = self._tiles.pop(key, None)
        self._bytes -= 0 if found is None else _size(found)


def _size(tile: Tile) -> int:
    return tile[0].nbytes + tile[1].nbytes
