"""A hash of a raster's pixels: unlike one of the file, the file itself can carry it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import rasterio
from rasterio.windows import Window as RasterioWindow

from geocyclegan.errors import SceneError
from geocyclegan.raster.opening import GDAL_ERRORS, first_line, gdal_env, open_dataset

TAG = "GEOCYCLEGAN_PIXELS_SHA256"
"""The metadata item of a product that holds the hash."""

_SIDE = 512


def pixel_digest(dataset: Any) -> str:
    """Return the SHA-256 of the pixels and the valid mask of an open rasterio dataset.

    Computed over squares of 512 px from left to right and top to bottom, so it depends neither on
    the file's blocks nor on its compression, and memory does not grow with the scene.
    """
    digest = hashlib.sha256(f"{dataset.count} {dataset.shape} {dataset.dtypes[0]}".encode())
    for row in range(0, dataset.height, _SIDE):
        for col in range(0, dataset.width, _SIDE):
            height, width = min(_SIDE, dataset.height - row), min(_SIDE, dataset.width - col)
            area = RasterioWindow(col, row, width, height)
            digest.update(dataset.read(window=area).tobytes())
            digest.update(dataset.dataset_mask(window=area).tobytes())
    return digest.hexdigest()


def check_product(path: Path) -> str | None:
    """Compare a product's pixels with the hash that it carries.

    Returns:
        What is wrong with it; None if nothing is.

    Raises:
        NotFoundError, SceneError: it is no raster, or carries no hash.
    """
    with gdal_env(), open_dataset(str(path)) as dataset:
        expected = dataset.tags().get(TAG)
        if expected is None:
            raise SceneError(
                f"{path}: it carries no hash of its pixels, so it cannot be verified; products of"
                " geocyclegan infer do"
            )
        try:
            with rasterio.Env():
                found = pixel_digest(dataset)
        except GDAL_ERRORS as error:
            return f"its pixels cannot be read ({first_line(error)})"
    return None if found == expected else "its pixels are not those that were written"
