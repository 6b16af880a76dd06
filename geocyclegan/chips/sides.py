"""Which side whole scenes are on, where scenes are too small to be divided.

Data sets such as SEN1-2 come as thousands of scenes of one chip each. A hash of its place decides
for each, so that scenes of one place (two sensors, two dates) are on one side, whatever the order
in which they come. Without a place the file name stands for it, less the words that tell sensors
apart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from rasterio.crs import CRS

from geocyclegan.chips.geometry import Geometry, is_divisible
from geocyclegan.chips.manifest import Split
from geocyclegan.chips.survey import SceneFacts
from geocyclegan.raster.grid import Grid

_SENSORS = re.compile(
    r"(?<![a-z0-9])(s1|s2|s1grd|s2l2a|s2cloudy|sar|opt|optical|radar|rgb|ms|nir|map|image|sat|a|b"
    r"|vv|vh|pre|post|before|after|disaster)(?![a-z0-9])"
)


def whole_sides(
    scenes: Sequence[SceneFacts], geometry: Geometry, *, known: Collection[Split] = ()
) -> Mapping[str, Split]:
    """Return the side of each scene that is too small to be divided, by its path.

    Args:
        scenes: the scenes of a run.
        geometry: how windows are laid over them.
        known: splits that other scenes of the domain have chips in already.

    Returns:
        The share `geometry.val` of places is for validation, within the chance of a hash; where no
        other scene has ground for training and, if there are two places, for validation, one has.
    """
    if geometry.val <= 0.0:
        return {}
    small = [
        scene for scene in scenes if not is_divisible(*(scene.base or scene.grid).shape, geometry)
    ]
    numbers = {scene.path: _number(place_of(scene), geometry.seed) for scene in small}
    found = sorted(set(numbers.values()))
    val = {number for number in found if number < geometry.val}
    alone = len(small) == len(scenes)
    if alone and "val" not in known and not val and len(found) > 1:
        val = {found[0]}
    if alone and "train" not in known and len(val) == len(found):
        val.discard(found[-1])
    return {path: "val" if number in val else "train" for path, number in numbers.items()}


def place_of(scene: SceneFacts) -> str:
    """Return what stands for the place of a scene: where its middle is, or its name."""
    partner = scene.source.partner
    if scene.grid.crs is not None:
        return _middle(scene.grid)
    return min(_stem(source.path) for source in (scene.source, *([partner] if partner else [])))


def _middle(grid: Grid) -> str:
    assert grid.crs is not None  # for mypy
    x, y = grid.xy(grid.height / 2, grid.width / 2)
    digits = 6 if grid.crs.is_geographic else 1
    return f"{_code(grid.crs)} {x:.{digits}f} {y:.{digits}f}"


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
