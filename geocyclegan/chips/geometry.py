"""Where chips lie in a scene: sizes on the ground, edges, grids and random places. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.split import (
    DROPPED,
    Blocks,
    block_edges,
    choose_blocks,
    split_random,
    split_windows,
)
from geocyclegan.errors import OptionError
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.windows import starts

SMALLEST_CHIP, LARGEST_CHIP = 8, 8192
Edge = Literal["shift", "pad", "drop"]
EDGES: tuple[Edge, ...] = get_args(Edge)

_METRES = {"m": 1.0, "km": 1000.0}
# Scenes whose chips would differ by more than this are not cut alike.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Ground:
    """A length on the ground.

    Attributes:
        metres: the length.
        text: as it was given.
    """

    metres: float
    text: str

    def __str__(self) -> str:
        return self.text

    def pixels(self, grid: Grid, option: str, scene: str) -> int:
        """Return the length in pixels of a grid, rounded.

        Raises:
            OptionError: the grid has no CRS, so its pixels have no size.
        """
        if grid.gsd is None:
            raise OptionError(
                f"--{option} {self.text}: {scene} has no CRS, so its pixels have no size on the"
                f" ground; give --{option} in pixels"
            )
        return round(self.metres / grid.gsd)


Length = int | Ground
"""Pixels, or a length on the ground."""


def parse_length(text: str, option: str) -> Length:
    """Read `256` (pixels), `1280m` or `2.5km`.

    Raises:
        OptionError: it is none of these.
    """
    found = re.fullmatch(r"(\d+|\d*\.\d+)\s*(px|m|km)?", text.strip())
    if found and found[2] in _METRES:
        return Ground(float(found[1]) * _METRES[found[2]], text.strip())
    if found and found[1].isdigit():
        return int(found[1])
    raise OptionError(f"--{option} {text}: expected pixels, such as 256, or metres, such as 1280m")


@dataclass(frozen=True)
class Geometry:
    """How windows are laid over scenes.

    Attributes:
        size: side of a chip in pixels.
        step: pixels from one chip to the next.
        edge: what becomes of the last window where the scene ends within it: shifted back, padded,
            or dropped.
        random: how many windows are laid at random places instead of a grid; None for a grid.
        val: share of validation windows.
        seed: chooses the validation blocks and the random places.
    """

    size: int
    step: int
    edge: Edge
    random: int | None
    val: float
    seed: int

    @classmethod
    def resolve(
        cls,
        size: Length,
        stride: Length | None,
        grids: list[tuple[str, Grid]],
        **rest: object,
    ) -> Self:
        """Turn lengths on the ground into pixels; the first scene decides, others must agree.

        Args:
            size: side of a chip.
            stride: from one chip to the next, None for `size`.
            grids: the scenes' names and grids.
            rest: the other attributes.

        Raises:
            OptionError: a scene has no CRS, or the result is no sensible size, or scenes differ.
        """
        sides = _pixels(size, "size", grids)
        if not SMALLEST_CHIP <= sides <= LARGEST_CHIP:
            raise OptionError(
                f"--size {size}: expected {SMALLEST_CHIP} to {LARGEST_CHIP} px"
                + (f", it is {sides} px of {grids[0][0]}" if isinstance(size, Ground) else "")
            )
        step = sides if stride is None else _pixels(stride, "stride", grids)
        if step < 1:
            raise OptionError(f"--stride {stride}: expected 1 px or more")
        return cls(sides, step, **rest)  # type: ignore[arg-type]


def _pixels(length: Length, option: str, grids: list[tuple[str, Grid]]) -> int:
    if isinstance(length, int):
        return length
    first, *others = [(name, length.pixels(grid, option, name)) for name, grid in grids]
    for name, side in others:
        if abs(side - first[1]) > _TOLERANCE * first[1]:
            raise OptionError(
                f"--{option} {length}: {first[1]} px of {first[0]} but {side} px of {name}, and all"
                " chips of a domain have one size; bring the scenes to one pixel size with --res"
            )
    return first[1]


@dataclass(frozen=True)
class Windows:
    """All windows of a scene, by row, then column.

    Attributes:
        rows: their first rows `(n,)`.
        cols: their first columns `(n,)`.
        split: TRAIN, VAL or DROPPED of `chips.split` `(n,)`.
    """

    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    split: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.rows)


def lay_windows(height: int, width: int, geometry: Geometry) -> Windows:
    """Lay windows over a scene and split them; two scenes of one shape are treated alike."""
    if geometry.random is not None:
        return _scatter(height, width, geometry)
    down = edge_starts(height, geometry.size, geometry.step, geometry.edge)
    across = edge_starts(width, geometry.size, geometry.step, geometry.edge)
    split = split_windows(down, across, geometry.size, geometry.val, geometry.seed)
    rows, cols = np.meshgrid(
        np.asarray(down, np.int64), np.asarray(across, np.int64), indexing="ij"
    )
    return Windows(rows.ravel(), cols.ravel(), split.ravel())


def _own_grid(height: int, width: int, geometry: Geometry) -> tuple[list[int], list[int]]:
    """Return where windows begin on a grid; random ones are split by the grid of their size."""
    if geometry.random is not None:
        return starts(height, geometry.size, geometry.size), starts(
            width, geometry.size, geometry.size
        )
    down, across = (
        edge_starts(side, geometry.size, geometry.step, geometry.edge) for side in (height, width)
    )
    return down, across


def blocks_of(height: int, width: int, geometry: Geometry) -> Blocks:
    """Return the validation blocks of a scene."""
    down, across = _own_grid(height, width, geometry)
    return choose_blocks(down, across, geometry.size, geometry.val, geometry.seed)


def is_divisible(height: int, width: int, geometry: Geometry) -> bool:
    """Say whether a scene is large enough to hold ground of both training and validation."""
    down, across = block_edges(*_own_grid(height, width, geometry), geometry.size, geometry.val)
    return len(down) * len(across) > 1


def split_turned(windows: Windows, size: int, grid: Grid, base: Grid, blocks: Blocks) -> Windows:
    """Split windows of a turned grid by the blocks of the grid that it was turned from.

    Args:
        windows: windows of `grid`; what their split says is put aside.
        size: their side.
        grid: the turned grid.
        base: the one that it was turned from.
        blocks: the blocks of that.

    Returns:
        The same windows; each counts as the upright square around it.
    """
    to_base = ~base.transform * grid.transform
    half = size / 2
    cols, rows = windows.cols + half, windows.rows + half
    middle_cols = to_base.a * cols + to_base.b * rows + to_base.c
    middle_rows = to_base.d * cols + to_base.e * rows + to_base.f
    reach = half * max(abs(to_base.a) + abs(to_base.b), abs(to_base.d) + abs(to_base.e))
    # A hair of tolerance, or rounding adds a pixel to squares that were not turned.
    lefts = np.floor(middle_cols - reach + 1e-6).astype(np.int64)
    tops = np.floor(middle_rows - reach + 1e-6).astype(np.int64)
    side = int(np.ceil(2 * reach - 1e-6)) + (0 if reach == half else 1)
    return replace(windows, split=blocks.assign(tops, lefts, side))


def edge_starts(length: int, size: int, step: int, edge: Edge) -> list[int]:
    """Return start positions of windows along an axis, all in pixels.

    The list is empty where `edge` is "drop" and not even one window fits.
    """
    if edge == "shift":
        return starts(length, size, step)
    if edge == "drop":
        return list(range(0, length - size + 1, step))
    positions = list(range(0, max(length - size, 0) + 1, step))
    while positions[-1] + size < length and positions[-1] + step < length:
        positions.append(positions[-1] + step)
    return positions


def _scatter(height: int, width: int, geometry: Geometry) -> Windows:
    """Draw windows that lie inside the scene and do not straddle the edge of validation.

    A scene smaller than a chip has one place for it. Fewer windows than asked for come from a
    scene that has fewer places.
    """
    assert geometry.random is not None  # for mypy
    random = np.random.default_rng([geometry.seed, height, width])
    most_row, most_col = max(height - geometry.size, 0), max(width - geometry.size, 0)
    # Some of the places straddle, some come twice.
    count = min(8 * geometry.random + 64, 4 * (most_row + 1) * (most_col + 1))
    rows = random.integers(0, most_row, count, endpoint=True)
    cols = random.integers(0, most_col, count, endpoint=True)
    split = split_random(rows, cols, (height, width), geometry.size, geometry.val, geometry.seed)
    _, first = np.unique(np.stack([rows, cols]), axis=1, return_index=True)
    fresh = np.zeros(count, np.bool_)
    fresh[first] = True
    windows = Windows(rows.astype(np.int64), cols.astype(np.int64), split)
    return first_windows(windows, fresh, geometry.random)


def first_windows(windows: Windows, fresh: npt.NDArray[np.bool_], count: int) -> Windows:
    """Keep the first few windows that are fresh and do not straddle; by row, then column."""
    chosen = np.flatnonzero(fresh & (windows.split != DROPPED))[:count]
    order = chosen[np.lexsort((windows.cols[chosen], windows.rows[chosen]))]
    return Windows(windows.rows[order], windows.cols[order], windows.split[order])
