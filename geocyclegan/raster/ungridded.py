"""Scenes whose place is told without a transform, and the command that puts them on a grid.

Ground control points, as Sentinel-1 GRD has them; rational polynomial coefficients of satellite
images; geolocation arrays of swaths.
"""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
from affine import Affine
from rasterio.enums import ColorInterp

from geocyclegan.raster.bandfiles import short_name
from geocyclegan.raster.globe import is_geographic

# From this many points on they are a grid that follows the sensor, not clicks of a hand that are to
# be smoothed; with many more, a spline takes hours.
_SPLINE_POINTS = range(10, 3000)
_POLAR = 84.0
_POLAR_CODES = {True: 3413, False: 3031}


def without_grid(dataset: Any, path: str) -> str | None:
    """Say what an open dataset has instead of a transform, and what to do.

    Args:
        dataset: of rasterio.
        path: its name.

    Returns:
        The rest of a message that begins with the name; None if it has a transform, or nothing.
    """
    if dataset.transform != Affine.identity():
        return None
    points, crs = dataset.gcps
    if points:
        spline = ["-tps"] if len(points) in _SPLINE_POINTS else []
        centre = (float(np.mean([p.x for p in points])), float(np.mean([p.y for p in points])))
        onto = _onto(*centre) if is_geographic(crs) else []
        return _message("ground control points", [*spline, *onto], dataset, path)
    if dataset.rpcs is not None:
        rpcs = dataset.rpcs
        # Without a height, GDAL takes sea level.
        height = ["-to", f"RPC_HEIGHT={rpcs.height_off:.9g}"]
        onto = _onto(rpcs.long_off, rpcs.lat_off)
        return _message(
            "rational polynomial coefficients",
            ["-rpc", *height, *onto],
            dataset,
            path,
            " (with a terrain model: -to RPC_DEM=dem.tif)",
        )
    if dataset.tags(ns="GEOLOCATION"):
        return _message("geolocation arrays", ["-geoloc"], dataset, path)
    return None


def _message(what: str, options: list[str], dataset: Any, path: str, better: str = "") -> str:
    # The command comes last, to be copied to the end of the line.
    names = path, f"{short_name(path)}_warped.tif"
    files = [f"./{name}" if name.startswith("-") else name for name in names]
    command = shlex.join(["gdalwarp", *options, *_keep_invalid(dataset), *files])
    return f"it has {what} and no transform; put it on a grid first{better}: {command}"


def _keep_invalid(dataset: Any) -> list[str]:
    """Return the options that keep what lies around the scene on the grid from being data."""
    if any("complex" in dtype for dtype in dataset.dtypes):
        return [] if dataset.nodata is not None else ["-dstnodata", "0"]
    has_alpha = ColorInterp.alpha in dataset.colorinterp
    return [] if has_alpha or None not in dataset.nodatavals else ["-dstalpha"]


def _onto(longitude: float, latitude: float) -> list[str]:
    """Return a CRS in metres: on a grid of degrees, pixels of a model are of two sizes."""
    if abs(latitude) >= _POLAR:
        return ["-t_srs", f"EPSG:{_POLAR_CODES[latitude > 0]}"]
    zone = int((longitude + 180.0) % 360.0 // 6.0) + 1
    return ["-t_srs", f"EPSG:{(32600 if latitude >= 0 else 32700) + zone}"]
