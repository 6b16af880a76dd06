"""On which side each window of a run is, so that no ground is in both, whatever scene shows it.

Decided when it is known which windows pass the filters. Scenes on one grid are decided together;
the others one after another, the largest first, and each keeps to what chips show already: those
of both domains that the folder has, and those just decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.geometry import Geometry, cells_of
from geocyclegan.chips.ground import Atlas, Box, Shown, pins_of, rectangles
from geocyclegan.chips.sides import name_of, neighbourhood, place_of, whole_sides
from geocyclegan.chips.split import (
    DROPPED,
    TRAIN,
    VAL,
    Cells,
    Pins,
    Spans,
    Split,
    Tally,
    assign,
    choose_cells,
)
from geocyclegan.chips.survey import SceneFacts
from geocyclegan.raster.grid import Grid

_SCENES_ACROSS = (8, 4, 2)  # of a neighbourhood; the largest that makes places enough
_FEWEST_VAL_PLACES = 2


@dataclass(frozen=True)
class View:
    """A scene at one angle, and its windows.

    Attributes:
        scene: the scene.
        rows: first rows of the windows `(n,)`.
        cols: first columns of the windows `(n,)`.
        passed: windows that become chips if they do not straddle `(n,)`.
    """

    scene: SceneFacts
    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    passed: npt.NDArray[np.bool_]

    @property
    def base(self) -> Grid:
        """The grid that is divided; turned views are divided as the upright one is."""
        return self.scene.base or self.scene.grid


@dataclass
class _Group:
    """Views of one grid."""

    base: Grid
    name: str
    cells: Cells
    members: list[int]
    spans: list[Spans]
    weight: int = 0

    def passing(self, views: Sequence[View]) -> Spans:
        return Spans.join(
            [s.among(views[i].passed) for i, s in zip(self.members, self.spans, strict=True)]
        )


def split_views(
    views: Sequence[View],
    geometry: Geometry,
    known: Sequence[tuple[Shown, str]] = (),
    before: Tally | None = None,
) -> list[Split]:
    """Return TRAIN, VAL or DROPPED for each window of each view.

    Args:
        views: all that a run cuts, of both domains if it cuts pairs.
        geometry: how windows were laid.
        known: chips that stay, of both domains, and what stands for the place of each scene.
        before: how many of them are of the run's own domains.
    """
    if geometry.val <= 0.0 and not any((shown.split == VAL).any() for shown, _ in known):
        return [np.full(len(view.rows), TRAIN, np.uint8) for view in views]
    groups = _group(views, geometry)
    return _Run(views, groups, geometry, known, before or Tally()).split()


def _group(views: Sequence[View], geometry: Geometry) -> list[_Group]:
    groups: dict[tuple[Grid, str], _Group] = {}
    for i, view in enumerate(views):
        name = "" if view.base.is_georeferenced else name_of(view.scene.source)
        group = groups.get((view.base, name))
        if group is None:
            cells = cells_of(*view.base.shape, geometry)
            group = groups[view.base, name] = _Group(view.base, name, cells, [], [])
        group.members.append(i)
        group.spans.append(_spans(view, group.cells, geometry.size))
        group.weight += int(np.count_nonzero(view.passed))
    # The largest first, so that smaller ones can make up for its share; whatever the order in
    # which scenes are named.
    return sorted(
        groups.values(), key=lambda g: (-g.weight, min(views[i].scene.id for i in g.members))
    )


def _spans(view: View, cells: Cells, size: int) -> Spans:
    if view.scene.grid == view.base:
        return cells.spans(view.rows, view.rows + size, view.cols, view.cols + size)
    none = np.zeros(len(view.rows), np.uint8)
    return cells.spans(
        *rectangles(Shown(view.scene.grid, view.rows, view.cols, size, none), view.base)
    )


class _Run:
    """What is decided, group by group."""

    def __init__(
        self,
        views: Sequence[View],
        groups: Sequence[_Group],
        geometry: Geometry,
        known: Sequence[tuple[Shown, str]],
        before: Tally,
    ) -> None:
        self._views, self._groups, self._geometry = views, groups, geometry
        self._before = before
        grids = [group.base for group in groups] + [shown.grid for shown, _ in known]
        names = [group.name for group in groups] + [name for _, name in known]
        self._atlas = Atlas(grids, names)
        self._shown: dict[int, list[Shown]] = {
            len(groups) + i: [shown] for i, (shown, _) in enumerate(known)
        }
        self._result: list[Split] = [np.full(len(v.rows), DROPPED, np.uint8) for v in views]

    def split(self) -> list[Split]:
        """Decide all groups."""
        whole = [group.cells.shape == (1, 1) for group in self._groups]
        small = [i for i, is_whole in enumerate(whole) if is_whole]
        for i, group in enumerate(self._groups):
            if not whole[i]:
                pins, given = self._pins(self._near(i), group), self._geometry
                passing = group.passing(self._views)
                self._settle(i, choose_cells(passing, pins, given.val, given.seed, self._before))
        hashed = self._hashed(small, alone=len(small) == len(whole))
        sides: dict[int, int] = {}
        # One for training comes first, or overlapping scenes might leave none.
        first = next((i for i in small if hashed[i] == TRAIN), None)
        for i in sorted(small, key=lambda i: (i != first, hashed[i] == TRAIN)):
            group, near = self._groups[i], self._near(i)
            pins = self._pins([j for j in near if j not in hashed], group)
            side = int(pins.sides(hashed[i])[0, 0])
            # Scenes of this run do not follow one another, or all of a mosaic would be on one side.
            other = [j for j in near if sides.get(j, side) != side]
            pins = self._pins(other, group)
            sides[i] = DROPPED if pins.train[0, 0] or pins.val[0, 0] else side
            self._settle(i, np.full((1, 1), sides[i], np.uint8))
        return self._result

    def _near(self, index: int) -> list[int]:
        return [i for i in self._atlas.near(index) if i in self._shown]

    def _pins(self, near: Sequence[int], group: _Group) -> Pins:
        return pins_of([shown for i in near for shown in self._shown[i]], group.base, group.cells)

    def _settle(self, index: int, sides: Split) -> None:
        """Write down what the sides of its cells make of a group's windows."""
        group = self._groups[index]
        self._shown[index] = []
        for i, spans in zip(group.members, group.spans, strict=True):
            view = self._views[i]
            split = assign(spans, sides)
            self._result[i] = split
            kept = view.passed & (split != DROPPED)
            self._before = self._before.plus(split[kept])
            shown = view.scene.grid, view.rows[kept], view.cols[kept]
            self._shown[index].append(Shown(*shown, self._geometry.size, split[kept]))

    def _hashed(self, small: Sequence[int], *, alone: bool) -> dict[int, int]:
        """Return the sides of groups that are one cell each, by their places."""
        given, before = self._geometry, self._before
        places = [place_of(self._groups[i].base, self._groups[i].name) for i in small]
        crowded = {i: box for i in small if (box := self._crowded_box(i)) is not None}
        for across in _SCENES_ACROSS if crowded else ():
            found = [
                neighbourhood(crowded[i], across) if i in crowded else place
                for i, place in zip(small, places, strict=True)
            ]
            if len(set(found)) * given.val >= _FEWEST_VAL_PLACES:
                places = found
                break
        known: list[Literal["train", "val"]] = ["train"] * bool(before.train)
        known += ["val"] * bool(before.val)
        sides = whole_sides(places, given.val, given.seed, known=known, alone=alone)
        return {i: VAL if side == "val" else TRAIN for i, side in zip(small, sides, strict=True)}

    def _crowded_box(self, index: int) -> Box | None:
        """Return the box of a group that may overlap with others of the run."""
        others = [i for i in self._atlas.near(index) if i != index and i < len(self._groups)]
        return self._atlas.boxes[index] if others else None
