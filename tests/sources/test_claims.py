"""Headers of a few bytes that claim billions of pixels are refused before anything is planned."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
import rasterio

from geocyclegan.errors import SceneError
from geocyclegan.raster.scene import Scene


def tiff(path: Path, width: int, height: int) -> Path:
    """Write a TIFF of one strip per row, all but the first of which are not there."""
    tags = [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1)),
        *((262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, 1, 8)),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    body = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + body)
    return path


def png(path: Path, side: int) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b""))
    return path


def jpeg2000(path: Path, side: int) -> Path:
    """Write a codestream of one tile, whose packets are not there."""
    size = struct.pack(">HIIIIIIIIH", 0, side, side, 0, 0, side, side, 0, 0, 3) + b"\7\1\1" * 3
    coding = b"\xff\x52\0\x0c\0\0\0\1\0\5\4\4\0\1\xff\x5c\0\x13\x40" + b"\x48" * 16
    tile = b"\xff\x90\0\x0a\0\0\0\0\0\0\0\1\xff\x93" + bytes(50) + b"\xff\xd9"
    head = b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size
    path.write_bytes(head + coding + tile)
    return path


def test_claims_beyond_the_file_are_refused(tmp_path: Path) -> None:
    for path in (
        tiff(tmp_path / "tall.tif", 10, 2**31 - 1),
        png(tmp_path / "wide.png", 66_000),
        jpeg2000(tmp_path / "big.j2k", 2**31 - 1),
    ):
        with pytest.raises(SceneError, match="its header claims"):
            Scene(path)


def test_sparse_files_are_sound(tmp_path: Path) -> None:
    """Eight bytes for each tile that is not there."""
    path = tmp_path / "sparse.tif"
    profile = {"count": 4, "height": 50_000, "width": 50_000, "dtype": "float32"}
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True}
    with rasterio.open(path, "w", driver="GTiff", **profile, **tiles):
        pass
    with Scene(path) as scene:
        assert scene.grid.shape == (50_000, 50_000)
