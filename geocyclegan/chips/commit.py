"""From what was cut to a set: the one place where a chip folder changes.

In this order, so that a run killed at any moment leaves the old set or one that its rerun
completes: statistics, chips (flushed to the disk together, then renamed into place),
`domain_*.json`, `chips.parquet`, and the removal of files that are no longer listed.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from geocyclegan.chips.choose import Choice, CutChip
from geocyclegan.chips.cut import label_path
from geocyclegan.chips.geometry import Geometry
from geocyclegan.chips.magnitudes import Magnitudes
from geocyclegan.chips.manifest import (
    ChipRow,
    DomainName,
    DomainRecord,
    SceneEntry,
    read_record,
    statistics_folder,
    update_manifest,
    write_record,
)
from geocyclegan.chips.moved import relative_paths
from geocyclegan.chips.npyfile import mask_path, owner_name
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.source import state_of_files
from geocyclegan.chips.statistics import (
    Statistics,
    load_statistics,
    merge_statistics,
    save_statistics,
)
from geocyclegan.chips.survey import SceneFacts, warn_of_domains
from geocyclegan.errors import OptionError, OutputError, SceneError
from geocyclegan.files import flush_tree, fsync_folder, make_folder
from geocyclegan.raster.bandfiles import told
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.footprint import footprints
from geocyclegan.raster.radiometry import fit_scaling
from geocyclegan.raster.undeclared import filler_advice

log = logging.getLogger(__name__)

_CUTTING = "cutting"
_SPLIT_LOCK = ".split.lock"


@dataclass(frozen=True)
class Cut:
    """A scene that gives chips."""

    scene: SceneFacts
    choice: Choice
    statistics: Statistics


def cutting_folder(out: Path, domain: DomainName) -> Path:
    """Return where chips lie before they are part of a set."""
    return statistics_folder(out, domain) / _CUTTING


@contextmanager
def clean_folder(options: Sequence[ChipOptions]) -> Iterator[None]:
    """If the block fails, remove what it left, and folders that did not exist before it."""
    out = options[0].out
    hidden = [statistics_folder(out, given.domain) for given in options]
    folders = [*hidden, hidden[0].parent, out, *out.parents]
    missing = [path for path in folders if not path.exists()]
    try:
        yield
    except BaseException:
        if out in missing:
            (out / _SPLIT_LOCK).unlink(missing_ok=True)
        for given in options:
            shutil.rmtree(cutting_folder(out, given.domain), ignore_errors=True)
        for path in missing:
            with suppress(OSError):  # not empty, or never made
                path.rmdir()
        raise


def split_lock(out: Path) -> FileLock:
    """Return the lock under which chips get their side and the folder changes."""
    return FileLock(out / _SPLIT_LOCK)


def begin(options: ChipOptions) -> Path:
    """Remove what a killed run left, and make the folder for cutting; the caller holds the lock.

    Raises:
        OutputError: the folder cannot be made or written to.
    """
    for folder in (options.out, statistics_folder(options.out, options.domain)):
        for part in folder.glob(".*.part.*"):
            ours = folder != options.out or part.name.startswith(f".domain_{options.domain}.")
            if ours:
                part.unlink(missing_ok=True)
    cutting = cutting_folder(options.out, options.domain)
    shutil.rmtree(cutting, ignore_errors=True)
    make_folder(cutting)
    return cutting


def make_record(
    old: DomainRecord | None,
    named: set[str],
    cuts: Mapping[str, Cut],
    geometry: Geometry,
    options: ChipOptions,
) -> DomainRecord:
    """Return the domain as it will be: bands and radiometry over all its scenes.

    Raises:
        ChipsError: the statistics of a scene that was chipped before are missing or damaged.
        SceneError: the scaling does not fit the pixels, see `raster.radiometry.fit_scaling`.
        OptionError: `shared_scale` is asked for bands that differ in unit or packing.
    """
    entries = _merge_entries(old, named, cuts, geometry, options)
    domain = _fit(old, entries, cuts, options)
    return DomainRecord(
        domain,
        geometry.size,
        str(options.scale),
        entries,
        options.virtual,
        options.shared_scale,
    )


def commit(
    record: DomainRecord,
    old: DomainRecord | None,
    named: set[str],
    cuts: Mapping[str, Cut],
    options: ChipOptions,
) -> None:
    """Change the folder.

    Raises:
        OutputError: it cannot be written.
        ChipsError: its manifest is damaged.
    """
    out, name = options.out, options.domain
    statistics = statistics_folder(out, name)
    for cut in cuts.values():
        save_statistics(statistics / f"{cut.scene.id}.npz", cut.statistics)
    rows = [row for cut in cuts.values() for row in _rows(cut, options)]
    outlines = [o for cut in cuts.values() for o in _outlines(cut.scene, cut.choice.chips)]
    if not options.virtual:
        _publish(cutting_folder(out, name), out, rows)
    write_record(out, name, record)
    replaced = {entry.id for entry in old.scenes if entry.path in named} if old else None
    gone = update_manifest(out, name, rows, outlines, replaced=replaced, gpkg=options.gpkg)
    remove_stale(options, rows, gone, {entry.id for entry in record.scenes})
    other = read_record(out, "b" if name == "a" else "a")
    if other is not None:
        warn_of_domains(record.domain, other.domain, out)


def _rows(cut: Cut, options: ChipOptions) -> Iterator[ChipRow]:
    gsd = cut.scene.grid.gsd
    for chip in cut.choice.chips:
        plan = chip.plan
        assert chip.split is not None  # for mypy: straddling windows are no chips
        yield ChipRow(
            chip=chip.path,
            domain=options.domain,
            split=chip.split,
            scene=cut.scene.path,
            scene_id=cut.scene.id,
            row=plan.window.row,
            col=plan.window.col,
            valid=chip.valid,
            cover=plan.cover,
            sha256=chip.sha256,
            content=chip.content,
            gsd=gsd,
            label=label_path(chip.path) if chip.label_sha256 else "",
            label_sha256=chip.label_sha256,
        )


def _publish(cutting: Path, out: Path, rows: Sequence[ChipRow]) -> None:
    """Flush all chips to the disk, then rename those that belong to the set."""
    names = [name for row in rows for name in (row.chip, row.label) if name]
    try:
        flush_tree(cutting)
        for folder in sorted({str(Path(name).parent) for name in names}):
            make_folder(out / folder)
        for name in names:
            cut = _cut_path(cutting, name)
            mask = mask_path(cut)
            if name.endswith(".npy") and mask.exists():
                os.replace(mask, mask_path(out / name))
            elif name.endswith(".npy"):
                mask_path(out / name).unlink(missing_ok=True)  # of the chip that was there
            os.replace(cut, out / name)
        for folder in sorted({str(Path(name).parent) for name in names}):
            fsync_folder(out / folder)
    except OSError as error:
        raise OutputError(f"{out}: chips cannot be written ({error.strerror or error})") from error


def _cut_path(cutting: Path, name: str) -> Path:
    """Return where a chip or label was cut, before it was known on which side it is."""
    split, _, rest = name.partition("_")
    return cutting / (name if split == "labels" else f"cut_{rest}")


def _merge_entries(
    old: DomainRecord | None,
    named: set[str],
    cuts: Mapping[str, Cut],
    geometry: Geometry,
    options: ChipOptions,
) -> tuple[SceneEntry, ...]:
    """Return the scenes of the domain: refreshed ones stay where they were, new ones follow."""
    fresh = {}
    for name, cut in cuts.items():
        source = cut.scene.source
        files = state_of_files(source.files()) if options.virtual else {}
        fresh[name] = SceneEntry(
            name,
            cut.scene.path,
            options.of_scene(geometry),
            source.to_json(),
            files,
            {} if source.grid is not None else cut.scene.grid.to_json(),
            relative_paths(files, options.out),
        )
    merged = []
    for entry in old.scenes if old else ():
        if entry.path not in named:
            merged.append(entry)
            continue
        # A scene may have several entries, one for each angle.
        merged += [fresh.pop(name) for name in list(fresh) if fresh[name].path == entry.path]
    return (*merged, *fresh.values())


def _fit(
    old: DomainRecord | None,
    entries: Sequence[SceneEntry],
    cuts: Mapping[str, Cut],
    options: ChipOptions,
) -> Domain:
    """Fit the radiometry over all scenes; the first of them says what the bands are."""
    if entries[0].id in cuts:
        domain = cuts[entries[0].id].scene.domain
    else:
        assert old is not None  # for mypy: an entry that was not cut now is an old one
        domain = old.domain
    folder = statistics_folder(options.out, options.domain)
    magnitudes = Magnitudes(domain.labels)

    def each() -> Iterator[Statistics]:
        for entry in entries:
            file = folder / f"{entry.id}.npz"
            cut = cuts.get(entry.id)
            found = cut.statistics if cut else load_statistics(file, domain.count, entry.path)
            magnitudes.add(entry.path, found)
            yield found

    sketches = merge_statistics(each())
    magnitudes.warn()
    where = told(entries[0].path) if len(entries) == 1 else f"domain {options.domain}"
    for sketch, label in zip(sketches, domain.labels, strict=True):
        if sketch.filler is not None:
            log.warning("%s, %s: %s", where, label, filler_advice(sketch.filler, "chip"))
            break
    if options.shared_scale:
        _refuse_units(domain)
        together = sketches[0]
        for sketch in sketches[1:]:
            together.merge(sketch)
        shared = fit_scaling(options.scale, together, f"{where}, all bands")
        return domain.with_scalings([shared] * domain.count)
    return domain.with_scalings(
        [
            fit_scaling(options.scale, sketch, f"{where}, {label}")
            for sketch, label in zip(sketches, domain.labels, strict=True)
        ]
    )


def _refuse_units(domain: Domain) -> None:
    """Refuse one scaling for bands whose numbers do not mean the same."""
    kinds = {(band.unit, band.scale, band.offset) for band in domain.bands}
    if len(kinds) > 1:
        told = ", ".join(
            f"{label} in {band.unit or 'no unit'} (scale {band.scale:g}, offset {band.offset:g})"
            for label, band in zip(domain.labels[:4], domain.bands, strict=False)
        )
        raise OptionError(
            f"--shared-scale: the bands differ in unit or packing: {told}; choose bands that are"
            " alike with --bands"
        )


def remove_stale(
    options: ChipOptions, rows: Sequence[ChipRow], gone: Sequence[ChipRow], scenes: set[str]
) -> None:
    """Remove the files of chips that are no longer listed, those of a killed run among them."""
    out, name = options.out, options.domain
    shutil.rmtree(cutting_folder(out, name), ignore_errors=True)
    listed = {path for row in rows for path in (row.chip, row.label)}
    for row in gone:
        for path in {row.chip, row.label} - listed - {""}:
            (out / path).unlink(missing_ok=True)
            mask_path(out / path).unlink(missing_ok=True)
    cut_now = {row.scene_id for row in rows}
    for folder in (f"train_{name}", f"val_{name}", f"labels_{name}"):
        for file in (out / folder).glob("*"):
            ours = file.name.rpartition("_r")[0] in cut_now
            if ours and f"{folder}/{owner_name(file.name)}" not in listed:
                file.unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or never made
            (out / folder).rmdir()
    for file in statistics_folder(out, name).glob("*.npz"):
        if file.stem not in scenes:
            file.unlink(missing_ok=True)


def _outlines(scene: SceneFacts, chips: Sequence[CutChip]) -> list[Any]:
    """Return the outline of each chip in longitude and latitude; None where it has no place."""
    if scene.grid.crs is None:
        return [None] * len(chips)
    try:
        return footprints(scene.grid, [chip.plan.window for chip in chips])
    except SceneError as error:
        log.warning("%s: its footprints cannot be put on the globe (%s)", scene.path, error)
        return [None] * len(chips)
