"""Headers that claim more than their file can hold."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from geocyclegan.errors import SceneError

# Formats that hold all of their pixels in the one file.
_WHOLE = frozenset({"BMP", "GIF", "GTiff", "JP2OpenJPEG", "JPEG", "PNG", "WEBP"})
# Deflate packs a thousand to one; a sparse GeoTIFF spends 8 bytes on a tile of a few megabytes.
_MOST_TO_ONE = 10_000_000
_LEAST_BYTES = 1 << 30


def refuse_claims(path: str, dataset: Any) -> None:
    """Refuse a local raster whose header claims far more pixels than its bytes can stand for.

    To plan work on so many windows, or to set up their decoder, takes gigabytes.

    Raises:
        SceneError: it does.
    """
    if dataset.driver not in _WHOLE or not os.path.isfile(path):
        return
    name = dataset.dtypes[0]
    item = 4 if "complex_int" in name else np.dtype(name).itemsize
    claimed = dataset.height * dataset.width * dataset.count * item
    held = os.path.getsize(path)
    if claimed > _LEAST_BYTES and claimed > held * _MOST_TO_ONE:
        raise SceneError(
            f"{path}: its header claims {dataset.height} x {dataset.width} px and {dataset.count}"
            f" bands, {claimed / 1e9:.0f} GB, in a file of {held} bytes; it is damaged or made"
            " to do harm, so fetch it again from where you trust"
        )
