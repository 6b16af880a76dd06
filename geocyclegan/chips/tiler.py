"""Cut scenes into chips: the whole of `geocyclegan chip`, as one function.

Two passes, because nothing is written before everything is known to be sound: the first opens and
reads all scenes, fits the radiometry and chooses the windows; the second cuts them. Then follow
`domain_*.json`, `chips.parquet`, and the removal of chips that are no longer listed, in this order,
so that a run killed at any moment leaves the old set or one that its rerun completes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from geocyclegan.chips.alike import difference
from geocyclegan.chips.choose import Choice, choose_chips, cover_scenes
from geocyclegan.chips.cut import cut_chips, footprints
from geocyclegan.chips.manifest import (
    ChipRow,
    DomainRecord,
    SceneEntry,
    domain_path,
    read_record,
    read_rows,
    statistics_folder,
    update_manifest,
    write_record,
)
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.statistics import (
    Statistics,
    load_statistics,
    merge_statistics,
    save_statistics,
)
from geocyclegan.chips.survey import SceneFacts, open_scenes, survey_scenes, warn_of_gsd
from geocyclegan.chips.workers import choose_workers
from geocyclegan.errors import ChipsError, NotFoundError, OptionError
from geocyclegan.files import output_lock
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.radiometry import fit_scaling
from geocyclegan.raster.sources import expand_scenes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChipReport:
    """What a chip run did.

    Attributes:
        folder: the chip folder.
        record: the domain as it is now, with all its scenes.
        scenes: scenes that were cut in this run.
        windows: their windows.
        train: training chips that this run wrote.
        val: validation chips that this run wrote.
        uncovered: windows left out for the AOI.
        invalid: windows left out for too few valid pixels.
        straddling: windows left out because they lie across a validation block's edge.
        total_train: training chips that the domain has now.
        total_val: validation chips that the domain has now.
    """

    folder: Path
    record: DomainRecord
    scenes: int
    windows: int
    train: int
    val: int
    uncovered: int
    invalid: int
    straddling: int
    total_train: int
    total_val: int


def chip_scenes(scenes: Sequence[str | Path], options: ChipOptions) -> ChipReport:
    """Cut scenes into the chips of a domain.

    Scenes that the folder holds already are refreshed, others are added; what contradicts the
    folder is refused. Processes are spawned for big jobs, so a script that calls this must guard
    its main part with `if __name__ == "__main__"`.

    Args:
        scenes: files, glob patterns, folders, URLs or sub-dataset names.
        options: how to cut them.

    Raises:
        NotFoundError: a scene is not there.
        SceneError: a scene cannot be used, or scenes are not alike.
        OptionError: an option cannot be, or contradicts what the folder holds.
        ChipsError: no window passes the filters, or the folder is damaged.
        OutputError: the folder cannot be written, or another run is writing it.
    """
    paths = expand_scenes(scenes)
    if not paths:
        raise NotFoundError("no scene was named")
    _refuse_own_chips(paths, options.out)
    facts = open_scenes(paths, options)
    with _new_folder(options.out), output_lock(domain_path(options.out, options.domain)):
        return _chip(facts, options)


def _chip(facts: list[SceneFacts], options: ChipOptions) -> ChipReport:
    out, name = options.out, options.domain
    old = None if options.overwrite else read_record(out, name)
    if old is not None:
        _refuse_contradiction(old, facts, options)
    named = {scene.path for scene in facts}
    facts, covers = cover_scenes(facts, options)
    workers = choose_workers(options.workers, sum(scene.samples for scene in facts))
    surveys = survey_scenes(facts, options, workers)
    choices = choose_chips(facts, covers, surveys, options)
    chosen = {
        scene.path: (scene, choice, survey.statistics)
        for scene, choice, survey in zip(facts, choices, surveys, strict=True)
        if choice.chips
    }
    entries = _merge_entries(old, named, [scene for scene, _, _ in chosen.values()], options)
    domain = _fit(old, entries, chosen, options)
    record = DomainRecord(domain, options.size, str(options.scale), entries)
    kept = [row for row in _rows(options) if row.scene not in named and not options.overwrite]
    planned = [chip for choice in choices for chip in choice.chips]
    splits = [row.split for row in kept] + [chip.split for chip in planned]
    total_train, total_val = splits.count("train"), splits.count("val")
    _check_totals(total_train, total_val, options)

    # From here on the folder changes.
    _remove_leftovers(options)
    statistics = statistics_folder(out, name)
    for scene, _, found in chosen.values():
        save_statistics(statistics / f"{scene.id}.npz", found)
    cuts = [(scene, choice.chips) for scene, choice, _ in chosen.values()]
    rows = cut_chips(out, name, cuts, workers)
    outlines = [outline for scene, chips in cuts for outline in footprints(scene, chips)]
    write_record(out, name, record)
    replaced = {entry.id for entry in old.scenes if entry.path in named} if old else None
    gone = update_manifest(out, name, rows, outlines, replaced=replaced)
    _remove_stale(options, rows, gone, {entry.id for entry in entries})
    return ChipReport(
        folder=out,
        record=record,
        scenes=len(chosen),
        windows=sum(choice.windows for choice in choices),
        train=sum(chip.split == "train" for chip in planned),
        val=sum(chip.split == "val" for chip in planned),
        uncovered=sum(choice.uncovered for choice in choices),
        invalid=sum(choice.invalid for choice in choices),
        straddling=sum(choice.straddling for choice in choices),
        total_train=total_train,
        total_val=total_val,
    )


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """Take a folder that did not exist away again if nothing came to lie in it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in missing:
            with suppress(OSError):  # not empty, or never made
                path.rmdir()
        raise


def _refuse_own_chips(paths: Sequence[str], out: Path) -> None:
    for path in paths:
        for split in ("train", "val"):
            for domain in ("a", "b"):
                if Path(path).parent == (out / f"{split}_{domain}").resolve():
                    raise OptionError(
                        f"{path}: a chip of --out {out} itself; name the scenes it was cut from"
                    )


def _refuse_contradiction(
    old: DomainRecord, facts: Sequence[SceneFacts], options: ChipOptions
) -> None:
    where = f"domain {options.domain} in {options.out}"
    remedy = "replace the domain with --overwrite or choose another --out"
    if old.size != options.size:
        raise OptionError(
            f"--size {options.size}: {where} has chips of {old.size} px; give --size {old.size},"
            f" {remedy}"
        )
    if old.scale != str(options.scale):
        raise OptionError(
            f"--scale {options.scale}: {where} is scaled by {old.scale}; give --scale {old.scale},"
            f" {remedy}"
        )
    unlike = difference(old.domain, facts[0].domain)
    if unlike is not None:
        raise OptionError(
            f"{facts[0].path}: it has {unlike[1]}, {where} has {unlike[0]}; choose bands with"
            f" --bands, {remedy}"
        )
    warn_of_gsd(old.domain, facts[0])


def _merge_entries(
    old: DomainRecord | None, named: set[str], cut: Sequence[SceneFacts], options: ChipOptions
) -> tuple[SceneEntry, ...]:
    """Return the scenes of the domain: refreshed ones stay where they were, new ones follow."""
    fresh = {scene.path: SceneEntry(scene.id, scene.path, options.of_scene()) for scene in cut}
    merged = []
    for entry in old.scenes if old else ():
        if entry.path in fresh:
            merged.append(fresh.pop(entry.path))
        elif entry.path not in named:
            merged.append(entry)
    return (*merged, *fresh.values())


def _fit(
    old: DomainRecord | None,
    entries: Sequence[SceneEntry],
    chosen: Mapping[str, tuple[SceneFacts, Choice, Statistics]],
    options: ChipOptions,
) -> Domain:
    """Fit the radiometry over all scenes; the first of them says what the bands are."""
    if entries[0].path in chosen:
        domain = chosen[entries[0].path][0].domain
    else:
        assert old is not None  # for mypy: an entry that was not cut now is an old one
        domain = old.domain

    folder = statistics_folder(options.out, options.domain)
    sketches = merge_statistics(
        chosen[entry.path][2]
        if entry.path in chosen
        else load_statistics(folder / f"{entry.id}.npz", domain.count, entry.path)
        for entry in entries
    )
    where = entries[0].path if len(entries) == 1 else f"domain {options.domain}"
    return domain.with_scalings(
        [
            fit_scaling(options.scale, sketch, f"{where}, {label}")
            for sketch, label in zip(sketches, domain.labels, strict=True)
        ]
    )


def _rows(options: ChipOptions) -> list[ChipRow]:
    return [row for row in read_rows(options.out) if row.domain == options.domain]


def _check_totals(train: int, val: int, options: ChipOptions) -> None:
    if not train:
        raise ChipsError(
            f"no training chip: all {val} windows that pass the filters lie in validation blocks;"
            " use --val 0 or another --seed"
        )
    if options.val > 0 and not val:
        log.warning(
            "no validation chip: the scenes are too small, or too little of them is valid, to set"
            " a block aside"
        )


def _remove_leftovers(options: ChipOptions) -> None:
    """Remove the temporary files of a run that was killed; the lock says that no other is alive."""
    for folder in _folders(options):
        for part in folder.glob(".*.part.*"):
            part.unlink(missing_ok=True)
    for part in options.out.glob(f".domain_{options.domain}.*.part.json"):
        part.unlink(missing_ok=True)


def _remove_stale(
    options: ChipOptions, rows: Sequence[ChipRow], gone: Sequence[ChipRow], scenes: set[str]
) -> None:
    """Remove the files of chips that are no longer listed, those of a killed run among them."""
    for row in gone:
        (options.out / row.chip).unlink(missing_ok=True)
    *splits, statistics = _folders(options)
    listed = {row.chip for row in rows}
    cut_now = {row.scene_id for row in rows}
    for folder in splits:
        for path in folder.glob("*.tif"):
            ours = path.name.rpartition("_r")[0] in cut_now
            if ours and f"{folder.name}/{path.name}" not in listed:
                path.unlink(missing_ok=True)
    for path in statistics.glob("*.npz"):
        if path.stem not in scenes:
            path.unlink(missing_ok=True)


def _folders(options: ChipOptions) -> list[Path]:
    splits = [options.out / f"{split}_{options.domain}" for split in ("train", "val")]
    return [*splits, statistics_folder(options.out, options.domain)]
