"""What a product says of where it comes from."""

from __future__ import annotations

from pathlib import Path

from geocyclegan import __version__
from geocyclegan.bundle import Bundle, Direction
from geocyclegan.raster.corners import area_or_point
from geocyclegan.raster.scene import Scene


def tags_of(
    scene: Scene, bundle: Bundle, direction: Direction, mode: str, style: str | None = None
) -> dict[str, str]:
    """Return the GeoTIFF metadata of a product.

    Args:
        scene: that it was made of.
        bundle: the model that made it.
        direction: "a2b" or "b2a".
        mode: whose statistics it was normalised with.
        style: what a style was asked for by; None: the mean, or there are none.
    """
    styled = {} if style is None else {"GEOCYCLEGAN_STYLE": Path(style).name}
    # What the file does not say of itself, and yet made its pixels invalid.
    undeclared = scene.undeclared
    nodata = {} if undeclared is None else {"GEOCYCLEGAN_SOURCE_NODATA": f"{undeclared:.9g}"}
    return {
        "AREA_OR_POINT": area_or_point(scene.area_or_point, scene.grid),
        "SYNTHETIC": "YES",
        "TIFFTAG_SOFTWARE": f"geocyclegan {__version__}",
        "GEOCYCLEGAN_MODEL_SHA256": bundle.sha256,
        "GEOCYCLEGAN_METHOD": bundle.method,
        "GEOCYCLEGAN_DIRECTION": direction,
        "GEOCYCLEGAN_NORM_STATS": mode,
        **styled,
        "GEOCYCLEGAN_SOURCE": ", ".join(Path(path).name for path in scene.files[:20]),
        "GEOCYCLEGAN_SOURCE_BANDS": ",".join(band.label for band in scene.bands),
        **nodata,
    }
