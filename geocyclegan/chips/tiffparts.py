"""Chips put together from a template: GDAL writes the tags once, pixels and place are filled in.

Chips of a scene differ in their pixels and their origin, nothing else. Making a GDAL dataset for
each costs more than compressing its pixels does. So GDAL writes one chip; its tags are taken, and
for each further chip the origin and the compressed strips are put among them (TIFF 6.0, sections 2,
8 and 14; GeoTIFF 1.1, requirements 12 to 15; Adobe TIFF Technical Note 3 for the floating-point
predictor). What this does not know (big files, byte orders, codecs) is left to GDAL.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from geocyclegan.raster.grid import Grid

_STRIP_OFFSETS, _STRIP_BYTES, _PREDICTOR = 273, 279, 317
_TIEPOINT, _MATRIX = 33922, 34264
_LONG, _DOUBLE = 4, 12
# Bytes of one value of each type, from 1 (BYTE) to 12 (DOUBLE).
_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8)
_LARGEST = 1 << 31


@dataclass(frozen=True)
class _Entry:
    """A tag with its values as they lie in the file."""

    tag: int
    kind: int
    count: int
    data: bytes


@dataclass(frozen=True)
class TiffTemplate:
    """The tags of a strip-per-band GeoTIFF.

    Attributes:
        entries: all of them, in order of their numbers.
        predictor: 1 for none, 2 for integers, 3 for floats.
        bands: number of strips.
    """

    entries: tuple[_Entry, ...]
    predictor: int
    bands: int

    @classmethod
    def parse(cls, file: bytes, grid: Grid, bands: int) -> Self | None:
        """Take the tags of a chip that GDAL wrote.

        Args:
            file: the chip, without a mask.
            grid: the grid that was given to GDAL.
            bands: its number of bands.

        Returns:
            None if the file is not laid out as this module does it.
        """
        if sys.byteorder != "little" or file[:4] != b"II*\0":
            return None
        (start,) = struct.unpack_from("<I", file, 4)
        (count,) = struct.unpack_from("<H", file, start)
        entries = []
        for i in range(count):
            at = start + 2 + 12 * i
            tag, kind, number = struct.unpack_from("<HHI", file, at)
            if kind >= len(_SIZES):
                return None
            size = _SIZES[kind] * number
            begin = at + 8 if size <= 4 else struct.unpack_from("<I", file, at + 8)[0]
            entries.append(_Entry(tag, kind, number, file[begin : begin + size]))
        (following,) = struct.unpack_from("<I", file, start + 2 + 12 * count)
        found = {entry.tag: entry for entry in entries}
        strips = found.get(_STRIP_OFFSETS)
        if following or strips is None or strips.count != bands or _STRIP_BYTES not in found:
            return None
        place = _place(found, grid)
        if place is None or found[place[0]].data != place[1]:
            return None
        predictor = found.get(_PREDICTOR)
        kind = 1 if predictor is None else struct.unpack("<H", predictor.data[:2])[0]
        return cls(tuple(entries), kind, bands)

    def fill(self, grid: Grid, strips: Sequence[Any]) -> bytes | None:
        """Return a chip.

        Args:
            grid: its grid, which differs from that of the template in its origin alone.
            strips: the compressed pixels of each band.

        Returns:
            None if it cannot be made of this template.
        """
        found = {entry.tag: entry for entry in self.entries}
        place = _place(found, grid)
        sizes = [len(strip) for strip in strips]
        if place is None or sum(sizes) > _LARGEST:
            return None
        new = {
            place[0]: place[1],
            _STRIP_BYTES: struct.pack(f"<{len(sizes)}I", *sizes),
            _STRIP_OFFSETS: bytes(4 * len(sizes)),
        }
        # Tags, then their values, then the strips, each at an even place.
        values_at = 8 + 2 + 12 * len(self.entries) + 4
        table, values, spots = [], bytearray(), {}
        for entry in self.entries:
            kind, data = entry.kind, entry.data
            if entry.tag in new:
                data = new[entry.tag]
                kind = _DOUBLE if entry.tag == place[0] else _LONG
            count = len(data) // _SIZES[kind]
            head = struct.pack("<HHI", entry.tag, kind, count)
            if len(data) <= 4:
                table.append(head + data.ljust(4, b"\0"))
                continue
            spots[entry.tag] = values_at + len(values)
            table.append(head + struct.pack("<I", spots[entry.tag]))
            values += data + bytes(len(data) % 2)
        offset, offsets = values_at + len(values), []
        for size in sizes:
            offsets.append(offset)
            offset += size
        packed = struct.pack(f"<{len(offsets)}I", *offsets)
        if len(packed) <= 4:
            index = [entry.tag for entry in self.entries].index(_STRIP_OFFSETS)
            table[index] = table[index][:8] + packed
        else:
            at = spots[_STRIP_OFFSETS] - values_at
            values[at : at + len(packed)] = packed
        header = struct.pack("<4sIH", b"II*\0", 8, len(table))
        return b"".join([header, *table, bytes(4), values, *strips])

    def strips(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return pixels `(bands, height, width)` as the predictor has them, ready to compress."""
        if self.predictor == 2:
            return _differences(pixels)
        if self.predictor == 3:
            return _float_differences(pixels)
        return np.ascontiguousarray(pixels)


def _place(found: dict[int, _Entry], grid: Grid) -> tuple[int, bytes] | None:
    """Return the tag that holds the origin, and its value for a grid."""
    t = grid.transform
    if _MATRIX in found and _TIEPOINT not in found:
        rows = (t.a, t.b, 0.0, t.c, t.d, t.e, 0.0, t.f, *(0.0,) * 4, *(0.0,) * 3, 1.0)
        return _MATRIX, struct.pack("<16d", *rows)
    if _TIEPOINT in found and _MATRIX not in found:
        return _TIEPOINT, struct.pack("<6d", 0.0, 0.0, 0.0, t.c, t.f, 0.0)
    return None


def _differences(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Difference each pixel from the one before it in its row, modulo the pixel type."""
    unsigned = np.ascontiguousarray(pixels).view(f"u{pixels.dtype.itemsize}")
    out = np.empty_like(unsigned)
    out[..., 0] = unsigned[..., 0]
    np.subtract(unsigned[..., 1:], unsigned[..., :-1], out=out[..., 1:])
    return out


def _float_differences(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Gather the bytes of each row by their weight, the highest first, and difference them."""
    *outer, width = pixels.shape
    size = pixels.dtype.itemsize
    raw = np.ascontiguousarray(pixels).view(np.uint8).reshape(*outer, width, size)
    planes = np.empty((*outer, size, width), np.uint8)
    for i in range(size):
        planes[..., i, :] = raw[..., size - 1 - i]
    return np.asarray(_differences(planes.reshape(*outer, size * width)))
