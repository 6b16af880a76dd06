"""From what a user names (files, globs, folders, URLs) to a list of scenes."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from geocyclegan.errors import NotFoundError
from geocyclegan.raster.bandfiles import JOIN, is_product, product_of, stacked
from geocyclegan.raster.opening import SUBDATASET, subdataset_parts

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


def expand_scenes(
    items: Sequence[str | Path], *, stack: bool = False, repeats: bool = False
) -> list[str]:
    """Return the absolute paths of all scenes that are meant, in order.

    Links to files keep their own names, by which GDAL finds what lies beside them (masks, world
    files); links to folders are followed.

    Args:
        items: files, glob patterns, folders (their rasters, not those of folders in them), URLs,
            sub-dataset names, Sentinel-2 and Landsat products (or their metadata files), and files
            joined by `+`.
        stack: put files together that differ in their band only.
        repeats: keep what is named twice; otherwise each file comes once, by its first name.

    Raises:
        NotFoundError: nothing is there, or a folder holds no raster.
    """
    found = [path for item in map(str, items) for path in _expand_one(item)]
    if stack or not repeats:
        first: dict[str, str] = {}
        for path in found:
            first.setdefault(os.path.realpath(path) if os.path.exists(path) else path, path)
        found = list(first.values())
    return stacked(found) if stack else found


def _expand_one(item: str) -> list[str]:
    if not item.strip():
        raise NotFoundError("a scene was named by an empty text; is a variable of the shell unset?")
    path = product_of(Path(item))
    if is_product(path):
        return [_absolute(path)]
    if path.is_dir() and path.suffix.lower() not in _SCENE_FOLDERS:
        return [_absolute(raster) for raster in _rasters_in(path, item)]
    if path.exists():
        return [_absolute(path)]
    if path.is_symlink():
        raise NotFoundError(f"{item}: a link to {os.readlink(path)}, which is not there")
    if JOIN in item and not glob.has_magic(item) and Path(item.split(JOIN)[0]).is_file():
        return [JOIN.join(found for part in item.split(JOIN) for found in _expand_one(part))]
    parts = subdataset_parts(item)
    if parts is not None and Path(parts[0]).exists():
        return [item.replace(parts[0], _absolute(Path(parts[0])), 1)]
    if "://" in item or item.startswith("/vsi") or SUBDATASET.match(item):
        return [item]
    if glob.has_magic(item):
        matches = sorted(glob.glob(item, recursive=True))
        if not matches:
            raise NotFoundError(f"{item}: no file matches")
        return [scene for match in matches for scene in _expand_one(match)]
    raise NotFoundError(f"{item}: no such file or folder")


def _rasters_in(folder: Path, item: str) -> list[Path]:
    rasters = sorted(
        child
        for child in folder.iterdir()
        if child.suffix.lower() in _RASTERS
        and not child.name.startswith(".")
        and (child.is_file() or child.is_symlink() or child.suffix.lower() in _SCENE_FOLDERS)
    )
    for raster in rasters:
        if not raster.exists():
            raise NotFoundError(f"{raster}: a link to {os.readlink(raster)}, which is not there")
    rasters += sorted(
        child for child in folder.iterdir() if is_product(child) and child not in rasters
    )
    if not rasters:
        raise NotFoundError(f"{item}: the folder holds no raster; name the scenes themselves")
    return rasters


def _absolute(path: Path) -> str:
    """Return an absolute path; the last name stays what it is, even if it is that of a link."""
    plain = Path(os.path.abspath(path))
    return str(plain.parent.resolve() / plain.name)
