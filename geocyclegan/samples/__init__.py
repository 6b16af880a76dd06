"""Small real scenes that come with the package, for the demo, the examples and the tests.

See ATTRIBUTION.md beside this file for what they show and whose they are.
"""

from __future__ import annotations

from pathlib import Path

NAMES = ("spain_sentinel1", "spain_sentinel2", "landsat_1985", "landsat_2005")


def path(name: str) -> Path:
    """Return the path of a sample scene.

    Args:
        name: one of `NAMES`.

    Raises:
        KeyError: there is no such sample.
    """
    if name not in NAMES:
        raise KeyError(f"{name}: no such sample scene; there are {', '.join(NAMES)}")
    return Path(__file__).with_name(f"{name}.tif")
