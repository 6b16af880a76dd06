"""The measures of seams see seams, and nothing where there are none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from geocyclegan.inference.seams import seam_z, tile_invariance_error

Image = npt.NDArray[np.float64]


def texture(height: int = 384, width: int = 512) -> Image:
    """Noise of two grains."""
    rng = np.random.default_rng(0)
    fine = rng.normal(0, 0.1, (3, height, width))
    coarse = rng.normal(0, 0.3, (3, height // 8, width // 8)).repeat(8, 1).repeat(8, 2)
    return fine + np.roll(coarse, (3, 5), axis=(1, 2))


def tiled(step: float, tile: int = 64, shift: int = 0) -> Image:
    """A texture whose tiles each have an offset of their own."""
    rng = np.random.default_rng(1)
    image = texture()
    rows = (np.arange(image.shape[1]) - shift) // tile
    cols = (np.arange(image.shape[2]) - shift) // tile
    offsets = rng.normal(0, step, (rows.max() + 2, cols.max() + 2))
    return image + offsets[rows][:, cols]


def test_tile_invariance_error() -> None:
    image = texture()
    other = image.copy()
    other[1, 3, 4] += 2 / 127.5
    found = tile_invariance_error(image, other)
    assert found.max == pytest.approx(2.0)
    assert found.mean == pytest.approx(2.0 / image.size)
    valid = np.ones(image.shape[1:], bool)
    valid[3, 4] = False
    assert tile_invariance_error(image, other, valid).max == 0
    assert tile_invariance_error(image * 127.5, other * 127.5, scale=1).max == pytest.approx(2.0)
    with pytest.raises(ValueError, match="cannot be compared"):
        tile_invariance_error(image, image[:, 1:])
    with pytest.raises(ValueError, match="no valid pixel"):
        tile_invariance_error(image, image, np.zeros_like(valid))


@pytest.mark.parametrize("width", [1, 16])
def test_seams_stand_out(width: int) -> None:
    assert abs(seam_z(texture(), 64, width=width)) < 3
    assert seam_z(tiled(0.2), 64, width=width) > 3.5
    assert seam_z(tiled(0.2), 64, width=width) > seam_z(tiled(0.05), 64, width=width)


def test_it_looks_at_the_borders_alone() -> None:
    assert seam_z(tiled(0.2, shift=20), 64, shift=20) > 6
    assert abs(seam_z(tiled(0.2, shift=20), 64)) < 3
    # A scene that is brighter on one side is no seam.
    image = texture()
    image[..., 160:] *= 5
    assert abs(seam_z(image, 48)) < 3


def test_holes_are_no_seams() -> None:
    image = texture()
    valid = np.ones(image.shape[1:], bool)
    valid[64:128, 64:128] = False
    image[:, ~valid] = 9.0
    assert abs(seam_z(image, 64, valid=valid)) < 3
    assert seam_z(image, 64) > 3


def test_flat_products_and_single_tiles() -> None:
    assert seam_z(np.zeros((1, 100, 100)), 32) == 0.0
    with pytest.raises(ValueError, match="too little of the borders"):
        seam_z(texture(), 1000)
