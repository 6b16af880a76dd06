"""From what a user names (files, globs, folders, URLs) to a list of scenes."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from geocyclegan.errors import NotFoundError
from geocyclegan.raster.bandfiles import JOIN, is_product, product_of, stacked
from geocyclegan.raster.opening import SUBDATASET, subdataset_parts
from geocyclegan.raster.synthetic import some_names
from geocyclegan.raster.synthetic import synthetic as find_synthetic

log = logging.getLogger(__name__)

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


Synthetic = Literal["take", "named", "alone"]
"""Which scenes that say to be synthetic are taken: all; those that are named themselves and not
found in a folder or by a pattern; of these, those that are named without any other scene."""


def expand_scenes(
    items: Sequence[str | Path],
    *,
    stack: bool = False,
    repeats: bool = False,
    synthetic: Synthetic = "take",
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
        synthetic: which products of this program are taken; what is left out, or taken though it is
            no acquisition, is told.

    Raises:
        NotFoundError: nothing is there, or a folder holds no raster, or products only.
    """
    found: list[str] = []
    named: list[str] = []
    for item in map(str, items):
        paths = _expand_one(item)
        if synthetic != "take" and _is_search(item):
            paths = _acquired(paths, item)
        else:
            named += paths
        found += paths
    if synthetic != "take":
        found = _without_accidents(found, named, synthetic)
    if stack or not repeats:
        first: dict[str, str] = {}
        for path in found:
            first.setdefault(os.path.realpath(path) if os.path.exists(path) else path, path)
        found = list(first.values())
    return stacked(found) if stack else found


def _acquired(paths: list[str], item: str) -> list[str]:
    """Leave synthetic scenes out of those that were found in a folder or by a pattern."""
    made = find_synthetic(paths)
    if not made:
        return paths
    if len(made) == len(paths):
        raise NotFoundError(
            f"{item}: all {len(made)} rasters there are synthetic (SYNTHETIC=YES), none is an"
            f" acquisition; to take them all the same, name them: {some_names(made)}"
        )
    log.warning(
        "%s: left out what is synthetic (SYNTHETIC=YES) and no acquisition: %s",
        *(item, some_names(made)),
    )
    return [path for path in paths if path not in set(made)]


def _without_accidents(found: list[str], named: list[str], synthetic: Synthetic) -> list[str]:
    """Say which named scenes are synthetic; leave them out where they are among others.

    A shell puts the names in the place of `*.tif`, so that a scene and its translation are named
    together though nobody means both.
    """
    made = find_synthetic(list(dict.fromkeys(named)))
    if not made:
        return found
    if synthetic == "alone" and len(made) < len(set(found)):
        log.warning(
            "left out what is synthetic (SYNTHETIC=YES) among scenes that are acquisitions: %s; to"
            " take it all the same, name it in a command of its own",
            some_names(made),
        )
        return [path for path in found if path not in set(made)]
    log.warning(
        "synthetic (SYNTHETIC=YES), no acquisition; taken since it is named: %s", some_names(made)
    )
    return found


def _is_search(item: str) -> bool:
    """Say whether scenes are looked for: in a folder that is no scene itself, or by a pattern."""
    path = product_of(Path(item))
    if path.exists():
        return path.is_dir() and path.suffix.lower() not in _SCENE_FOLDERS and not is_product(path)
    return glob.has_magic(item) and "://" not in item and not item.startswith("/vsi")


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
