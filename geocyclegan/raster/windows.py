"""Windows and tile plans: pure integer geometry, no I/O and no pixels.

Conventions: a window is (row, col, height, width) in pixels of a scene, half-open, and may reach
beyond the scene. Chips are windows of one size on a stride. Tiles are windows that a generator
reads (`read`) to fill a smaller part of the product (`core`); cores partition the scene.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of pixels of a scene.

    Attributes:
        row: first row, which may be negative.
        col: first column, which may be negative.
        height: rows, 0 or more.
        width: columns, 0 or more.
    """

    row: int
    col: int
    height: int
    width: int

    @property
    def row_stop(self) -> int:
        """First row below the window."""
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        """First column right of the window."""
        return self.col + self.width

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    def clip(self, height: int, width: int) -> Window:
        """Return the part inside a scene of this shape (of size 0 if there is none)."""
        row, col = min(max(self.row, 0), height), min(max(self.col, 0), width)
        row_stop = max(row, min(self.row_stop, height))
        col_stop = max(col, min(self.col_stop, width))
        return Window(row, col, row_stop - row, col_stop - col)

    def slices_in(self, outer: Window) -> tuple[slice, slice]:
        """Return the slices that cut this window out of an array of `outer`."""
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)


def starts(length: int, size: int, stride: int) -> list[int]:
    """Start positions of windows of `size` on a stride, along an axis of `length` pixels.

    The last one is shifted back so that the axis is covered to its end; an axis shorter than the
    window has the one start 0, and the window reaches beyond it.
    """
    if length <= size:
        return [0]
    positions = list(range(0, length - size + 1, stride))
    if positions[-1] + size < length:
        positions.append(length - size)
    return positions


@dataclass(frozen=True)
class Tile:
    """What a generator reads, and the part of the product that it fills.

    Attributes:
        read: the window given to the generator; it may reach beyond the scene at the bottom and
            right, where it is padded to a multiple of the generator's stride.
        core: the window written; it lies inside `read` and inside the scene.
    """

    read: Window
    core: Window


def round_up(value: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class AxisPlan:
    """Tiles along one axis.

    Attributes:
        reads: (start, size) in pixels of what each tile reads.
        cores: (start, size) in pixels of what each tile fills, in the same order.
    """

    reads: tuple[tuple[int, int], ...]
    cores: tuple[tuple[int, int], ...]


def halo_axis(
    length: int,
    core: int,
    halo: int,
    stride: int,
    min_size: int,
    shift: int = 0,
    span: tuple[int, int] | None = None,
    within: tuple[int, int] | None = None,
) -> AxisPlan:
    """Cut an axis into cores of `core` px, each read with a halo.

    Read windows all have one size. At a scene's end they are clamped, not shortened, so that the
    generator's own padding acts at the true border just as it does on the untiled scene; they start
    at multiples of `stride`, since a strided generator is equivariant only to those shifts.

    Args:
        length: pixels along the axis.
        core: px per core, a multiple of `stride`.
        halo: px on either side of a core, a multiple of `stride`.
        stride: the generator's total stride.
        min_size: smallest side that the generator accepts.
        shift: px in the first core if not `core`, a multiple of `stride`.
        span: the part of the axis to cut, from a multiple of `stride`; None: all of it.
        within: where windows may be read, between multiples of `stride`; None: all of the axis.
    """
    low, high = within or (0, round_up(max(length, min_size), stride))
    size = min(max(core + 2 * halo, round_up(min_size, stride)), high - low)
    reads, cores = [], []
    first, end = (0, length) if span is None else span
    begins = [*range(first + shift, end, core)]
    if shift and begins[:1] != [first]:
        begins.insert(0, first)
    for start, stop in pairwise([*begins, end]):
        reads.append((min(max(start - halo, low), high - size), size))
        cores.append((start, stop - start))
    return AxisPlan(tuple(reads), tuple(cores))


@dataclass(frozen=True)
class TilePlan:
    """The tiles of a scene, in rows from top to bottom: all tiles of a row share their core rows.

    Attributes:
        height: rows of the scene.
        width: columns of the scene.
        rows: the plan of its rows.
        cols: the plan of its columns.
    """

    height: int
    width: int
    rows: AxisPlan
    cols: AxisPlan

    def __len__(self) -> int:
        return len(self.rows.reads) * len(self.cols.reads)

    def __iter__(self) -> Iterator[Tile]:
        for (row, height), (core_row, core_height) in zip(
            self.rows.reads, self.rows.cores, strict=True
        ):
            for (col, width), (core_col, core_width) in zip(
                self.cols.reads, self.cols.cores, strict=True
            ):
                yield Tile(
                    Window(row, col, height, width),
                    Window(core_row, core_col, core_height, core_width),
                )


def tile_plan(
    height: int,
    width: int,
    *,
    core: int,
    halo: int,
    stride: int,
    min_size: int = 1,
    shift: int = 0,
) -> TilePlan:
    """Plan the tiles of a scene for a generator with a bounded receptive field.

    Raises:
        ValueError: `core`, `halo` or `shift` is no multiple of `stride`.
    """
    if core % stride or halo % stride or shift % stride or not 0 <= shift < core:
        raise ValueError(
            f"core {core}, halo {halo} and shift {shift} must be multiples of the stride {stride},"
            " and the shift less than a core"
        )
    return TilePlan(
        height,
        width,
        halo_axis(height, core, halo, stride, min_size, shift),
        halo_axis(width, core, halo, stride, min_size, shift),
    )


def split_tile(
    tile: Tile,
    height: int,
    width: int,
    *,
    core: int,
    halo: int,
    stride: int,
    min_size: int = 1,
) -> list[Tile]:
    """Cut a tile into smaller ones: their cores partition its core, and they read inside its read.

    Args:
        tile: of a plan for the same scene, halo, stride and smallest size.
        height: rows of the scene.
        width: columns of the scene.
        core: px per side of the smaller cores, a multiple of `stride`.
        halo: as in the plan.
        stride: as in the plan.
        min_size: as in the plan.
    """
    inner, outer = tile.core, tile.read
    rows = halo_axis(
        *(height, core, halo, stride, min_size),
        span=(inner.row, inner.row_stop),
        within=(outer.row, outer.row_stop),
    )
    cols = halo_axis(
        *(width, core, halo, stride, min_size),
        span=(inner.col, inner.col_stop),
        within=(outer.col, outer.col_stop),
    )
    return list(TilePlan(height, width, rows, cols))


@dataclass(frozen=True)
class CellGrid:
    """A lattice of equal windows that covers a scene, anchored at its first pixel.

    The last row and column are shifted back so that every cell is a whole window; a scene smaller
    than a cell has one cell, which reaches beyond it.

    Attributes:
        rows: first row of each row of cells.
        cols: first column of each column of cells.
        height: rows of a cell.
        width: columns of a cell.
    """

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    height: int
    width: int

    @classmethod
    def plan(cls, height: int, width: int, *, size: int, stride: int, min_size: int = 1) -> Self:
        """Plan the cells of a scene.

        Args:
            height: rows of the scene.
            width: columns of the scene.
            size: side of a cell.
            stride: cells start and end at multiples of it.
            min_size: smallest side of a cell.
        """
        sides, axes = [], []
        for length in (height, width):
            padded = round_up(max(length, min_size), stride)
            side = min(round_up(max(size, min_size), stride), padded)
            sides.append(side)
            axes.append(tuple(starts(padded, side, side)))
        return cls(axes[0], axes[1], sides[0], sides[1])

    def __len__(self) -> int:
        return len(self.rows) * len(self.cols)

    def window(self, row: int, col: int) -> Window:
        """Return a cell by its row and column in the lattice."""
        return Window(self.rows[row], self.cols[col], self.height, self.width)

    def own(self, row: int, col: int) -> Window:
        """Return the part of a cell that no cell before it covers."""
        cell = self.window(row, col)
        top = max(cell.row, self.rows[row - 1] + self.height) if row else cell.row
        left = max(cell.col, self.cols[col - 1] + self.width) if col else cell.col
        return Window(top, left, cell.row_stop - top, cell.col_stop - left)

    def centres(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the centres of the rows and of the columns of cells, in pixels of the scene."""
        return (
            tuple(row + self.height / 2 for row in self.rows),
            tuple(col + self.width / 2 for col in self.cols),
        )


def blend_weights(
    length: int, window_starts: list[int], size: int, overlap: int
) -> list[npt.NDArray[np.float64]]:
    """Weights of overlapping windows along one axis; at every pixel inside they sum to one.

    Each window ramps linearly over `overlap` px towards a neighbour and stays at one towards the
    scene's border, so that no border pixel is lost; the ramps are then divided by their sum.
    Weights are never zero inside the axis, and zero beyond its end.

    Args:
        length: pixels along the axis.
        window_starts: first pixel of each window.
        size: pixels of a window.
        overlap: pixels that neighbours share.

    Returns:
        Weights `(size,)` of each window, in the order of `window_starts`.
    """
    ramps = []
    total = np.zeros(length + size)
    for start in window_starts:
        ramp = np.ones(size)
        rise = (np.arange(overlap) + 1.0) / (overlap + 1.0)
        if overlap and start > 0:
            ramp[:overlap] = rise
        if overlap and start + size < length:
            ramp[size - overlap :] = np.minimum(ramp[size - overlap :], rise[::-1])
        ramp[max(length - start, 0) :] = 0.0
        ramps.append(ramp)
        total[start : start + size] += ramp
    return [
        ramp / np.where(total[start : start + size] > 0, total[start : start + size], 1.0)
        for start, ramp in zip(window_starts, ramps, strict=True)
    ]
