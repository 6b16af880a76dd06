"""Where chips lie in a scene: sizes on the ground, edges, grids and random places. No I/O."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.split import Cells
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
    """All windows of a scene: of a grid by row, then column; random ones as they were drawn.

    Attributes:
        rows: their first rows `(n,)`.
        cols: their first columns `(n,)`.
    """

    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


def lay_windows(height: int, width: int, geometry: Geometry) -> Windows:
    """Lay windows over a scene; two scenes of one shape are treated alike.

    Random ones are more than `geometry.random`, see `drawn`.
    """
    if geometry.random is not None:
        return _scatter(height, width, geometry)
    down, across = _own_grid(height, width, geometry)
    rows, cols = np.meshgrid(
        np.asarray(down, np.int64), np.asarray(across, np.int64), indexing="ij"
    )
    return Windows(rows.ravel(), cols.ravel())


def drawn(geometry: Geometry) -> int:
    """Return how many random windows are drawn, since some will lie across the edge of validation.

    A window as large as a cell touches four of them, and each is for validation or not.
    """
    assert geometry.random is not None  # for mypy
    if geometry.val <= 0.0:
        return geometry.random
    whole = geometry.val**4 + (1.0 - geometry.val) ** 4
    return math.ceil(geometry.random / whole) + 8


def _own_grid(height: int, width: int, geometry: Geometry) -> tuple[list[int], list[int]]:
    """Return where windows begin on a grid; random ones are split by the grid of their size."""
    if geometry.random is not None:
        size = geometry.size
        return starts(height, size, size), starts(width, size, size)
    down, across = (
        edge_starts(side, geometry.size, geometry.step, geometry.edge) for side in (height, width)
    )
    return down, across


def cells_of(height: int, width: int, geometry: Geometry) -> Cells:
    """Return the cells that a scene is divided in."""
    return Cells.of(*_own_grid(height, width, geometry), geometry.size)


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
    """Draw windows that lie inside the scene.

    A scene smaller than a chip has one place for it. Fewer windows than asked for come from a
    scene that has fewer places.
    """
    random = np.random.default_rng([geometry.seed, height, width])
    most_row, most_col = max(height - geometry.size, 0), max(width - geometry.size, 0)
    # Some of the places come twice.
    count = min(2 * drawn(geometry) + 64, 4 * (most_row + 1) * (most_col + 1))
    rows = random.integers(0, most_row, count, endpoint=True)
    cols = random.integers(0, most_col, count, endpoint=True)
    _, first = np.unique(np.stack([rows, cols]), axis=1, return_index=True)
    chosen = np.sort(first)[: drawn(geometry)]
    return Windows(rows[chosen].astype(np.int64), cols[chosen].astype(np.int64))
