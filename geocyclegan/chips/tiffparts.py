"""Chips put together from a template: GDAL writes the tags once, pixels and place are filled in.

Chips of a scene differ in their pixels, their mask and their origin, nothing else. Making a GDAL
dataset for each costs more than compressing its pixels does. So GDAL writes one chip; its tags are
taken, and for each further chip the origin and the compressed strips are put among them (TIFF 6.0,
sections 2, 8 and 14; GeoTIFF 1.1, requirements 12 to 15; Adobe TIFF Technical Note 3 for the
floating-point predictor). What this does not know (big files, byte orders, codecs) is left to GDAL.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from geocyclegan.raster.grid import Grid

_SUBFILE, _BITS, _COMPRESSION, _PREDICTOR = 254, 258, 259, 317
_STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_ADOBE_DEFLATE = 8
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
class _Directory:
    """An image of a file: its tags in order of their numbers."""

    entries: tuple[_Entry, ...]

    def find(self, tag: int) -> _Entry | None:
        return next((entry for entry in self.entries if entry.tag == tag), None)

    def number(self, tag: int, default: int) -> int:
        """Return the first value of a tag of SHORT or LONG."""
        entry = self.find(tag)
        if entry is None:
            return default
        width = _SIZES[entry.kind]
        return int.from_bytes(entry.data[:width], "little")

    def size(self) -> int:
        """Return the bytes that it takes, values included."""
        values = (len(entry.data) for entry in self.entries if len(entry.data) > 4)
        return 2 + 12 * len(self.entries) + 4 + sum(n + n % 2 for n in values)

    def replace(self, values: dict[int, tuple[int, bytes]]) -> _Directory:
        """Return one with other values of some tags, each a type and its bytes."""
        return _Directory(
            tuple(
                _Entry(
                    e.tag,
                    values[e.tag][0],
                    len(values[e.tag][1]) // _SIZES[values[e.tag][0]],
                    values[e.tag][1],
                )
                if e.tag in values
                else e
                for e in self.entries
            )
        )

    def pack(self, at: int, following: int) -> bytes:
        """Return its bytes, to lie at a place in a file."""
        table, values = [], bytearray()
        values_at = at + 2 + 12 * len(self.entries) + 4
        for entry in self.entries:
            head = struct.pack("<HHI", entry.tag, entry.kind, entry.count)
            if len(entry.data) <= 4:
                table.append(head + entry.data.ljust(4, b"\0"))
                continue
            table.append(head + struct.pack("<I", values_at + len(values)))
            values += entry.data + bytes(len(entry.data) % 2)
        count = struct.pack("<H", len(table))
        return b"".join([count, *table, struct.pack("<I", following), values])


@dataclass(frozen=True)
class TiffTemplate:
    """The tags of a GeoTIFF whose bands are a strip or square tiles each, and of its valid mask.

    Attributes:
        image: those of the pixels.
        mask: those of the mask, None where the template has none.
        predictor: 1 for none, 2 for integers, 3 for floats.
        tile: side of the tiles, None for strips.
    """

    image: _Directory
    mask: _Directory | None
    predictor: int
    tile: int | None

    @classmethod
    def parse(cls, file: bytes, grid: Grid, bands: int) -> Self | None:
        """Take the tags of a chip that GDAL wrote.

        Args:
            file: the chip.
            grid: the grid that was given to GDAL.
            bands: its number of bands.

        Returns:
            None if the file is not laid out as this module does it.
        """
        if sys.byteorder != "little" or file[:4] != b"II*\0":
            return None
        directories = _directories(file)
        if directories is None or len(directories) > 2:
            return None
        image, mask = directories[0], directories[1] if len(directories) == 2 else None
        tile = _tile(image)
        blocks = image.find(_STRIP_OFFSETS if tile is None else _TILE_OFFSETS)
        count = 1 if tile is None else -(-grid.height // tile) * -(-grid.width // tile)
        if blocks is None or blocks.count != bands * count:
            return None
        place = _place(image, grid)
        if place is None:
            return None
        written = image.find(place[0])
        if written is None or written.data != place[1]:
            return None
        if mask is not None and not _is_plain_mask(mask, tile):
            return None
        return cls(image, mask, image.number(_PREDICTOR, 1), tile)

    def fill(
        self, grid: Grid, blocks: Sequence[Any], valid: npt.NDArray[np.bool_] | None = None
    ) -> bytes | None:
        """Return a chip.

        Args:
            grid: its grid, which differs from that of the template in its origin alone.
            blocks: the compressed strip or tiles of each band, as `blocks` gives them.
            valid: `(height, width)`, where the template has a mask.

        Returns:
            None if it cannot be made of this template.
        """
        place = _place(self.image, grid)
        if (
            place is None
            or sum(map(len, blocks)) > _LARGEST
            or (valid is None) != (self.mask is None)
        ):
            return None
        image, blobs = self.image.replace({place[0]: (_DOUBLE, place[1])}), list(blocks)
        mask, masks = self.mask, []
        if mask is not None and valid is not None:
            masks = _mask_blocks(mask, valid, self.tile)
        # Directories first, then the strips; both kinds of offsets are known once sizes are.
        image = _with_blocks(image, 0, blobs)
        mask = None if mask is None else _with_blocks(mask, 0, masks)
        second = 8 + image.size()
        end = second + (0 if mask is None else mask.size())
        image = _with_blocks(image, end, blobs)
        parts = [struct.pack("<4sI", b"II*\0", 8), image.pack(8, 0 if mask is None else second)]
        if mask is not None:
            mask = _with_blocks(mask, end + sum(map(len, blobs)), masks)
            parts.append(mask.pack(second, 0))
        return b"".join([*parts, *blobs, *masks])

    def blocks(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return pixels `(bands, height, width)` cut up as the predictor has them `(n, ...)`."""
        if self.tile is not None:
            pixels = _tiles(pixels, self.tile)
        if self.predictor == 2:
            return _differences(pixels)
        if self.predictor == 3:
            return _float_differences(pixels)
        return np.ascontiguousarray(pixels)


def _tiles(pixels: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Cut `(bands, height, width)` into tiles `(n, side, side)`, band by band, row by row.

    What lies beyond the edge is as the pixels there, which takes the least place.
    """
    bands, height, width = pixels.shape
    beyond = (-height % side, -width % side)
    if any(beyond):
        pixels = np.pad(pixels, ((0, 0), (0, beyond[0]), (0, beyond[1])), mode="edge")
    down, across = pixels.shape[1] // side, pixels.shape[2] // side
    cut = pixels.reshape(bands, down, side, across, side).swapaxes(2, 3)
    return cut.reshape(bands * down * across, side, side)


def _tile(directory: _Directory) -> int | None:
    """Return the side of its tiles, None for strips."""
    if directory.find(_TILE_OFFSETS) is None:
        return None
    return directory.number(_TILE_WIDTH, 0)


def _directories(file: bytes) -> list[_Directory] | None:
    """Read all directories of a file; None if there is a type that is not known."""
    found = []
    (start,) = struct.unpack_from("<I", file, 4)
    while start:
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
        found.append(_Directory(tuple(entries)))
        (start,) = struct.unpack_from("<I", file, start + 2 + 12 * count)
    return found


def _with_blocks(directory: _Directory, at: int, blocks: Sequence[Any]) -> _Directory:
    """Return a directory whose strips or tiles lie one after the other from a place on."""
    sizes = [len(block) for block in blocks]
    offsets = [at + before for before in accumulate(sizes[:-1], initial=0)]
    pack = struct.Struct(f"<{len(sizes)}I").pack
    tags = (
        (_STRIP_OFFSETS, _STRIP_BYTES) if _tile(directory) is None else (_TILE_OFFSETS, _TILE_BYTES)
    )
    return directory.replace({tags[0]: (_LONG, pack(*offsets)), tags[1]: (_LONG, pack(*sizes))})


def _is_plain_mask(mask: _Directory, tile: int | None) -> bool:
    """Say whether a mask is one of single bits in deflate, cut up as the image, as GDAL does."""
    return (
        mask.number(_SUBFILE, 0) == 4
        and mask.number(_BITS, 1) == 1
        and mask.number(_COMPRESSION, 1) == _ADOBE_DEFLATE
        and mask.number(_PREDICTOR, 1) == 1
        and (mask.find(_STRIP_OFFSETS) is not None if tile is None else _tile(mask) == tile)
    )


def _mask_blocks(mask: _Directory, valid: npt.NDArray[np.bool_], tile: int | None) -> list[bytes]:
    if tile is not None:
        bits = np.packbits(_tiles(valid[np.newaxis], tile), axis=2)
        return [zlib.compress(block.tobytes(), 6) for block in bits]
    rows = mask.number(_ROWS_PER_STRIP, len(valid))
    bits = np.packbits(valid, axis=1)
    return [zlib.compress(bits[row : row + rows].tobytes(), 6) for row in range(0, len(bits), rows)]


def _place(image: _Directory, grid: Grid) -> tuple[int, bytes] | None:
    """Return the tag that holds the origin, and its value for a grid."""
    t = grid.transform
    has_matrix, has_tie = image.find(_MATRIX) is not None, image.find(_TIEPOINT) is not None
    if has_matrix and not has_tie:
        rows = (t.a, t.b, 0.0, t.c, t.d, t.e, 0.0, t.f, *(0.0,) * 4, *(0.0,) * 3, 1.0)
        return _MATRIX, struct.pack("<16d", *rows)
    if has_tie and not has_matrix:
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
