"""Sentinel-2 Level 1C and 2A products in SAFE folders, as downloaded and unzipped."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import click

from data_prep.recipe import Found, Item, Mask, Recipe, Stack, recipe_command
from data_prep.stacks import Band

ORDER = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""Bands by the `band_id` of the metadata."""
# Scene classification: saturated, cloud shadow, clouds of medium and high probability, cirrus.
CLOUD_CLASSES = (1, 3, 8, 9, 10)
_FILE = re.compile(r"_(B\w\w|SCL)(?:_(\d\d)m)?\.jp2$")


def find(root: Path, bands: str | None = None, clouds: bool = True) -> Found:
    """Gather the bands of each granule, the finest file of each."""
    folders = [root] if root.name.endswith(".SAFE") else sorted(root.rglob("S2*.SAFE"))
    items, missing = [], []
    for safe in folders:
        level = "MSIL2A" if "_MSIL2A_" in safe.name else "MSIL1C"
        metadata = safe / f"MTD_{level}.xml"
        if not metadata.is_file():
            missing.append(f"{safe.name}: no {metadata.name}")
            continue
        scale, offsets = _radiometry(metadata)
        for granule in sorted((safe / "GRANULE").glob("*/IMG_DATA")):
            files = _files(granule)
            wanted = [band.strip() for band in bands.split(",")] if bands else _default(level)
            lost = [band for band in wanted if band not in files]
            mask = None
            if clouds and level == "MSIL2A":
                if "SCL" in files:
                    mask = Mask(files["SCL"], values=CLOUD_CLASSES)
                else:
                    lost.append("SCL (or give --no-clouds)")
            if lost:
                missing.append(f"{safe.name}: no {', '.join(lost)} in {granule.parent.name}")
                continue
            stack = tuple(
                Band(
                    name,
                    files[name],
                    scale=scale,
                    offset=offsets.get(name, 0.0) * scale,
                    nodata=0.0,
                )
                for name in wanted
            )
            name = f"{safe.name.removesuffix('.SAFE')}_{granule.parent.name}"
            items.append(Item(name, Stack(name, stack), mask=mask))
    return Found(tuple(items), tuple(missing))


def _default(level: str) -> list[str]:
    # Level 2A has no B10: cirrus says nothing of the ground.
    return [band for band in ORDER if level == "MSIL1C" or band != "B10"]


def _files(folder: Path) -> dict[str, Path]:
    """The finest file of each band below IMG_DATA."""
    found: dict[str, tuple[int, Path]] = {}
    for path in sorted(folder.rglob("*.jp2")):
        match = _FILE.search(path.name)
        if match:
            resolution = int(match[2] or 0)
            if match[1] not in found or resolution < found[match[1]][0]:
                found[match[1]] = resolution, path
    return {name: path for name, (_, path) in found.items()}


def _radiometry(metadata: Path) -> tuple[float, dict[str, float]]:
    """What a stored number is multiplied by for reflectance, and what is added to it before.

    Products since baseline 04.00 (January 2022) carry offsets of -1000; earlier ones none.
    """
    try:
        root = ElementTree.parse(metadata).getroot()
    except (OSError, ElementTree.ParseError):
        return 0.0001, {}
    quantification, offsets = 10000.0, {}
    for element in root.iter():
        tag = element.tag.rpartition("}")[2]
        if tag in ("BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE") and element.text:
            quantification = float(element.text)
        elif tag in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET") and element.text:
            offsets[ORDER[int(element.get("band_id", "0"))]] = float(element.text)
    return 1 / quantification, offsets


RECIPE = Recipe(
    title=(
        "Sentinel-2 L1C or L2A in SAFE folders: the bands of each granule stacked at 10 m as"
        " reflectance, without the clouds of the scene classification (L2A), for --domain."
    ),
    layout=(
        "S2A_MSIL2A_20230714T105621_N0509_R094_T31TCJ_20230714T171502.SAFE/MTD_MSIL2A.xml\n"
        "S2A_MSIL2A_....SAFE/GRANULE/L2A_T31TCJ_.../IMG_DATA/R10m/T31TCJ_20230714T105621_B02_10m.jp2"
    ),
    find=find,
    options=(
        click.option("--bands", help="Bands by name, such as B04,B03,B02."),
        click.option(
            "--clouds/--no-clouds", default=True, show_default=True, help="Leave clouds out (L2A)."
        ),
    ),
)
command = recipe_command(RECIPE, "sentinel2")

if __name__ == "__main__":
    command()
