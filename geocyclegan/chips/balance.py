"""Windows drawn so that every class of a label raster comes as often as the others.

A class is drawn, then a pixel of that class, then a window around that pixel; so rare classes are
seen as often as common ones, with whatever surrounds them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.geometry import Geometry, Windows, drawn
from geocyclegan.chips.source import open_classes
from geocyclegan.errors import OptionError
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.windows import Window

# Every n-th pixel of the labels is looked at, so many along the longer side.
_LOOKED_AT = 4096
_ROWS = 256
# Windows drawn for each that is wanted: some come twice, some will be for neither side.
_DRAWN = 8


def balanced_windows(
    path: str, values: tuple[int, ...] | None, grid: Grid, geometry: Geometry
) -> Windows:
    """Draw windows of a scene, evenly from the classes.

    Args:
        path: a raster of classes, on any grid.
        values: the classes to draw; None for all that are there.
        grid: the grid of the scene.
        geometry: size, number and seed of the windows.

    Returns:
        Different windows inside the scene in the order drawn, more than `geometry.random`, see
        `geometry.drawn`.

    Raises:
        OptionError: none of the classes is there.
        SceneError: the labels cannot be read.
    """
    assert geometry.random is not None  # for mypy: checked with the options
    step = max(-(-max(grid.shape) // _LOOKED_AT), 1)
    rows, cols, codes = _labelled(path, values, grid, step)
    classes, places = np.unique(codes, return_inverse=True)
    if not classes.size:
        wanted = "a class" if values is None else f"class {', '.join(map(str, values))}"
        raise OptionError(f"--balance {path}: no pixel of {wanted} lies over the scene")
    of_class = [np.flatnonzero(places == i) for i in range(len(classes))]
    random = np.random.default_rng([geometry.seed, *grid.shape])
    most = [max(side - geometry.size, 0) for side in grid.shape]
    found: dict[tuple[int, int], None] = {}
    for i in range(_DRAWN * geometry.random):
        pixel = random.choice(of_class[i % len(classes)])
        shift = random.integers(0, geometry.size, 2)
        row, col = (
            int(np.clip(at[pixel] + random.integers(0, step) - by, 0, limit))
            for at, by, limit in zip((rows, cols), shift, most, strict=True)
        )
        found[row, col] = None
    corners = np.array(list(found)[: drawn(geometry)], np.int64).reshape(-1, 2)
    return Windows(corners[:, 0], corners[:, 1])


def _labelled(
    path: str, values: tuple[int, ...] | None, grid: Grid, step: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return row, column and class of every n-th pixel that has one, `(n,)` each."""
    found = []
    with gdal_env(), open_classes(path, grid) as labels:
        for top in range(0, grid.height, _ROWS // step * step or step):
            height = min(_ROWS // step * step or step, grid.height - top)
            codes, there = labels.read(Window(top, 0, height, grid.width))
            seen = codes[0, ::step, ::step].astype(np.int64)
            wanted = there[::step, ::step]
            if values is not None:
                wanted = wanted & np.isin(seen, values)
            down, across = np.nonzero(wanted)
            found.append((top + down * step, across * step, seen[down, across]))
    rows, cols, codes_ = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return rows, cols, codes_
