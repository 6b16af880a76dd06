"""Names of chips."""

from __future__ import annotations

import re

from geocyclegan.raster.bandfiles import short_name
from geocyclegan.raster.naming import digest


def scene_id(path: str, *what: object) -> str:
    """Return a name for a scene's chips: its file name and a hash.

    Args:
        path: absolute path, URL or sub-dataset name.
        what: what else makes its chips different files (size, bands), so that replacing a domain
            never writes over the chips of the old one before the new one is complete.
    """
    stem = re.sub(r"[^A-Za-z0-9-]+", "_", short_name(path)).strip("_")[:80]
    return f"{stem or 'scene'}_{digest(path, *what)}"
