"""Cut scenes into chips: the whole of `geocyclegan chip`, as two functions.

Scenes are opened and checked, windows laid over them, all pixels read once, and only then, when
everything is known to be sound, does the folder change (`chips.commit`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from geocyclegan.chips.alike import difference
from geocyclegan.chips.choose import (
    Choice,
    Plan,
    Reason,
    check_choices,
    choose_chips,
    pair_up,
    plan_scenes,
)
from geocyclegan.chips.commit import Cut, begin, clean_folder, commit, make_record
from geocyclegan.chips.cut import CutOptions, SceneCut, content_hash, cut_scenes
from geocyclegan.chips.geometry import Geometry
from geocyclegan.chips.layouts import check_layout, write_layout
from geocyclegan.chips.manifest import ChipRow, DomainRecord, domain_path, read_record, read_rows
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.reader import read_image
from geocyclegan.chips.survey import SceneFacts, open_pairs, open_scenes, warn_of_gsd
from geocyclegan.chips.workers import choose_workers
from geocyclegan.crew import Crew, DaskCrew
from geocyclegan.crew_check import check_crew
from geocyclegan.errors import ChipsError, NotFoundError, OptionError
from geocyclegan.files import flushing, output_lock
from geocyclegan.raster.bandfiles import told
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.sources import expand_scenes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChipReport:
    """What a chip run did to a domain.

    Attributes:
        folder: the chip folder.
        record: the domain as it is now, with all its scenes.
        scenes: scenes that were cut in this run.
        windows: their windows.
        train: training chips that this run made.
        val: validation chips that this run made.
        left_out: how many windows were left out for what.
        total_train: training chips that the domain has now.
        total_val: validation chips that the domain has now.
    """

    folder: Path
    record: DomainRecord
    scenes: int
    windows: int
    train: int
    val: int
    left_out: Counter[Reason]
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
        ClusterError: the cluster cannot be used.
    """
    paths = _expand(scenes, options)
    facts, geometry = open_scenes(paths, options, _wanted(options))
    (report,) = _run([(facts, options)], geometry)
    return report


def chip_pairs(
    scenes: Sequence[str | Path],
    partners: Sequence[str | Path],
    options: ChipOptions,
    partner_options: ChipOptions,
) -> tuple[ChipReport, ChipReport]:
    """Cut pairs of scenes into chips of the same windows of both domains, in the same split.

    Each pair is put on one grid: that of its first scene (or what `options` asks for), where the
    second one lies over it. A pixel is valid where both are.

    Args:
        scenes: scenes of one domain.
        partners: as many of the other.
        options: how to cut both.
        partner_options: what differs for the partners: domain, bands, scaling.

    Raises:
        GeoCycleGANError: see `chip_scenes`.
    """
    paths, others = _expand(scenes, options), _expand(partners, options, repeats=not options.stack)
    twice = [path for path, count in Counter(others).items() if count > 1]
    if twice:
        raise OptionError(
            f"--pair {told(twice[0])}: it is named for several scenes, and a domain has each scene"
            " once; chip them without --pair, and it by itself with --like one of them: chips of"
            " one place are pairs, too"
        )
    if len(paths) != len(others):
        raise OptionError(
            f"--pair: {len(others)} scenes for {len(paths)}; name a partner for each, in order"
        )
    both = options, partner_options
    facts, geometry = open_pairs(paths, others, both, (_wanted(options), _wanted(partner_options)))
    first, second = _run(list(zip(facts, both, strict=True)), geometry)
    return first, second


def _expand(
    scenes: Sequence[str | Path], options: ChipOptions, *, repeats: bool = False
) -> list[str]:
    paths = expand_scenes(scenes, stack=options.stack, repeats=repeats)
    if not paths:
        raise NotFoundError("no scene was named")
    for path in paths:
        for split in ("train", "val", "labels"):
            for domain in ("a", "b"):
                if Path(path).parent == (options.out / f"{split}_{domain}").resolve():
                    raise OptionError(
                        f"{path}: a chip of --out {options.out} itself; name the scenes it was cut"
                        " from"
                    )
    return paths


def _wanted(options: ChipOptions) -> Domain | None:
    old = None if options.overwrite else read_record(options.out, options.domain)
    return old.domain if old else None


@dataclass(frozen=True)
class _Job:
    """One domain of a run."""

    facts: Sequence[SceneFacts]
    options: ChipOptions
    old: DomainRecord | None
    kept: Sequence[ChipRow]
    plans: Sequence[Plan]
    found: Sequence[SceneCut]

    @property
    def named(self) -> set[str]:
        return {scene.path for scene in self.facts}

    def choices(self) -> list[Choice]:
        """Choose among the windows that passed, duplicates looked for in the domain's order."""
        place = {entry.path: i for i, entry in enumerate(self.old.scenes if self.old else ())}
        order = sorted(
            range(len(self.plans)),
            key=lambda i: place.get(self.plans[i].scene.path, len(place) + i),
        )
        known = None
        if self.options.drop_duplicates:
            contents = [(place.get(row.scene, 0), _content(self.options, row)) for row in self.kept]
            known = [
                {text for at, text in contents if at < place.get(path, len(place))}
                for path in (self.plans[i].scene.path for i in order)
            ]
        chosen = choose_chips(
            [self.plans[i] for i in order], [self.found[i].outcomes for i in order], known
        )
        by_place = dict(zip(order, chosen, strict=True))
        return [by_place[i] for i in range(len(order))]


def _content(options: ChipOptions, row: ChipRow) -> str:
    """Return the hash of a chip's pixels; one that an earlier run did not take is taken now."""
    if row.content:
        return row.content
    pixels, valid, _ = read_image(options.out / row.chip)
    return content_hash(pixels, valid)


def _run(
    domains: Sequence[tuple[Sequence[SceneFacts], ChipOptions]], geometry: Geometry
) -> list[ChipReport]:
    every = [options for _, options in domains]
    with ExitStack() as stack:
        stack.enter_context(clean_folder(every))
        for options in sorted(every, key=lambda given: given.domain):
            stack.enter_context(output_lock(domain_path(options.out, options.domain)))
        crew = None
        if every[0].cluster is not None:
            crew = stack.enter_context(DaskCrew(every[0].cluster))
        jobs = [_cut(facts, options, geometry, crew) for facts, options in domains]
        chosen = [job.choices() for job in jobs]
        if len(jobs) == 2:
            chosen = list(pair_up(*chosen))
        totals = []
        for job, choices in zip(jobs, chosen, strict=True):
            check_choices(job.plans, choices, job.options)
            totals.append(_count(job, choices))
        ready = []
        for job, choices in zip(jobs, chosen, strict=True):
            cuts = {
                plan.scene.id: Cut(plan.scene, choice, found.statistics)
                for plan, choice, found in zip(job.plans, choices, job.found, strict=True)
                if choice.chips
            }
            ready.append((make_record(job.old, job.named, cuts, geometry, job.options), cuts))
        # From here on the folder changes.
        for job, (record, cuts) in zip(jobs, ready, strict=True):
            commit(record, job.old, job.named, cuts, job.options)
        for job in jobs:
            if job.options.layout is not None:
                write_layout(job.options.out, job.options.domain, job.options.layout)
    return [
        _report(job, record, choices, total)
        for job, (record, _), choices, total in zip(jobs, ready, chosen, totals, strict=True)
    ]


def _cut(
    facts: Sequence[SceneFacts], options: ChipOptions, geometry: Geometry, crew: Crew | None
) -> _Job:
    old = None if options.overwrite else read_record(options.out, options.domain)
    if old is not None:
        _refuse_contradiction(old, facts, geometry, options)
    named = {scene.path for scene in facts}
    kept = [
        row
        for row in read_rows(options.out)
        if row.domain == options.domain and row.scene not in named and not options.overwrite
    ]
    if options.layout is not None:
        has_files = not options.virtual and options.format == "tif"
        check_layout(options.layout, facts[0].domain, has_files=has_files)
    plans = plan_scenes(facts, geometry, options, known={row.split for row in kept})
    workers: int | Crew = choose_workers(options.workers, sum(plan.scene.samples for plan in plans))
    cutting = begin(options)
    if crew is not None:
        workers = crew
        # Workers have other working folders.
        cutting = cutting.absolute()
        files = {file for scene in facts for file in (*scene.source.files(), scene.labels) if file}
        check_crew(crew, sorted(files), [] if options.virtual else [str(cutting)])
    how = CutOptions(
        None if options.virtual else cutting,
        options.min_valid,
        options.min_std,
        content=options.virtual or options.drop_duplicates,
        codec=options.compress,
        is_npy=options.format == "npy",
    )
    step = geometry.size if geometry.random is not None else geometry.step
    with flushing(cutting):
        found = cut_scenes(plans, step, how, workers)
    return _Job(facts, options, old, kept, plans, found)


def _refuse_contradiction(
    old: DomainRecord, facts: Sequence[SceneFacts], geometry: Geometry, options: ChipOptions
) -> None:
    where = f"domain {options.domain} in {options.out}"
    remedy = "replace the domain with --overwrite or choose another --out"
    if old.size != geometry.size:
        raise OptionError(
            f"--size {options.size}: {where} has chips of {old.size} px; give --size {old.size},"
            f" {remedy}"
        )
    if old.scale != str(options.scale):
        raise OptionError(
            f"--scale {options.scale}: {where} is scaled by {old.scale}; give --scale {old.scale},"
            f" {remedy}"
        )
    if old.shared_scale != options.shared_scale:
        there, verb = (
            ("one scaling", "give") if old.shared_scale else ("a scaling each", "leave out")
        )
        raise OptionError(
            f"--shared-scale: {where} has {there} for its bands; {verb} --shared-scale, {remedy}"
        )
    nodata, ours = old.domain.undeclared, facts[0].domain.undeclared
    if nodata != ours:
        kept = "leave out --nodata" if nodata is None else f"give --nodata {nodata:.9g}"
        there = "no such value" if nodata is None else f"{nodata:.9g} for it"
        raise OptionError(
            f"--nodata {'(none)' if ours is None else f'{ours:.9g}'}: {where} has {there}; {kept},"
            f" {remedy}"
        )
    if old.virtual != options.virtual:
        raise OptionError(
            f"--virtual: {where} is {'virtual' if old.virtual else 'a set of files'};"
            f" {'give' if old.virtual else 'leave out'} --virtual, {remedy}"
        )
    unlike = difference(old.domain, facts[0].domain)
    if unlike is not None:
        raise OptionError(
            f"{told(facts[0].path)}: it has {unlike[1]}, {where} has {unlike[0]}; choose bands with"
            f" --bands, {remedy}"
        )
    warn_of_gsd(old.domain, facts[0])


def _count(job: _Job, choices: Sequence[Choice]) -> tuple[int, int]:
    """Return how many training and validation chips the domain will have."""
    splits = Counter[str](row.split for row in job.kept)
    splits += _splits(choices)
    if not splits["train"]:
        raise ChipsError(
            f"no training chip: all {splits['val']} windows that pass the filters lie in validation"
            " blocks; use --val 0 or another --seed"
        )
    if job.options.val > 0 and not splits["val"]:
        log.warning(
            "no validation chip: the scenes are too small, or too little of them is valid, to set"
            " a block aside"
        )
    return splits["train"], splits["val"]


def _splits(choices: Iterable[Choice]) -> Counter[str]:
    return Counter(chip.plan.split or "" for choice in choices for chip in choice.chips)


def _report(
    job: _Job, record: DomainRecord, choices: Sequence[Choice], total: tuple[int, int]
) -> ChipReport:
    splits = _splits(choices)
    return ChipReport(
        folder=job.options.out,
        record=record,
        scenes=len(
            {
                plan.scene.path
                for plan, choice in zip(job.plans, choices, strict=True)
                if choice.chips
            }
        ),
        windows=sum(choice.windows for choice in choices),
        train=splits["train"],
        val=splits["val"],
        left_out=sum((choice.left_out for choice in choices), Counter[Reason]()),
        total_train=total[0],
        total_val=total[1],
    )
