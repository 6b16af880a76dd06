"""Tiny trees with the layouts of public data sets, as downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a raster of random numbers under the folder `data`, and return its path."""
    random = np.random.default_rng(0)

    def make(
        name: str,
        *,
        bands: int = 1,
        side: int = 32,
        height: int | None = None,
        dtype: str = "uint16",
        res: float | None = 10.0,
        low: int = 1,
        high: int = 200,
        values: Any = None,
        **profile: Any,
    ) -> Path:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (bands, height or side, side)
        pixels = (
            random.integers(low, high, shape) if values is None else np.broadcast_to(values, shape)
        )
        if res is not None:
            profile = {
                "crs": "EPSG:32631",
                "transform": from_origin(500_000, 4_800_000, res, res),
            } | profile
        drivers = {".png": "PNG", ".jpg": "JPEG", ".jp2": "JP2OpenJPEG"}
        with rasterio.open(
            path, "w", driver=drivers.get(path.suffix, "GTiff"), width=side, height=shape[1],
            count=bands, dtype=dtype, **profile,
        ) as out:  # fmt: skip
            out.write(pixels.astype(dtype))
        return path

    return make
