"""Opening rasters with care: a list of drivers, bounded retries, errors in one line."""

from __future__ import annotations

import os
import re
import shlex
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.env import ensure_env_with_credentials
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader

from geocyclegan.errors import GeoCycleGANError, NotFoundError, SceneError, ServerError
from geocyclegan.raster.claims import refuse_claims
from geocyclegan.raster.gdal_errors import GDAL_ERRORS as GDAL_ERRORS
from geocyclegan.raster.pointers import refuse_after, refuse_before
from geocyclegan.raster.projdata import check_proj_data
from geocyclegan.raster.remote import (
    HONEST_DRIVERS,
    NOT_THERE,
    check_unchanged,
    complaint,
    is_remote,
    network_settings,
    open_agreed,
    reopen,
)

# Rasters without georeferencing are ordinary here; other packages keep their warnings.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"geocyclegan\.")

# Untrusted input is opened by these drivers only: no driver that follows a file's words to other
# files or hosts. VRT joins them when the name says VRT, network drivers when it is a URL.
DRIVERS: list[str] = """
    GTiff JP2OpenJPEG PNG JPEG HFA ENVI netCDF HDF5 HDF5Image GRIB SRTMHGT DTED AAIGrid EHdr NITF
    ERS PCIDSK RRASTER SAGA MRF WEBP BMP GIF KRO LAN COSAR RS2 TSX SENTINEL2 SAFE BAG Zarr FIT
""".split()  # noqa: SIM905 - a list of forty quoted names reads worse

# GDAL's short cut for whole PNGs reads a truncated one as zeros, without an error. The option
# counts when the file is opened and when it is read.
HONEST_PNG = {"GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO"}

SUBDATASET = re.compile(r"^[A-Za-z0-9_]+:.*[:/].+")
"""What a sub-dataset's name looks like: DRIVER:path:variable."""


def subdataset_parts(name: str) -> tuple[str, str] | None:
    """Split a sub-dataset's name, such as NETCDF:"file.nc":variable, into file and variable.

    None if it is a path, a URL, or names no file.
    """
    if not SUBDATASET.match(name) or re.match(r"\w+://", name) or os.path.exists(name):
        return None
    body = name.partition(":")[2]
    quoted = re.search(r'"([^"]+)":*(.*)', body)
    if quoted:
        return quoted[1], quoted[2]
    # A drive's letter belongs to its path.
    parts = re.sub(r"(^|:)([A-Za-z]):(?=[\\/][^\\/])", r"\1\2\0", body).split(":")
    parts = [part.replace("\0", ":") for part in parts]
    files = [i for i, part in enumerate(parts) if os.path.exists(part)]
    files += [i for i, part in enumerate(parts) if re.search(r"[./\\]", part)]
    if not files:
        return None
    others = parts[files[0] + 1 :] or parts[: files[0]]
    return parts[files[0]], ":".join(others).strip(":")


def predictor(dtype: npt.DTypeLike) -> int:
    """Return the TIFF predictor for a pixel type: 3 for floats, 2 for integers, 1 for none.

    Older libtiffs do not predict 64-bit integers.
    """
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return 3
    return 2 if kind.itemsize <= 4 else 1


@contextmanager
def gdal_env(cache_bytes: int | None = None) -> Iterator[None]:
    """GDAL's settings for this package: bounded retries and timeouts, an optional block cache.

    What the user has set for servers (GDAL_HTTP_*) stays.
    """
    options: dict[str, Any] = {**network_settings(), "GDAL_PAM_ENABLED": "YES"}
    if cache_bytes is not None:
        options["GDAL_CACHEMAX"] = cache_bytes
    with rasterio.Env(**options):
        yield


def open_dataset(path: str) -> Any:
    """Open a raster for reading.

    Args:
        path: a file, a URL or a sub-dataset's name.

    Returns:
        A rasterio dataset with one band at least.

    Raises:
        NotFoundError: there is no such file.
        SceneError: it is no raster, or holds sub-datasets only; or PROJ lacks its data.
    """
    check_proj_data()
    is_sub = bool(SUBDATASET.match(path)) and not os.path.exists(path)
    if not (is_remote(path) or "://" in path or path.startswith("/vsi") or is_sub):
        if not os.path.exists(path):
            raise NotFoundError(f"{path}: no such file")
        if os.path.isdir(path) and not path.rstrip("/").endswith((".SAFE", ".zarr")):
            raise SceneError(f"{path}: a folder, where a raster file was expected")
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise SceneError(f"{path}: the file is empty")
        if not os.path.isfile(path) and not os.path.isdir(path):
            # A pipe would be waited for until someone writes into it.
            raise SceneError(f"{path}: a pipe or device, where a raster file was expected")
    try:
        dataset = open_agreed(path, partial(_open, path)) if is_remote(path) else _open(path)
    except GeoCycleGANError:
        raise
    except (*GDAL_ERRORS, ValueError) as error:
        reason = first_line(error, path)
        if not is_remote(path):
            raise SceneError(
                f"{path}: not a raster that can be read ({reason}){_remedy(path)}"
            ) from error
        if NOT_THERE.search(reason):
            raise NotFoundError(f"{path}: no such file on its server ({reason})") from error
        raise ServerError(
            f"{path}: not a raster that can be read ({complaint(path) or reason}); if it is one,"
            " try later, or fetch it and name the copy"
        ) from error
    if dataset.count == 0:
        subdatasets = list(dataset.subdatasets)
        dataset.close()
        if not subdatasets:
            raise SceneError(f"{path}: it holds no raster band")
        shown = ", ".join(subdatasets[:3]) + (" ..." if len(subdatasets) > 3 else "")
        raise SceneError(
            f"{path}: it holds {len(subdatasets)} sub-datasets and no band of its own;"
            f" name one: {shown}"
        )
    return dataset


def open_again(path: str) -> Any:
    """Open a raster on a server once more, after reading it failed; see `remote.reopen`."""
    return reopen(path, partial(_open, path))


def require_unchanged(paths: Iterable[str]) -> None:
    """Make sure that those of some rasters that are on servers are still what they were.

    Raises:
        ServerError: one was replaced, or cannot be opened any more.
    """
    with gdal_env():
        for path in paths:
            check_unchanged(path, partial(_open, path))


def _open(path: str) -> Any:
    """Open a raster with the drivers that its name allows."""
    drivers = [*DRIVERS, "VRT"] if _is_vrt(path) else DRIVERS
    if not is_remote(path):
        refuse_before(path)
    with rasterio.Env(**network_settings()):
        dataset = _open_with(path, drivers)
        try:
            refuse_after(path, dataset)
            refuse_claims(path, dataset)
        except BaseException:
            dataset.close()
            raise
    if is_remote(path) and dataset.driver not in HONEST_DRIVERS:
        driver = dataset.driver
        dataset.close()
        raise SceneError(
            f"{path}: {driver} files are read from disks only, since missing bytes of them can"
            " pass for pixels; fetch it, and what lies beside it, and name the copy"
        )
    return dataset


def _is_vrt(path: str) -> bool:
    return path.lower().partition("?")[0].endswith(".vrt")


def _remedy(path: str) -> str:
    """Return what to do about a file that is no raster, where its name tells."""
    if not os.path.isfile(path):
        return ""
    name, suffix = os.path.splitext(path.lower())
    if suffix in (".zip", ".tar", ".tgz") or name.endswith(".tar"):
        kind = "zip" if suffix == ".zip" else "tar"
        inner = f"/vsi{kind}/{os.path.abspath(path)}/NAME.tif"
        return f"; it is an archive: unpack it, or name a raster in it as {inner}"
    if suffix == ".gz":
        return f"; it is compressed: unpack it, or name it /vsigzip/{os.path.abspath(path)}"
    if suffix in (".gpkg", ".mbtiles", ".pdf", ".sqlite"):
        return f"; if it holds a raster: gdal_translate {shlex.quote(path)} raster.tif"
    return ""


@ensure_env_with_credentials  # type: ignore[untyped-decorator]
def _open_with(path: str, drivers: list[str]) -> Any:
    # `rasterio.open` takes one driver; the class behind it takes several.
    with rasterio.Env(**HONEST_PNG):
        return DatasetReader(path, driver=drivers)


def first_line(error: BaseException, path: str = "") -> str:
    """Return what an error of GDAL says, as one line without the path."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    cause = error.__cause__ or error.__context__
    if cause is not None and "previous exception" in text.lower():
        return first_line(cause, path)
    if "see previous exception" in text.lower() or "Read failed" in text:
        text = "GDAL cannot decode them"
    return text.replace(f"'{path}' ", "").rstrip(".")


def cause_of(error: BaseException) -> str:
    """Return what the first of a chain of GDAL's errors says, as one line."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
