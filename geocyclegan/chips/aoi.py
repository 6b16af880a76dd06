"""Areas of interest: polygons of any vector file, seen in the pixels of a scene.

Cover is computed in pixel coordinates, where every window is an upright rectangle, so rotated and
south-up scenes need no care of their own.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from geocyclegan.chips.layers import polygon_layer, split_layer
from geocyclegan.errors import OptionError
from geocyclegan.raster.grid import Grid

log = logging.getLogger(__name__)

# A straight edge in one CRS is a curve in another: before it is reprojected, an edge is cut into
# pieces no longer than this share of the scene's extent, which leaves an error far below a pixel.
_PIECE = 1 / 50
_TURNS = (-360.0, 360.0)
_UNREADABLE = (OSError, ValueError, TypeError, RuntimeError)


class Aoi:
    """The polygons of a vector file.

    Args:
        path: any file that GDAL reads as vectors; `FILE|layername=NAME` names one of its layers.
        option: the option that named it, for messages.

    Raises:
        OptionError: it cannot be read, holds no polygon or no CRS, or has several layers and none
            is named.
    """

    def __init__(self, path: Path, option: str = "--aoi") -> None:
        import geopandas
        from pyogrio.errors import DataSourceError

        self.path = path
        self.option = option
        file, layer = split_layer(path, option)
        try:
            frame = self._read(file, layer)
        except OptionError:
            raise
        except (DataSourceError, shapely.errors.GEOSException, *_UNREADABLE) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise OptionError(
                f"{option} {path}: not a vector file that can be read ({reason})"
            ) from error
        geometry = frame.geometry if isinstance(frame, geopandas.GeoDataFrame) else None
        if geometry is not None:
            kinds = ("Polygon", "MultiPolygon", "GeometryCollection")
            geometry = geometry[geometry.geom_type.isin(kinds) & ~geometry.is_empty]
        if geometry is None or not len(geometry):
            raise OptionError(f"{option} {path}: it holds no polygon")
        if geometry.crs is None:
            raise OptionError(
                f"{option} {path}: it has no CRS, so its place is unknown; give it one, for"
                f" example: ogr2ogr -a_srs EPSG:4326 polygons.gpkg {path}"
            )
        self._geometry = geometry

    def _read(self, file: Path, layer: str | int | None) -> Any:
        """Read a layer; polygons whose ends do not meet are closed, as QGIS and GDAL do it."""
        import geopandas

        with warnings.catch_warnings():
            # Said below, with the file's name.
            warnings.filterwarnings("ignore", "Non closed ring", RuntimeWarning)
            layer = polygon_layer(file, layer, self.option)
            try:
                return geopandas.read_file(file, layer=layer)
            except shapely.errors.GEOSException as error:
                frame = geopandas.read_file(file, layer=layer, on_invalid="fix")
                log.warning(
                    "%s %s: a polygon in it is not sound (%s); its ends were joined",
                    *(self.option, self.path, str(error).strip().rpartition(": ")[2]),
                )
                return frame

    def in_pixels(self, grid: Grid, scene: str) -> Any | None:
        """Return the area in (column, row) pixel coordinates of a scene; None if they are apart.

        Raises:
            OptionError: the scene has no CRS, or the AOI cannot be brought into it.
        """
        if grid.crs is None:
            raise OptionError(
                f"{self.option} {self.path}: {scene} has no CRS, so no polygon has a place in it;"
                f" chip it without {self.option}, or give it its CRS with gdal_edit.py -a_srs"
            )
        geometry = self._near(grid)
        try:
            geometry = geometry.to_crs(grid.crs.to_wkt())
        except Exception as error:  # pyproj raises its own classes, one per stage
            raise OptionError(
                f"{self.option} {self.path}: it cannot be brought into the CRS of {scene} ({error})"
            ) from error
        shapes = [shape for shape in geometry if np.isfinite(shape.bounds).all()]
        if grid.crs.is_geographic:
            # Longitudes may be counted from 0 to 360, or go on beyond 180.
            shapes += [_affine(shape, (1, 0, 0, 1, turn, 0)) for shape in shapes for turn in _TURNS]
        inverse = ~grid.transform
        to_pixels = (inverse.a, inverse.b, inverse.d, inverse.e, inverse.c, inverse.f)
        # Made valid after the map, which may itself fold a thin polygon; the union counts overlaps
        # once and keeps holes.
        shapes = shapely.make_valid([_affine(shape, to_pixels) for shape in shapes])
        extent = shapely.box(0, 0, grid.width, grid.height)
        area = shapely.intersection(shapely.union_all(shapes), extent)
        return area if area.area > 0 else None

    def _near(self, grid: Grid) -> Any:
        """Return the polygons around a scene in their own CRS, their edges in short pieces."""
        from rasterio.errors import CRSError
        from rasterio.warp import transform_bounds

        geometry = self._geometry
        try:
            west, south, east, north = transform_bounds(
                grid.crs, geometry.crs.to_wkt(), *grid.footprint().bounds
            )
        except (CRSError, ValueError, RuntimeError):
            west = south = east = north = float("nan")
        extent = max(east - west, north - south)
        # West lies east of east where a scene crosses the 180th meridian.
        is_beyond = geometry.crs.is_geographic and (west < -180.0 or east > 180.0)
        if is_beyond or not (np.isfinite(extent) and west < east and south < north):
            west, south, east, north = geometry.total_bounds
            extent = max(east - west, north - south)
        else:
            box = shapely.box(west - extent, south - extent, east + extent, north + extent)
            geometry = geometry.make_valid().intersection(box)
            geometry = geometry[~geometry.is_empty]
        return geometry.segmentize(extent * _PIECE) if extent > 0 else geometry


def _affine(shape: Any, coefficients: Sequence[float]) -> Any:
    from shapely.affinity import affine_transform

    return affine_transform(shape, coefficients)


def cover_shares(
    area: Any,
    rows: npt.NDArray[np.int64],
    cols: npt.NDArray[np.int64],
    size: int,
    shape: tuple[int, int],
) -> npt.NDArray[np.float64]:
    """Return the covered share of every window, of its part inside the scene.

    Args:
        area: the polygons in (column, row) coordinates.
        rows: first row of each window `(n,)`, increasing.
        cols: first column of each window `(n,)`.
        size: side of the windows in pixels.
        shape: rows and columns of the scene.

    Returns:
        `(n,)`, from 0 to 1.
    """
    height, width = shape
    shares = np.zeros(len(rows))
    left = cols.astype(np.float64)
    right = np.minimum(left + size, width)
    changes = np.flatnonzero(np.diff(rows)) + 1
    for begin, end in zip([0, *changes], [*changes, len(rows)], strict=True):
        if begin == end:
            break
        row, chosen = int(rows[begin]), slice(begin, end)
        bottom = min(row + size, height)
        # Only a strip of the polygons matters to a row of windows; this keeps large ones fast.
        strip = shapely.intersection(area, shapely.box(0, row, width, bottom))
        if strip.is_empty:
            continue
        windows = shapely.box(left[chosen], row, right[chosen], bottom)
        inside = shapely.area(shapely.intersection(strip, windows))
        shares[chosen] = inside / shapely.area(windows)
    return np.asarray(np.clip(shares, 0.0, 1.0))
