"""Vectors drawn on the grid of an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
from rasterio.features import rasterize

from geocyclegan.errors import NotFoundError, SceneError
from geocyclegan.files import atomic_write
from geocyclegan.raster.opening import GDAL_ERRORS, first_line, gdal_env


def read_vectors(path: Path) -> list[geopandas.GeoDataFrame]:
    """Read all layers of a vector file that hold shapes.

    Raises:
        NotFoundError: there is no such file.
        SceneError: it cannot be read.
    """
    if not path.exists():
        raise NotFoundError(f"{path}: no such file")
    try:
        layers = geopandas.list_layers(path)
        named = layers["name"][layers["geometry_type"].notna()]
        return [geopandas.read_file(path, layer=name) for name in named]
    except Exception as error:  # pyogrio and its drivers raise many kinds
        raise SceneError(f"{path}: not a vector file that can be read") from error


def class_profile(image: Path) -> dict[str, Any]:
    """Return the profile of a GeoTIFF of classes, uint8, on the grid of an image.

    Raises:
        SceneError: the image cannot be read.
    """
    try:
        with gdal_env(), rasterio.open(image) as dataset:
            return {
                "driver": "GTiff", "dtype": "uint8", "count": 1, "crs": dataset.crs,
                "transform": dataset.transform, "width": dataset.width, "height": dataset.height,
                "compress": "deflate",
            }  # fmt: skip
    except GDAL_ERRORS as error:
        raise SceneError(f"{image}: cannot be read ({first_line(error)})") from error


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
    profile = class_profile(image)
    drawn = np.zeros((profile["height"], profile["width"]), np.uint8)
    for file, value in layers:
        for frame in read_vectors(file):
            if frame.crs is not None and profile["crs"] is not None:
                frame = frame.to_crs(profile["crs"])
            there = frame.geometry[frame.geometry.notna() & ~frame.geometry.is_empty]
            if len(there):
                shapes = [(shape, value) for shape in there]
                rasterize(shapes, out=drawn, transform=profile["transform"])
    with atomic_write(path) as part, rasterio.open(part, "w", **profile) as out:
        out.write(drawn, 1)
    return path
