"""A map domain drawn from vectors, OpenStreetMap's for instance, on the grid of an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import geopandas
import numpy as np
import rasterio
from rasterio.features import rasterize

from data_prep.recipe import RecipeCommand
from data_prep.vectors import read_vectors
from geocyclegan.errors import OptionError, OutputError, SceneError
from geocyclegan.files import atomic_write
from geocyclegan.raster.opening import GDAL_ERRORS, first_line, gdal_env

GROUND = (242, 239, 233)
STYLE: tuple[tuple[str, tuple[str, ...], tuple[int, int, int]], ...] = (
    ("landuse", ("grass", "forest", "meadow", "farmland", "recreation_ground"), (200, 225, 170)),
    ("leisure", ("park", "garden", "pitch", "golf_course"), (200, 225, 170)),
    ("natural", ("wood", "scrub", "grassland"), (173, 209, 158)),
    ("natural", ("water",), (170, 211, 223)),
    ("waterway", (), (170, 211, 223)),
    ("railway", (), (120, 120, 120)),
    ("highway", (), (255, 255, 255)),
    ("building", (), (200, 160, 140)),
)
"""What is drawn, from the lowest to the highest: a tag, its values (none: all), the colour."""

WIDTHS = {
    "motorway": 14.0, "trunk": 12.0, "primary": 10.0, "secondary": 9.0, "tertiary": 8.0,
    "footway": 2.0, "path": 2.0, "cycleway": 2.5, "steps": 2.0, "track": 3.0,
}  # fmt: skip
"""Width in metres of lines by their tag; others have 5."""
_OTHER_WIDTH = 5.0
_ROWS = 1024


def draw_map(path: Path, image: Path, vectors: Sequence[Path], buildings: bool = False) -> Path:
    """Draw vectors in the colours of `STYLE`.

    Args:
        path: the GeoTIFF to write: red, green, blue.
        image: gives the grid.
        vectors: files of points, lines and polygons, all layers of each.
        buildings: polygons without any known tag are buildings.

    Returns:
        `path`.

    Raises:
        SceneError: a file cannot be read, the image has no CRS, or nothing lies on it.
        OutputError: `path` cannot be written.
    """
    try:
        with gdal_env(), rasterio.open(image) as dataset:
            if dataset.crs is None:
                raise SceneError(f"{image}: no CRS, so no vectors can be laid over it")
            crs, transform = dataset.crs, dataset.transform
            height, width = dataset.height, dataset.width
    except GDAL_ERRORS as error:
        if isinstance(error, SceneError):
            raise
        raise SceneError(f"{image}: cannot be read ({first_line(error)})") from error
    drawn = _shapes(vectors, crs, buildings)
    bounds = rasterio.transform.array_bounds(height, width, transform)
    drawn = [
        (frame.cx[bounds[0] : bounds[2], bounds[1] : bounds[3]], colour) for frame, colour in drawn
    ]
    if not any(len(frame) for frame, _ in drawn):
        names = ", ".join(map(str, vectors))
        raise SceneError(
            f"{names}: nothing that a map shows lies on {image}; expected tags such as building,"
            " highway or landuse, or --buildings for plain footprints"
        )
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 3, "crs": crs, "transform": transform,
        "width": width, "height": height, "compress": "deflate", "tiled": True,
        "photometric": "RGB",
    }  # fmt: skip
    with atomic_write(path) as part, rasterio.open(part, "w", **profile) as out:
        out.descriptions = ("red", "green", "blue")
        for top in range(0, height, _ROWS):
            window = rasterio.windows.Window(0, top, width, min(_ROWS, height - top))
            out.write(_strip(drawn, transform, window), window=window)
    return path


def _strip(drawn: list[tuple[Any, tuple[int, int, int]]], transform: Any, window: Any) -> Any:
    """Draw rows of the map, `(3, rows, width)`."""
    classes = np.zeros((window.height, window.width), np.uint8)
    here = rasterio.windows.transform(window, transform)
    for number, (frame, _) in enumerate(drawn, start=1):
        shapes = [(shape, number) for shape in frame.geometry]
        if shapes:
            rasterize(shapes, out=classes, transform=here)
    colours = np.array([GROUND, *(colour for _, colour in drawn)], np.uint8)
    return colours[classes].transpose(2, 0, 1)


def _shapes(
    vectors: Sequence[Path], crs: Any, buildings: bool
) -> list[tuple[geopandas.GeoDataFrame, tuple[int, int, int]]]:
    """The shapes of each style in the image's CRS, lines as wide as they are on the ground."""
    parts: list[list[geopandas.GeoDataFrame]] = [[] for _ in STYLE]
    for path in vectors:
        for frame in read_vectors(path):
            if frame.crs is None:
                raise SceneError(f"{path}: no CRS, so it cannot be laid over an image")
            frame = frame[frame.geometry.notna() & ~frame.geometry.is_empty]
            rest = np.ones(len(frame), bool)
            for place, (tag, values, _) in enumerate(STYLE):
                if tag not in frame:
                    continue
                wanted = (
                    frame[tag].isin(values) if values else frame[tag].notna() & (frame[tag] != "no")
                )
                rest &= ~wanted.to_numpy()
                parts[place].append(_widened(frame[wanted], tag).to_crs(crs))
            if buildings:
                polygons = frame.geometry.geom_type.isin(["Polygon", "MultiPolygon"]).to_numpy()
                parts[-1].append(frame[rest & polygons][["geometry"]].to_crs(crs))
    empty = geopandas.GeoDataFrame(geometry=[], crs=crs)
    return [
        (geopandas.pd.concat([part[["geometry"]] for part in found]) if found else empty, colour)
        for found, (_, _, colour) in zip(parts, STYLE, strict=True)
    ]


def _widened(frame: geopandas.GeoDataFrame, tag: str) -> geopandas.GeoDataFrame:
    """Lines become areas of their width in metres; points go."""
    frame = frame[~frame.geometry.geom_type.isin(["Point", "MultiPoint"])][["geometry", tag]]
    lines = frame.geometry.geom_type.isin(["LineString", "MultiLineString"])
    if not lines.any():
        return frame
    metric = frame.to_crs(frame.estimate_utm_crs())
    widths = metric[tag].map(WIDTHS).fillna(_OTHER_WIDTH)
    wide = metric.geometry.where(~lines, metric.geometry.buffer(widths / 2))
    return metric.set_geometry(wide).to_crs(frame.crs)


@click.command("osm_map", cls=RecipeCommand)
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("vectors", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("map.tif"),
    show_default=True,
    help="The map to write.",
)
@click.option("--buildings", is_flag=True, help="Polygons without known tags are buildings.")
@click.option("--overwrite", is_flag=True, help="Replace --out.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def command(
    image: Path, vectors: tuple[Path, ...], out: Path, buildings: bool, overwrite: bool, debug: bool
) -> None:
    """Draw a map from VECTORS (GeoJSON, GeoPackage, Shapefile ...) on the grid of IMAGE.

    Tags are those of OpenStreetMap, as columns: building, highway, railway, waterway, natural,
    landuse, leisure.

    \b
        python -m data_prep.osm_map aerial.tif osm.gpkg --out map.tif
        geocyclegan chip aerial.tif --pair map.tif
    """  # noqa: D301 - click reads the backspace character
    if out.exists() and not overwrite:
        raise OutputError(f"--out {out}: it exists; give --overwrite or choose another name")
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise OptionError(f"--out {out}: expected a GeoTIFF, .tif")
    draw_map(out, image, vectors, buildings)
    click.echo(f"{out}\nnext: geocyclegan chip {image} --pair {out}")


if __name__ == "__main__":
    command()
