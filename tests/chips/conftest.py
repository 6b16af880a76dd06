"""Small scenes made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine

NORTH_UP = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 4_200_000.0)


@pytest.fixture
def make_scene(tmp_path: Path) -> Callable[..., Path]:
    """Write a scene of random pixels from 100 to 199, without georeferencing if `crs` is None."""

    def make(
        name: str = "scene.tif",
        *,
        shape: tuple[int, int] = (96, 128),
        bands: int = 2,
        dtype: str = "uint16",
        names: Sequence[str] | None = None,
        pixels: npt.NDArray[Any] | None = None,
        mask: npt.NDArray[np.bool_] | None = None,
        seed: int = 0,
        **profile: Any,
    ) -> Path:
        if pixels is None:
            random = np.random.default_rng(seed)
            pixels = random.integers(100, 200, (bands, *shape)).astype(dtype)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        given = {"crs": "EPSG:32630", "transform": NORTH_UP, "photometric": "MINISBLACK"} | profile
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                path,
                "w",
                driver="GTiff",
                count=len(pixels),
                height=pixels.shape[1],
                width=pixels.shape[2],
                dtype=pixels.dtype.name,
                **given,
            ) as scene,
        ):
            scene.write(pixels)
            if names is not None:
                scene.descriptions = names
            if mask is not None:
                scene.write_mask(mask)
        return path

    return make
