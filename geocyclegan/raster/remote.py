"""Rasters on servers: what GDAL does not notice while it fetches them.

GDAL repeats a request that is refused (HTTP 503 and such). It takes half an answer for the whole,
keeps it for the life of the process, and takes what it could not ask for as not being there: a mask
gets lost without a word, and some drivers fill missing bytes with zeros. So here

- only drivers are used whose pixels are an error where bytes are missing (`HONEST_DRIVERS`);
- a raster counts as opened when two looks in a row, with nothing kept in between, see the same;
- what fails is tried again, with nothing kept (`tries`), but not for ever;
- at the end of the work it is looked at again, since it may have been replaced (`check_unchanged`).
"""

from __future__ import annotations

import hashlib
import re
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import rasterio
from rasterio.env import get_gdal_config

from geocyclegan.errors import ServerError
from geocyclegan.raster.gdal_errors import GDAL_ERRORS

HONEST_DRIVERS = frozenset({"GTiff", "JP2OpenJPEG", "JPEG", "NITF", "PNG", "VRT", "WEBP"})
"""Drivers that fail where bytes are missing, by the test that withholds them one by one."""

_REMOTE = re.compile(
    r"(?:^|\+)(?:https?|ftps?|s3|gs|gcs|az|abfss?|adls?|oss|swift|hdfs|webhdfs)://"
    r"|/vsi(?:curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)[/?_]",
    re.I,
)
_HTTP = re.compile(r"^(?:/vsicurl/)?(https?://[^+]+)$")

# A user's own setting, by the environment, GDAL's configuration file or rasterio.Env, wins.
_SETTINGS = {
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    # A limit to the whole of a transfer would end slow ones that are sound.
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
}
# With threads of its own, GDAL now and then loses the failure of a JPEG 2000 tile.
ONE_THREAD = {"GDAL_NUM_THREADS": "1"}
_PATIENCE = 30.0  # s after the first try in which another may begin
_HEAD_TIMEOUT = 10.0  # s
_ERRORS = (*GDAL_ERRORS, ValueError)
NOT_THERE = re.compile(r"response code: (?:404|410)\b")
_FINAL = re.compile(r"response code: 4\d\d\b")
_MANY_BANDS = 1000

# What the rasters looked like that this process has opened.
_known: dict[str, tuple[str, list[int] | None]] = {}


def is_remote(path: str) -> bool:
    """Say whether a name is that of something on a server."""
    return bool(_REMOTE.search(path))


def network_settings() -> dict[str, str]:
    """Return GDAL's settings for servers that the user has not made."""
    return {name: value for name, value in _SETTINGS.items() if get_gdal_config(name) is None}


def tries() -> Iterator[int]:
    """Yield the number of each try, from 0, after a pause before all but the first two.

    As many as GDAL_HTTP_MAX_RETRY says besides the first and the second, which is made at once,
    to get rid of what GDAL has kept of the first; none begins later than half a minute after the
    first one.
    """
    begun = time.monotonic()
    yield 0
    most, pause = _number("GDAL_HTTP_MAX_RETRY"), _number("GDAL_HTTP_RETRY_DELAY")
    for number in range(1, int(most) + 2 if most >= 1 else 1):
        if number > 1:
            time.sleep(pause * 2 ** (number - 2))
        if time.monotonic() - begun > _PATIENCE:
            return
        yield number


def _number(name: str) -> float:
    try:
        return float(get_gdal_config(name, normalize=False) or _SETTINGS[name])
    except ValueError:
        return float(_SETTINGS[name])


def forgetful() -> rasterio.Env:
    """Return an environment in which GDAL keeps nothing of a raster once it is closed."""
    return rasterio.Env(CPL_VSIL_CURL_NON_CACHED="/vsi")


def open_agreed(path: str, open_it: Callable[[], Any]) -> Any:
    """Open a raster on a server, sure that nothing of its header was lost on the way.

    Args:
        path: its name.
        open_it: opens it, as a dataset of rasterio.

    Raises:
        ServerError: it is another one than when this process opened it first, or looks otherwise
            each time.
        RasterioError, CPLE_BaseError, OSError, ValueError: as of `open_it`, each time.
    """
    before = _known.get(path)
    if before is not None:
        try:
            dataset = open_it()
            if fingerprint(dataset) == before[0]:
                return dataset
            dataset.close()
        except _ERRORS:
            pass  # below it is tried again
    last: Exception = ServerError(
        f"{path}: it looks otherwise each time it is opened: its server loses parts of it; try"
        " later, or fetch it and name the copy"
    )
    for _ in tries():
        try:
            seen = _look(path, open_it)
            dataset = open_it()
        except _ERRORS as error:
            last = error
            if _FINAL.search(str(error)):
                break
            continue
        if fingerprint(dataset) != seen:
            dataset.close()
            continue
        if before is not None and before[0] != seen:
            dataset.close()
            raise _changed(path)
        if before is None:
            _known[path] = seen, state_of(path)
        return dataset
    raise last


def reopen(path: str, open_it: Callable[[], Any]) -> Any:
    """Open a raster once more, after reading it failed; nothing of it is kept when it is closed.

    Raises:
        ServerError: it is another one now, or parts of it were lost on the way.
        RasterioError, CPLE_BaseError, OSError, ValueError: as of `open_it`.
    """
    with forgetful():
        dataset = open_it()
        if path in _known and fingerprint(dataset) != _known[path][0]:
            dataset.close()
            raise _changed(path)
    return dataset


def check_unchanged(path: str, open_it: Callable[[], Any]) -> None:
    """Make sure that a raster on a server is still the one that this process opened.

    By its header, and where its server tells them, by size, ETag and date.

    Raises:
        ServerError: it is another one, or cannot be opened any more.
    """
    if path not in _known:
        return
    was, state = _known[path]
    problem = _changed(path)
    for _ in tries():
        try:
            seen = _look(path, open_it)
        except _ERRORS as error:
            problem = ServerError(
                f"{path}: whether it changed while it was read cannot be told, since it does not"
                f" open any more ({error}); run the command again"
            )
            continue
        now = None if state is None else state_of(path)
        if seen == was and (state is None or now is None or now == state):
            return
        problem = _changed(path)
        if seen == was:
            break  # a server's word is no matter of chance
    del _known[path]
    raise problem


def identity(path: str) -> str:
    """Return a hash of what is known of a raster on a server; "" if it was not opened yet."""
    found = _known.get(path)
    return "" if found is None else hashlib.sha256(repr(found).encode()).hexdigest()


def state_of(path: str) -> list[int] | None:
    """Return size and a number for ETag and date of a file, as its HTTP server tells them.

    None where it is on no such server, or the server does not tell (signed addresses often hold
    for one method only).
    """
    url = _HTTP.match(path)
    if url is None:
        return None
    try:
        request = urllib.request.Request(url[1], method="HEAD")
        with urllib.request.urlopen(request, timeout=_HEAD_TIMEOUT) as answer:
            head = answer.headers
            mark = head.get("ETag") or head.get("Last-Modified")
            size = head.get("Content-Length")
            if mark is None or size is None:
                return None
            return [int(size), zlib.crc32(mark.encode())]
    except (OSError, ValueError):
        return None


def complaint(path: str) -> str | None:
    """Return what an HTTP server says instead of giving a file; None if it gives one."""
    url = _HTTP.match(path)
    if url is None:
        return None
    request = urllib.request.Request(url[1], headers={"Range": "bytes=0-0"})
    try:
        with urllib.request.urlopen(request, timeout=_HEAD_TIMEOUT) as answer:
            kind = answer.headers.get_content_type()
            return "its server sends a page of HTML" if kind == "text/html" else None
    except urllib.error.HTTPError as error:
        return f"its server answers HTTP {error.code}"
    except (OSError, ValueError) as error:
        return f"its server gives no answer: {getattr(error, 'reason', error)}"


def fingerprint(dataset: Any) -> str:
    """Return what an open dataset's header says, as text; faults on the way would change it."""
    parts: list[object] = [dataset.driver, dataset.shape, dataset.count, dataset.dtypes[:1]]
    if dataset.count <= _MANY_BANDS:
        names = (
            *("transform", "gcps", "nodatavals", "mask_flag_enums", "colorinterp"),
            *("descriptions", "scales", "offsets", "units", "dtypes", "block_shapes"),
        )
        parts += [_told(dataset, name) for name in ("crs", *names)]
    if dataset.driver == "GTiff":
        rows, cols = dataset.block_shapes[0]
        last_row, last_col = (dataset.height - 1) // rows, (dataset.width - 1) // cols
        for row, col in {(0, 0), (last_row // 2, last_col // 2), (last_row, last_col)}:
            for item in ("OFFSET", "SIZE"):
                name = f"BLOCK_{item}_{col}_{row}"
                parts.append((name, dataset.get_tag_item(name, "TIFF", bidx=1)))
    return repr(parts)


def _told(dataset: Any, name: str) -> str:
    try:
        value = getattr(dataset, name)
        if name == "gcps":  # whose names are drawn anew each time
            value = [(p.row, p.col, p.x, p.y, p.z) for p in value[0]], value[1]
        return repr(value)
    except _ERRORS as error:
        return str(error)


def _look(path: str, open_it: Callable[[], Any]) -> str:
    with forgetful(), open_it() as dataset:
        return fingerprint(dataset)


def _changed(path: str) -> ServerError:
    return ServerError(
        f"{path}: it was replaced on its server while it was read; run the command again"
    )
