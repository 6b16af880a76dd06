"""Which files a command reads, so that it writes over none of them.

A scene is read from more than the file that names it: the sources of a VRT and theirs, masks and
overviews beside it, the bands and the metadata of a product. What exists under two names (links, a
file system that does not tell `A.tif` from `a.tif`) is known by what it is, not by its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from geocyclegan.errors import GeoCycleGANError, OptionError
from geocyclegan.raster.bandfiles import metadata_files, paths_of, told
from geocyclegan.raster.opening import GDAL_ERRORS, gdal_env, open_dataset, subdataset_parts

_VSI = re.compile(r"^/vsi[a-z0-9_]+/", re.I)
_Key = str | tuple[int, int]


@dataclass(frozen=True)
class Inputs:
    """What a command reads.

    Attributes:
        scenes: scenes, by whatever names them.
        files: other files, and folders with all that lies in them.
    """

    scenes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    def refuse(self, option: str, out: Path) -> None:
        """Refuse an output that would take the place of an input.

        Args:
            option: what named the output.
            out: where it shall be.

        Raises:
            OptionError: an input lies there.
        """
        found = self.at(out)
        if found is not None:
            raise OptionError(f"--{option} {out}: {found}; choose another name")

    def refuse_below(self, option: str, out: Path, folders: tuple[str, ...]) -> None:
        """Refuse folders of an output that hold an input, since all in them may be replaced.

        Args:
            option: what named the output.
            out: the output.
            folders: names of the folders in it.

        Raises:
            OptionError: an input lies in one of them.
        """
        places = [os.path.realpath(out / name) for name in folders if (out / name).exists()]
        if not places:
            return
        for path, what in self._all(beside=False):
            real = os.path.realpath(path)
            for place in places:
                if _lies_in(real, place):
                    raise OptionError(f"--{option} {out}: {what}, {path}; choose another")

    def at(self, out: Path) -> str | None:
        """Say which input lies where an output would be written; None if there is none."""
        # The folder may be made later, so ".." has to go first.
        place = os.path.realpath(out)
        if not os.path.exists(place):
            return None
        known, folders = self._index
        for key in _keys(place):
            if key in known:
                return known[key]
        for folder, what in folders.items():
            if _lies_in(place, folder):
                return what
        return None

    @cached_property
    def _index(self) -> tuple[dict[_Key, str], dict[str, str]]:
        known: dict[_Key, str] = {}
        folders: dict[str, str] = {}
        for path, what in self._all(beside=True):
            if os.path.isdir(path):
                folders.setdefault(os.path.realpath(path), what)
            else:
                for key in _keys(path):
                    known.setdefault(key, what)
        return known, folders

    def _all(self, *, beside: bool) -> Iterator[tuple[str, str]]:
        """Yield all files and folders that are read, and what to say of each."""
        one = len(self.scenes) == 1
        for scene in self.scenes:
            for path, is_named in scene_files(scene, beside=beside):
                if not is_named:
                    yield path, f"the input scene {told(scene)} is read from it"
                elif one:
                    yield path, "it is the input scene"
                else:
                    yield path, f"it is the input scene {Path(path).name}"
        for file in self.files:
            yield str(file), "it is an input of the command"


def scene_files(scene: str, *, beside: bool = True) -> Iterator[tuple[str, bool]]:
    """Yield all files and folders of this machine that a scene is read from.

    And for each whether it is named, or found through another. What cannot be opened is left to
    those who open it to read.

    Args:
        scene: anything that names a scene.
        beside: look for what lies beside a file and belongs to it, too; each is opened for that.
    """
    named, found = [scene], list[str]()
    with suppress(GeoCycleGANError, OSError):
        named += paths_of(scene)
        found += metadata_files(scene)
    seen: set[str] = set()
    for path in dict.fromkeys(named):
        local = local_path(path)
        if local is not None:
            seen.add(local)
            yield local, True
            if beside or local.lower().endswith(".vrt"):
                found += _listed(path)
    while found:
        path = found.pop()
        local = local_path(path)
        if local is not None and local not in seen:
            seen.add(local)
            yield local, False
            # Sources may have sources.
            if local.lower().endswith(".vrt"):
                found += _listed(path)


def _listed(path: str) -> list[str]:
    """Return the files that GDAL says belong to a raster: its sources, masks, overviews, tags."""
    with suppress(GeoCycleGANError, *GDAL_ERRORS), gdal_env(), open_dataset(path) as dataset:
        return [str(file) for file in dataset.files]
    return []


def local_path(name: str) -> str | None:
    """Return the file of this machine that a name stands for: an archive, a file of sub-datasets.

    None if it is elsewhere, or not there.
    """
    if os.path.exists(name):
        return name
    parts = subdataset_parts(name)
    if parts is not None:
        return local_path(parts[0])
    inner = name
    while _VSI.match(inner):
        inner = _VSI.sub("", inner)
    if inner == name:
        return None
    # /vsizip/folder/archive.zip/scene.tif
    for path in (inner, *map(str, Path(inner).parents)):
        if os.path.isfile(path):
            return path
    return None


def _keys(path: str) -> Iterator[_Key]:
    """Yield what tells a file from others: its name without links, and the system's number."""
    yield os.path.normcase(os.path.realpath(path))
    with suppress(OSError):
        state = os.stat(path)
        # Some file systems number nothing.
        if state.st_ino:
            yield state.st_dev, state.st_ino


def _lies_in(path: str, folder: str) -> bool:
    """Say whether a path is a folder or lies in it."""
    for place in (Path(path), *Path(path).parents):
        with suppress(OSError):
            if os.path.samefile(place, folder):
                return True
    return False
