"""Scenes in other units are told; other scenery is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geocyclegan.chips.magnitudes import Magnitudes, Spread
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.raster.sketch import BandSketch, quantiles_of

MakeScene = Callable[..., Path]
RNG = np.random.default_rng(0)
N = 20_000


def spread(values: np.ndarray, dtype: str = "float32") -> Spread:
    sketch = BandSketch(dtype)
    sketch.update(values.astype(dtype))
    return Spread.of(sketch.to_arrays())


def log_normal(median: float, sigma: float = 0.6) -> np.ndarray:
    return median * np.exp(RNG.normal(0, sigma, N))


LAND_DB = RNG.normal(-10, 3, N)
REFLECTANCE = np.clip(log_normal(0.15, 0.5), 0.0, 1.2)


@pytest.fixture
def options(tmp_path: Path) -> ChipOptions:
    return ChipOptions(out=tmp_path / "chips", size=32, val=0.0)


OTHER_UNITS = {
    "decibels and power": (LAND_DB, 10 ** (LAND_DB / 10)),
    "decibels of a city, power of water": (RNG.normal(-3, 5, N) - 3, log_normal(0.005)),
    "reflectance and stored numbers": (REFLECTANCE, 10_000 * REFLECTANCE),
    "reflectance and 8 bits": (REFLECTANCE, 255 * REFLECTANCE),
    "the same, and a black collar": (
        REFLECTANCE,
        np.where(np.arange(N) < N // 5, 0.0, 10_000 * REFLECTANCE),
    ),
    "calibrated and raw radar": (log_normal(0.1), log_normal(150.0)),
}
OTHER_SCENERY = {
    "night and day": (RNG.integers(0, 12, N), RNG.integers(60, 220, N), "uint8"),
    "black and day": (RNG.integers(0, 2, N), RNG.integers(60, 220, N), "uint8"),
    "water and snow": (log_normal(0.008), RNG.normal(0.8, 0.05, N), "float32"),
    "the same, stored": (log_normal(80), RNG.normal(8000, 500, N), "uint16"),
    "water and city in decibels": (RNG.normal(-24, 1, N), RNG.normal(1, 2, N), "float32"),
    "water and city in power": (log_normal(0.004), log_normal(0.5), "float32"),
    "vegetation index of water and forest": (
        RNG.normal(-0.3, 0.05, N),
        RNG.normal(0.8, 0.05, N),
        "float32",
    ),
    "winter and summer": (RNG.normal(-20, 4, N), RNG.normal(25, 4, N), "float32"),
    "coast and mountains": (log_normal(8), RNG.normal(2500, 400, N), "float32"),
    "below the sea and mountains": (RNG.normal(-3, 0.5, N), RNG.normal(2500, 400, N), "int16"),
    "nothing but zeros": (np.zeros(N), RNG.normal(2500, 400, N), "float32"),
}


@pytest.mark.parametrize("name", OTHER_UNITS)
def test_other_units_are_apart(name: str) -> None:
    one, other = map(spread, OTHER_UNITS[name])
    assert one.is_apart_from(other)
    assert other.is_apart_from(one)


@pytest.mark.parametrize("name", OTHER_SCENERY)
def test_other_scenery_is_not(name: str) -> None:
    one, other, dtype = OTHER_SCENERY[name]
    assert not spread(one, dtype).is_apart_from(spread(other, dtype))


def test_the_odd_one_of_many_is_named(caplog: pytest.LogCaptureFixture) -> None:
    found = Magnitudes(["VV"])
    for i in range(9):
        sketch = BandSketch("float32")
        values = LAND_DB + i
        sketch.update((10 ** (values / 10) if i in (0, 7) else values).astype(np.float32))
        found.add(f"scene{i}.tif", [sketch.to_arrays()])
    found.warn()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("scene0.tif: most of VV lies from 0.0")
    assert line.endswith("So it is with 1 more.")


@pytest.mark.parametrize("together", [True, False])
def test_scenes_of_this_run_and_of_earlier_ones(
    make_scene: MakeScene,
    options: ChipOptions,
    caplog: pytest.LogCaptureFixture,
    together: bool,
) -> None:
    pixels = np.random.default_rng(0).normal(-10, 3, (1, 96, 128)).astype(np.float32)
    scenes = [
        make_scene("db.tif", pixels=pixels),
        make_scene("other.tif", pixels=pixels - 5),
        make_scene("power.tif", pixels=10 ** (pixels / 10)),
    ]
    for paths in [scenes] if together else [[path] for path in scenes]:
        assert not [r for r in caplog.records if "one unit" in r.getMessage()]
        chip_scenes(paths, options)
    (line,) = [r.getMessage() for r in caplog.records if "one unit" in r.getMessage()]
    assert "power.tif: most of band 1 lies from 0.0" in line


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_quantiles_of_what_is_stored(dtype: str) -> None:
    values = RNG.normal(60, 20, N).clip(0, 255).astype(dtype)
    sketch = BandSketch(dtype)
    sketch.update(values)
    shares = (0.0, 0.1, 0.5, 0.999, 1.0)
    np.testing.assert_allclose(
        quantiles_of(sketch.to_arrays(), shares), np.quantile(values, shares), rtol=3e-3, atol=1e-6
    )
