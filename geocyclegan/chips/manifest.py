"""The two files that make a folder of chips a set: `domain_*.json` and `chips.parquet`.

The JSON says what the chips of a domain are (bands, radiometry, size, scenes), the GeoParquet lists
every chip of both domains. The list is written last, so that a set which is not listed is a set
that was not finished.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

import geocyclegan
from geocyclegan.errors import ChipsError, OutputError
from geocyclegan.files import atomic_write, write_json, writing
from geocyclegan.raster.domain import Domain

DomainName = Literal["a", "b"]
Split = Literal["train", "val"]

MANIFEST = "chips.parquet"
GEOPACKAGE = "chips.gpkg"
STATISTICS = ".statistics"


def domain_path(folder: Path, domain: DomainName) -> Path:
    """Return where a domain's JSON lies."""
    return folder / f"domain_{domain}.json"


def statistics_folder(folder: Path, domain: DomainName) -> Path:
    """Return where the statistics of a domain's scenes lie; made before the first chip."""
    return folder / STATISTICS / domain


def chip_command(folder: Path, domain: DomainName) -> str:
    """Return the command that chips a scene into this domain, for messages."""
    out = "" if folder == Path("chips") else f" --out {folder}"
    return f"geocyclegan chip SCENE --domain {domain}{out}"


@dataclass(frozen=True)
class SceneEntry:
    """A scene that chips were cut from.

    Attributes:
        id: name of the scene in chip names, unique in the folder.
        path: absolute path, URL or sub-dataset name.
        options: how it was cut (stride, filters, split).
        source: how it is looked at, as `chips.source.Source` writes it.
        files: size and time of change of the files that a virtual set is read from.
        grid: the scene's own grid, if `source` names no other.
        relative: where `files` lie as seen from the chip folder, should both be moved.
    """

    id: str
    path: str
    options: dict[str, Any]
    source: dict[str, Any] = field(default_factory=dict)
    files: dict[str, list[int]] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)
    relative: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DomainRecord:
    """What `domain_*.json` holds.

    Attributes:
        domain: bands and radiometry.
        size: side of the chips in pixels.
        scale: the scaling that was asked for, as `--scale` takes it.
        scenes: the scenes, in the order in which they were added.
        virtual: there are no chip files; chips are windows of the scenes.
        shared_scale: all bands have one scaling.
    """

    domain: Domain
    size: int
    scale: str
    scenes: tuple[SceneEntry, ...]
    virtual: bool = False
    shared_scale: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "geocyclegan": geocyclegan.__version__,
            **self.domain.to_json(),
            "size": self.size,
            "scale": self.scale,
            "shared_scale": self.shared_scale,
            "virtual": self.virtual,
            "scenes": [asdict(scene) for scene in self.scenes],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: a part is missing or of the wrong kind.
        """
        scenes = tuple(
            SceneEntry(
                str(s["id"]),
                str(s["path"]),
                dict(s["options"]),
                dict(s.get("source", {})),
                dict(s.get("files", {})),
                dict(s.get("grid", {})),
                dict(s.get("relative", {})),
            )
            for s in value["scenes"]
        )
        size = int(value["size"])
        domain = Domain.from_json(value)
        if size < 1 or not domain.bands:
            raise ValueError("no bands or no size")
        return cls(
            domain,
            size,
            str(value["scale"]),
            scenes,
            bool(value.get("virtual", False)),
            bool(value.get("shared_scale", False)),
        )


def write_record(folder: Path, domain: DomainName, record: DomainRecord) -> None:
    """Write `domain_*.json`, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_json(domain_path(folder, domain), record.to_json())


def read_record(folder: Path, domain: DomainName) -> DomainRecord | None:
    """Read `domain_*.json`; None if there is none.

    Raises:
        ChipsError: it is damaged.
    """
    path = domain_path(folder, domain)
    try:
        return DomainRecord.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ChipsError(
            f"{path}: not the description of a chip domain ({type(error).__name__}: {error});"
            f" make the domain anew: {chip_command(folder, domain)} --overwrite"
        ) from error


@dataclass(frozen=True)
class ChipRow:
    """A line of the manifest: one chip.

    Attributes:
        chip: path relative to the folder, with forward slashes.
        domain: "a" or "b".
        split: "train" or "val".
        scene: the scene it was cut from, an absolute path or a URL.
        scene_id: the scene's name in chip names.
        row: first row of its window in the scene.
        col: first column of its window in the scene.
        valid: share of its pixels inside the scene that are valid.
        cover: share of its pixels inside the scene that the AOI covers; 1 without an AOI.
        sha256: hash of the file; empty in a virtual set.
        content: hash of its pixels and mask; empty where it was not needed.
        gsd: ground sampling distance in metres, None without a CRS.
        label: path of the label chip, relative to the folder; empty without one.
        label_sha256: hash of that file.
    """

    chip: str
    domain: DomainName
    split: Split
    scene: str
    scene_id: str
    row: int
    col: int
    valid: float
    cover: float
    sha256: str
    content: str = ""
    gsd: float | None = None
    label: str = ""
    label_sha256: str = ""


_COLUMNS = tuple(column.name for column in fields(ChipRow))


def read_rows(folder: Path) -> list[ChipRow]:
    """Read the manifest without its footprints; an empty list if there is none.

    Raises:
        ChipsError: it is damaged.
    """
    return [ChipRow(**row) for row in _read_table(folder, _COLUMNS)]


def _read_table(folder: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    path = folder / MANIFEST
    if not path.exists():
        return []
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
        rows: list[dict[str, Any]] = table.select(list(columns)).to_pylist()
    except (pyarrow.ArrowException, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ChipsError(
            f"{path}: not a list of chips that can be read ({reason}); remove it and chip the"
            " scenes again"
        ) from error
    if any(row["domain"] not in ("a", "b") or row["split"] not in ("train", "val") for row in rows):
        raise ChipsError(f"{path}: it lists chips of an unknown domain or split")
    return rows


@contextmanager
def _writing_layer(path: Path) -> Iterator[None]:
    """As `files.writing`, of what pyogrio raises, too, which knows no reason."""
    try:
        with writing(path):
            yield
    except RuntimeError as error:
        free = shutil.disk_usage(path.parent).free / 2**20
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise OutputError(
            f"{path}: cannot be written ({line}); {free:.0f} MiB are free there"
        ) from error


def update_manifest(
    folder: Path,
    domain: DomainName,
    rows: Sequence[ChipRow],
    footprints: Iterable[Any],
    *,
    replaced: set[str] | None,
    gpkg: bool = False,
) -> list[ChipRow]:
    """Put chips into the manifest, in place of those of the scenes that they replace.

    A domain is chipped by one process at a time, but both domains share the manifest: a short lock
    keeps the two from writing it at once.

    Args:
        folder: the chip folder.
        domain: the domain of all `rows`.
        rows: the new chips.
        footprints: a polygon in EPSG:4326 for each of them, or None.
        replaced: ids of the scenes whose old chips go; None for all scenes of the domain.
        gpkg: write a GeoPackage beside it, too; one that is there is kept up to date always.

    Returns:
        The rows that went and did not come back, whose files nobody needs any more.

    Raises:
        ChipsError: the manifest that is there is damaged.
        OutputError: it cannot be written.
    """
    import geopandas
    from filelock import FileLock
    from shapely import from_wkb

    with FileLock(folder / f".{MANIFEST}.lock"):
        for leftover in folder.glob(".chips.*.part.*"):
            leftover.unlink(missing_ok=True)  # of a run that was killed
        old = _read_table(folder, (*_COLUMNS, "geometry"))
        geometries = from_wkb([row.pop("geometry") for row in old])
        merged: dict[str, tuple[ChipRow, Any]] = {}
        gone: dict[str, ChipRow] = {}
        for fields_, geometry in zip(old, geometries, strict=True):
            row = ChipRow(**fields_)
            if row.domain == domain and (replaced is None or row.scene_id in replaced):
                gone[row.chip] = row
            else:
                merged[row.chip] = row, geometry
        for row, geometry in zip(rows, footprints, strict=True):
            merged[row.chip] = row, geometry
            gone.pop(row.chip, None)
        ordered = [merged[chip] for chip in sorted(merged)]
        frame = geopandas.GeoDataFrame(
            {name: [getattr(row, name) for row, _ in ordered] for name in _COLUMNS},
            geometry=[geometry for _, geometry in ordered],
            crs="EPSG:4326",
        )
        with atomic_write(folder / MANIFEST) as part, writing(folder / MANIFEST):
            frame.to_parquet(part, index=False)
        if gpkg or (folder / GEOPACKAGE).exists():
            with atomic_write(folder / GEOPACKAGE) as part, _writing_layer(folder / GEOPACKAGE):
                frame.to_file(part, driver="GPKG", layer="chips")
    return list(gone.values())
