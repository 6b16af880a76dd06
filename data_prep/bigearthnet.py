"""BigEarthNet with Sentinel-1 and Sentinel-2: patches of 120 px, a file for each band."""

from __future__ import annotations

import json
import re
from pathlib import Path

from data_prep.recipe import Found, Item, Recipe, Stack, recipe_command
from data_prep.stacks import Band

S1_BANDS = ("VV", "VH")
S2_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
_S1 = re.compile(r"S1[ABC]_IW_GRDH_1S\w+_\d{8}T\d{6}_\w+_\d+_\d+$")
_S2 = re.compile(r"S2[ABC]_MSIL2A_\d{8}T\d+_\w+_?\d+$")


def find(root: Path) -> Found:
    """Match the patches: by the label file of Sentinel-1 where there is one, else by place."""
    patches = sorted({path.parent for path in root.rglob("*.tif")})
    seconds = {path.name: path for path in patches if _S2.match(path.name)}
    by_place: dict[str, list[Path]] = {}
    for path in seconds.values():
        by_place.setdefault(_place(path.name), []).append(path)
    items, missing = [], []
    for folder in patches:
        match = _S1.match(folder.name)
        if match is None:
            continue
        partner = seconds.get(_told(folder))
        candidates = [
            path
            for path in by_place.get(_place(folder.name), [])
            if _tile(path.name) in ("", _tile(folder.name))
        ]
        if partner is None and len(candidates) == 1:
            partner = candidates[0]
        if partner is None:
            many = f"{len(candidates)} Sentinel-2 patches, and no label file says which"
            missing.append(
                f"{folder}: {many if candidates else 'no Sentinel-2 patch'} of this place"
            )
            continue
        lost = [
            f"{patch.name}_{band}.tif"
            for patch, bands in ((folder, S1_BANDS), (partner, S2_BANDS))
            for band in bands
            if not (patch / f"{patch.name}_{band}.tif").is_file()
        ]
        if lost:
            missing.append(f"{folder}: no {', '.join(lost)}")
            continue
        items.append(Item(folder.name, _stack(folder, S1_BANDS), _stack(partner, S2_BANDS)))
    return Found(tuple(items), tuple(missing))


def _stack(folder: Path, bands: tuple[str, ...]) -> Stack:
    files = (Band(band, folder / f"{folder.name}_{band}.tif") for band in bands)
    return Stack(folder.name, tuple(files))


def _place(name: str) -> str:
    """Column and row within the tile, which is what both names end in."""
    return "_".join(name.split("_")[-2:])


def _tile(name: str) -> str:
    """The tile, such as 33UUP; the first release leaves it out of Sentinel-2's names."""
    word = name.split("_")[-3].removeprefix("T")
    return word if re.fullmatch(r"\d\d[A-Z]{3}", word) else ""


def _told(folder: Path) -> str:
    """The Sentinel-2 patch that a label file names; empty if there is none."""
    for path in folder.glob("*_labels_metadata.json"):
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["corresponding_s2_patch"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""
    return ""


RECIPE = Recipe(
    title="BigEarthNet: Sentinel-1 (VV, VH in dB) and Sentinel-2 (12 bands) patches, stacked.",
    layout=(
        "BigEarthNet-S1/S1A_IW_GRDH_..._33UUP_87_48/S1A_..._33UUP_87_48_VV.tif\n"
        "BigEarthNet-S2/S2A_MSIL2A_..._87_48/S2A_..._87_48_B02.tif"
    ),
    find=find,
    size=120,
)
command = recipe_command(RECIPE, "bigearthnet")

if __name__ == "__main__":
    command()
