"""The grid of a raster: where its pixels lie on Earth. A value without any I/O.

Conventions: `transform` maps (column, row) of a pixel's upper-left corner to map coordinates, as in
rasterio. A raster without georeferencing has no CRS and the identity transform; rotated and
south-up grids are ordinary grids here, since everything is computed in pixel space.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from affine import Affine
from rasterio.crs import CRS
from shapely.geometry import Polygon

from geocyclegan.raster.windows import Window

# Length of a degree of latitude on the WGS 84 ellipsoid's authalic sphere (radius 6 371 007.2 m).
METRES_PER_DEGREE = math.pi / 180.0 * 6_371_007.2
_FARTHEST = 1e15  # map units
_THINNEST = 1e-9  # of the area of a rectangle with a pixel's sides


@lru_cache(maxsize=64)
def _is_web_mercator(crs: CRS) -> bool:
    # PROJ looks through its whole database for a CRS that does not name itself.
    return bool(crs.to_epsg() == 3857)


@dataclass(frozen=True)
class Grid:
    """A coordinate reference system, a transform and a shape.

    Attributes:
        crs: coordinate reference system, or None.
        transform: pixel to map coordinates.
        height: rows.
        width: columns.
    """

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def is_georeferenced(self) -> bool:
        """True if the pixels have a place: a CRS or a transform of their own."""
        return self.crs is not None or self.transform != Affine.identity()

    @property
    def is_sound(self) -> bool:
        """True if every pixel has an area and a place that can be computed with."""
        numbers = [*self.transform[:6], *self.xy(self.height, self.width)]
        if not all(math.isfinite(number) and abs(number) < _FARTHEST for number in numbers):
            return False
        # Of pixels on a line, rounding may leave a hair of area.
        across, down = self.pixel_size
        return abs(self.transform.determinant) > _THINNEST * across * down > 0.0

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Lengths of the pixel's column and row vectors, in map units (rotation included)."""
        t = self.transform
        return math.hypot(t.a, t.d), math.hypot(t.b, t.e)

    @property
    def gsd(self) -> float | None:
        """Ground sampling distance in metres at the centre, or None if there is no CRS.

        The geometric mean of the two pixel lengths. In a geographic CRS the length of a degree is
        taken on the authalic sphere at the centre's latitude; Web Mercator is corrected for its
        scale, 1 / cos(latitude), the same way.
        """
        if self.crs is None:
            return None
        across, down = self.pixel_size
        if self.crs.is_geographic:
            latitude = self._centre()[1]
            squeeze = max(math.cos(math.radians(latitude)), 1e-6)
            return math.sqrt(across * squeeze * down) * METRES_PER_DEGREE
        factor = 1.0
        if self.crs.is_projected:
            factor = float(self.crs.linear_units_factor[1])
        if _is_web_mercator(self.crs):
            radius = 6_378_137.0
            latitude = math.atan(math.sinh(self._centre()[1] / radius))
            factor *= math.cos(latitude)
        return math.sqrt(across * down) * factor

    def _centre(self) -> tuple[float, float]:
        return self.xy(self.height / 2, self.width / 2)

    def xy(self, row: float, col: float) -> tuple[float, float]:
        """Map coordinates of a position in pixels (0, 0 is the upper-left corner)."""
        t = self.transform
        return t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f

    def window(self, window: Window) -> Grid:
        """Return the grid of a window, which may reach beyond this grid."""
        t = self.transform
        x, y = self.xy(window.row, window.col)
        shifted = Affine(t.a, t.b, x, t.d, t.e, y)
        return Grid(self.crs, shifted, window.height, window.width)

    def footprint(self) -> Polygon:
        """Return the outline of the grid in map coordinates."""
        corners = [(0, 0), (0, self.width), (self.height, self.width), (self.height, 0)]
        return Polygon([self.xy(row, col) for row, col in corners])

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        t = self.transform
        return {
            "crs": None if self.crs is None else self.crs.to_wkt(),
            "transform": [t.a, t.b, t.c, t.d, t.e, t.f],
            "shape": [self.height, self.width],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: a part is missing or of the wrong kind.
        """
        crs = None if value["crs"] is None else CRS.from_wkt(str(value["crs"]))
        height, width = (int(side) for side in value["shape"])
        return cls(crs, Affine(*(float(number) for number in value["transform"])), height, width)
