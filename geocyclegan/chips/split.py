"""Train and validation, apart in space: pure geometry, neither pixels nor names.

The windows of a scene are gathered in blocks, and whole blocks are set aside for validation. A
window is for validation if it lies inside validation blocks, for training if it touches none, and
is dropped if it straddles, so no pixel is ever in both. With a stride of the chip size none
straddles, since the blocks' edges are edges of windows.

The choice depends on the scene's shape and the options alone, so that two scenes on one grid (two
domains, two dates) are split alike.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geocyclegan.raster.windows import starts

TRAIN, VAL, DROPPED = 0, 1, 2

_LARGEST_BLOCK = 4  # chips along a block's side
_FEWEST_VAL_BLOCKS = 3  # with fewer, blocks are made smaller
_TRIALS = 8


@dataclass(frozen=True)
class _Spans:
    """Which blocks each window touches along one axis, first to last."""

    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]

    @classmethod
    def of(cls, begin: npt.NDArray[Any], size: int, edges: Sequence[int]) -> _Spans:
        """Find them for windows that begin at `begin`, any shape; outer blocks have no end."""
        first = np.searchsorted(edges, begin, side="right") - 1
        last = np.searchsorted(edges, begin + size - 1, side="right") - 1
        return cls(
            np.maximum(np.asarray(first, np.int64), 0), np.maximum(np.asarray(last, np.int64), 0)
        )


def _edges(positions: Sequence[int], size: int, block: int) -> list[int]:
    """Cut an axis into blocks that begin where windows begin and hold `block` chips or more."""
    edges = [0]
    while (found := bisect_left(positions, edges[-1] + block * size)) < len(positions):
        edges.append(positions[found])
    return edges


def split_windows(
    rows: Sequence[int], cols: Sequence[int], size: int, val: float, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Assign each window of a grid of windows to training or validation.

    Args:
        rows: first rows of the windows, increasing from 0.
        cols: first columns of the windows, increasing from 0.
        size: side of the windows.
        val: share of validation windows among those that are kept; 0 for none.
        seed: chooses the blocks.

    Returns:
        `(rows of windows, columns of windows)` of TRAIN, VAL or DROPPED. If two of the windows are
        disjoint and `val` is above 0, there is at least one of each kind.
    """
    begin_rows = np.asarray(rows, np.int64).reshape(-1, 1)
    begin_cols = np.asarray(cols, np.int64).reshape(1, -1)
    return _split_all(begin_rows, begin_cols, rows, cols, size, val, seed)


def split_random(
    rows: npt.NDArray[np.int64],
    cols: npt.NDArray[np.int64],
    shape: tuple[int, int],
    size: int,
    val: float,
    seed: int = 0,
) -> npt.NDArray[np.uint8]:
    """Assign windows at any places to training or validation; see `split_windows`.

    Args:
        rows: first row of each window `(n,)`.
        cols: first column of each window `(n,)`.
        shape: rows and columns of the scene.
        size: side of the windows.
        val: share of validation windows among those that are kept.
        seed: chooses the blocks.

    Returns:
        `(n,)`.
    """
    down, across = (starts(length, size, size) for length in shape)
    return _split_all(rows, cols, down, across, size, val, seed)


def _split_all(
    begin_rows: npt.NDArray[np.int64],
    begin_cols: npt.NDArray[np.int64],
    rows: Sequence[int],
    cols: Sequence[int],
    size: int,
    val: float,
    seed: int,
) -> npt.NDArray[np.uint8]:
    every = np.full(np.broadcast_shapes(begin_rows.shape, begin_cols.shape), TRAIN, np.uint8)
    if val <= 0.0 or not every.size:
        return every
    down, across = block_edges(rows, cols, size, val)
    shape = len(down), len(across)
    count = shape[0] * shape[1]
    if count < 2:
        return every
    spans = _Spans.of(begin_rows, size, down), _Spans.of(begin_cols, size, across)
    return _assign(spans, shape, _best(spans, shape, val, seed))


@dataclass(frozen=True)
class Blocks:
    """The blocks of a scene, some of them for validation.

    Attributes:
        down: first row of each row of blocks.
        across: first column of each column of blocks.
        chosen: numbers of the validation blocks, row by row; empty where there is but one block.
    """

    down: tuple[int, ...]
    across: tuple[int, ...]
    chosen: tuple[int, ...]

    def assign(
        self, begin_rows: npt.NDArray[np.int64], begin_cols: npt.NDArray[np.int64], side: int
    ) -> npt.NDArray[np.uint8]:
        """Assign squares at any places to TRAIN, VAL or DROPPED `(n,)`."""
        spans = (
            _Spans.of(begin_rows, side, self.down),
            _Spans.of(begin_cols, side, self.across),
        )
        chosen = np.array(self.chosen, np.int64)
        return _assign(spans, (len(self.down), len(self.across)), chosen)


def choose_blocks(
    rows: Sequence[int], cols: Sequence[int], size: int, val: float, seed: int
) -> Blocks:
    """Return the blocks that `split_windows` would choose."""
    if val <= 0.0 or not len(rows) or not len(cols):
        return Blocks((0,), (0,), ())
    down, across = block_edges(rows, cols, size, val)
    chosen: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    if len(down) * len(across) > 1:
        begin_rows = np.asarray(rows, np.int64).reshape(-1, 1)
        begin_cols = np.asarray(cols, np.int64).reshape(1, -1)
        spans = _Spans.of(begin_rows, size, down), _Spans.of(begin_cols, size, across)
        chosen = _best(spans, (len(down), len(across)), val, seed)
    return Blocks(tuple(down), tuple(across), tuple(int(block) for block in chosen))


def _best(
    spans: tuple[_Spans, _Spans], shape: tuple[int, int], val: float, seed: int
) -> npt.NDArray[np.int64]:
    """Return, of a few equally random choices, the one that loses least and comes closest."""
    count = shape[0] * shape[1]
    trials = [_choose(spans, shape, val, _order(count, seed, trial)) for trial in range(_TRIALS)]
    return min(trials, key=lambda blocks: _loss(_assign(spans, shape, blocks), val))


def block_edges(
    rows: Sequence[int], cols: Sequence[int], size: int, val: float
) -> tuple[list[int], list[int]]:
    """Return where the blocks begin that a grid of windows is gathered in."""
    for block in range(_LARGEST_BLOCK, 0, -1):
        down, across = _edges(rows, size, block), _edges(cols, size, block)
        if len(down) * len(across) * val >= _FEWEST_VAL_BLOCKS:
            break
    return down, across


def _order(count: int, seed: int, trial: int) -> npt.NDArray[np.int64]:
    """Return blocks 0 to count-1 in an order that is the same everywhere and for ever."""
    keys = [
        hashlib.blake2b(f"{seed}/{trial}/{block}".encode(), digest_size=8).digest()
        for block in range(count)
    ]
    return np.array(sorted(range(count), key=keys.__getitem__))


def _choose(
    spans: tuple[_Spans, _Spans], shape: tuple[int, int], val: float, order: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Set aside the first blocks of `order`, as many as come closest to the share."""
    low, high = 1, len(order) - 1
    # The share grows with every block: find the first number of blocks that reaches it.
    while low < high:
        middle = (low + high) // 2
        if _share(_assign(spans, shape, order[:middle])) < val:
            low = middle + 1
        else:
            high = middle
    return min(
        (order[:n] for n in {max(low - 1, 1), low}),
        key=lambda blocks: abs(_share(_assign(spans, shape, blocks)) - val),
    )


def _assign(
    spans: tuple[_Spans, _Spans], shape: tuple[int, int], blocks: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    chosen = np.zeros(shape[0] * shape[1], np.int64)
    chosen[blocks] = 1
    # Sums over rectangles of blocks, as differences of a summed-area table (Crow 1984).
    table = np.zeros((shape[0] + 1, shape[1] + 1), np.int64)
    table[1:, 1:] = chosen.reshape(shape).cumsum(0).cumsum(1)
    down, across = spans
    top, bottom = down.first, down.last + 1
    left, right = across.first, across.last + 1
    touched = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
    inside = touched == (bottom - top) * (right - left)
    return np.where(inside, VAL, np.where(touched > 0, DROPPED, TRAIN)).astype(np.uint8)


def _share(split: npt.NDArray[np.uint8]) -> float:
    kept = np.count_nonzero(split != DROPPED)
    return np.count_nonzero(split == VAL) / kept if kept else 1.0


def _loss(split: npt.NDArray[np.uint8], val: float) -> float:
    return float(np.mean(split == DROPPED)) + abs(_share(split) - val)
