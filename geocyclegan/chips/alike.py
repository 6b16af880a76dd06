"""Whether the images of one domain are alike: pixels that mean different things are never mixed."""

from __future__ import annotations

import numpy as np

from geocyclegan.raster.align import Raster
from geocyclegan.raster.bands import SourceBand, listed
from geocyclegan.raster.domain import BandInfo, Domain, name_key
from geocyclegan.raster.radiometry import BandScaling

# Stands in until the statistics of all images are known.
UNFITTED = BandScaling("linear", (-1.0, 1.0), (-1.0, 1.0))


def describe(scene: Raster) -> Domain:
    """Return the domain that a scene would make, its radiometry not fitted yet."""
    return Domain(
        tuple(_band(band) for band in scene.bands),
        scene.dtype,
        scene.nodata,
        scene.grid.gsd,
        amplitude=any("complex" in band.dtype for band in scene.bands),
    )


def _band(band: SourceBand) -> BandInfo:
    # A chosen alpha band is data; called alpha it would be taken for a mask.
    color = "undefined" if band.color == "alpha" else band.color
    return BandInfo(UNFITTED, band.name, band.unit, band.scale, band.offset, color)


def difference(first: Domain, second: Domain) -> tuple[str, str] | None:
    """Say what two images have in the first property where they contradict each other, if any.

    A name or unit that only one of them gives is no contradiction.
    """
    if first.count != second.count:
        return _count(first), _count(second)
    pairs = list(zip(first.bands, second.bands, strict=True))
    if any(a.name and b.name and name_key(a.name) != name_key(b.name) for a, b in pairs):
        return f"the bands {listed(first.labels)}", f"the bands {listed(second.labels)}"
    if first.dtype != second.dtype:
        return f"{first.dtype} pixels", f"{second.dtype} pixels"
    if first.amplitude != second.amplitude:
        words = {True: "complex pixels", False: "real pixels"}
        return words[first.amplitude], words[second.amplitude]
    for number, (a, b) in enumerate(pairs, start=1):
        if a.unit and b.unit and a.unit != b.unit:
            return f"band {number} in {a.unit}", f"band {number} in {b.unit}"
        if (a.scale, a.offset) != (b.scale, b.offset):
            return _packing(a, number), _packing(b, number)
    return None


def packing(domain: Domain) -> tuple[tuple[float, float], ...]:
    """Return scale and offset of each band: what turns stored numbers into physical ones."""
    return tuple((band.scale, band.offset) for band in domain.bands)


def can_repack(wanted: Domain, found: Domain) -> bool:
    """Say whether stored numbers of one image can be turned into those of another.

    They can where both say what their numbers mean, by a scale and an offset or by being floating
    point, which stores physical numbers as they are. A plain integer says nothing.
    """
    if wanted.count != found.count or wanted.amplitude != found.amplitude:
        return False

    def speaks(domain: Domain, band: BandInfo) -> bool:
        is_float = np.dtype(domain.dtype).kind == "f"
        return is_float or (band.scale, band.offset) != (1.0, 0.0)

    return packing(wanted) != packing(found) and all(
        speaks(wanted, a) and speaks(found, b) and a.scale and b.scale
        for a, b in zip(wanted.bands, found.bands, strict=True)
    )


def _count(domain: Domain) -> str:
    return f"{domain.count} band{'s' * (domain.count != 1)} ({listed(domain.labels)})"


def _packing(band: BandInfo, number: int) -> str:
    return f"band {number} stored with scale {band.scale:g} and offset {band.offset:g}"
