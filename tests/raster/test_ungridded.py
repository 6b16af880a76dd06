"""The command that a scene without a transform is refused with, run by a shell."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.warp import transform as transform_points

from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.errors import SceneError
from geocyclegan.raster.globe import project
from geocyclegan.raster.radiometry import ScaleSpec
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window

HEIGHT, WIDTH = 120, 160
SPOT = 70, 90
WGS84 = CRS.from_epsg(4326)
Write = Callable[..., Path]


def place(row: float, col: float) -> tuple[float, float]:
    """Longitude and latitude of a place in a swath that is turned and bent a little."""
    return (
        10 + col * 9e-4 + row * 2e-4 + 1e-6 * col * col,
        45 - row * 7e-4 + col * 1.5e-4 - 1e-6 * row * row,
    )


def points(rows: int, cols: int) -> list[GroundControlPoint]:
    return [
        GroundControlPoint(row=r, col=c, x=place(r, c)[0], y=place(r, c)[1], z=0.0)
        for r in np.linspace(0, HEIGHT, rows)
        for c in np.linspace(0, WIDTH, cols)
    ]


def pixels(dtype: str, bands: int = 2) -> npt.NDArray[Any]:
    values = np.random.default_rng(0).integers(1, 200, (bands, HEIGHT, WIDTH)).astype(dtype)
    values[:, SPOT[0] - 2 : SPOT[0] + 3, SPOT[1] - 2 : SPOT[1] + 3] = 250
    return values


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a scene without a transform."""
    monkeypatch.chdir(tmp_path)

    def make(
        name: str,
        values: npt.NDArray[Any],
        gcps: list[GroundControlPoint] | None = None,
        crs: CRS | None = WGS84,
        rpcs: RPC | None = None,
        **profile: Any,
    ) -> Path:
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        shape = {"count": len(values), "height": HEIGHT, "width": WIDTH, "dtype": values.dtype}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", driver="GTiff", **shape, **profile) as scene,
        ):
            scene.write(values)
            if gcps:
                scene.gcps = gcps, crs
            if rpcs:
                scene.rpcs = rpcs
        return path

    return make


def command_for(path: Path) -> str:
    with pytest.raises(SceneError) as told:
        Scene(path, amplitude=True)
    (line,) = str(told.value).splitlines()
    found = re.search(r"grid first.*?: (gdalwarp .*)$", line)
    assert found, line
    return found[1]


def warped(path: Path) -> Path:
    """Do as the message says."""
    if shutil.which("gdalwarp") is None:
        pytest.skip("needs gdalwarp")
    before = set(Path().iterdir())
    subprocess.run(command_for(path), shell=True, check=True, stdout=subprocess.DEVNULL)
    (made,) = set(Path().iterdir()) - before
    return made


def assert_in_place(made: Path, *, share: float = 0.69, where: tuple[float, float]) -> None:
    """What surrounds the scene is invalid, and what was at a pixel is where it belongs."""
    with Scene(made, amplitude=True) as scene:
        assert len(scene.bands) == 2
        assert scene.grid.crs is not None
        got, valid = scene.read(Window(0, 0, *scene.grid.shape))
        assert scene.grid.crs.is_projected
        assert valid.mean() == pytest.approx(share, abs=0.05)
        rows, cols = np.nonzero(valid & (got[0] == 250))
        x, y = scene.grid.xy(float(rows.mean()) + 0.5, float(cols.mean()) + 0.5)
        wanted = transform_points(WGS84, scene.grid.crs, [where[0]], [where[1]])
        size = max(scene.grid.pixel_size)
        assert np.hypot(x - wanted[0][0], y - wanted[1][0]) < 1.5 * size


MIDDLE = place(SPOT[0] + 0.5, SPOT[1] + 0.5)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "complex64"])
@pytest.mark.parametrize("grid", [(10, 21), (2, 2)])
def test_ground_control_points(write: Write, dtype: str, grid: tuple[int, int]) -> None:
    path = write("my scenes/it's a.tif", pixels(dtype), points(*grid))
    assert ("-tps" in command_for(path)) == (grid == (10, 21))
    made = warped(path)
    assert made.name == "it's a_warped.tif"
    if grid == (10, 21):
        assert_in_place(made, where=MIDDLE)
        scale = ScaleSpec("db" if dtype == "complex64" else "auto")
        report = chip_scenes([made], ChipOptions(size=32, min_valid=0.5, scale=scale))
        assert report.left_out["invalid"] > 0


def test_what_is_declared_stays_so(write: Write) -> None:
    values = pixels("int16")
    values[:, :30] = -5
    made = warped(write("nodata.tif", values, points(10, 21), nodata=-5))
    assert_in_place(made, share=0.69 * 0.75, where=MIDDLE)
    values = pixels("float32")
    values[:, :30] = np.nan
    made = warped(write("nan.tif", values, points(10, 21), nodata=np.nan))
    assert_in_place(made, share=0.69 * 0.75, where=MIDDLE)
    path = write("alpha.tif", np.concatenate([pixels("uint8"), pixels("uint8", 1)]), points(10, 21))
    with rasterio.open(path, "r+") as scene:
        scene.colorinterp = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha]
        alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
        alpha[:30] = 0
        scene.write(alpha, 3)
    assert_in_place(warped(path), share=0.69 * 0.75, where=MIDDLE)
    path = write("masked.tif", pixels("uint8"), points(10, 21))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as scene:
        mask = np.ones((HEIGHT, WIDTH), np.bool_)
        mask[:30] = False
        scene.write_mask(mask)
    assert_in_place(warped(path), share=0.69 * 0.75, where=MIDDLE)


def test_points_in_metres_or_of_nowhere(write: Write) -> None:
    metres = CRS.from_epsg(25832)
    moved = []
    for point in points(4, 4):
        x, y = project(WGS84, metres, np.array([point.x]), np.array([point.y]))
        moved.append(GroundControlPoint(row=point.row, col=point.col, x=x[0], y=y[0], z=0.0))
    path = write("utm.tif", pixels("uint8"), moved, metres)
    assert "-t_srs" not in command_for(path)
    made = warped(path)
    assert_in_place(made, where=MIDDLE)
    bare = warped(write("bare.tif", pixels("uint8"), points(4, 4), CRS()))
    with Scene(bare) as scene:
        assert scene.grid.crs is None
        assert scene.grid.is_georeferenced


def test_rational_polynomials(write: Write) -> None:
    one = [1.0] + [0.0] * 19
    lines, samples = [0.0] * 20, [0.0] * 20
    lines[2], lines[3], samples[1] = -1.0, 0.4, 1.0  # the line follows the height, too
    rpcs = RPC(
        height_off=812.5,
        height_scale=500.0,
        lat_off=-33.0,
        lat_scale=0.05,
        long_off=-177.0,
        long_scale=0.07,
        line_off=60.0,
        line_scale=60.0,
        samp_off=80.0,
        samp_scale=80.0,
        line_num_coeff=lines,
        line_den_coeff=one,
        samp_num_coeff=samples,
        samp_den_coeff=one,
    )
    path = write("r p c.tif", pixels("uint16"), rpcs=rpcs)
    assert "EPSG:32701" in command_for(path)
    lon = -177.0 + (SPOT[1] + 0.5 - 80.5) / 80 * 0.07
    lat = -33.0 - (SPOT[0] + 0.5 - 60.5) / 60 * 0.05
    assert_in_place(warped(path), share=0.97, where=(lon, lat))


def test_geolocation_arrays_are_told(write: Write) -> None:
    path = write("swath.tif", pixels("uint8"))
    with rasterio.open(path, "r+") as scene:
        scene.update_tags(ns="GEOLOCATION", X_DATASET="x.tif", Y_DATASET="y.tif")
    assert command_for(path) == "gdalwarp -geoloc -dstalpha swath.tif swath_warped.tif"


def test_the_far_north(write: Write) -> None:
    moved = [
        GroundControlPoint(row=p.row, col=p.col, x=p.x, y=p.y + 41.5, z=0.0) for p in points(3, 3)
    ]
    assert "EPSG:3413" in command_for(write("-north.tif", pixels("uint8"), moved))
    assert command_for(Path("-north.tif")).endswith("-dstalpha ./-north.tif ./-north_warped.tif")
