from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from geocyclegan.chips.labels import LabelSet
from geocyclegan.chips.manifest import read_rows
from geocyclegan.chips.npyfile import owner_name
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.chips.verify import verify_chips
from geocyclegan.errors import ChipsError

MakeScene = Callable[..., Path]


@pytest.fixture
def options(tmp_path: Path) -> ChipOptions:
    return ChipOptions(out=tmp_path / "chips", size=32)


def test_every_kind_of_damage_is_found(make_scene: MakeScene, options: ChipOptions) -> None:
    labels = make_scene("labels.tif", bands=1, dtype="uint8")
    chip_scenes([make_scene()], replace(options, labels=(str(labels),)))
    check = verify_chips(options.out)
    assert (check.checked, check.damaged, check.unlisted) == (24, (), ())
    rows = read_rows(options.out)
    flipped, cut, gone, swapped, other = [options.out / row.chip for row in rows[:5]]
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    swapped.write_bytes(other.read_bytes())
    label = options.out / rows[7].label
    label.write_bytes(b"")
    (options.out / "train_a" / "stranger.tif").write_bytes(b"")
    check = verify_chips(options.out)
    damaged = {flipped, cut, gone, swapped, label}
    assert {options.out / path for path, _ in check.damaged} == damaged
    assert dict(check.damaged)[rows[2].chip] == "missing"
    assert check.unlisted == ("train_a/stranger.tif",)


def test_any_flipped_bit_is_found(make_scene: MakeScene, options: ChipOptions) -> None:
    chip_scenes([make_scene(shape=(32, 32))], options)
    path = options.out / read_rows(options.out)[0].chip
    sound = path.read_bytes()
    random = np.random.default_rng(0)
    for at in random.integers(0, len(sound), 40):
        data = bytearray(sound)
        data[at] ^= 1 << random.integers(0, 8)
        path.write_bytes(data)
        assert len(verify_chips(options.out).damaged) == 1


def test_virtual_chips_are_read_again(make_scene: MakeScene, options: ChipOptions) -> None:
    path = make_scene()
    chip_scenes([path], replace(options, virtual=True, res="8"))
    assert verify_chips(options.out).damaged == ()
    state = os.stat(path)
    pixels = np.random.default_rng(0).integers(100, 200, (2, 96, 128)).astype(np.uint16)
    pixels[0, 5, 5] += 1
    make_scene(pixels=pixels)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    ((chip, wrong),) = verify_chips(options.out).damaged
    assert chip.endswith("_r00000_c00000.tif")
    assert "scene.tif are others" in wrong
    path.unlink()
    assert len(verify_chips(options.out).damaged) == len(read_rows(options.out))


def test_what_cannot_be_verified(make_scene: MakeScene, options: ChipOptions) -> None:
    with pytest.raises(ChipsError, match="only sets that geocyclegan chip made"):
        verify_chips(options.out.parent)
    chip_scenes([make_scene("1.tif")], options)
    before = (options.out / "chips.parquet").read_bytes()
    chip_scenes([make_scene("2.tif")], options)
    (options.out / "chips.parquet").write_bytes(before)
    with pytest.raises(ChipsError, match="not finished"):
        verify_chips(options.out)


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_readers_refuse_what_verify_finds(
    make_scene: MakeScene, options: ChipOptions, kind: Literal["tif", "npy"]
) -> None:
    """The chip, the mask beside an npy, and the label chip."""
    mask = np.ones((96, 128), np.bool_)
    mask[::16, ::16] = False
    labels = make_scene("labels.tif", bands=1, dtype="uint8")
    chip_scenes([make_scene(mask=mask)], replace(options, labels=(str(labels),), format=kind))
    rows = [row for row in read_rows(options.out) if row.split == "train"]
    chips = ChipSet.open(options.out, "a")
    found = LabelSet.open(options.out, chips)
    assert found is not None
    files = [options.out / rows[0].chip]
    if kind == "npy":
        files.append(next((options.out / "train_a").glob("*.valid.npy")))
    for file in files:
        owner = chips.paths.index(file.with_name(owner_name(file.name)))
        chips.read(owner)
        flip(file)
        with pytest.raises(ChipsError, match="damaged or replaced"):
            chips.read(owner)
        flip(file)
    label = options.out / rows[1].label
    index = [path.name for path in chips.paths].index(Path(rows[1].chip).name)
    found.read(index)
    flip(label)
    with pytest.raises(ChipsError, match=rf"{label.name}: damaged or replaced"):
        found.read(index)
    with pytest.raises(ChipsError, match=rf"{label.name}: damaged or replaced"):
        LabelSet.open(options.out, chips)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
