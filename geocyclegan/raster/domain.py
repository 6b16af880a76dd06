"""An imaging domain: its bands, their units and radiometry, and the pixel type of its products."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from geocyclegan.raster.radiometry import BandScaling, Radiometry

_LEADING_ZEROS = re.compile(r"(?<![\d.,])0+(?=\d)")


def name_key(name: str | None) -> str:
    """Return what the name of a band is compared by: `B2`, `b02` and `"B02 "` are one band.

    Capitals, spaces around it and leading zeros of its numbers make no difference. "" where there
    is no name.
    """
    return _LEADING_ZEROS.sub("", (name or "").strip().casefold())


@dataclass(frozen=True)
class BandInfo:
    """One band of a domain.

    Attributes:
        scaling: its map between physical units and [-1, 1].
        name: its description ("VV", "B04"), or its colour ("red"); None where a file gives none.
        unit: physical unit as the file states it, if it does.
        scale: factor that turns stored numbers into physical ones, as the file states it.
        offset: the offset that goes with it.
        color: GDAL's colour interpretation.
    """

    scaling: BandScaling
    name: str | None = None
    unit: str | None = None
    scale: float = 1.0
    offset: float = 0.0
    color: str = "undefined"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "name": self.name,
            "unit": self.unit,
            "scale": self.scale,
            "offset": self.offset,
            "color": self.color,
            "scaling": self.scaling.to_json(),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: a part is missing or of the wrong kind.
        """
        return cls(
            scaling=BandScaling.from_json(value["scaling"]),
            name=value.get("name"),
            unit=value.get("unit"),
            scale=float(value.get("scale", 1.0)),
            offset=float(value.get("offset", 0.0)),
            color=str(value.get("color", "undefined")),
        )


@dataclass(frozen=True)
class Domain:
    """What the images of one side of a translation are.

    Attributes:
        bands: its bands, in the order of the networks' channels.
        dtype: pixel type of its scenes and products.
        nodata: value of pixels without data, or None.
        gsd: ground sampling distance in metres, or None where scenes have no CRS.
        amplitude: True if complex pixels were read as their amplitude.
        undeclared: number that all bands of its scenes store where there is no data, though their
            files do not say so; None: there is none.
    """

    bands: tuple[BandInfo, ...]
    dtype: str
    nodata: float | None = None
    gsd: float | None = None
    amplitude: bool = False
    undeclared: float | None = None

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.bands)

    @property
    def names(self) -> tuple[str | None, ...]:
        """Name of each band, None where it has none."""
        return tuple(band.name for band in self.bands)

    @property
    def labels(self) -> tuple[str, ...]:
        """Something to call each band by."""
        return tuple(band.name or f"band {i}" for i, band in enumerate(self.bands, start=1))

    @property
    def radiometry(self) -> Radiometry:
        """The scalings of all bands."""
        return Radiometry(tuple(band.scaling for band in self.bands))

    def to_levels(
        self, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.float32]:
        """Map pixels to levels.

        Args:
            pixels: `(bands, height, width)`, in the domain's stored units.
            valid: `(height, width)`; the others become 0. None: all are valid.

        Returns:
            float32 `(bands, height, width)` in [-1, 1].

        Raises:
            ValueError: the number of bands is not that of the domain.
        """
        return self.radiometry.forward(pixels, valid)

    def to_pixels(
        self,
        levels: npt.NDArray[np.floating[Any]],
        valid: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[Any]:
        """Map levels to pixels of the domain's type: stored units, rounded and clipped.

        Args:
            levels: `(bands, height, width)` in [-1, 1].
            valid: `(height, width)`; the others get the nodata value, or 0 where there is none.
                None: all are valid.

        Returns:
            `(bands, height, width)` of `dtype`. No valid pixel equals the nodata value.

        Raises:
            ValueError: the number of bands is not that of the domain.
        """
        dtype = np.dtype(self.dtype)
        pixels = np.empty(levels.shape, dtype)
        for out, values in zip(pixels, self.radiometry.inverse(levels), strict=True):
            out[...] = cast_values(values, dtype, self.nodata)
        if valid is not None:
            pixels[:, ~valid] = 0 if self.nodata is None else self.nodata
        return pixels

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "bands": [band.to_json() for band in self.bands],
            "dtype": self.dtype,
            "nodata": _number_to_json(self.nodata),
            "gsd": self.gsd,
            "amplitude": self.amplitude,
            # Only where there is one: runs tell by these values whether their chips have changed.
            **({} if self.undeclared is None else {"undeclared_nodata": self.undeclared}),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: a part is missing or of the wrong kind.
        """
        nodata = value.get("nodata")
        gsd = value.get("gsd")
        undeclared = value.get("undeclared_nodata")
        dtype = np.dtype(value["dtype"])
        if dtype.kind not in "iuf" or not value["bands"]:
            raise ValueError(f"{len(value['bands'])} bands of {dtype} pixels")
        return cls(
            bands=tuple(BandInfo.from_json(band) for band in value["bands"]),
            dtype=dtype.name,
            nodata=None if nodata is None else float(nodata),
            gsd=None if gsd is None else float(gsd),
            amplitude=bool(value.get("amplitude", False)),
            undeclared=None if undeclared is None else float(undeclared),
        )

    def with_scalings(self, scalings: Sequence[BandScaling]) -> Domain:
        """Return the same domain with other scalings."""
        bands = tuple(
            replace(band, scaling=scaling)
            for band, scaling in zip(self.bands, scalings, strict=True)
        )
        return replace(self, bands=bands)


def _number_to_json(value: float | None) -> float | str | None:
    # JSON has no NaN and no infinities.
    return value if value is None or math.isfinite(value) else str(value)


def cast_values(
    values: npt.NDArray[np.floating[Any]], dtype: np.dtype[Any], nodata: float | None
) -> npt.NDArray[Any]:
    """Round and clip values (any shape) to a pixel type; none of them becomes the nodata value.

    A value that would is moved to a neighbouring number of the type.
    """
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        cast: npt.NDArray[Any] = np.clip(values, limits.min, limits.max).astype(dtype)
        if nodata is not None and math.isfinite(nodata):
            cast[cast == dtype.type(nodata)] = np.nextafter(dtype.type(nodata), dtype.type(0))
        return cast
    info = np.iinfo(dtype)
    # Clip in a type that holds the bounds exactly, then round: a bare cast would wrap.
    wide = values if dtype.itemsize <= 2 else values.astype(np.float64)
    rounded = np.clip(np.rint(wide), info.min, info.max)
    if dtype.itemsize == 8:
        # The largest 64-bit integers have no double of their own; the cast would overflow.
        rounded = np.clip(rounded, info.min, np.nextafter(float(info.max), 0.0))
    cast = rounded.astype(dtype)
    if nodata is not None and float(nodata).is_integer() and info.min <= nodata <= info.max:
        hit = cast == int(nodata)
        if hit.any():
            up = (wide[hit] >= nodata) | (nodata == info.min)
            up &= nodata != info.max
            cast[hit] = np.where(up, int(nodata) + (nodata != info.max), int(nodata) - 1)
    return cast


def shared_bands(a: Domain, b: Domain) -> tuple[tuple[int, int], ...]:
    """Pairs (index in A, index in B) of the bands that both domains name alike.

    Names are compared by `name_key`; bands without a name are like no other, nor are those whose
    name several bands of a domain have.
    """
    in_a, in_b = ([name_key(name) for name in domain.names] for domain in (a, b))
    return tuple(
        (i, in_b.index(key))
        for i, key in enumerate(in_a)
        if key and in_a.count(key) == in_b.count(key) == 1
    )


def mapped_bands(text: str, a: Domain, b: Domain) -> tuple[tuple[int, int], ...]:
    """Pairs (index in A, index in B) of the bands that a text such as "B04=red,B08=4" names.

    Bands are named by description, see `name_key`, or by number from 1.

    Raises:
        ValueError: the text is not of that form, or names a band that does not exist, or one twice.
    """
    pairs = []
    for entry in text.split(","):
        left, equals, right = (part.strip() for part in entry.partition("="))
        if not (left and equals and right):
            raise ValueError(f"{entry.strip() or 'nothing'!r} is no pair; expected A=B,A=B")
        pairs.append((_band_index(left, a, "A"), _band_index(right, b, "B")))
    for side, domain in enumerate((a, b)):
        indices = [pair[side] for pair in pairs]
        twice = [index for index in indices if indices.count(index) > 1]
        if twice:
            raise ValueError(f"{domain.labels[twice[0]]} of {'AB'[side]} is named twice")
    return tuple(pairs)


def _band_index(name: str, domain: Domain, side: str) -> int:
    exact = [known.casefold() for known in domain.labels]
    if name.casefold() in exact:
        return exact.index(name.casefold())
    if name.isdigit() and 1 <= int(name) <= domain.count:
        return int(name) - 1
    same = [i for i, known in enumerate(domain.labels) if name_key(known) == name_key(name)]
    if len(same) > 1:
        raise ValueError(f"{side} has {len(same)} bands that {name} may be; name them by number")
    if same:
        return same[0]
    raise ValueError(f"{side} has no band {name}; it has {', '.join(domain.labels)}")
