"""Landsat Collection 2, Level 1 and 2: a file for each band, clouds in QA_PIXEL.

Scale and offset of Level 2 surface reflectance (0.0000275, -0.2) and temperature (0.00341802, 149)
are those of the Landsat 8-9 Collection 2 Level 2 Science Product Guide (USGS LSDS-1619).
"""

from __future__ import annotations

import re
from pathlib import Path

import click

from data_prep.recipe import Found, Item, Mask, Recipe, Stack, recipe_command
from data_prep.stacks import Band

_PRODUCT = re.compile(r"(L[COTEM]0[1-9]_L[12]\w{2}_\d{6}_\d{8}_\d{8}_02_(?:T1|T2|RT))_(\w+)\.TIF$")
# Fill is nodata already; dilated cloud, cirrus, cloud and cloud shadow are bits 1 to 4.
CLOUD_BITS = (1, 2, 3, 4)
_REFLECTANCE, _TEMPERATURE = (0.0000275, -0.2), (0.00341802, 149.0)


def find(root: Path, bands: str | None = None, clouds: bool = True) -> Found:
    """Gather the bands of each product."""
    products: dict[str, dict[str, Path]] = {}
    for path in sorted([*root.rglob("*.TIF"), *root.rglob("*.tif")]):
        match = _PRODUCT.match(path.name.replace(".tif", ".TIF"))
        if match:
            products.setdefault(match[1], {})[match[2]] = path
    items, missing = [], []
    for product, files in sorted(products.items()):
        wanted = _wanted(files, bands)
        lost = [band for band in wanted if band not in files]
        if clouds and "QA_PIXEL" not in files:
            lost.append("QA_PIXEL (or give --no-clouds)")
        if lost or not wanted:
            missing.append(f"{product}: no {', '.join(lost) or 'band of reflectance'}")
            continue
        stack = Stack(product, tuple(_band(name, files[name]) for name in wanted))
        mask = Mask(files["QA_PIXEL"], bits=CLOUD_BITS) if clouds else None
        items.append(Item(product, stack, mask=mask))
    return Found(tuple(items), tuple(missing))


def _wanted(files: dict[str, Path], bands: str | None) -> list[str]:
    if bands is not None:
        return [name.strip() for name in bands.split(",") if name.strip()]
    # Reflectance at 30 m: B8 is panchromatic where there is one, B10 and beyond are thermal.
    found = [name for name in files if re.fullmatch(r"(SR_)?B[1-79]", name)]
    return sorted(found, key=lambda name: int(name[-1]))


def _band(name: str, path: Path) -> Band:
    scale, offset = 1.0, 0.0
    if name.startswith("SR_B"):
        scale, offset = _REFLECTANCE
    elif name.startswith("ST_B"):
        scale, offset = _TEMPERATURE
    return Band(name, path, scale=scale, offset=offset, nodata=0.0)


RECIPE = Recipe(
    title=(
        "Landsat 4 to 9, Collection 2: the bands of each product stacked at their finest"
        " resolution, without clouds, for --domain."
    ),
    layout=(
        "LC09_L2SP_199031_20230714_20230716_02_T1/LC09_..._02_T1_SR_B4.TIF\n"
        "LC09_L2SP_199031_20230714_20230716_02_T1/LC09_..._02_T1_QA_PIXEL.TIF"
    ),
    find=find,
    options=(
        click.option("--bands", help="Bands by name, such as SR_B4,SR_B3,SR_B2."),
        click.option(
            "--clouds/--no-clouds", default=True, show_default=True, help="Leave clouds out."
        ),
    ),
)
command = recipe_command(RECIPE, "landsat")

if __name__ == "__main__":
    command()
