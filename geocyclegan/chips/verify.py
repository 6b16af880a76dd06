"""Whether a chip folder still holds what was written: every chip against its hash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from geocyclegan.chips.cut import content_hash
from geocyclegan.chips.digest import chip_digest
from geocyclegan.chips.manifest import (
    MANIFEST,
    ChipRow,
    DomainName,
    DomainRecord,
    chip_command,
    read_record,
    read_rows,
)
from geocyclegan.chips.npyfile import owner_name
from geocyclegan.chips.source import Source
from geocyclegan.errors import ChipsError, GeoCycleGANError
from geocyclegan.progress import Progress
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.windows import Window
from geocyclegan.threads import usable_cores


@dataclass(frozen=True)
class ChipCheck:
    """What was found in a chip folder.

    Attributes:
        checked: chips and label chips that were compared with their hash.
        damaged: path and what is wrong with it.
        unlisted: files between the chips that the manifest does not list; training ignores them.
    """

    checked: int
    damaged: tuple[tuple[str, str], ...]
    unlisted: tuple[str, ...]


def verify_chips(folder: Path) -> ChipCheck:
    """Compare all chips of a folder with the hashes in its manifest.

    Raises:
        ChipsError: there is no manifest, or the folder was not finished.
    """
    rows = read_rows(folder)
    records = _records(folder, rows)
    files = [
        (path, digest)
        for row in rows
        if not records[row.domain].virtual
        for path, digest in ((row.chip, row.sha256), (row.label, row.label_sha256))
        if path
    ]
    virtual = [row for row in rows if records[row.domain].virtual]
    damaged: list[tuple[str, str]] = []
    with Progress(len(files) + len(virtual), "verify", "chip") as progress:
        with ThreadPoolExecutor(min(usable_cores(), 8)) as pool:
            wrongs = pool.map(lambda item: _check_file(folder, *item), files)
            for (path, _), wrong in zip(files, wrongs, strict=True):
                if wrong:
                    damaged.append((path, wrong))
                progress.update()
        for path, wrong in _check_windows(records, virtual):
            if wrong:
                damaged.append((path, wrong))
            progress.update()
    listed = {path for path, _ in files}
    unlisted = sorted(
        f"{found.parent.name}/{found.name}"
        for domain in records
        for kind in ("train", "val", "labels")
        for found in (folder / f"{kind}_{domain}").glob("*")
        if f"{found.parent.name}/{owner_name(found.name)}" not in listed
    )
    return ChipCheck(len(files) + len(virtual), tuple(damaged), tuple(unlisted))


def _records(folder: Path, rows: Sequence[ChipRow]) -> dict[DomainName, DomainRecord]:
    names: tuple[DomainName, ...] = ("a", "b")
    found = {name: read_record(folder, name) for name in names}
    records = {name: record for name, record in found.items() if record is not None}
    if not rows or not records:
        raise ChipsError(
            f"{folder}: no {MANIFEST} with chips and their hashes; only sets that geocyclegan chip"
            " made can be verified"
        )
    for name in names:
        listed = {row.scene_id for row in rows if row.domain == name}
        record = records.get(name)
        if listed != ({scene.id for scene in record.scenes} if record else set()):
            raise ChipsError(
                f"{folder}: the chips of domain {name} were not finished; run the same command"
                f" again: {chip_command(folder, name)}"
            )
    return records


def _check_file(folder: Path, name: str, expected: str) -> str | None:
    try:
        found = chip_digest(folder / name)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return None if found == expected else "damaged: its SHA-256 is not the one in the manifest"


def _check_windows(
    records: dict[DomainName, DomainRecord], rows: Sequence[ChipRow]
) -> Iterator[tuple[str, str | None]]:
    """Hash the windows of virtual chips again, scene by scene."""
    for domain, record in records.items():
        for entry in record.scenes:
            chosen = [r for r in rows if r.domain == domain and r.scene_id == entry.id]
            if not chosen:
                continue
            try:
                with gdal_env(), Source.from_json(entry.source).open() as scene:
                    for row in chosen:
                        window = Window(row.row, row.col, record.size, record.size)
                        same = content_hash(*scene.read(window)) == row.content
                        yield (
                            row.chip,
                            None if same else f"the pixels of {entry.path} are others now",
                        )
            except (GeoCycleGANError, KeyError, TypeError, ValueError) as error:
                yield from ((row.chip, str(error)) for row in chosen)
