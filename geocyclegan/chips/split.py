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

import numpy as np
import numpy.typing as npt

from geocyclegan.raster.windows import starts

TRAIN, VAL, DROPPED = 0, 1, 2

_LARGEST_BLOCK = 4  # chips along a block's side
_FEWEST_VAL_BLOCKS = 3  # with fewer, blocks are made smaller
_TRIALS = 8


@dataclass(frozen=True)
class _Axis:
    """Windows along one axis, and the blocks that they touch."""

    edges: tuple[int, ...]
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]

    @classmethod
    def plan(cls, positions: Sequence[int], size: int, block: int) -> _Axis:
        """Cut an axis into blocks that begin where windows begin and hold `block` chips or more."""
        edges = [0]
        while (found := bisect_left(positions, edges[-1] + block * size)) < len(positions):
            edges.append(positions[found])
        begin = np.asarray(positions)
        first = np.searchsorted(edges, begin, side="right") - 1
        last = np.searchsorted(edges, begin + size - 1, side="right") - 1
        return cls(tuple(edges), first, last)


def split_windows(
    height: int, width: int, size: int, stride: int, val: float, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Assign each window of a scene to training or validation.

    Args:
        height: rows of the scene.
        width: columns of the scene.
        size: side of the windows.
        stride: pixels from one window to the next.
        val: share of validation windows among those that are kept; 0 for none.
        seed: chooses the blocks.

    Returns:
        `(rows of windows, columns of windows)` of TRAIN, VAL or DROPPED, in the order of
        `raster.windows.starts`. If the scene holds two disjoint windows and `val` is above 0, there
        is at least one of each kind.
    """
    rows, cols = starts(height, size, stride), starts(width, size, stride)
    every = np.full((len(rows), len(cols)), TRAIN, np.uint8)
    if val <= 0.0:
        return every
    down, across = _blocks(rows, cols, size, val)
    count = len(down.edges) * len(across.edges)
    if count < 2:
        return every
    splits = [_split(down, across, val, _order(count, seed, trial)) for trial in range(_TRIALS)]
    # Of a few equally random choices, the one that loses least and comes closest.
    return min(splits, key=lambda split: _loss(split, val))


def _blocks(rows: Sequence[int], cols: Sequence[int], size: int, val: float) -> tuple[_Axis, _Axis]:
    for block in range(_LARGEST_BLOCK, 0, -1):
        down, across = _Axis.plan(rows, size, block), _Axis.plan(cols, size, block)
        if len(down.edges) * len(across.edges) * val >= _FEWEST_VAL_BLOCKS:
            break
    return down, across


def _order(count: int, seed: int, trial: int) -> npt.NDArray[np.int64]:
    """Return blocks 0 to count-1 in an order that is the same everywhere and for ever."""
    keys = [
        hashlib.blake2b(f"{seed}/{trial}/{block}".encode(), digest_size=8).digest()
        for block in range(count)
    ]
    return np.array(sorted(range(count), key=keys.__getitem__))


def _split(
    down: _Axis, across: _Axis, val: float, order: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """Set aside the first blocks of `order`, as many as come closest to the share."""
    low, high = 1, len(order) - 1
    # The share grows with every block: find the first number of blocks that reaches it.
    while low < high:
        middle = (low + high) // 2
        if _share(_assign(down, across, order[:middle])) < val:
            low = middle + 1
        else:
            high = middle
    candidates = [_assign(down, across, order[:n]) for n in {max(low - 1, 1), low}]
    return min(candidates, key=lambda split: abs(_share(split) - val))


def _assign(down: _Axis, across: _Axis, blocks: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    chosen = np.zeros(len(down.edges) * len(across.edges), np.int64)
    chosen[blocks] = 1
    # Sums over rectangles of blocks, as differences of a summed-area table (Crow 1984).
    table = np.zeros((len(down.edges) + 1, len(across.edges) + 1), np.int64)
    table[1:, 1:] = chosen.reshape(len(down.edges), -1).cumsum(0).cumsum(1)
    top, bottom = down.first[:, np.newaxis], down.last[:, np.newaxis] + 1
    left, right = across.first, across.last + 1
    touched = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
    inside = touched == (bottom - top) * (right - left)
    return np.where(inside, VAL, np.where(touched > 0, DROPPED, TRAIN)).astype(np.uint8)


def _share(split: npt.NDArray[np.uint8]) -> float:
    kept = np.count_nonzero(split != DROPPED)
    return np.count_nonzero(split == VAL) / kept if kept else 1.0


def _loss(split: npt.NDArray[np.uint8], val: float) -> float:
    return float(np.mean(split == DROPPED)) + abs(_share(split) - val)
