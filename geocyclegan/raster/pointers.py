"""Words in a raster, or beside it, that lead GDAL to other files or hosts.

A raster from a stranger is read by a list of drivers that hold their own pixels. Some of these can
be told to fetch them elsewhere, and GDAL opens what lies beside a raster (`.ovr`, `.msk`) with all
drivers, and so also what those refer to. Here such rasters are refused, before GDAL follows where
that can be done. A VRT is another matter: who names one asks for what it names.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import Any

from rasterio.env import get_gdal_config

from geocyclegan.errors import SceneError
from geocyclegan.raster.remote import is_remote

_MOST = 1 << 20
_MRF = re.compile(rb"<(CachedSource|Source|DataFile|IndexFile)\b[^>]*>\s*([^<]*)")
_OVERVIEWS = re.compile(rb"<MDI\s+key=[\"']OVERVIEW_FILE[\"'][^>]*>\s*([^<]*)", re.I)
_BASE = ":::BASE:::"


def refuse_before(path: str) -> None:
    """Look at a local raster and what lies beside it before GDAL opens them.

    Raises:
        SceneError: it would lead to other places.
    """
    if not os.path.isfile(path):
        return
    if _head(path, 64).lstrip().startswith(b"<MRF_META"):
        for name, value in _MRF.findall(_head(path)):
            told = value.decode(errors="replace").strip()
            if name in (b"CachedSource", b"Source") or not _is_plain(told):
                raise _refused(path, f"its header names {told or 'another raster'}")
    for suffix in (".ovr", ".msk", ".OVR", ".MSK"):
        beside = path + suffix
        if os.path.isfile(beside) and _head(beside, 64).lstrip().startswith(b"<"):
            raise _refused(path, f"{beside} beside it is a text that names other rasters")
    for beside in (f"{path}.aux.xml", f"{os.path.splitext(path)[0]}.aux.xml"):
        if os.path.isfile(beside):
            for value in _OVERVIEWS.findall(_head(beside)):
                _require_plain(path, value.decode(errors="replace").strip())


def refuse_after(path: str, dataset: Any) -> None:
    """Look at what an open raster leads to, before its pixels are read.

    Raises:
        SceneError: it leads out of its folder, or, on a server, to files here.
    """
    if dataset.driver != "VRT":
        _require_plain(path, dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE", ""))
    if is_remote(path):
        here = [name for name in _listed(dataset) if not is_remote(name)]
        if dataset.driver == "VRT" and here:
            raise _refused(path, f"it names {here[0]} on this machine")
        return
    if dataset.driver == "VRT" or not os.path.exists(path):
        return
    root = _root(path)
    proxies = get_gdal_config("GDAL_PAM_PROXY_DIR", normalize=False)
    for name in _listed(dataset):
        place = os.path.abspath(name)
        inside = os.path.commonpath([root, place]) == root and not name.startswith("/vsi")
        if not inside and not (proxies and place.startswith(os.path.abspath(proxies))):
            raise _refused(path, f"it takes pixels or facts from {name}")


def _root(path: str) -> str:
    """Return the folder that a raster and what belongs to it lie in: of products, the product's."""
    place = os.path.abspath(path)
    if os.path.isdir(place):
        return place
    folder = os.path.dirname(place)
    parts = folder.split(os.sep)
    for end, part in enumerate(parts, start=1):
        if part.upper().endswith((".SAFE", ".ZARR")):
            return os.sep.join(parts[:end])
    return folder


def _listed(dataset: Any) -> list[str]:
    return [str(name) for name in dataset.files]


def _require_plain(path: str, overviews: str) -> None:
    if overviews and not _is_plain(overviews.removeprefix(_BASE)):
        raise _refused(path, f"it says that its overviews are in {overviews}")


def _is_plain(name: str) -> bool:
    """Say whether a name is that of a file in the same folder."""
    return not re.search(r"[/\\:<]", name) and name != ".."


def _head(path: str, most: int = _MOST) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(most)
    except OSError:
        return b""


def _refused(path: str, reason: str) -> SceneError:
    shown = reason if len(reason) <= 200 else reason[:200] + " ..."
    return SceneError(
        f"{path}: {shown}, which is followed in a VRT only, named by you; if you trust the file,"
        f" make one that holds its own pixels: gdal_translate {shlex.quote(path)} plain.tif"
    )
