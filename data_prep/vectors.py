"""Vectors drawn on the grid of an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from rasterio.features import rasterize

from geocyclegan.errors import SceneError
from geocyclegan.files import atomic_write
from geocyclegan.raster.opening import GDAL_ERRORS, first_line, gdal_env


def read_vectors(path: Path, layer: str | None = None) -> geopandas.GeoDataFrame:
    """Read a vector file.

    Raises:
        SceneError: it cannot be read.
    """
    try:
        return geopandas.read_file(path, layer=layer)
    except Exception as error:  # pyogrio and its drivers raise many kinds
        raise SceneError(
            f"{path}: not a vector file that can be read ({first_line(error)})"
        ) from error


def burn(path: Path, image: Path, layers: Sequence[tuple[Path, int]]) -> Path:
    """Draw vector files on the grid of an image, the later over the earlier.

    Args:
        path: the GeoTIFF to write, uint8: 0 where nothing lies.
        image: gives the grid.
        layers: files and the class of each.

    Returns:
        `path`.

    Raises:
        SceneError: a file cannot be read.
    """
    try:
        with gdal_env(), rasterio.open(image) as dataset:
            profile = {
                "driver": "GTiff", "dtype": "uint8", "count": 1, "crs": dataset.crs,
                "transform": dataset.transform, "width": dataset.width, "height": dataset.height,
                "compress": "deflate",
            }  # fmt: skip
    except GDAL_ERRORS as error:
        raise SceneError(f"{image}: cannot be read ({first_line(error)})") from error
    drawn = np.zeros((profile["height"], profile["width"]), np.uint8)
    for file, value in layers:
        frame = read_vectors(file)
        if frame.crs is not None and profile["crs"] is not None:
            frame = frame.to_crs(profile["crs"])
        shapes = [
            (shape, value) for shape in frame.geometry if shape is not None and not shape.is_empty
        ]
        if shapes:
            rasterize(shapes, out=drawn, transform=profile["transform"])
    with atomic_write(path) as part, rasterio.open(part, "w", **profile) as out:
        out.write(drawn, 1)
    return path
