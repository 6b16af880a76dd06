"""SpaceNet 6, Rotterdam: Capella SAR and WorldView-2 (Shermeyer et al. 2020)."""

from __future__ import annotations

import re
from pathlib import Path

import click

from data_prep.recipe import Found, Item, Made, Recipe, pairs_by_key, recipe_command
from data_prep.vectors import burn

_NAME = re.compile(r"SN6_\w+?_AOI_11_Rotterdam_([A-Za-z-]+)_(\d{14}_\d{14}_tile_\d+)\.(\w+)$")


def find(root: Path, optical: str = "PS-RGB", labels: bool = False) -> Found:
    """Match tiles by their times and number."""
    kinds: dict[str, dict[str, Path]] = {}
    for path in sorted([*root.rglob("SN6_*.tif"), *root.rglob("SN6_*.geojson")]):
        match = _NAME.match(path.name)
        if match:
            kinds.setdefault(match[1], {})[match[2]] = path
    sar, other = kinds.get("SAR-Intensity", {}), kinds.get(optical, {})
    pairs, missing = pairs_by_key(sar, other, ("SAR-Intensity", optical))
    items = []
    for key, a, b in pairs:
        buildings = kinds.get("Buildings", {}).get(key)
        if labels and buildings is None:
            missing.append(f"{a}: no Buildings (geojson_buildings) beside it")
            continue
        made = _buildings(key, a, buildings) if labels and buildings else None
        items.append(Item(key, a, b, labels=made))
    return Found(tuple(items), tuple(missing))


def _buildings(key: str, image: Path, polygons: Path) -> Made:
    return Made(
        f"{key}_buildings.tif", (polygons,), lambda path: burn(path, image, [(polygons, 1)])
    )


RECIPE = Recipe(
    title=(
        "SpaceNet 6, training part: SAR intensity (HH, HV, VH, VV in dB) and pan-sharpened optical"
        " tiles of 900 px at 0.5 m."
    ),
    layout=(
        "AOI_11_Rotterdam/SAR-Intensity/SN6_Train_AOI_11_Rotterdam_SAR-Intensity_"
        "20190804111224_20190804111453_tile_8681.tif\n"
        "AOI_11_Rotterdam/PS-RGB/SN6_Train_AOI_11_Rotterdam_PS-RGB_..._tile_8681.tif\n"
        "AOI_11_Rotterdam/geojson_buildings/SN6_Train_AOI_11_Rotterdam_Buildings_..._tile_8681"
        ".geojson (for --labels)"
    ),
    find=find,
    options=(
        click.option(
            "--optical",
            type=click.Choice(["PS-RGB", "PS-RGBNIR", "RGBNIR", "PAN"]),
            default="PS-RGB",
            show_default=True,
            help="Which optical product the second domain is.",
        ),
        click.option("--labels", is_flag=True, help="Cut building footprints alongside."),
    ),
)
command = recipe_command(RECIPE, "spacenet6")

if __name__ == "__main__":
    command()
