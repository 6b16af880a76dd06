"""Products of this program, and others' rasters whose tags say that nobody acquired them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from geocyclegan.errors import GeoCycleGANError
from geocyclegan.raster.bandfiles import paths_of
from geocyclegan.raster.opening import GDAL_ERRORS, gdal_env, open_dataset

_SUFFIXES = (".tif", ".tiff")
_SHOWN = 4


def provenance(scene: str) -> dict[str, str]:
    """Return the tags by which a scene says what made it; none if it does not say to be synthetic.

    Args:
        scene: a scene; what cannot be opened says nothing.
    """
    with suppress(GeoCycleGANError, *GDAL_ERRORS), gdal_env():
        for path in paths_of(scene):
            with open_dataset(path) as dataset:
                tags: dict[str, str] = dataset.tags()
            if tags.get("SYNTHETIC", "").upper() == "YES":
                return {
                    name: value
                    for name, value in tags.items()
                    if name.startswith("GEOCYCLEGAN_") or name in ("SYNTHETIC", "TIFFTAG_SOFTWARE")
                }
    return {}


def synthetic(scenes: Sequence[str]) -> list[str]:
    """Return those scenes that say to be synthetic, of the GeoTIFFs on this machine.

    Products are GeoTIFFs; others would be opened, some over a network, for nothing.
    """
    return [
        scene
        for scene in scenes
        if scene.lower().endswith(_SUFFIXES) and "://" not in scene and provenance(scene)
    ]


def some_names(scenes: Sequence[str]) -> str:
    """Return the file names of scenes, the first few of many."""
    names = ", ".join(Path(scene).name for scene in scenes[:_SHOWN])
    return names + (f" and {len(scenes) - _SHOWN} more" if len(scenes) > _SHOWN else "")
