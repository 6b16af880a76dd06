"""A hash of a raster's pixels: unlike one of the file, the file itself can carry it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.windows import Window as RasterioWindow

from geocyclegan.errors import SceneError
from geocyclegan.raster.gdal_errors import GDAL_ERRORS
from geocyclegan.raster.opening import first_line, gdal_env, open_dataset
from geocyclegan.threads import prefetched, usable_cores

TAG = "GEOCYCLEGAN_PIXELS_SHA256"
"""The metadata item of a product that holds the hash."""

_SIDE = 512
_MOST_THREADS = 8
# Decoded squares that may be held at once; a single one of very many bands may be larger.
_HELD_BYTES = 64 * 2**20


def pixel_digest(path: Path) -> str:
    """Return the SHA-256 of the pixels and the valid mask of a raster.

    Computed over squares of 512 px from left to right and top to bottom, so it depends neither on
    the file's blocks nor on its compression. Squares are decoded by threads, a bounded number of
    them ahead, so memory does not grow with the scene.

    Raises:
        NotFoundError, SceneError: it cannot be opened.
        RasterioError, CPLE_BaseError, OSError: some pixel cannot be decoded.
    """
    with gdal_env(), open_dataset(str(path)) as dataset:
        head = f"{dataset.count} {dataset.shape} {dataset.dtypes[0]}"
    digest = hashlib.sha256(head.encode())
    for pixels, mask in _squares(partial(open_dataset, str(path))):
        digest.update(pixels.data)
        digest.update(mask.data)
    return digest.hexdigest()


def overview_fault(path: Path) -> str | None:
    """Read all overviews of a raster, and those of its mask.

    That finds blocks that are missing, cut off or overwritten. They have no hash, and GDAL need not
    look at the checksums of its blocks, so a single changed bit may pass.

    Returns:
        What is wrong with them; None if nothing is, or there are none.

    Raises:
        NotFoundError, SceneError: it cannot be opened.
    """
    with gdal_env(), open_dataset(str(path)) as dataset:
        factors, driver = dataset.overviews(1), dataset.driver
    for level, factor in enumerate(factors):
        try:
            for _ in _squares(partial(rasterio.open, path, driver=driver, overview_level=level)):
                pass
        except GDAL_ERRORS as error:
            return f"its overview 1:{factor} cannot be read ({first_line(error)})"
    return None


def check_product(path: Path) -> str | None:
    """Compare a product's pixels with the hash that it carries, and read its overviews.

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
        found = pixel_digest(path)
    except GDAL_ERRORS as error:
        return f"its pixels cannot be read ({first_line(error)})"
    if found != expected:
        return "its pixels are not those that were written"
    return overview_fault(path)


def _squares(open_it: Callable[[], Any]) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Yield the pixels and the mask of each square, decoded ahead by threads.

    Args:
        open_it: opens the raster; each thread has a handle of its own, as GDAL asks for.
    """
    own = threading.local()

    def read(area: RasterioWindow) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        with gdal_env():
            if not hasattr(own, "dataset"):
                own.dataset = opened.enter_context(open_it())
            return own.dataset.read(window=area), own.dataset.dataset_mask(window=area)

    # Closed when all threads have ended.
    with ExitStack() as opened:
        with open_it() as dataset:
            height, width = dataset.shape
            bytes_per_pixel = 1 + sum(np.dtype(kind).itemsize for kind in dataset.dtypes)
        areas = (
            RasterioWindow(col, row, min(_SIDE, width - col), min(_SIDE, height - row))
            for row in range(0, height, _SIDE)
            for col in range(0, width, _SIDE)
        )
        count = -(-height // _SIDE) * -(-width // _SIDE)
        fitting = _HELD_BYTES // (2 * _SIDE**2 * bytes_per_pixel)
        threads = max(1, min(fitting, usable_cores(), _MOST_THREADS, count))
        for _, square in prefetched(read, areas, threads=threads, name="pixels"):
            yield square
