"""Whether a pixel's coordinates are those of its area or of a point, as a GeoTIFF says it.

A GeoTIFF of points (`AREA_OR_POINT=Point`, as elevation models have it) stores the place of the
centre of the first pixel, half a pixel from the corner that transforms count from. GDAL adds and
subtracts that half, which rounding may not undo to the last bit.
"""

from __future__ import annotations

from rasterio.io import MemoryFile

from geocyclegan.raster.grid import Grid

AREA, POINT = "Area", "Point"


def area_or_point(meant: str | None, grid: Grid) -> str:
    """Return what to write as AREA_OR_POINT, so that the grid stays where it is to the last bit.

    Args:
        meant: what the scene says; None: nothing.
        grid: where it is.

    Returns:
        "Point" where the scene says so and its transform outlives it, else "Area".
    """
    if (meant or "").strip().casefold() != POINT.casefold():
        return AREA
    with MemoryFile() as file:
        with file.open(
            driver="GTiff",
            width=1,
            height=1,
            count=1,
            dtype="uint8",
            crs=grid.crs,
            transform=grid.transform,
        ) as dataset:
            dataset.update_tags(AREA_OR_POINT=POINT)
        with file.open() as dataset:
            return POINT if dataset.transform == grid.transform else AREA
