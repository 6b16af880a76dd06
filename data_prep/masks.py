"""Quality layers whose bits say what a pixel is, as a raster of one class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio

from geocyclegan.errors import OutputError, SceneError
from geocyclegan.files import atomic_write
from geocyclegan.raster.opening import GDAL_ERRORS, first_line, gdal_env


def bit_mask(source: Path, bits: Sequence[int], path: Path) -> Path:
    """Write a raster that is 1 where one of some bits is set, 0 elsewhere.

    Args:
        source: a raster of integers, whose first band is read block by block.
        bits: numbers of the bits, from 0 for the lowest.
        path: the GeoTIFF to write.

    Returns:
        `path`.

    Raises:
        SceneError: the source cannot be read, or does not hold integers.
        OutputError: `path` cannot be written.
    """
    wanted = sum(1 << bit for bit in bits)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with gdal_env(), rasterio.open(source) as dataset:
            if np.dtype(dataset.dtypes[0]).kind not in "iu":
                raise SceneError(f"{source}: numbers of type {dataset.dtypes[0]} have no bits")
            profile = {
                "driver": "GTiff", "dtype": "uint8", "count": 1, "crs": dataset.crs,
                "transform": dataset.transform, "width": dataset.width, "height": dataset.height,
                "compress": "deflate", "tiled": True,
            }  # fmt: skip
            with atomic_write(path) as part, rasterio.open(part, "w", **profile) as out:
                for _, window in dataset.block_windows(1):
                    values = dataset.read(1, window=window).astype(np.int64)
                    out.write((values & wanted != 0).astype(np.uint8), 1, window=window)
    except GDAL_ERRORS as error:
        if isinstance(error, SceneError | OutputError):
            raise
        raise SceneError(f"{source}: cannot be read ({first_line(error)})") from error
    return path
