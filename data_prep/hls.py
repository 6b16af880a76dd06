"""HLS, Harmonized Landsat Sentinel-2 v2.0: L30 and S30 granules, a file for each band.

Reflectance is stored times 10000, nodata -9999; bits of Fmask are those of the HLS v2.0 User Guide.
"""

from __future__ import annotations

import re
from pathlib import Path

import click

from data_prep.recipe import Found, Item, Mask, Recipe, Stack, recipe_command
from data_prep.stacks import Band

_NAME = re.compile(r"(HLS\.([LS])30\.T\w{5}\.\d{7}T\d{6}\.v2\.0)\.(\w+)\.tif$", re.IGNORECASE)
# Cloud, beside a cloud or its shadow, cloud shadow.
CLOUD_BITS = (1, 2, 3)
BANDS = {
    "L": ("B02", "B03", "B04", "B05", "B06", "B07"),
    "S": ("B02", "B03", "B04", "B8A", "B11", "B12"),
}
"""Blue, green, red, near infrared and both short-wave infrared, as both sensors have them."""


def find(root: Path, sensor: str = "both", bands: str | None = None, clouds: bool = True) -> Found:
    """Gather the bands of each granule."""
    granules: dict[str, tuple[str, dict[str, Path]]] = {}
    for path in sorted(root.rglob("HLS.*.tif")):
        match = _NAME.match(path.name)
        if match and sensor in ("both", f"{match[2].upper()}30"):
            granules.setdefault(match[1], (match[2].upper(), {}))[1][match[3]] = path
    items, missing = [], []
    for granule, (kind, files) in sorted(granules.items()):
        wanted = BANDS[kind] if bands is None else tuple(bands.split(","))
        lost = [band for band in wanted if band not in files]
        if clouds and "Fmask" not in files:
            lost.append("Fmask (or give --no-clouds)")
        if lost:
            missing.append(f"{granule}: no {', '.join(lost)}")
            continue
        names = BANDS["S"] if bands is None else wanted
        stack = Stack(
            granule,
            tuple(
                Band(name, files[band], scale=0.0001, nodata=-9999.0)
                for name, band in zip(names, wanted, strict=True)
            ),
        )
        mask = Mask(files["Fmask"], bits=CLOUD_BITS) if clouds else None
        items.append(Item(granule, stack, mask=mask))
    return Found(tuple(items), tuple(missing))


RECIPE = Recipe(
    title=(
        "HLS v2.0: surface reflectance of Landsat (L30) and Sentinel-2 (S30) on one grid, for"
        " --domain; the six bands that both have, named as Sentinel-2's."
    ),
    layout=(
        "HLS.S30.T31TCJ.2023196T105629.v2.0.B04.tif\nHLS.S30.T31TCJ.2023196T105629.v2.0.Fmask.tif"
    ),
    find=find,
    options=(
        click.option(
            "--sensor",
            type=click.Choice(["both", "L30", "S30"]),
            default="both",
            show_default=True,
            help="Which granules to take.",
        ),
        click.option("--bands", help="Bands by name, such as B04,B03,B02."),
        click.option(
            "--clouds/--no-clouds", default=True, show_default=True, help="Leave clouds out."
        ),
    ),
)
command = recipe_command(RECIPE, "hls")

if __name__ == "__main__":
    command()
