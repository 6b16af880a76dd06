"""Which chips show the same ground, said by the record, the georeferencing or the names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geocyclegan.chips.manifest import read_rows
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.pairs import find_pairs, require_pairs
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.tiler import chip_pairs, chip_scenes
from geocyclegan.errors import ChipsError

MakeScene = Callable[..., Path]


@pytest.fixture
def options(tmp_path: Path) -> ChipOptions:
    return ChipOptions(out=tmp_path / "chips", size=32, val=0.2)


def both(folder: Path, split: str = "train") -> tuple[ChipSet, ChipSet]:
    sets = [ChipSet.open(folder, domain, split) for domain in ("a", "b")]  # type: ignore[arg-type]
    return sets[0], sets[1]


def places(folder: Path, chips: ChipSet) -> list[tuple[str, int, int]]:
    rows = {folder / row.chip: (row.scene, row.row, row.col) for row in read_rows(folder)}
    return [rows[path] for path in chips.paths]


@pytest.mark.parametrize("virtual", [False, True])
@pytest.mark.parametrize("crs", ["EPSG:32630", None])
def test_chips_that_were_cut_as_pairs(
    make_scene: MakeScene, options: ChipOptions, virtual: bool, crs: str | None
) -> None:
    """Two pairs of scenes, and a scene of A without a partner."""
    options = replace(options, virtual=virtual)
    given = {"crs": crs} if crs else {"crs": None, "transform": Affine.identity()}
    one, two = make_scene("one.tif", **given), make_scene("two.tif", seed=1, **given)
    left = make_scene("left.tif", bands=3, seed=2, **given)
    right = make_scene("right.tif", bands=3, seed=3, **given)
    alone = make_scene("alone.tif", seed=4, **given)
    chip_pairs([one, two], [left, right], options, replace(options, domain="b"))
    chip_scenes([alone], options)
    for split in ("train", "val"):
        a, b = both(options.out, split)
        pairs = find_pairs(options.out, a, b)
        assert len(pairs) == len(b) > 0
        assert len(a) > len(b)
        partner = {str(one): str(left), str(two): str(right)}
        where_a, where_b = places(options.out, a), places(options.out, b)
        for i, j in pairs:
            assert partner[where_a[i][0]] == where_b[j][0]
            assert where_a[i][1:] == where_b[j][1:]


@pytest.mark.parametrize("virtual", [False, True])
def test_chips_with_one_footprint(
    make_scene: MakeScene, options: ChipOptions, virtual: bool
) -> None:
    """Scenes chipped one by one on one grid; two dates of A go with the one of B."""
    options = replace(options, virtual=virtual)
    dates = [make_scene("early.tif"), make_scene("late.tif", seed=1)]
    chip_scenes(dates, options)
    shifted = make_scene("b.tif", shape=(64, 96), transform=Affine(10, 0, 500_320, 0, -10, 4.2e6))
    chip_scenes([shifted], replace(options, domain="b", val=0.0))
    a, b = both(options.out)
    pairs = find_pairs(options.out, a, b)
    where_a, where_b = places(options.out, a), places(options.out, b)
    expected = {
        (i, j)
        for i, (_, row_a, col_a) in enumerate(where_a)
        for j, (_, row_b, col_b) in enumerate(where_b)
        if (row_a, col_a) == (row_b, col_b + 32)
    }
    assert set(pairs) == expected
    assert len(pairs) > len(b)


def test_chips_without_pairs(make_scene: MakeScene, options: ChipOptions) -> None:
    chip_scenes([make_scene("a.tif")], options)
    far = make_scene("b.tif", transform=Affine(10, 0, 900_000, 0, -10, 4.2e6))
    chip_scenes([far], replace(options, domain="b"))
    sets = both(options.out)
    assert find_pairs(options.out, *sets) == ()
    with pytest.raises(ChipsError, match=r"geocyclegan chip A --pair B --out .*chips$") as caught:
        require_pairs(options.out, *sets)
    assert "\n" not in str(caught.value)


def write_images(folder: Path, names: Sequence[str], side: int = 16, suffix: str = "png") -> None:
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        pixels = np.random.default_rng(i).integers(1, 255, (3, side, side)).astype(np.uint8)
        path = folder / f"{name}.{suffix}"
        if suffix == "npy":
            np.save(path, pixels)
            continue
        profile = {"count": 3, "height": side, "width": side, "dtype": "uint8"}
        with rasterio.open(path, "w", driver="PNG", **profile) as dataset:
            dataset.write(pixels)


@pytest.mark.parametrize("suffixes", [("png", "png"), ("npy", "png")])
def test_images_with_one_name(tmp_path: Path, suffixes: tuple[str, str]) -> None:
    write_images(tmp_path / "trainA", ["1", "2", "4"], suffix=suffixes[0])
    write_images(tmp_path / "trainB", ["2", "3", "4"], suffix=suffixes[1])
    assert find_pairs(tmp_path, *both(tmp_path)) == ((1, 0), (2, 2))


def test_many_chips_of_one_spot_need_one_name(tmp_path: Path, make_scene: MakeScene) -> None:
    for folder, names in (("train_a", "xyz"), ("train_b", "wxz")):
        for name in names:
            make_scene(f"{folder}/{name}.tif", shape=(16, 16))
    assert find_pairs(tmp_path, *both(tmp_path)) == ((0, 1), (2, 2))


def test_names_do_not_outdo_georeferencing(tmp_path: Path, make_scene: MakeScene) -> None:
    make_scene("train_a/x.tif", shape=(16, 16))
    make_scene("train_b/x.tif", shape=(16, 16), transform=Affine(10, 0, 9e5, 0, -10, 4.2e6))
    assert find_pairs(tmp_path, *both(tmp_path)) == ()
    write_images(tmp_path / "trainB", ["x"])
    for image in (tmp_path / "train_b").iterdir():
        image.unlink()
    assert find_pairs(tmp_path, *both(tmp_path)) == ((0, 0),)


def test_pairs_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "train_a", ["1"], 16)
    write_images(tmp_path / "train_b", ["1"], 32)
    with pytest.raises(ChipsError, match="16 px and those of B 32 px"):
        find_pairs(tmp_path, *both(tmp_path))
