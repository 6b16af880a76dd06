"""PROJ's data: environment variables that point to those of another PROJ, as other programs set."""

from __future__ import annotations

import os
from functools import cache

import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError

from geocyclegan.errors import SceneError

_VARIABLES = ("PROJ_DATA", "PROJ_LIB")


def check_proj_data() -> None:
    """Make sure that PROJ finds its own data, where the environment says where they are.

    Otherwise no CRS can be read, and errors speak of scenes and codes that are right.

    Raises:
        SceneError: they are those of another PROJ, or none.
    """
    given = tuple((name, os.environ[name]) for name in _VARIABLES if os.environ.get(name))
    wrong = _wrong(given) if given else None
    if wrong is not None:
        raise SceneError(wrong)


@cache
def _wrong(given: tuple[tuple[str, str], ...]) -> str | None:
    try:
        # In an environment PROJ's own lines go to the log.
        with rasterio.Env():
            CRS.from_epsg(4326)
    except CRSError:
        names = " and ".join(name for name, _ in given)
        folders = " and ".join(dict.fromkeys(folder for _, folder in given))
        return (
            f"{names}: {folders} holds no data for PROJ {rasterio.__proj_version__}, maybe those of"
            f" another installation, so no CRS can be read; unset {names}"
        )
    return None


@cache
def wgs84() -> CRS:
    """Return longitude and latitude, EPSG:4326.

    Raises:
        SceneError: PROJ lacks its data.
    """
    check_proj_data()
    return CRS.from_epsg(4326)
