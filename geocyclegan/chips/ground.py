"""The ground that chips show, looked at from another grid.

Chips of other scenes, other dates and the other domain decide on which side ground is. What is
shown is taken as the upright rectangle around each chip in the pixels of the grid that asks, so
rather too much than too little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.split import TRAIN, VAL, Cells, Marks, Pins, Split
from geocyclegan.errors import SceneError
from geocyclegan.raster.globe import project
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.projdata import wgs84

Box = tuple[float, float, float, float]

# Around what is known of a scene's box, in parts of it.
MARGIN = 0.25
# Transforms of files that are meant to be one grid differ by rounding.
_TOLERANCE = 1e-3
# How far lines may bend between the points looked at, in parts of a chip.
_BEND = 0.0025
_STEPS = np.linspace(0.0, 1.0, 5)
_OUTLINE = np.array([(u, v) for u in _STEPS for v in _STEPS if u in (0, 1) or v in (0, 1)])


@dataclass(frozen=True)
class Shown:
    """Chips of one scene that are on a side already.

    Attributes:
        grid: the grid that they were cut on.
        rows: their first rows `(n,)`.
        cols: their first columns `(n,)`.
        size: their side.
        split: TRAIN or VAL `(n,)`.
    """

    grid: Grid
    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    size: int
    split: Split


def globe_boxes(grids: Sequence[Grid]) -> list[Box | None]:
    """Return west, south, east and north of grids, and some more; None for one without a place.

    West is from -180 to below 180 or less by the margin, east may be beyond 180.
    """
    boxes: list[Box | None] = [None] * len(grids)
    of_crs: dict[str, list[int]] = {}
    for i, grid in enumerate(grids):
        if grid.crs is not None:
            of_crs.setdefault(grid.crs.to_wkt(), []).append(i)
    for members in of_crs.values():
        # One call for all: PROJ takes its time to find a way from one CRS to another.
        places = [(v, u) for v in _STEPS for u in _STEPS]
        corners = np.array(
            [
                [grid.xy(grid.height * v, grid.width * u) for v, u in places]
                for grid in (grids[i] for i in members)
            ]
        )
        try:
            lon, lat = project(grids[members[0]].crs, wgs84(), corners[..., 0], corners[..., 1])
        except SceneError:
            continue
        for i, x, y in zip(members, lon, lat, strict=True):
            boxes[i] = _box(x, y)
    return boxes


def _box(lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]) -> Box | None:
    known = np.isfinite(lon) & np.isfinite(lat)
    if not known.any():
        return None
    lon, lat = (lon[known] + 180.0) % 360.0 - 180.0, lat[known]
    if np.ptp(lon) > 180.0:
        lon = np.where(lon < 0.0, lon + 360.0, lon)
    # Lines bend between the points, and some points may have no place.
    margin = MARGIN * max(float(np.ptp(lon)), float(np.ptp(lat)))
    south, north = float(lat.min()) - margin, float(lat.max()) + margin
    if max(-south, north) > 89.0 or not known.all():
        return -180.0, south, 180.0, north
    return float(lon.min()) - margin, south, float(lon.max()) + margin, north


class Atlas:
    """Which of many grids may show the same ground."""

    def __init__(self, grids: Sequence[Grid], names: Sequence[str]) -> None:
        """Look at them.

        Args:
            grids: the grids.
            names: what stands for the place of each that has no georeferencing.
        """
        from shapely import STRtree, box

        self.boxes = globe_boxes(grids)
        self._placed = [i for i, found in enumerate(self.boxes) if found is not None]
        outlines = np.array([box(*(self.boxes[i] or ())) for i in self._placed], object)
        self._tree, self._box = STRtree(outlines), box
        # Grids that the globe knows nothing of are compared within their own world.
        self._worlds: dict[str, list[int]] = {}
        self._world = [
            "" if found is not None else _world(grid, name)
            for grid, name, found in zip(grids, names, self.boxes, strict=True)
        ]
        for i, world in enumerate(self._world):
            if world:
                self._worlds.setdefault(world, []).append(i)

    def near(self, index: int) -> list[int]:
        """Return the numbers of those that may meet a grid, in order, itself among them."""
        found = self.boxes[index]
        if found is None:
            return self._worlds[self._world[index]]
        west, south, east, north = found
        turns = [self._box(west + t, south, east + t, north) for t in (-360.0, 0.0, 360.0)]
        return sorted({self._placed[int(i)] for i in self._tree.query(turns)[1]})


def _world(grid: Grid, name: str) -> str:
    if grid.crs is not None:
        return f"crs {grid.crs.to_wkt()}"
    # Without any georeferencing the name stands for the place.
    return "placed" if grid.is_georeferenced else f"name {name}"


def pins_of(shown: Sequence[Shown], base: Grid, cells: Cells) -> Pins:
    """Return which cells of a grid are shown by chips of which side."""
    pins = Pins.none(cells.shape)
    for chips in shown:
        edges = rectangles(chips, base)
        for split, marks in ((TRAIN, pins.train), (VAL, pins.val)):
            marks |= _mark(edges[:, chips.split == split], base, cells)
    return pins


def rectangles(chips: Shown, base: Grid) -> npt.NDArray[np.float64]:
    """Return top, bottom, left and right of each chip in the pixels of a grid `(4, n)`.

    What has no place there is not a number.
    """
    height, width = chips.grid.shape
    # What padding lies in shows nothing.
    top, left = np.maximum(chips.rows, 0), np.maximum(chips.cols, 0)
    bottom = np.minimum(chips.rows + chips.size, height)
    right = np.minimum(chips.cols + chips.size, width)
    cols = left[:, np.newaxis] + (right - left)[:, np.newaxis] * _OUTLINE[:, 0]
    rows = top[:, np.newaxis] + (bottom - top)[:, np.newaxis] * _OUTLINE[:, 1]
    t = chips.grid.transform
    x, y = t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f
    margin = -_TOLERANCE
    if chips.grid.crs != base.crs:
        try:
            x, y = project(chips.grid.crs, base.crs, x, y)
        except SceneError:
            x = np.full_like(x, np.nan)
        margin = _BEND
    if base.crs is not None and base.crs.is_geographic:
        # 190 degrees east is 170 degrees west.
        x = x + 360.0 * np.round((base.xy(base.height / 2, base.width / 2)[0] - x) / 360.0)
    back = ~base.transform
    there = np.stack([back.d * x + back.e * y + back.f, back.a * x + back.b * y + back.c])
    there[:, ~np.isfinite(there).all(axis=0)] = np.nan
    known = np.isfinite(there[0]).any(axis=1)
    edges = np.full((4, len(chips.rows)), np.nan)
    for i, along in enumerate(there[:, known]):
        low, high = np.nanmin(along, axis=1), np.nanmax(along, axis=1)
        room = np.full_like(low, margin) if margin < 0 else margin * (high - low)
        edges[2 * i, known], edges[2 * i + 1, known] = low - room, high + room
    return edges


def _mark(edges: npt.NDArray[np.float64], base: Grid, cells: Cells) -> Marks:
    top, bottom, left, right = edges
    inside = (bottom > 0) & (top < base.height) & (right > 0) & (left < base.width)
    return cells.spans(*edges[:, inside]).mark(cells.shape)
