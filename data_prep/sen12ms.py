"""SEN12MS and SEN12MS-CR: Sentinel-1, Sentinel-2, clouds, land cover (Schmitt 2019, Ebel 2020)."""

from __future__ import annotations

import re
from pathlib import Path

import click

from data_prep.recipe import Found, Item, Recipe, Stack, pairs_by_key, recipe_command

_NAME = re.compile(r"(ROIs\d+_\w+?)_(s1|s2|s2_cloudy|lc)_(\d+)_p(\d+)\.tif$", re.IGNORECASE)
_OPTICAL = (
    *(f"B{number:02d}" for number in range(1, 9)),
    *("B8A", "B09", "B10", "B11", "B12"),
)
BANDS = {"s1": ("VV", "VH"), "s2": _OPTICAL, "s2_cloudy": _OPTICAL}


def find(root: Path, first: str = "s1", second: str = "s2", labels: bool = False) -> Found:
    """Match patches of two kinds, and the land cover on request."""
    kinds: dict[str, dict[str, Path]] = {"s1": {}, "s2": {}, "s2_cloudy": {}, "lc": {}}
    for path in sorted(root.rglob("*.tif")):
        match = _NAME.search(path.name)
        if match:
            season, kind, place, patch = match.groups()
            kinds[kind.lower()][f"{season}_{place}_p{patch}"] = path
    pairs, missing = pairs_by_key(kinds[first], kinds[second], (first, second))
    items = []
    for key, a, b in pairs:
        cover = kinds["lc"].get(key) if labels else None
        if labels and cover is None:
            missing.append(f"{a}: no lc (land cover) beside it")
        else:
            scenes = Stack.named(a, BANDS[first]), Stack.named(b, BANDS[second])
            items.append(Item(key, *scenes, labels=cover))
    return Found(tuple(items), tuple(missing))


RECIPE = Recipe(
    title=(
        "SEN12MS and SEN12MS-CR: patches of 256 px, Sentinel-1 (VV, VH in dB) and Sentinel-2 (13"
        " bands), with --first s2_cloudy the cloudy ones to clear ones."
    ),
    layout=(
        "ROIs1158_spring/s1_0/ROIs1158_spring_s1_0_p30.tif\n"
        "ROIs1158_spring/s2_0/ROIs1158_spring_s2_0_p30.tif\n"
        "ROIs1158_spring/lc_0/ROIs1158_spring_lc_0_p30.tif             (SEN12MS, for --labels)\n"
        "ROIs1158_spring_s2_cloudy/s2_cloudy_0/ROIs1158_spring_s2_cloudy_0_p30.tif (SEN12MS-CR)"
    ),
    find=find,
    options=(
        click.option(
            "--first",
            type=click.Choice(["s1", "s2", "s2_cloudy"]),
            default="s1",
            show_default=True,
            help="What the first domain is.",
        ),
        click.option(
            "--second",
            type=click.Choice(["s1", "s2", "s2_cloudy"]),
            default="s2",
            show_default=True,
            help="What the second domain is.",
        ),
        click.option("--labels", is_flag=True, help="Cut the land cover alongside."),
    ),
)
command = recipe_command(RECIPE, "sen12ms")

if __name__ == "__main__":
    command()
