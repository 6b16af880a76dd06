"""Statistics of scenes, kept beside the chips: a new scene re-fits the radiometry over all of them.

One npz per scene, with the compact arrays of a `BandSketch` per band.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.manifest import DomainName, DomainRecord, statistics_folder
from geocyclegan.errors import ChipsError, OutputError
from geocyclegan.files import atomic_write
from geocyclegan.raster.sketch import BandSketch

# What `BandSketch.to_arrays` gives, for each band.
Statistics = list[dict[str, npt.NDArray[Any]]]


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Write the statistics of a scene, whole or not at all.

    Args:
        path: where, ending on .npz.
        statistics: for each band what `BandSketch.to_arrays` gives; shapes are described there.

    Raises:
        OutputError: they cannot be written.
    """
    arrays = {
        f"{band}.{key}": array
        for band, arrays in enumerate(statistics)
        for key, array in arrays.items()
    }
    with atomic_write(path) as part:
        try:
            # No array is an object; older numpys have no allow_pickle here, newer stubs want one.
            np.savez_compressed(part, **cast(Any, arrays))
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def load_statistics(path: Path, bands: int, scene: str) -> Statistics:
    """Read the statistics of a scene.

    Args:
        path: the file.
        bands: number of bands.
        scene: what to call the scene in an error.

    Returns:
        For each band what `BandSketch.to_arrays` gave.

    Raises:
        ChipsError: they are missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            statistics: Statistics = [{} for _ in range(bands)]
            for name in arrays.files:
                band, _, key = name.partition(".")
                statistics[int(band)][key] = arrays[name]
        for band_arrays in statistics:
            BandSketch.from_arrays(band_arrays)
    except (
        *(OSError, EOFError, zipfile.BadZipFile, zlib.error),
        # What damaged arrays, and a damaged archive, make of their readers.
        *(ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError),
        *(RuntimeError, MemoryError),
    ) as error:
        raise ChipsError(
            f"{path}: the statistics of {scene} are missing or damaged; name that scene, too, so"
            " that it is chipped again, or replace the domain with --overwrite"
        ) from error
    return statistics


def merge_statistics(scenes: Iterable[Statistics]) -> list[BandSketch]:
    """Return the statistics of several scenes as one, band by band."""
    total: list[BandSketch] = []
    for statistics in scenes:
        sketches = [BandSketch.from_arrays(arrays) for arrays in statistics]
        if not total:
            total = sketches
            continue
        for sketch, other in zip(total, sketches, strict=True):
            sketch.merge(other)
    return total


def domain_statistics(folder: Path, domain: DomainName, record: DomainRecord) -> list[BandSketch]:
    """Return the statistics of all scenes of a domain, band by band.

    Raises:
        ChipsError: they are missing or damaged.
    """
    where = statistics_folder(folder, domain)
    return merge_statistics(
        load_statistics(where / f"{entry.id}.npz", record.domain.count, entry.path)
        for entry in record.scenes
    )
