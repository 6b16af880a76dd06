"""Three bands of anything as a picture that an eye can judge.

Pictures are made from levels in [-1, 1], where every band has its contrast already, so that an
image and its translation are stretched alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from geocyclegan.errors import OutputError
from geocyclegan.files import atomic_write
from geocyclegan.raster.domain import Domain, name_key

# Names of the visible bands: of colours, of Sentinel-2, and of Landsat 8 and 9 when they say so.
_VISIBLE = (
    ("red", "green", "blue"),
    ("sr_b4", "sr_b3", "sr_b2"),
    ("b4", "b3", "b2"),
)
_INVALID_GREY = 40


def choose_bands(names: Sequence[str | None]) -> tuple[int, ...]:
    """Choose three bands for red, green and blue by their names.

    Returns:
        Indexes from 0: the visible bands where they are named, the first three otherwise, both of
        two (their difference fills the third colour), or the one that there is.
    """
    # "B4, red" is not looked into.
    known = {name_key(name): i for i, name in enumerate(names)}
    for wanted in _VISIBLE:
        if all(name in known for name in wanted):
            return tuple(known[name] for name in wanted)
    return tuple(range(min(len(names), 3)))


def picture(
    domain: Domain,
    levels: npt.NDArray[np.floating[Any]],
    valid: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw an image of a domain.

    Args:
        domain: says which bands are which.
        levels: `(bands, height, width)` in [-1, 1].
        valid: `(height, width)`; the others are drawn dark grey. None: all are valid.

    Returns:
        An RGB picture `(height, width, 3)`, 8 bits.
    """
    chosen = choose_bands(domain.names)
    bands = [
        (np.asarray(levels[i], np.float32) - low) / (high - low)
        for i in chosen
        for low, high in [domain.bands[i].scaling.bulk_levels]
    ]
    if len(bands) == 1:
        bands = bands * 3
    elif len(bands) == 2:
        bands.append(bands[0] - bands[1] + 0.5)
    image: npt.NDArray[np.uint8] = np.rint(
        np.clip(np.stack(bands, axis=-1), 0.0, 1.0) * 255
    ).astype(np.uint8)
    if valid is not None:
        image[~valid] = _INVALID_GREY
    return image


def captioned_row(
    images: Sequence[npt.NDArray[np.uint8]], captions: Sequence[str], gap: int = 6
) -> npt.NDArray[np.uint8]:
    """Put pictures side by side, each under its caption.

    Args:
        images: RGB pictures `(height, width, 3)`, 8 bits.
        captions: one for each.
        gap: white pixels between two pictures.

    Returns:
        An RGB picture `(height + 16, width, 3)`, 8 bits: as tall as the tallest and its caption,
        as wide as all pictures and gaps.

    Raises:
        ValueError: there is no picture, or not one caption for each.
    """
    height = max(image.shape[0] for image in images)
    width = sum(image.shape[1] for image in images) + gap * (len(images) - 1)
    text_height = 16
    canvas = Image.new("RGB", (width, height + text_height), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    left = 0
    for image, caption in zip(images, captions, strict=True):
        draw.text((left + 2, 2), caption, fill=(0, 0, 0))
        canvas.paste(Image.fromarray(image), (left, text_height))
        left += image.shape[1] + gap
    return np.asarray(canvas)


def save_png(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write an RGB picture `(height, width, 3)` whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path) as part:
        try:
            Image.fromarray(image).save(part, format="PNG")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
