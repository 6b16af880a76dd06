from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize
from shapely import box
from shapely.geometry import Point, Polygon

from geocyclegan.chips import aoi as areas
from geocyclegan.chips.aoi import Aoi
from geocyclegan.chips.options import ChipOptions
from geocyclegan.errors import NotFoundError, OptionError
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.windows import starts

UTM = CRS.from_epsg(32630)
NORTH_UP = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 4_200_000.0)
GRIDS = {
    "north-up": Grid(UTM, NORTH_UP, 100, 140),
    "south-up": Grid(UTM, Affine(10.0, 0.0, 500_000.0, 0.0, 10.0, 4_199_000.0), 100, 140),
    "rotated": Grid(UTM, NORTH_UP * Affine.rotation(30.0), 100, 140),
}


def cover_shares(
    area: Any, rows: list[int], cols: list[int], size: int, shape: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """The shares of a grid of windows."""
    down, across = np.meshgrid(rows, cols, indexing="ij")
    shares = areas.cover_shares(area, down.ravel(), across.ravel(), size, shape)
    return shares.reshape(down.shape)


def save(path: Path, shapes: list[object], crs: object = UTM.to_wkt()) -> Path:
    geopandas.GeoDataFrame(geometry=shapes, crs=crs).to_file(path)
    return path


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("crs", [None, "EPSG:4326", "EPSG:3035"])
def test_cover_is_that_of_a_fine_raster(tmp_path: Path, kind: str, crs: str | None) -> None:
    grid = GRIDS[kind]
    x, y = grid.transform * (70.0, 50.0)
    shape = Point(x, y).buffer(350.0) - Point(x + 60.0, y).buffer(120.0)
    overlapping = box(x, y, x + 400.0, y + 90.0)
    frame = geopandas.GeoDataFrame(geometry=[shape, overlapping], crs=UTM.to_wkt())
    (frame.to_crs(crs) if crs else frame).to_file(tmp_path / "aoi.gpkg")
    area = Aoi(tmp_path / "aoi.gpkg").in_pixels(grid, "scene")
    rows, cols = starts(100, 32, 20), starts(140, 32, 20)
    fine = rasterize(
        [shape, overlapping],
        (1000, 1400),
        transform=grid.transform * Affine.scale(0.1),
        dtype="uint8",
    )
    expected = [
        [fine[r * 10 : r * 10 + 320, c * 10 : c * 10 + 320].mean() for c in cols] for r in rows
    ]
    assert area is not None
    assert np.allclose(cover_shares(area, rows, cols, 32, grid.shape), expected, atol=0.003)


def test_a_large_aoi_far_from_straight(tmp_path: Path) -> None:
    # A parallel is a curve in UTM: 3 degrees from the central meridian, an edge of 12 degrees would
    # miss by kilometres if only its ends were reprojected.
    path = save(tmp_path / "aoi.geojson", [box(-9.0, 30.0, 3.0, 38.0)], "EPSG:4326")
    edge = geopandas.GeoSeries([Point(-4.5, 38.0)], crs=4326).to_crs(UTM.to_wkt())[0]
    grid = Grid(UTM, Affine(10.0, 0.0, edge.x - 500.0, 0.0, -10.0, edge.y + 500.0), 100, 100)
    area = Aoi(path).in_pixels(grid, "scene")
    assert area is not None
    assert cover_shares(area, [0], [0], 100, grid.shape)[0, 0] == pytest.approx(0.5, abs=0.01)


def test_padding_does_not_count(tmp_path: Path) -> None:
    grid = Grid(UTM, NORTH_UP, 20, 30)
    area = Aoi(save(tmp_path / "a.gpkg", [grid.footprint()])).in_pixels(grid, "scene")
    assert area is not None
    assert cover_shares(area, [0], [0], 64, grid.shape)[0, 0] == pytest.approx(1.0)


def test_an_invalid_polygon_is_mended(tmp_path: Path) -> None:
    grid = GRIDS["north-up"]
    x, y = 500_000.0, 4_200_000.0
    bow_tie = Polygon([(x, y), (x + 400, y - 400), (x + 400, y), (x, y - 400)])
    area = Aoi(save(tmp_path / "a.gpkg", [bow_tie])).in_pixels(grid, "scene")
    assert area is not None
    assert area.area == pytest.approx(40 * 40 / 2)


def test_apart(tmp_path: Path) -> None:
    aoi = Aoi(save(tmp_path / "a.gpkg", [box(0.0, 0.0, 100.0, 100.0)]))
    assert aoi.in_pixels(GRIDS["north-up"], "scene") is None


def test_errors(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("no vectors")
    with pytest.raises(OptionError, match="not a vector file"):
        Aoi(text)
    with pytest.raises(OptionError, match="no polygon"):
        Aoi(save(tmp_path / "points.gpkg", [Point(0, 0)]))
    with pytest.warns(UserWarning, match="crs"):
        nowhere = save(tmp_path / "nowhere.shp", [box(0, 0, 1, 1)], None)
    with pytest.raises(OptionError, match="no CRS"):
        Aoi(nowhere)
    aoi = Aoi(save(tmp_path / "a.gpkg", [box(0, 0, 1, 1)]))
    with pytest.raises(OptionError, match=r"scene\.tif has no CRS"):
        aoi.in_pixels(Grid(None, Affine.identity(), 10, 10), "scene.tif")


@pytest.mark.parametrize("west", [179.9, -180.1, 250.0, -110.0])
def test_longitudes_may_be_counted_from_anywhere(tmp_path: Path, west: float) -> None:
    """Scenes on the 180th meridian, or with longitudes from 0 to 360."""
    degrees = CRS.from_epsg(4326)
    scene = Grid(degrees, Affine(0.002, 0.0, west, 0.0, -0.002, -16.0), 100, 100)
    turned = [box(x, -16.2, x + 0.2, -16.0) for x in (west, west - 360.0, west + 360.0)]
    pieces = [shape.intersection(box(-180, -90, 180, 90)) for shape in turned]
    shapes: list[object] = [piece for piece in pieces if piece.area > 0]
    path = save(tmp_path / "aoi.gpkg", shapes, "EPSG:4326")
    area = Aoi(path).in_pixels(scene, "scene")
    assert area is not None
    assert area.area == pytest.approx(100 * 100, rel=1e-6)


def test_a_polygon_that_is_not_closed_is_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """As people write them by hand, and as QGIS draws them."""
    corners = [[-3.0, 37.9], [-2.99, 37.9], [-2.99, 38.0], [-3.0, 38.0]]
    path = tmp_path / "aoi.geojson"
    areas = []
    for ring in (corners, [*corners, corners[0]]):
        path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
        areas.append(Aoi(path).in_pixels(GRIDS["north-up"], "scene"))
    assert areas[0] is not None
    assert areas[0].equals(areas[1])
    (line,) = caplog.messages
    assert line.startswith(f"--aoi {path}: a polygon in it is not sound (Points of LinearRing")
    assert not [warning for warning in recwarn if "ring" in str(warning.message)]


def test_a_polygon_of_one_point_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "aoi.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [[[-3.0, 37.9]]]}))
    with pytest.raises(OptionError, match="it holds no polygon"):
        Aoi(path)


def test_a_layer_is_named_where_there_are_several(tmp_path: Path) -> None:
    project = tmp_path / "project.gpkg"
    frames = {
        "points": geopandas.GeoDataFrame(geometry=[Point(0, 0)], crs=UTM.to_wkt()),
        "fields": geopandas.GeoDataFrame(geometry=[box(500_000, 4_199_000, 501_400, 4_200_000)]),
        "lakes": geopandas.GeoDataFrame(geometry=[box(500_000, 4_199_500, 500_700, 4_200_000)]),
    }

    def add(name: str) -> None:
        frames[name].set_crs(UTM.to_wkt()).to_file(project, layer=name)

    def area(layer: str = "") -> float:
        found = Aoi(Path(f"{project}{layer}")).in_pixels(GRIDS["north-up"], "scene")
        assert found is not None
        return float(found.area)

    add("points")
    add("fields")
    assert area() == pytest.approx(14_000)  # the only one with polygons
    add("lakes")
    with pytest.raises(OptionError, match=r"2 layers .* \(fields, lakes\); name one: '.*=fields'"):
        area()
    assert area("|layername=fields") == pytest.approx(14_000)
    assert area("|layername=lakes") == area("|layerid=2") == pytest.approx(3_500)
    for layer, message in (
        ("|layername=roads", "no layer roads; it has points, fields, lakes"),
        ("|layerid=7", "no layer 7"),
        ("|subset=id=1", "'subset=id=1' is not understood"),
        ("|layername=points", "it holds no polygon"),
    ):
        with pytest.raises(OptionError, match=message):
            area(layer)
    strange = tmp_path / "a|layername=b.gpkg"
    project.rename(strange)
    with pytest.raises(OptionError, match="2 layers"):
        Aoi(strange)
    with pytest.raises(NotFoundError, match="no such file"):
        ChipOptions(aoi=Path(f"{project}|layername=lakes"))
    strange.rename(tmp_path / "lakes.gpkg")
    project = tmp_path / "lakes.gpkg"
    assert area() == pytest.approx(3_500)  # as QGIS names it
