"""From what a user names (files, globs, folders, URLs) to a list of scenes."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from geocyclegan.errors import NotFoundError
from geocyclegan.raster.bandfiles import JOIN, is_product, stacked
from geocyclegan.raster.opening import SUBDATASET

# What a folder is searched for. Other files are opened when they are named, VRTs included.
_RASTERS = frozenset(
    """
    .tif .tiff .gtiff .jp2 .j2k .png .jpg .jpeg .img .nc .hdf .h5 .he5 .grb .grib .grb2 .grib2 .ntf
    .nitf .asc .dem .dt0 .dt1 .dt2 .hgt .bil .bip .bsq .webp .bmp .gif .mrf .pix .safe .zarr
    """.split()  # noqa: SIM905 - a list of forty quoted names reads worse
)
# Folders in a folder are looked into if they are named like products: there may be many others.
_PRODUCT = re.compile(r"L[COTEM]\d{2}_|.+\.SAFE$", re.I)
_SCENE_FOLDERS = frozenset({".safe", ".zarr"})


def expand_scenes(items: Sequence[str | Path], *, stack: bool = False) -> list[str]:
    """Return the absolute paths of all scenes that are meant, each once, in order.

    Args:
        items: files, glob patterns, folders (their rasters, not those of folders in them), URLs,
            sub-dataset names, Sentinel-2 and Landsat products, and files joined by `+`.
        stack: put files together that differ in their band only.

    Raises:
        NotFoundError: nothing is there, or a folder holds no raster.
    """
    found: dict[str, None] = {}
    for item in map(str, items):
        for path in _expand_one(item):
            found[path] = None
    return stacked(list(found)) if stack else list(found)


def _expand_one(item: str) -> list[str]:
    path = Path(item)
    if is_product(path):
        return [str(path.resolve())]
    if path.is_dir() and path.suffix.lower() not in _SCENE_FOLDERS:
        rasters = sorted(
            child
            for child in path.iterdir()
            if child.suffix.lower() in _RASTERS
            and not child.name.startswith(".")
            and (child.is_file() or child.suffix.lower() in _SCENE_FOLDERS)
        )
        rasters += sorted(
            child for child in path.iterdir() if is_product(child) and child not in rasters
        )
        if not rasters:
            raise NotFoundError(f"{item}: the folder holds no raster; name the scenes themselves")
        return [str(raster.resolve()) for raster in rasters]
    if path.exists():
        return [str(path.resolve())]
    if JOIN in item and not glob.has_magic(item) and Path(item.split(JOIN)[0]).is_file():
        return [JOIN.join(found for part in item.split(JOIN) for found in _expand_one(part))]
    if "://" in item or item.startswith("/vsi") or SUBDATASET.match(item):
        return [item]
    if glob.has_magic(item):
        matches = sorted(glob.glob(item, recursive=True))
        if not matches:
            raise NotFoundError(f"{item}: no file matches")
        return [scene for match in matches for scene in _expand_one(match)]
    raise NotFoundError(f"{item}: no such file or folder")
