"""Pictures: the right bands, the right contrast, nodata shown as such."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geocyclegan.errors import OutputError
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.picture import captioned_row, choose_bands, picture, save_png
from geocyclegan.raster.radiometry import BandScaling

TAILS = BandScaling("auto", (0.0, 10.0, 90.0, 100.0), (-1.0, -0.9, 0.9, 1.0))


def test_bands_are_chosen_by_name() -> None:
    sentinel = ["B01", "B02", "B03", "B04", "B05"]
    assert choose_bands(sentinel) == (3, 2, 1)
    assert choose_bands(["B1", "B2", "B3", "B4"]) == (3, 2, 1)
    assert choose_bands(["SR_B2", "SR_B3", "SR_B4"]) == (2, 1, 0)
    assert choose_bands(["blue", "green", "red", "NIR"]) == (2, 1, 0)
    assert choose_bands(["SWIR1", "NIR", "red", "green"]) == (0, 1, 2)
    assert choose_bands([None, None]) == (0, 1)
    assert choose_bands(["VV"]) == (0,)


def test_the_bulk_fills_the_contrast_and_nodata_is_grey() -> None:
    domain = Domain((BandInfo(TAILS),), "uint8")
    levels = np.array([[[-1.0, -0.9, 0.0, 0.9, 1.0]]], np.float32)
    valid = np.array([[True, True, True, True, True]])
    image = picture(domain, levels, valid)
    assert image.shape == (1, 5, 3)
    assert image[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    valid[0, 4] = False
    assert picture(domain, levels, valid)[0, 4].tolist() == [40, 40, 40]


def test_two_bands_show_their_difference() -> None:
    domain = Domain((BandInfo(TAILS), BandInfo(TAILS)), "float32")
    levels = np.stack([np.full((2, 2), 0.5), np.full((2, 2), 0.5)]).astype(np.float32)
    assert (picture(domain, levels)[:, :, 2] == 128).all()


def test_a_row_of_pictures_is_a_png(tmp_path: Path) -> None:
    images = [np.full((8, 9, 3), value, np.uint8) for value in (0, 100, 200)]
    row = captioned_row(images, ["A", "A to B", "A to B to A"])
    save_png(tmp_path / "row.png", row)
    with Image.open(tmp_path / "row.png") as back:
        assert back.size == (9 * 3 + 2 * 6, 8 + 16)
        assert back.getpixel((0, 20)) == (0, 0, 0)
        assert back.getpixel((30 + 4, 20)) == (200, 200, 200)


def test_a_picture_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OutputError, match=r"look\.png: cannot be written \(No space left"):
        save_png(tmp_path / "look.png", np.zeros((2, 2, 3), np.uint8))
    assert not list(tmp_path.iterdir())
