from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from pyproj import Transformer

from data_prep.osm_map import GROUND, STYLE, command, draw_map
from geocyclegan.errors import SceneError

Write = Callable[..., Path]

TO_DEGREES = Transformer.from_crs("EPSG:32631", "EPSG:4326", always_xy=True).transform
COLOURS = {tag: colour for tag, _, colour in STYLE}


def feature(kind: str, points: list[tuple[float, float]], **tags: str) -> dict[str, Any]:
    """A feature in degrees, its points given in metres from the image's corner."""
    degrees = [list(TO_DEGREES(500_000 + x, 4_800_000 - y)) for x, y in points]
    coordinates: Any = [degrees] if kind == "Polygon" else degrees
    return {
        "type": "Feature",
        "properties": tags,
        "geometry": {"type": kind, "coordinates": coordinates},
    }


def collection(path: Path, *features: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def square(left: float, top: float, side: float) -> list[tuple[float, float]]:
    return [
        (left, top),
        (left + side, top),
        (left + side, top + side),
        (left, top + side),
        (left, top),
    ]


@pytest.fixture
def image(write: Write) -> Path:
    return write("aerial.tif", bands=3, side=100, dtype="uint8", res=1.0)


def test_shapes_lie_where_they_are_on_the_ground(tmp_path: Path, image: Path) -> None:
    vectors = collection(
        tmp_path / "osm.geojson",
        feature("Polygon", square(0, 0, 60), landuse="forest"),
        feature("Polygon", square(10, 10, 20), building="yes"),
        feature("LineString", [(0, 80), (100, 80)], highway="primary"),
        feature("Polygon", square(70, 10, 20), building="no"),
    )

    draw_map(tmp_path / "map.tif", image, [vectors])

    with rasterio.open(tmp_path / "map.tif") as drawn, rasterio.open(image) as source:
        pixels = drawn.read()
        assert drawn.transform == source.transform
        assert drawn.crs == source.crs
    assert tuple(pixels[:, 20, 20]) == COLOURS["building"]
    assert tuple(pixels[:, 50, 50]) == STYLE[0][2]
    assert tuple(pixels[:, 80, 50]) == COLOURS["highway"]
    assert tuple(pixels[:, 15, 75]) == GROUND
    # A primary road is 10 m wide.
    assert np.all(pixels[:, :, 70] == np.array(COLOURS["highway"])[:, None], axis=0).sum() == 10


def test_plain_footprints_need_the_option(tmp_path: Path, image: Path) -> None:
    vectors = collection(
        tmp_path / "houses.geojson", feature("Polygon", square(10, 10, 20), id="1")
    )

    with pytest.raises(SceneError, match="--buildings"):
        draw_map(tmp_path / "map.tif", image, [vectors])
    assert not (tmp_path / "map.tif").exists()

    draw_map(tmp_path / "map.tif", image, [vectors], buildings=True)
    with rasterio.open(tmp_path / "map.tif") as drawn:
        assert tuple(drawn.read()[:, 20, 20]) == COLOURS["building"]


@pytest.mark.parametrize("broken", ["vectors", "image", "elsewhere"])
def test_wrong_input_ends_in_one_line(
    broken: str, tmp_path: Path, image: Path, write: Write
) -> None:
    points = square(900_000, 0, 10) if broken == "elsewhere" else square(0, 0, 10)
    vectors = collection(tmp_path / "osm.geojson", feature("Polygon", points, building="yes"))
    if broken == "vectors":
        vectors.write_text("no vectors")
    if broken == "image":
        image = write("plain.tif", bands=3, dtype="uint8", res=None)

    result = CliRunner().invoke(
        command, [str(image), str(vectors), "--out", str(tmp_path / "map.tif")]
    )

    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "map.tif").exists()
