from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine

from geocyclegan.chips.manifest import read_rows
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.errors import ChipsError, OptionError, SceneError
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window

MakeScene = Callable[..., Path]
HALF = Affine(5.0, 0.0, 500_000.0, 0.0, -5.0, 4_200_000.0)


@pytest.fixture
def options(tmp_path: Path) -> ChipOptions:
    return ChipOptions(out=tmp_path / "chips", size=32)


def clouds() -> npt.NDArray[np.uint8]:
    """Classes at twice the scene's resolution: one chip cloudy, one in shadow, the rest 0 and 4."""
    classes = np.zeros((1, 192, 256), np.uint8)
    classes[:, :64, :64], classes[:, 64:128, :64], classes[:, 128:, 200:] = 9, 3, 4
    return classes


def test_a_class_mask_on_another_grid(make_scene: MakeScene, options: ChipOptions) -> None:
    path = make_scene()
    # 0 as nodata is what many masks have; it is a class here like any other.
    mask = make_scene("scl.tif", pixels=clouds(), transform=HALF, nodata=0)
    report = chip_scenes([path], replace(options, mask=(str(mask),), mask_values=(3, 8, 9)))
    assert (report.left_out["invalid"], report.train + report.val) == (2, 10)
    assert {(0, 0), (32, 0)}.isdisjoint({(row.row, row.col) for row in read_rows(options.out)})
    everything = replace(options, mask=(str(mask),), overwrite=True, min_valid=0.0)
    chip_scenes([path], everything)
    (row,) = [row for row in read_rows(options.out) if (row.row, row.col) == (64, 96)]
    assert row.valid == pytest.approx(1 - 28 / 32)
    with Scene(options.out / row.chip) as chip:
        valid = chip.read(Window(0, 0, 32, 32))[1]
    assert valid[:, :4].all()
    assert not valid[:, 4:].any()


def test_where_a_mask_does_not_reach_nothing_is_known(
    make_scene: MakeScene, options: ChipOptions
) -> None:
    mask = make_scene("mask.tif", pixels=np.zeros((1, 32, 128), np.uint8))
    report = chip_scenes([make_scene()], replace(options, mask=(str(mask),)))
    assert (report.left_out["invalid"], report.train + report.val) == (8, 4)


def test_masks_for_each_scene(make_scene: MakeScene, options: ChipOptions) -> None:
    scenes = [make_scene(f"{i}.tif", seed=i) for i in range(2)]
    clear = make_scene("clear.tif", pixels=np.zeros((1, 96, 128), np.uint8))
    cloudy = make_scene("cloudy.tif", pixels=np.ones((1, 96, 128), np.uint8))
    both = replace(options, mask=(str(clear), str(cloudy)))
    with pytest.raises(SceneError, match=r"1\.tif: no valid pixel"):
        chip_scenes(scenes, both)
    assert chip_scenes(scenes, replace(options, mask=(str(clear),))).scenes == 2
    with pytest.raises(OptionError, match="--mask: 2 files for 1 scenes"):
        chip_scenes(scenes[:1], both)
    with pytest.raises(OptionError, match="--mask-values"):
        replace(options, mask_values=(1,))


def test_flat_chips(make_scene: MakeScene, options: ChipOptions) -> None:
    pixels = np.random.default_rng(0).integers(0, 9, (2, 96, 128)).astype(np.uint16)
    pixels[:, :32, :64] = 5
    pixels[0, 32:64, :32] = 5  # the other band varies
    report = chip_scenes([make_scene(pixels=pixels)], replace(options, min_std=0.5))
    assert (report.left_out["flat"], report.train + report.val) == (2, 10)
    with pytest.raises(ChipsError, match=r"12 with less than 90 standard.*lower --min-std"):
        chip_scenes([make_scene(pixels=pixels)], replace(options, min_std=90, overwrite=True))


def test_duplicates(make_scene: MakeScene, options: ChipOptions, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(100, 200, (2, 96, 128)).astype(np.uint16)
    pixels[:, 64:, 96:] = pixels[:, :32, :32]
    one = make_scene("1.tif", pixels=pixels)
    two = make_scene("2.tif", pixels=np.roll(pixels, 32, axis=1))
    dropping = replace(options, drop_duplicates=True)
    report = chip_scenes([one], dropping)
    assert (report.left_out["duplicate"], len(read_rows(options.out))) == (1, 11)
    # Chips that were cut before anybody asked are looked at, too.
    late = replace(options, out=tmp_path / "late")
    chip_scenes([one], late)
    with pytest.raises(ChipsError, match="12 of the same pixels as another chip"):
        chip_scenes([two], replace(late, drop_duplicates=True))
    # Both at once, or one after the other, or one again: the same set.
    both = replace(dropping, out=tmp_path / "both")
    other = make_scene("3.tif", seed=3)
    chip_scenes([one, other], both)
    chip_scenes([one], both)
    chip_scenes([other], dropping)
    assert read_rows(both.out) == read_rows(options.out)


def test_label_chips(make_scene: MakeScene, options: ChipOptions) -> None:
    path = make_scene()
    labels = make_scene("labels.tif", pixels=clouds(), transform=HALF, nodata=0)
    with_labels = replace(options, labels=(str(labels),))
    chip_scenes([path], with_labels)
    rows = read_rows(options.out)
    for row in rows:
        assert row.label == row.chip.replace("train_a", "labels_a").replace("val_a", "labels_a")
        with Scene(options.out / row.label) as label, Scene(options.out / row.chip) as chip:
            assert label.grid == chip.grid
            assert label.nodata == 0
        with Scene(options.out / row.label, classes=True) as label:
            codes = label.read(Window(0, 0, 32, 32))[0][0]
        at = clouds()[0, 2 * row.row : 2 * row.row + 64 : 2, 2 * row.col : 2 * row.col + 64 : 2]
        assert np.array_equal(codes, at)
    # They go as their chips do.
    chip_scenes([path], options)
    assert not (options.out / "labels_a").exists()
    assert {row.label for row in read_rows(options.out)} == {""}


def test_a_virtual_set_reads_as_the_files_do(
    make_scene: MakeScene, options: ChipOptions, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    pixels = random.random((2, 100, 100)).astype(np.float32)
    pixels[:, 10:20, 10:20] = np.nan
    path = make_scene(pixels=pixels)
    mask = make_scene("scl.tif", pixels=clouds(), transform=HALF)
    given = replace(options, res="7", stride=20, min_valid=0.2, mask=(str(mask),), mask_values=(9,))
    chip_scenes([path], given)
    virtual = replace(given, out=tmp_path / "virtual", virtual=True)
    report = chip_scenes([path], virtual)
    assert not list(virtual.out.rglob("*.tif"))
    files, windows = ChipSet.open(options.out, "a"), ChipSet.open(virtual.out, "a")
    assert windows.domain == files.domain
    assert len(windows) == len(files) == report.train
    assert [path.name for path in windows.paths] == [path.name for path in files.paths]
    for i in range(len(files)):
        (pixels, valid), (other, other_valid) = files.read(i), windows.read(i)
        assert np.array_equal(valid, other_valid)
        assert np.array_equal(pixels[:, valid], other[:, valid])
    with pytest.raises(OptionError, match="--virtual"):
        chip_scenes([path], replace(virtual, virtual=False))
    with pytest.raises(OptionError, match="--labels"):
        replace(virtual, labels=("labels.tif",))


def test_a_virtual_set_notices_that_its_scene_changed(
    make_scene: MakeScene, options: ChipOptions
) -> None:
    path = make_scene()
    chip_scenes([path], replace(options, virtual=True))
    make_scene(seed=1, bands=3)
    with pytest.raises(ChipsError, match=r"scene\.tif: changed since.*--virtual"):
        ChipSet.open(options.out, "a")
    path.unlink()
    with pytest.raises(ChipsError, match=r"scene\.tif: gone since"):
        ChipSet.open(options.out, "a")
