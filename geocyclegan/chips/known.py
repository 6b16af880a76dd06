"""The ground that chips of a folder show, on either side: new chips keep to it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from geocyclegan.chips.ground import Shown
from geocyclegan.chips.manifest import ChipRow, DomainName, SceneEntry, read_record
from geocyclegan.chips.sides import name_of
from geocyclegan.chips.source import Source
from geocyclegan.chips.split import TRAIN, VAL
from geocyclegan.errors import NotFoundError, SceneError
from geocyclegan.raster.bandfiles import told
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.opening import gdal_env

log = logging.getLogger(__name__)


def known_ground(
    folder: Path, rows: Sequence[ChipRow], stays: Callable[[ChipRow], bool]
) -> list[tuple[Shown, str]]:
    """Return what chips show that a run leaves as they are, scene by scene.

    Args:
        folder: the chip folder.
        rows: its chips, of both domains.
        stays: says whether a chip is left as it is.

    Returns:
        The chips of a scene, and what stands for its place where it has no georeferencing.
    """
    of_scene: dict[tuple[DomainName, str], list[ChipRow]] = defaultdict(list)
    for row in rows:
        if stays(row):
            of_scene[row.domain, row.scene_id].append(row)
    domains: set[DomainName] = {domain for domain, _ in of_scene}
    records = {domain: read_record(folder, domain) for domain in sorted(domains)}
    entries = {
        (domain, entry.id): entry
        for domain, record in records.items()
        for entry in (record.scenes if record else ())
    }
    known = []
    for (domain, scene_id), chips in of_scene.items():
        record, entry = records[domain], entries.get((domain, scene_id))
        grid = None if entry is None else _grid(entry)
        if record is None or entry is None or grid is None:
            log.warning(
                "%s: it is not known where its chips lie, so new chips may show ground of both"
                " its training and its validation; chip it again",
                told(chips[0].scene),
            )
            continue
        shown = Shown(
            grid,
            np.array([chip.row for chip in chips], np.int64),
            np.array([chip.col for chip in chips], np.int64),
            record.size,
            np.array([VAL if chip.split == "val" else TRAIN for chip in chips], np.uint8),
        )
        name = "" if grid.is_georeferenced else name_of(Source.from_json(entry.source))
        known.append((shown, name))
    return known


def _grid(entry: SceneEntry) -> Grid | None:
    """Return the grid that a scene was cut on."""
    try:
        written = entry.grid or entry.source.get("grid")
        if written:
            return Grid.from_json(written)
        # A set of an earlier version does not say.
        with gdal_env(), Source.from_json(entry.source).open() as scene:
            return scene.grid
    except (SceneError, NotFoundError, KeyError, TypeError, ValueError):
        return None
