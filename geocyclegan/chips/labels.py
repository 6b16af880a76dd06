"""Label chips: what `chip --labels` cuts alongside, as numbers of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.cut import label_path
from geocyclegan.chips.digest import DigestCheck
from geocyclegan.chips.manifest import read_rows
from geocyclegan.chips.reader import ChipSet, evenly
from geocyclegan.errors import ChipsError, NotFoundError, SceneError
from geocyclegan.progress import Progress
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window

UNKNOWN = -1
"""The class of pixels without a label."""

_MOST_CLASSES = 256


@dataclass(frozen=True)
class LabelSet:
    """The labels of the chips of a set.

    Attributes:
        paths: a label chip for each chip, or None where it has none.
        codes: the codes in the label chips, ascending; class number i is `codes[i]`.
        size: side of every chip in pixels.
        hashes: SHA-256 of label chips that a manifest lists.
    """

    paths: tuple[Path | None, ...]
    codes: tuple[int, ...]
    size: int
    hashes: Mapping[Path, str] = field(default_factory=dict)
    _check: DigestCheck = field(default_factory=DigestCheck, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path, chips: ChipSet, most: int | None = None) -> LabelSet | None:
        """Find the labels of a set and the classes in them; None if there are none.

        Args:
            folder: the chip folder.
            chips: one of its sets.
            most: look at so many label chips, evenly spread, and leave the others out; None: at
                all of them.

        Raises:
            ChipsError: a label chip is damaged, or holds something else than classes.
        """
        names = [f"{path.parent.name}/{path.name}" for path in chips.paths]
        found = [folder / label_path(name) for name in names]
        there = [path for path in found if path.is_file()]
        if most is not None:
            there = [there[i] for i in evenly(len(there), most)]
        chosen = set(there)
        paths = tuple(path if path in chosen else None for path in found)
        if not there:
            return None
        hashes = {folder / row.label: row.label_sha256 for row in read_rows(folder) if row.label}
        check = DigestCheck()
        codes: set[int] = set()
        with Progress(len(there), "labels", "chip") as progress:
            for path in there:
                check.require(path, hashes.get(path, ""))
                values, valid = _read(path, chips.size)
                codes.update(np.unique(values[valid]).tolist())
                if len(codes) > _MOST_CLASSES:
                    raise ChipsError(
                        f"{path}: more than {_MOST_CLASSES} values in {path.parent}; labels are"
                        " classes, a whole number for each"
                    )
                progress.update()
        if len(codes) < 2:
            raise ChipsError(
                f"{there[0].parent}: {len(codes)} class in all label chips; expected two or more"
            )
        return cls(paths, tuple(sorted(codes)), chips.size, hashes)

    def read(self, index: int) -> npt.NDArray[np.int64]:
        """Return numbers of classes `(size, size)`, int64, `UNKNOWN` where there is no label.

        Raises:
            ChipsError: the label chip is missing or damaged.
        """
        classes = np.full((self.size, self.size), UNKNOWN, np.int64)
        path = self.paths[index]
        if path is not None:
            self._check.require(path, self.hashes.get(path, ""))
            values, valid = _read(path, self.size)
            known = valid & np.isin(values, self.codes)
            classes[known] = np.searchsorted(self.codes, values[known])
        return classes


def _read(path: Path, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    try:
        with gdal_env(), Scene(path) as scene:
            if scene.grid.shape != (size, size):
                raise ChipsError(
                    f"{path}: {scene.grid.shape[0]} x {scene.grid.shape[1]} px, its chip has {size}"
                )
            values, valid = scene.read(Window(0, 0, size, size))
    except (SceneError, NotFoundError) as error:
        raise ChipsError(str(error)) from error
    if values.dtype.kind == "f" and not np.array_equal(values[0][valid], np.rint(values[0][valid])):
        raise ChipsError(f"{path}: fractions; labels are classes, a whole number for each")
    return np.where(valid, values[0], 0).astype(np.int64), valid
