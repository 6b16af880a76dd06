"""Windows of scenes that stay open: as few openings as needed, and the same pixels."""

from __future__ import annotations

import gc
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from geocyclegan.chips import virtual
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.source import OpenSource, Source
from geocyclegan.chips.tiler import chip_scenes
from geocyclegan.errors import ChipsError, SceneError
from geocyclegan.raster.windows import Window

MakeScene = Callable[..., Path]


class Log:
    """Which thread opened and closed what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[tuple[int, str]] = []
        self.closed: list[tuple[int, str]] = []
        begin, end = OpenSource.__init__, OpenSource.close

        def opening(opened: OpenSource, source: Source) -> None:
            begin(opened, source)
            self.opened.append((threading.get_ident(), source.path))

        def closing(opened: OpenSource) -> None:
            self.closed.append((threading.get_ident(), opened.path))
            end(opened)

        monkeypatch.setattr(OpenSource, "__init__", opening)
        monkeypatch.setattr(OpenSource, "close", closing)


def chip(make_scene: MakeScene, out: Path, scenes: int, **options: object) -> ChipSet:
    paths = [make_scene(f"{i}.tif", seed=i) for i in range(scenes)]
    chip_scenes(paths, ChipOptions(out=out, size=32, val=0, virtual=True, **options))  # type: ignore[arg-type]
    return ChipSet.open(out, "a")


def test_each_thread_opens_a_scene_once_and_closes_it_when_it_ends(
    make_scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chips = chip(make_scene, tmp_path / "chips", 2)
    log = Log(monkeypatch)
    order = list(np.random.default_rng(0).permutation(np.tile(np.arange(len(chips)), 3)))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(chips.read, order))
        assert 2 <= len(log.opened) <= 3 * 2 < len(order)
        assert len(log.opened) == len(set(log.opened))
        assert not log.closed
    assert sorted(log.closed) == sorted(log.opened)
    # Once more in this thread, which does not end.
    for index in order:
        chips.read(index)
    here = [(threading.get_ident(), scene) for scene in chips.scenes]
    assert sorted(log.opened[-2:]) == sorted(here)
    del chips
    gc.collect()
    assert sorted(log.closed) == sorted(log.opened)


@pytest.mark.parametrize("limit", ["_MOST_SOURCES", "_MOST_FILES"])
def test_no_more_stay_open_than_may(
    make_scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    chips = chip(make_scene, tmp_path / "chips", 3)
    first = [group[0] for group in chips.by_scene()]
    monkeypatch.setattr(virtual, limit, 2)
    log = Log(monkeypatch)
    for index in (*first[:2], *first[:2], first[2], first[1], first[0]):
        chips.read(index)
    names = [Path(path).stem for _, path in log.opened]
    assert names == ["0", "1", "2", "0"]
    assert [Path(path).stem for _, path in log.closed] == ["0", "2"]


@pytest.mark.parametrize("how", [{}, {"res": "17"}, {"crs": "EPSG:32631"}], ids=str)
def test_pixels_are_those_of_a_scene_opened_for_each(
    make_scene: MakeScene, tmp_path: Path, how: dict[str, object]
) -> None:
    chips = chip(make_scene, tmp_path / "chips", 3, **how)
    order = np.random.default_rng(1).permutation(np.tile(np.arange(len(chips)), 2))
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(chips.read, order))
    for index, (pixels, valid) in zip(order, found, strict=True):
        one = chips.virtual[index]
        with one.source.open() as scene:
            alone, seen = scene.read(one.window)
        np.testing.assert_array_equal(valid, seen)
        np.testing.assert_array_equal(pixels[:, seen], alone[:, seen])
    copy = pickle.loads(pickle.dumps(chips))
    np.testing.assert_array_equal(copy.read(0)[0], chips.read(0)[0])


def test_a_scene_that_cannot_be_read_is_opened_anew(
    make_scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chips = chip(make_scene, tmp_path / "chips", 1)
    log = Log(monkeypatch)
    chips.read(0)
    read = OpenSource.read

    def fail(opened: OpenSource, window: Window) -> None:
        raise SceneError("the server is gone")

    monkeypatch.setattr(OpenSource, "read", fail)
    with pytest.raises(ChipsError, match="the server is gone"):
        chips.read(0)
    assert log.closed == log.opened
    monkeypatch.setattr(OpenSource, "read", read)
    chips.read(0)
    assert len(log.opened) == 2
