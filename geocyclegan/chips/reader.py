"""The narrow reader: all that training knows about chips.

It reads the sets that `geocyclegan chip` makes, and folders of images that others laid out:
`train_a/` + `train_b/`, `trainA/` + `trainB/`, `A/images` + `B/images`, `Images/train_a`, each with
GeoTIFF, PNG, JPEG or npy. Those have no `domain_*.json`, so their domain is fitted on the chips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from geocyclegan.chips.alike import UNFITTED, describe, difference
from geocyclegan.chips.digest import DigestCheck
from geocyclegan.chips.manifest import (
    MANIFEST,
    ChipRow,
    DomainName,
    DomainRecord,
    Split,
    chip_command,
    domain_path,
    read_record,
    read_rows,
    statistics_folder,
)
from geocyclegan.chips.moved import find_moved, repoint
from geocyclegan.chips.npyfile import MASK_SUFFIX, read_mask
from geocyclegan.chips.source import Source, state_of_files
from geocyclegan.errors import ChipsError, NotFoundError, OptionError, SceneError
from geocyclegan.progress import Progress
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.radiometry import ScaleSpec, fit_scaling
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.sketch import BandSketch
from geocyclegan.raster.windows import Window

_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".npy"})
# Enough pixels for percentiles; reading every image of a large folder at each start would be slow.
_FITTED_CHIPS = 1000


def evenly(length: int, most: int) -> list[int]:
    """Return up to `most` of the numbers from 0 to below `length`, evenly spread, ascending."""
    count = min(length, most)
    return [i * length // count for i in range(count)]


@dataclass(frozen=True)
class VirtualChip:
    """A chip without a file of its own: a window of a scene.

    Attributes:
        source: how the scene is looked at.
        window: which pixels of it.
    """

    source: Source
    window: Window

    def read(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read it from the scene.

        Returns:
            Pixels `(bands, height, width)` in the source's type and stored units, and the valid
            mask `(height, width)`. Invalid pixels hold anything.

        Raises:
            ChipsError: the scene cannot be read any more.
        """
        try:
            with gdal_env(), self.source.open() as scene:
                return scene.read(self.window)
        except (SceneError, NotFoundError) as error:
            raise ChipsError(str(error)) from error


@dataclass(frozen=True)
class ChipSet:
    """The chips of one domain and split.

    Reading opens and closes the file each time, so a set may be used by many threads at once and
    sent to other processes.

    Attributes:
        paths: the chip files, sorted; of a virtual set, the names that they would have.
        domain: bands and radiometry, the same for both splits.
        size: side of every chip in pixels.
        scenes: the scenes that the domain was chipped from; empty where they are not recorded.
        scene_ids: which scene each chip is from; empty where that is not recorded.
        virtual: for each path, the window that it is; empty where there are files.
        hashes: SHA-256 of each file; empty where there is no manifest.
    """

    paths: tuple[Path, ...]
    domain: Domain
    size: int
    scenes: tuple[str, ...] = ()
    scene_ids: tuple[str, ...] = ()
    virtual: tuple[VirtualChip, ...] = ()
    hashes: tuple[str, ...] = ()
    _check: DigestCheck = field(default_factory=DigestCheck, init=False, repr=False, compare=False)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        domain: DomainName,
        split: Split = "train",
        *,
        absent: int = 0,
    ) -> Self:
        """Open the chips of a domain.

        Args:
            folder: the chip folder.
            domain: "a" or "b".
            split: "train" or "val". A validation set may be empty, a training set may not.
            absent: how many chips that the manifest lists may be missing; reading one fails.

        Raises:
            NotFoundError: there is no such folder.
            ChipsError: the domain is missing, empty, unfinished or mixed.
        """
        root = Path(folder)
        if root.is_file():
            raise OptionError(
                f"{root}: a file, where a chip folder was expected; make one with:"
                f" {chip_command(Path('chips'), domain)}"
            )
        if not root.is_dir():
            raise NotFoundError(
                f"{root}: no such chip folder; make it with: {chip_command(root, domain)}"
            )
        record = read_record(root, domain)
        if record is not None:
            return cls._open_listed(root, domain, split, record, absent)
        if statistics_folder(root, domain).exists():
            raise _unfinished(root, domain)
        return cls._open_layout(root, domain, split)

    @classmethod
    def _open_listed(
        cls, root: Path, domain: DomainName, split: Split, record: DomainRecord, absent: int
    ) -> Self:
        rows = [row for row in read_rows(root) if row.domain == domain]
        # The list is written last: one that does not tell of the same scenes is of an earlier run.
        if {row.scene_id for row in rows} != {scene.id for scene in record.scenes}:
            raise _unfinished(root, domain)
        scenes = tuple(dict.fromkeys(scene.path for scene in record.scenes))
        rows = sorted((row for row in rows if row.split == split), key=lambda row: row.chip)
        chips = [row.chip for row in rows]
        if not chips and split == "train":
            raise ChipsError(
                f"{root / MANIFEST}: it lists no training chip of domain {domain};"
                f" add scenes: {chip_command(root, domain)}"
            )
        paths = tuple(root / chip for chip in chips)
        ids = tuple(row.scene_id for row in rows)
        if record.virtual:
            windows = virtual_chips(root, domain, record, rows)
            return cls(paths, record.domain, record.size, scenes, ids, windows)
        there = {
            f"{parent}/{path.name}"
            for parent in {chip.rpartition("/")[0] for chip in chips}
            for path in (root / parent).glob("*")
        }
        lost = [chip for chip in chips if chip not in there]
        if len(lost) > absent:
            others = f", as are {len(lost) - 1} others" if len(lost) > 1 else ""
            raise ChipsError(
                f"{root / lost[0]}: missing{others}, though {MANIFEST} lists it; chip the scene"
                f" again: {chip_command(root, domain)}"
            )
        hashes = tuple(row.sha256 for row in rows)
        return cls(paths, record.domain, record.size, scenes, ids, hashes=hashes)

    @classmethod
    def _open_layout(cls, root: Path, domain: DomainName, split: Split) -> Self:
        train = _find_layout(root, domain, "train")
        if not train:
            tried = ", ".join(str(path.relative_to(root)) for path in _layouts(root, domain))
            raise ChipsError(
                f"{root}: no chip of domain {domain} (looked for {domain_path(root, domain).name}"
                f" and for images in {tried}); make some with: {chip_command(root, domain)}"
            )
        paths = train if split == "train" else _find_layout(root, domain, "val")
        fitted, size = _fit_domain(train, [*train, *paths] if split == "val" else train)
        return cls(paths, fitted, size)

    def __len__(self) -> int:
        return len(self.paths)

    def by_scene(self) -> tuple[tuple[int, ...], ...]:
        """Return the numbers of the chips of each scene; all as one where no scene is recorded."""
        if not self.scene_ids:
            return (tuple(range(len(self))),) if len(self) else ()
        groups: dict[str, list[int]] = {}
        for index, scene in enumerate(self.scene_ids):
            groups.setdefault(scene, []).append(index)
        return tuple(tuple(group) for group in groups.values())

    def read(self, index: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read a chip, and compare it with its hash in the manifest, if there is one.

        Returns:
            Pixels `(bands, size, size)` in the domain's type and stored units, and the valid mask
            `(size, size)`. Invalid pixels hold anything.

        Raises:
            ChipsError: the file is missing, damaged, another one, or not like the others.
        """
        path = self.paths[index]
        if self.virtual:
            pixels, valid = self.virtual[index].read()
        else:
            if self.hashes:
                self._check.require(path, self.hashes[index])
            pixels, valid, _ = read_image(path)
        expected = (self.domain.count, self.size, self.size)
        if pixels.shape != expected or pixels.dtype.name != self.domain.dtype:
            raise ChipsError(
                f"{path}: {_shape_text(pixels.shape, pixels.dtype.name)}, where the set has"
                f" {_shape_text(expected, self.domain.dtype)}"
            )
        return pixels, valid


def virtual_chips(
    root: Path, domain: DomainName, record: DomainRecord, rows: Sequence[ChipRow]
) -> tuple[VirtualChip, ...]:
    """Return the windows of a virtual set.

    Raises:
        ChipsError: a file that they are read from is gone or has changed, or its record is damaged.
    """
    sources: dict[str, Source] = {}
    again = f"chip it again: {chip_command(root, domain)} --virtual"
    for entry in record.scenes:
        moved = find_moved(entry.files, entry.relative, root)
        now = state_of_files(list(entry.files))
        for path, state in entry.files.items():
            if now.get(path) != state and path not in moved:
                raise ChipsError(
                    f"{path}: {'changed' if path in now else 'gone'} since it was chipped into the"
                    f" virtual set {root}; {again}"
                )
        try:
            sources[entry.id] = Source.from_json(repoint(entry.source, moved))
        except (KeyError, TypeError, ValueError) as error:
            raise ChipsError(
                f"{domain_path(root, domain)}: it does not say how {entry.path} is read"
                f" ({type(error).__name__}: {error}); {again}"
            ) from error
    return tuple(
        VirtualChip(sources[row.scene_id], Window(row.row, row.col, record.size, record.size))
        for row in rows
    )


def _unfinished(root: Path, domain: DomainName) -> ChipsError:
    return ChipsError(
        f"{root}: the chips of domain {domain} were not finished; run the same command again:"
        f" {chip_command(root, domain)}"
    )


def _layouts(root: Path, domain: DomainName, split: Split = "train") -> list[Path]:
    upper = domain.upper()
    found = [root / f"{split}_{domain}", root / f"{split}{upper}"]
    found += [root / images / f"{split}_{domain}" for images in ("Images", "images")]
    if split == "train":
        # This layout has no splits.
        found.append(root / upper / "images")
    return found


def _find_layout(root: Path, domain: DomainName, split: Split) -> tuple[Path, ...]:
    for folder in _layouts(root, domain, split):
        if folder.is_dir():
            images = sorted(
                path
                for path in folder.iterdir()
                if path.suffix.lower() in _SUFFIXES
                and not path.name.startswith(".")
                and not path.name.endswith(MASK_SUFFIX)
            )
            if images:
                return tuple(images)
    return ()


@dataclass(frozen=True)
class _Header:
    """What must be alike in all images of a set."""

    domain: Domain
    height: int
    width: int

    @property
    def text(self) -> str:
        return _shape_text((self.domain.count, self.height, self.width), self.domain.dtype)


def _shape_text(shape: Sequence[int], dtype: str) -> str:
    count, height, width = shape
    return f"{count} band{'s' * (count != 1)} of {height} x {width} px, {dtype}"


def read_image(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_], _Header]:
    """Read an image of any of the formats.

    Returns:
        Pixels `(bands, height, width)` in the file's type and stored units, the valid mask
        `(height, width)`, and the header: its domain, not fitted, with height and width. Invalid
        pixels hold anything.

    Raises:
        ChipsError: it cannot be read.
    """
    if path.suffix.lower() == ".npy":
        pixels = np.ascontiguousarray(_load_array(path))
        try:
            valid = read_mask(path, pixels.shape[1:])
        except (OSError, ValueError, EOFError) as error:
            raise ChipsError(f"{path}: its valid mask cannot be read ({error})") from error
        if valid is None:
            valid = np.ones(pixels.shape[1:], np.bool_)
        if pixels.dtype.kind == "f":
            valid &= np.isfinite(pixels).all(axis=0)
        return pixels, valid, _array_header(pixels)
    try:
        with Scene(path) as scene:
            pixels, valid = scene.read(Window(0, 0, *scene.grid.shape))
            return pixels, valid, _Header(describe(scene), *scene.grid.shape)
    except (SceneError, FileNotFoundError) as error:
        raise ChipsError(str(error)) from error


def _read_header(path: Path) -> _Header:
    if path.suffix.lower() == ".npy":
        return _array_header(_load_array(path))
    try:
        with Scene(path) as scene:
            return _Header(describe(scene), *scene.grid.shape)
    except (SceneError, FileNotFoundError) as error:
        raise ChipsError(str(error)) from error


def _load_array(path: Path) -> npt.NDArray[Any]:
    """Open an npy file as `(bands, height, width)`, without reading its pixels yet."""
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ChipsError(f"{path}: not an array that can be read ({error})") from error
    if array.ndim == 2:
        array = array[np.newaxis]
    if array.ndim != 3 or array.dtype.kind not in "iuf" or not array.size:
        raise ChipsError(
            f"{path}: an array of shape {array.shape} and type {array.dtype}; expected numbers"
            " of shape (bands, height, width)"
        )
    # Rasters have no half precision and no foreign byte order.
    dtype = np.dtype(np.float32) if array.dtype == np.float16 else array.dtype.newbyteorder("=")
    return array.astype(dtype, copy=False)


def _array_header(array: npt.NDArray[Any]) -> _Header:
    bands, height, width = array.shape
    return _Header(Domain((BandInfo(UNFITTED),) * bands, array.dtype.name), height, width)


def _fit_domain(train: Sequence[Path], every: Sequence[Path]) -> tuple[Domain, int]:
    """Check that all images are alike, and fit the radiometry on training images."""
    first = _read_header(every[0])
    if first.height != first.width:
        raise ChipsError(
            f"{every[0]}: {first.text}; chips must be square, so cut the images with"
            " geocyclegan chip"
        )
    for path in every[1:]:
        header = _read_header(path)
        found = difference(first.domain, header.domain)
        if found is None and (first.height, first.width) != (header.height, header.width):
            found = first.text, header.text
        if found is not None:
            raise ChipsError(
                f"chips of one domain must be alike: {every[0]} has {found[0]}, {path} has"
                f" {found[1]}"
            )
    step = -(-len(train) // _FITTED_CHIPS)
    domain = first.domain
    sketches = [BandSketch(domain.dtype) for _ in domain.bands]
    with Progress(len(train[::step]), "fit radiometry", "chip") as progress:
        for path in train[::step]:
            pixels, valid, _ = read_image(path)
            for sketch, values in zip(sketches, pixels, strict=True):
                sketch.update(values[valid])
            progress.update()
    try:
        scalings = [
            fit_scaling(ScaleSpec("auto"), sketch, f"{train[0].parent}, {label}")
            for sketch, label in zip(sketches, domain.labels, strict=True)
        ]
    except SceneError as error:
        raise ChipsError(str(error)) from error
    return domain.with_scalings(scalings), first.height
