"""Which chips of A and of B show the same ground.

Three things can say so, and the first that does is believed: the record that `chip --pair` writes,
the georeferencing of the chips, and, in folders of images that others laid out, their names.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from rasterio.crs import CRS

from geocyclegan.chips.manifest import DomainName, SceneEntry, read_record, read_rows
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.source import Source
from geocyclegan.errors import ChipsError, NotFoundError, SceneError
from geocyclegan.progress import Progress
from geocyclegan.raster.globe import near_greenwich
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window

Pairs = tuple[tuple[int, int], ...]
"""Pairs (number of the chip in A, number in B), sorted."""

# Grids that differ by less than this share of a pixel are one grid.
_PART_OF_PIXEL = 64


def find_pairs(folder: Path, a: ChipSet, b: ChipSet) -> Pairs:
    """Find the pairs among the chips of one split.

    By georeferencing or by name, a chip that is alone on its ground in its domain goes with every
    chip of the other domain there (several dates of one place); where both domains have several, a
    chip goes with those of its own file name.

    Args:
        folder: the chip folder.
        a: its chips of A.
        b: its chips of B, of the same split.

    Returns:
        The pairs; none where nothing says that two chips belong together.

    Raises:
        ChipsError: the folder or a chip is damaged, or paired chips differ in size.
    """
    if not len(a) or not len(b):
        return ()
    pairs = _by_record(folder, a, b) or _by_grid(folder, a, b) or _by_name(a, b)
    if pairs and a.size != b.size:
        raise ChipsError(
            f"{folder}: the chips of A have {a.size} px and those of B {b.size} px, and pairs need"
            f" one size; cut them again with: {pair_command(folder)}"
        )
    return tuple(sorted(pairs))


def require_pairs(folder: Path, a: ChipSet, b: ChipSet) -> Pairs:
    """Find the pairs, see `find_pairs`.

    Raises:
        ChipsError: there is none.
    """
    pairs = find_pairs(folder, a, b)
    if not pairs:
        raise ChipsError(
            f"{folder}: no chip of A shows the same ground as one of B, so it has no pairs; cut"
            f" some with: {pair_command(folder)}"
        )
    return pairs


def pair_command(folder: Path) -> str:
    """Return the command that makes paired chips, for messages."""
    out = "" if folder == Path("chips") else f" --out {folder}"
    return f"geocyclegan chip A --pair B{out}"


def _by_record(folder: Path, a: ChipSet, b: ChipSet) -> list[tuple[int, int]]:
    """Pairs of windows of scenes that were cut as partners."""
    partners = _partners(folder)
    if not partners or not a.scene_ids or not b.scene_ids:
        return []
    places = {row.chip: (row.scene_id, row.row, row.col) for row in read_rows(folder)}

    def place(chips: ChipSet, index: int) -> tuple[str, int, int]:
        return places[chips.paths[index].relative_to(folder).as_posix()]

    where = {place(b, index): index for index in range(len(b))}
    found = []
    for index in range(len(a)):
        scene, row, col = place(a, index)
        partner = where.get((partners.get(scene, ""), row, col))
        if partner is not None:
            found.append((index, partner))
    return found


def _partners(folder: Path) -> dict[str, str]:
    """For the scenes of A, the scenes of B that each was cut together with, by their ids."""
    records = read_record(folder, "a"), read_record(folder, "b")
    if records[0] is None or records[1] is None:
        return {}
    of_b = {
        pair: scene.id for scene in records[1].scenes if (pair := _pair_key(scene, reverse=True))
    }
    return {
        scene.id: of_b[pair]
        for scene in records[0].scenes
        if (pair := _pair_key(scene, reverse=False)) in of_b
    }


def _pair_key(scene: SceneEntry, *, reverse: bool) -> tuple[str, ...] | None:
    """The scene, its partner and their grid; None for a scene that was cut by itself."""
    partner = scene.source.get("partner")
    if not isinstance(partner, dict):
        return None
    paths = [scene.path, str(partner.get("path"))]
    return (*(paths[::-1] if reverse else paths), json.dumps(scene.source.get("grid")))


def _by_grid(folder: Path, a: ChipSet, b: ChipSet) -> list[tuple[int, int]]:
    """Pairs of chips with one footprint: the same CRS and transform, and as many pixels."""
    one, two = _grids(folder, "a", a), _grids(folder, "b", b)
    if not any(one) or not any(two):
        return []
    return _matched(one, two, a, b)


def _by_name(a: ChipSet, b: ChipSet) -> list[tuple[int, int]]:
    """Pairs of files with one name, in folders without a record; georeferencing knows better."""
    if a.scene_ids or b.scene_ids or (_is_georeferenced(a) and _is_georeferenced(b)):
        return []
    return _matched([path.stem for path in a.paths], [path.stem for path in b.paths], a, b)


def _matched(
    keys_a: Sequence[Hashable], keys_b: Sequence[Hashable], a: ChipSet, b: ChipSet
) -> list[tuple[int, int]]:
    """Pairs of equal keys; where several of both have it, of equal names, too."""
    of_a, of_b = _grouped(keys_a), _grouped(keys_b)
    found = []
    for key in of_a.keys() & of_b.keys():
        several = len(of_a[key]) > 1 and len(of_b[key]) > 1
        found += [
            (i, j)
            for i in of_a[key]
            for j in of_b[key]
            if not several or a.paths[i].stem == b.paths[j].stem
        ]
    return found


def _grouped(keys: Sequence[Hashable]) -> Mapping[Hashable, list[int]]:
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        if key is not None:
            groups[key].append(index)
    return groups


def _is_georeferenced(chips: ChipSet) -> bool:
    return not chips.virtual and _grid_key(_first_grid(chips.paths)[1]) is not None


def _grids(folder: Path, domain: DomainName, chips: ChipSet) -> list[Hashable]:
    """A key for the grid of each chip; None where it has no place on Earth."""
    if not chips.virtual and not _is_georeferenced(chips):
        # A set is georeferenced or it is not: no need to open a hundred thousand PNGs.
        return [None] * len(chips)
    if chips.virtual:
        scenes = {source: _grid_of_source(source) for source in {v.source for v in chips.virtual}}
        return [_grid_key(scenes[v.source].window(v.window)) for v in chips.virtual]
    if chips.scene_ids:
        return [_grid_key(grid) for grid in _grids_of_scenes(folder, chips)]
    keys = []
    with Progress(len(chips), f"pairs of {domain}", "chip") as progress:
        for path in chips.paths:
            keys.append(_grid_key(_grid_of_file(path)))
            progress.update()
    return keys


def _grids_of_scenes(folder: Path, chips: ChipSet) -> list[Grid | None]:
    """The grid of each chip of a listed set, by one file of each scene and the list's windows."""
    windows = {
        row.chip: Window(row.row, row.col, chips.size, chips.size) for row in read_rows(folder)
    }
    scenes: dict[str, Grid | None] = {}
    grids = []
    places = [windows[path.relative_to(folder).as_posix()] for path in chips.paths]
    for numbers in chips.by_scene():
        first, grid = _first_grid([chips.paths[number] for number in numbers])
        place = places[numbers[first]]
        back = Window(-place.row, -place.col, *place.shape)
        scenes[chips.scene_ids[numbers[0]]] = None if grid is None else grid.window(back)
    for place, scene in zip(places, chips.scene_ids, strict=True):
        whole = scenes[scene]
        grids.append(None if whole is None else whole.window(place))
    return grids


def _first_grid(paths: Sequence[Path]) -> tuple[int, Grid | None]:
    """The first file that opens, by its number, and its grid; damage is found when it is read."""
    for number, path in enumerate(paths[:-1]):
        try:
            return number, _grid_of_file(path)
        except ChipsError:
            continue
    return len(paths) - 1, _grid_of_file(paths[-1])


def _grid_of_file(path: Path) -> Grid | None:
    if path.suffix.lower() == ".npy":
        return None
    try:
        with Scene(path) as scene:
            return scene.grid
    except (SceneError, NotFoundError) as error:
        raise ChipsError(str(error)) from error


def _grid_of_source(source: Source) -> Grid:
    if source.grid is not None:
        return source.grid
    try:
        with gdal_env(), source.open() as scene:
            return scene.grid
    except (SceneError, NotFoundError) as error:
        raise ChipsError(str(error)) from error


def _grid_key(grid: Grid | None) -> Hashable:
    if grid is None or not grid.is_georeferenced:
        return None
    grid = near_greenwich(grid)
    pixel = max(grid.pixel_size)
    # The other corners say whether size and rotation of the pixels are alike.
    corners = (*grid.xy(0, 0), *grid.xy(grid.height, grid.width), *grid.xy(0, grid.width))
    rounded = tuple(round(number / pixel * _PART_OF_PIXEL) for number in corners)
    return _crs_key(None if grid.crs is None else grid.crs.to_wkt()), rounded


@lru_cache(maxsize=64)
def _crs_key(wkt: str | None) -> int | str | None:
    """Two files may write down one CRS in different words; their EPSG code is one."""
    return None if wkt is None else CRS.from_wkt(wkt).to_epsg() or wkt
