from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from geocyclegan.chips.reader import ChipSet
from geocyclegan.errors import ChipsError, NotFoundError, OptionError


def picture(seed: int, size: int = 16, bands: int = 3) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (bands, size, size), np.uint8)


def save(path: Path, pixels: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(np.squeeze(np.moveaxis(pixels, 0, -1))).save(path)


@pytest.mark.parametrize(
    "layout", ["train_a {}", "trainA {}", "A/images {}", "Images/train_a {}", "images/train_a {}"]
)
@pytest.mark.parametrize("suffix", ["png", "npy", "jpg", "TIF"])
def test_layouts_of_others(tmp_path: Path, layout: str, suffix: str) -> None:
    folder = tmp_path / layout.split()[0]
    for i in range(3):
        save(folder / f"{i}.{suffix}", picture(i))
    (folder / "notes.txt").touch()
    chips = ChipSet.open(tmp_path, "a")
    assert len(chips) == 3
    assert chips.size == 16
    assert chips.domain.count == 3
    assert chips.domain.dtype == "uint8"
    assert chips.domain.names == ((None,) * 3 if suffix == "npy" else ("red", "green", "blue"))
    assert chips.scenes == ()
    pixels, valid = chips.read(1)
    assert valid.all()
    if suffix != "jpg":
        assert np.array_equal(pixels, picture(1))
    assert len(ChipSet.open(tmp_path, "a", "val")) == 0


def test_validation_shares_the_radiometry_of_training(tmp_path: Path) -> None:
    save(tmp_path / "trainA" / "0.npy", picture(0))
    save(tmp_path / "valA" / "0.npy", picture(1) // 4)
    train, val = ChipSet.open(tmp_path, "a"), ChipSet.open(tmp_path, "a", "val")
    assert train.domain == val.domain
    assert len(val) == 1


def test_alpha_is_a_mask(tmp_path: Path) -> None:
    pixels = picture(0, bands=4)
    pixels[3] = 255
    pixels[3, :4] = 0
    save(tmp_path / "train_b" / "0.png", pixels)
    chips = ChipSet.open(tmp_path, "b")
    assert chips.domain.count == 3
    assert np.array_equal(chips.read(0)[1], pixels[3] > 0)


def test_nan_is_invalid_in_arrays_and_half_becomes_single(tmp_path: Path) -> None:
    pixels = picture(0, bands=2).astype(np.float16)
    pixels[1, 5] = np.nan
    save(tmp_path / "train_a" / "0.npy", pixels)
    chips = ChipSet.open(tmp_path, "a")
    assert chips.domain.dtype == "float32"
    got, valid = chips.read(0)
    assert got.dtype == np.float32
    assert valid.sum() == 15 * 16
    assert not valid[5].any()


def test_two_dimensions_are_one_band(tmp_path: Path) -> None:
    save(tmp_path / "train_a" / "0.npy", picture(0)[0])
    assert ChipSet.open(tmp_path, "a").read(0)[0].shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (picture(1, size=24), "3 bands of 24 x 24 px"),
        (picture(1, bands=1), "1 band "),
        (picture(1).astype(np.int16), "int16"),
    ],
)
def test_mixed_chips_are_both_named(tmp_path: Path, other: npt.NDArray[Any], words: str) -> None:
    save(tmp_path / "train_a" / "first.npy", picture(0))
    save(tmp_path / "train_a" / "second.npy", other)
    with pytest.raises(ChipsError, match=rf"first\.npy has .*second\.npy has .*{words}"):
        ChipSet.open(tmp_path, "a")


def test_mixed_splits_are_found(tmp_path: Path) -> None:
    save(tmp_path / "train_a" / "0.npy", picture(0))
    save(tmp_path / "val_a" / "1.npy", picture(0, size=24))
    with pytest.raises(ChipsError, match=r"0\.npy.*1\.npy"):
        ChipSet.open(tmp_path, "a", "val")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an array"),
        (np.zeros((16, 16, 3), np.uint8), "16 bands of 16 x 3 px"),
        (np.zeros(5), "shape"),
        (np.zeros((2, 4, 4), np.complex64), "complex64"),
        (np.array([{}], dtype=object), "not an array"),
        (np.full((1, 8, 8), np.nan), "no valid pixel"),
    ],
)
def test_bad_arrays(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "train_a" / "0.npy"
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(ChipsError, match=words) as found:
        ChipSet.open(tmp_path, "a")
    assert "\n" not in str(found.value)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nowhere.*geocyclegan chip SCENE --domain b"):
        ChipSet.open(tmp_path / "nowhere", "b")
    (tmp_path / "file.tif").touch()
    with pytest.raises(OptionError, match=r"file\.tif: a file, where a chip folder was expected"):
        ChipSet.open(tmp_path / "file.tif", "b")
    (tmp_path / "train_b").mkdir()
    with pytest.raises(ChipsError, match=r"train_b.*geocyclegan chip SCENE --domain b"):
        ChipSet.open(tmp_path, "b")


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:300]),
        lambda path: path.unlink(),
        lambda path: save(path, picture(0, size=8)),
    ],
)
def test_a_chip_damaged_later_is_named(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    save(tmp_path / "train_a" / "0.png", picture(0))
    chips = ChipSet.open(tmp_path, "a")
    harm(chips.paths[0])
    with pytest.raises(ChipsError, match=r"0\.png"):
        chips.read(0)


def test_threads_and_processes_may_share_a_set(tmp_path: Path) -> None:
    for i in range(8):
        save(tmp_path / "train_a" / f"{i}.png", picture(i))
    chips = ChipSet.open(tmp_path, "a")
    assert pickle.loads(pickle.dumps(chips)) == chips
    with ThreadPoolExecutor(8) as pool:
        for i, (pixels, _) in enumerate(pool.map(chips.read, list(range(8)) * 8)):
            assert np.array_equal(pixels, picture(i % 8))


def test_chips_are_grouped_by_their_scene(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / "trainA" / f"{i}.npy", picture(i))
    chips = ChipSet.open(tmp_path, "a")
    # Nobody knows, so they count as one scene.
    assert chips.by_scene() == ((0, 1, 2, 3),)
    known = replace(chips, scene_ids=("x", "y", "x", "x"))
    assert known.by_scene() == ((0, 2, 3), (1,))
    assert replace(chips, paths=()).by_scene() == ()
