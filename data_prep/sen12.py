"""SEN1-2: Sentinel-1 and Sentinel-2 patches of 256 px as 8-bit PNG (Schmitt et al. 2018)."""

from __future__ import annotations

import re
from pathlib import Path

from data_prep.recipe import Found, Item, Recipe, pairs_by_key, recipe_command

_NAME = re.compile(r"(ROIs\d+_\w+?)_s([12])_(\d+)_p(\d+)\.png$", re.IGNORECASE)


def find(root: Path) -> Found:
    """Match `..._s1_..._p30.png` with `..._s2_..._p30.png`."""
    kinds: dict[str, dict[str, Path]] = {"1": {}, "2": {}}
    for path in sorted(root.rglob("*.png")):
        match = _NAME.search(path.name)
        if match:
            season, kind, place, patch = match.groups()
            kinds[kind][f"{season}_{place}_p{patch}"] = path
    pairs, missing = pairs_by_key(kinds["1"], kinds["2"], ("s1 patch", "s2 patch"))
    return Found(tuple(Item(key, a, b) for key, a, b in pairs), tuple(missing))


RECIPE = Recipe(
    title="SEN1-2: pairs of Sentinel-1 (VV, 8-bit grey) and Sentinel-2 (red, green, blue) patches.",
    layout=(
        "ROIs1158_spring/s1_0/ROIs1158_spring_s1_0_p30.png\n"
        "ROIs1158_spring/s2_0/ROIs1158_spring_s2_0_p30.png"
    ),
    find=find,
)
command = recipe_command(RECIPE, "sen12")

if __name__ == "__main__":
    command()
