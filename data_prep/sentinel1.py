"""Sentinel-1 GRD products in SAFE folders, put on a UTM grid by their control points.

The numbers stay uncalibrated amplitudes; in decibels they differ from sigma nought by what the
calibration table holds, which changes slowly across the swath. The ground is taken as flat: use
terrain-corrected products (of SNAP or pyroSAR, say) in mountains, and chip those directly.
"""

from __future__ import annotations

import re
from pathlib import Path

import click
import rasterio

from data_prep.recipe import Found, Item, Made, Recipe, recipe_command
from data_prep.stacks import Band, utm_of, write_stack, write_warped
from geocyclegan.errors import SceneError
from geocyclegan.raster.opening import GDAL_ERRORS, first_line, gdal_env

_MEASUREMENT = re.compile(r"s1[abc]-(?:iw|ew|s\d)-grd-(vv|vh|hh|hv)-[\w-]+\.tiff$")


def find(root: Path, resolution: float = 10.0) -> Found:
    """Gather the polarisations of each product."""
    folders = [root] if root.name.endswith(".SAFE") else sorted(root.rglob("S1*.SAFE"))
    items, missing = [], []
    for safe in folders:
        files = {}
        for path in sorted((safe / "measurement").glob("*.tiff")):
            match = _MEASUREMENT.match(path.name)
            if match:
                files[match[1].upper()] = path
        if not files:
            missing.append(f"{safe.name}: no measurement/s1*-grd-*.tiff (is it a GRD product?)")
            continue
        # Like polarisation first, as other products order them.
        order = sorted(files, key=lambda name: (name[0] != name[1], name))
        bands = {name: files[name] for name in order}
        name = safe.name.removesuffix(".SAFE")
        items.append(Item(name, _warped(name, bands, resolution)))
    return Found(tuple(items), tuple(missing))


def _warped(name: str, files: dict[str, Path], resolution: float) -> Made:
    def write(path: Path) -> Path:
        first = next(iter(files.values()))
        try:
            with gdal_env(), rasterio.open(first) as dataset:
                points, _ = dataset.gcps
        except GDAL_ERRORS as error:
            raise SceneError(f"{first}: cannot be read ({first_line(error)})") from error
        if not points:
            raise SceneError(f"{first}: no ground control points, so it is no GRD measurement")
        crs = utm_of(points)
        bands = []
        for polarisation, file in files.items():
            vrt = path.with_name(f"{name}_{polarisation}.vrt")
            bands.append(Band(polarisation, write_warped(vrt, file, crs, resolution), nodata=0.0))
        return write_stack(path, bands)

    return Made(f"{name}.vrt", tuple(files.values()), write)


RECIPE = Recipe(
    title=(
        "Sentinel-1 GRD in SAFE folders: polarisations stacked on a UTM grid, in decibels, for"
        " --domain. Uncalibrated and without terrain correction."
    ),
    layout=(
        "S1A_IW_GRDH_1SDV_20230714T055112_20230714T055137_049413_05F11E_9A3B.SAFE/measurement/"
        "s1a-iw-grd-vv-20230714t055112-20230714t055137-049413-05f11e-001.tiff"
    ),
    find=find,
    scales=("db", "auto"),
    options=(
        click.option(
            "--resolution",
            type=float,
            default=10.0,
            show_default=True,
            help="Pixel size in metres.",
        ),
    ),
)
command = recipe_command(RECIPE, "sentinel1")

if __name__ == "__main__":
    command()
