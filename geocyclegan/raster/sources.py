"""From what a user names (files, globs, folders, URLs) to a list of scenes."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from geocyclegan.errors import NotFoundError

# Extensions looked for in a folder; a file named by itself may have any.
RASTER_SUFFIXES = {
    ".tif", ".tiff", ".gtiff", ".vrt", ".jp2", ".png", ".jpg", ".jpeg", ".img", ".hgt", ".bil",
}  # fmt: skip


def expand_scenes(names: Sequence[str]) -> list[str]:
    """Expand globs and folders, in a stable order, each scene once.

    Args:
        names: files, URLs, sub-dataset names, glob patterns, or folders of rasters.

    Raises:
        NotFoundError: a name or pattern matches nothing, or a folder holds no raster.
    """
    found: list[str] = []
    for name in names:
        if os.path.isdir(name) and not name.rstrip("/").endswith((".SAFE", ".zarr")):
            inside = sorted(
                str(path)
                for path in Path(name).iterdir()
                if path.suffix.lower() in RASTER_SUFFIXES and not path.name.startswith(".")
            )
            if not inside:
                raise NotFoundError(f"{name}: no raster in this folder")
            found.extend(inside)
        elif glob.has_magic(name) and not os.path.exists(name):
            matches = sorted(glob.glob(name, recursive=True))
            if not matches:
                raise NotFoundError(f"{name}: no file matches this pattern")
            found.extend(matches)
        else:
            found.append(name)
    return list(dict.fromkeys(found))
