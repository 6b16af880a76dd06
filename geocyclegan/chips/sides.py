"""Which side whole scenes are on, where scenes are too small to be divided.

Data sets such as SEN1-2 come as thousands of scenes of one chip each. A hash of its place decides
for each, so that scenes of one place (two sensors, two dates) are on one side, whatever the order
in which they come. Scenes that overlap with others have a neighbourhood as their place, or every
second one would straddle. Without a place the file name stands for it, less the words that tell
sensors apart.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

from rasterio.crs import CRS

from geocyclegan.chips.ground import MARGIN, Box
from geocyclegan.chips.manifest import Split
from geocyclegan.chips.source import Source
from geocyclegan.raster.globe import near_greenwich
from geocyclegan.raster.grid import Grid

_SENSORS = re.compile(
    r"(?<![a-z0-9])(s1|s2|s1grd|s2l2a|s2cloudy|sar|opt|optical|radar|rgb|ms|nir|map|image|sat|a|b"
    r"|vv|vh|pre|post|before|after|disaster)(?![a-z0-9])"
)


def whole_sides(
    places: Sequence[str],
    val: float,
    seed: int,
    *,
    known: Collection[Split] = (),
    alone: bool = True,
) -> list[Split]:
    """Return the side of each scene that is too small to be divided.

    Args:
        places: what stands for the place of each.
        val: share of the places that are for validation.
        seed: chooses them.
        known: splits that other scenes of the domain have chips in already.
        alone: no other scene of the run gives chips.

    Returns:
        The share `val` of places is for validation, within the chance of a hash; where no other
        scene has ground for training and, if there are two places, for validation, one has.
    """
    numbers = [_number(place, seed) for place in places]
    found = sorted(set(numbers))
    chosen = {number for number in found if number < val}
    if val > 0.0 and alone and "val" not in known and not chosen and len(found) > 1:
        chosen = {found[0]}
    if alone and "train" not in known and len(chosen) == len(found):
        chosen.discard(found[-1])
    return ["val" if number in chosen else "train" for number in numbers]


def place_of(grid: Grid, name: str) -> str:
    """Return what stands for the place of a scene: where its middle is, or its name."""
    if grid.crs is None:
        return name
    x, y = near_greenwich(grid).xy(grid.height / 2, grid.width / 2)
    digits = 6 if grid.crs.is_geographic else 1
    return f"{_code(grid.crs)} {x:.{digits}f} {y:.{digits}f}"


def neighbourhood(box: Box, across: int) -> str:
    """Return the name of the part of the globe that the middle of a scene lies in.

    Args:
        box: west, south, east and north of the scene and its margin in degrees.
        across: how many scenes lie side by side in it, at least.
    """
    middle = (box[1] + box[3]) / 2.0
    # A power of two, so that scenes of about one size have the same parts.
    side = 2.0 ** math.ceil(math.log2(across * max(box[3] - box[1], 1e-9) / (1 + 2 * MARGIN)))
    row = math.floor(middle / side)
    # Parts are as wide as they are high on the ground.
    squeeze = max(math.cos(math.radians((row + 0.5) * side)), 1e-3)
    lon = ((box[0] + box[2]) / 2.0 + 180.0) % 360.0
    return f"{side} {row} {math.floor(lon * squeeze / side)}"


def name_of(source: Source) -> str:
    """Return what a scene and the same place in other sensors are called alike."""
    both = (source, *([source.partner] if source.partner else []))
    return min(_stem(each.path) for each in both)


@lru_cache(maxsize=64)
def _code(crs: CRS) -> str:
    # Looked up once: PROJ takes its time where a CRS does not name itself.
    return str(crs.to_epsg() or crs.to_wkt())


def _stem(path: str) -> str:
    return re.sub(
        r"[^a-z0-9]+", "_", _SENSORS.sub("", Path(path).stem.casefold().replace("_", " "))
    )


def _number(place: str, seed: int) -> float:
    """Return a number from 0 to 1 that depends on the place and the seed alone."""
    digest = hashlib.blake2b(f"{seed}/{place}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
