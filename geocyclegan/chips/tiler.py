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

import numpy as np

from geocyclegan.chips.agree import refuse_contradiction
from geocyclegan.chips.apart import View, split_views
from geocyclegan.chips.choose import (
    Choice,
    CutChip,
    Plan,
    Reason,
    check_choices,
    choose_chips,
    pair_up,
    plan_scenes,
    warn_of_share,
)
from geocyclegan.chips.commit import Cut, begin, clean_folder, commit, make_record, split_lock
from geocyclegan.chips.cut import CutOptions, SceneCut, content_hash, cut_scenes
from geocyclegan.chips.geometry import Geometry
from geocyclegan.chips.known import known_ground
from geocyclegan.chips.layouts import check_layout, write_layout
from geocyclegan.chips.manifest import ChipRow, DomainRecord, domain_path, read_record, read_rows
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.reader import read_image
from geocyclegan.chips.split import TRAIN, VAL, Split, Tally
from geocyclegan.chips.survey import SceneFacts, open_pairs, open_scenes
from geocyclegan.chips.workers import choose_workers
from geocyclegan.crew import Crew, DaskCrew
from geocyclegan.crew_check import check_crew
from geocyclegan.errors import ChipsError, NotFoundError, OptionError
from geocyclegan.files import flushing, output_lock
from geocyclegan.raster.bandfiles import told
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.inputs import Inputs
from geocyclegan.raster.opening import require_unchanged
from geocyclegan.raster.sources import Synthetic, expand_scenes

log = logging.getLogger(__name__)

_SIDES = {"train": TRAIN, "val": VAL}


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
    paths = _expand(scenes, options, "alone")
    _refuse_inputs(paths, options)
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
    # Those that are named are named in order.
    paths = _expand(scenes, options, "named")
    others = _expand(partners, options, "named", repeats=not options.stack)
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
    _refuse_inputs([*paths, *others], options)
    both = options, partner_options
    facts, geometry = open_pairs(paths, others, both, (_wanted(options), _wanted(partner_options)))
    first, second = _run(list(zip(facts, both, strict=True)), geometry)
    return first, second


def _expand(
    scenes: Sequence[str | Path],
    options: ChipOptions,
    synthetic: Synthetic,
    *,
    repeats: bool = False,
) -> list[str]:
    paths = expand_scenes(scenes, stack=options.stack, repeats=repeats, synthetic=synthetic)
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


def _refuse_inputs(scenes: Sequence[str], options: ChipOptions) -> None:
    """Refuse to replace what is read, such as chips that a VRT of them is made of.

    Raises:
        OptionError: something lies in a folder of chips of the output.
    """
    layers = (*options.mask, *options.labels, *options.balance)
    grids = () if options.like is None else (options.like,)
    areas = tuple(path for path in (options.aoi, options.exclude) if path is not None)
    folders = [f"{part}_{name}" for part in ("train", "val", "labels") for name in ("a", "b")]
    folders += [] if options.layout is None else [options.layout]
    Inputs((*scenes, *layers, *grids), areas).refuse_below("out", options.out, tuple(folders))


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

    def views(self, partner: _Job | None) -> list[View]:
        """Return the scenes with the windows that passed, in the partner of a pair, too."""
        found = []
        for i, (plan, cut) in enumerate(zip(self.plans, self.found, strict=True)):
            passed = [isinstance(outcome, CutChip) for outcome in cut.outcomes]
            if partner is not None:
                theirs = partner.found[i].outcomes
                passed = [
                    ours and isinstance(other, CutChip)
                    for ours, other in zip(passed, theirs, strict=True)
                ]
            found.append(
                View(
                    plan.scene,
                    np.array([chip.window.row for chip in plan.chips], np.int64),
                    np.array([chip.window.col for chip in plan.chips], np.int64),
                    np.array(passed, np.bool_),
                )
            )
        return found

    def choices(self, splits: Sequence[Split]) -> list[Choice]:
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
            [self.plans[i] for i in order],
            [self.found[i].outcomes for i in order],
            [splits[i] for i in order],
            known,
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
        # The other domain may be chipped at the same time: which ground is whose is settled by one
        # after the other.
        stack.enter_context(split_lock(every[0].out))
        splits, is_bound = _split(jobs, geometry)
        chosen = [job.choices(split) for job, split in zip(jobs, splits, strict=True)]
        if len(jobs) == 2:
            chosen = list(pair_up(*chosen))
        totals = []
        for job, choices in zip(jobs, chosen, strict=True):
            check_choices(job.plans, choices, job.options)
            totals.append(_count(job, choices, is_bound=is_bound))
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


def _split(jobs: Sequence[_Job], geometry: Geometry) -> tuple[list[list[Split]], bool]:
    """Return TRAIN, VAL or DROPPED for each planned chip of each scene of each domain.

    And whether chips that stay had a say in it.
    """
    out = jobs[0].options.out
    named = {job.options.domain: job for job in jobs}

    def stays(row: ChipRow) -> bool:
        job = named.get(row.domain)
        return job is None or (row.scene not in job.named and not job.options.overwrite)

    known = known_ground(out, read_rows(out), stays)
    before = Tally()
    for job in jobs:
        before = before.plus(np.array([_SIDES[row.split] for row in job.kept], np.uint8))
    before = before.owing(geometry.val)
    partners = reversed(jobs) if len(jobs) == 2 else [None]
    views = [job.views(partner) for job, partner in zip(jobs, partners, strict=True)]
    splits = iter(split_views([v for each in views for v in each], geometry, known, before))
    return [[next(splits) for _ in each] for each in views], bool(known)


def _cut(
    facts: Sequence[SceneFacts], options: ChipOptions, geometry: Geometry, crew: Crew | None
) -> _Job:
    old = None if options.overwrite else read_record(options.out, options.domain)
    if old is not None:
        refuse_contradiction(old, facts, geometry, options)
    named = {scene.path for scene in facts}
    kept = [
        row
        for row in read_rows(options.out)
        if row.domain == options.domain and row.scene not in named and not options.overwrite
    ]
    if options.layout is not None:
        has_files = not options.virtual and options.format == "tif"
        check_layout(options.layout, facts[0].domain, has_files=has_files)
    plans = plan_scenes(facts, geometry, options)
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
    require_unchanged(dict.fromkeys(file for scene in facts for file in scene.source.files()))
    return _Job(facts, options, old, kept, plans, found)


def _count(job: _Job, choices: Sequence[Choice], *, is_bound: bool) -> tuple[int, int]:
    """Return how many training and validation chips the domain will have."""
    splits = Counter[str](row.split for row in job.kept)
    splits += _splits(choices)
    if not splits["train"]:
        raise ChipsError(
            f"no training chip: all {splits['val']} windows that pass the filters lie on ground"
            f" that {job.options.out} has shown for validation; name scenes that show more, or"
            " choose another --out"
        )
    warn_of_share(splits["train"], splits["val"], choices, job.options, is_bound=is_bound)
    return splits["train"], splits["val"]


def _splits(choices: Iterable[Choice]) -> Counter[str]:
    return Counter(chip.split or "" for choice in choices for chip in choice.chips)


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
