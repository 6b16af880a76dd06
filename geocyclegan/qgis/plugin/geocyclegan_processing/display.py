# SPDX-License-Identifier: GPL-2.0-or-later
"""Which bands of a product to show, and how. Nothing here needs QGIS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# Names in red, green, blue; the first triple that a product has is shown.
_TRIPLES = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("b04", "b03", "b02"),  # Sentinel-2
    ("b4", "b3", "b2"),  # Sentinel-2 and Landsat 8 to 9, short
    ("sr_b4", "sr_b3", "sr_b2"),  # Landsat 8 to 9, Collection 2
    ("nir", "red", "green"),
    ("b08", "b04", "b03"),
    ("b8", "b4", "b3"),
)


class Display(NamedTuple):
    """How a raster is shown.

    Attributes:
        bands: three numbers for red, green and blue, or one for grey, counted from 1.
        stretch: False shows 8-bit colours as they are.
    """

    bands: tuple[int, ...]
    stretch: bool


def choose_display(names: Sequence[str], colors: Sequence[str], *, is_byte: bool) -> Display:
    """Choose what to show of a raster.

    Args:
        names: description of each band.
        colors: colour interpretation of each band: "red", "green", "blue" or something else.
        is_byte: the pixels are 8-bit.
    """
    low = [color.lower() for color in colors]
    if all(color in low for color in ("red", "green", "blue")):
        bands = (low.index("red") + 1, low.index("green") + 1, low.index("blue") + 1)
        return Display(bands, stretch=not is_byte)
    known = {name.strip().lower(): i for i, name in reversed(list(enumerate(names, start=1)))}
    for triple in _TRIPLES:
        if all(name in known for name in triple):
            return Display(tuple(known[name] for name in triple), stretch=True)
    return Display((1, 2, 3) if len(names) >= 3 else (1,), stretch=True)
