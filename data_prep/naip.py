"""NAIP: quarter quads of red, green, blue and near infrared, from one year to another."""

from __future__ import annotations

import re
from pathlib import Path

import click

from data_prep.recipe import Found, Item, Recipe, Stack, pairs_by_key, recipe_command
from geocyclegan.errors import OptionError

# m_<quad>_<quarter>_<UTM zone>_<resolution>_<acquired>[_<published>].tif
_NAME = re.compile(r"m_(\d{7}_[ns][ew]_\d{1,2})_\w+?_(\d{4})\d{4}(?:_\d{8})?\.tif$", re.IGNORECASE)

BANDS = ("red", "green", "blue", "nir")


def find(root: Path, first: int | None = None, second: int | None = None) -> Found:
    """Match the quads of two years, or list all quads where no year is asked for."""
    years: dict[int, dict[str, Path]] = {}
    for path in sorted([*root.rglob("m_*.tif"), *root.rglob("m_*.TIF")]):
        match = _NAME.match(path.name)
        if match:
            years.setdefault(int(match[2]), {})[match[1]] = path
    if first is None and second is None:
        items = [
            Item(f"{quad} of {year}", Stack.named(path, BANDS)) for year in sorted(years)
            for quad, path in sorted(years[year].items())
        ]  # fmt: skip
        return Found(tuple(items))
    there = ", ".join(map(str, sorted(years))) or "none"
    if first is None or second is None:
        raise OptionError(f"--first, --second: name both years; those in {root} are: {there}")
    for name, year in (("first", first), ("second", second)):
        if year not in years:
            raise OptionError(f"--{name} {year}: the years in {root} are: {there}")
    names = f"quad of {first}", f"quad of {second}"
    pairs, missing = pairs_by_key(years[first], years[second], names)
    items = [Item(key, Stack.named(a, BANDS), Stack.named(b, BANDS)) for key, a, b in pairs]
    return Found(tuple(items), tuple(missing))


RECIPE = Recipe(
    title=(
        "NAIP: aerial quarter quads. With --first and --second, one year to another, on the grid of"
        " the first; without, all of them for --domain."
    ),
    layout="m_4709963_se_14_1_20100629.tif",
    find=find,
    options=(
        click.option("--first", type=int, metavar="YEAR", help="Year of the first domain."),
        click.option("--second", type=int, metavar="YEAR", help="Year of the second domain."),
    ),
)
command = recipe_command(RECIPE, "naip")

if __name__ == "__main__":
    command()
