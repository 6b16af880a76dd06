"""The scenes of a run: how each is looked at, and whether they are alike.

Nothing is written here, and no pixel read.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from geocyclegan.chips.alike import can_repack, describe, difference, packing
from geocyclegan.chips.geometry import Geometry
from geocyclegan.chips.naming import scene_id
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.source import ClassMask, OpenSource, Packing, Source, open_classes
from geocyclegan.errors import OptionError, SceneError
from geocyclegan.raster.bandfiles import told
from geocyclegan.raster.bands import taken_by_place
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.sources import expand_scenes
from geocyclegan.raster.stack import open_scene
from geocyclegan.raster.target import (
    joint_grid,
    parse_crs,
    parse_res,
    regrid,
    shared_window,
    turned,
)
from geocyclegan.raster.undeclared import undeclared_value

log = logging.getLogger(__name__)

_GSD_TOLERANCE = 0.1


@dataclass(frozen=True)
class SceneFacts:
    """What is known of a scene once it was opened; can be sent to other processes.

    Attributes:
        id: name in chip names.
        source: how it is looked at.
        domain: what the scene would make of the domain; radiometry not fitted.
        grid: the grid on which it is seen.
        block: rows and columns of its blocks.
        labels: a raster to cut alongside, or None.
        base: the grid that `grid` was turned from, where scenes are cut at angles.
        balance: a raster of classes that windows are drawn evenly from, or None.
    """

    id: str
    source: Source
    domain: Domain
    grid: Grid
    block: tuple[int, int]
    labels: str | None
    base: Grid | None = None
    balance: str | None = None

    @property
    def path(self) -> str:
        """Absolute path, URL or sub-dataset name."""
        return self.source.path

    @property
    def samples(self) -> int:
        """Pixels times bands."""
        return self.grid.height * self.grid.width * self.domain.count


def open_scenes(
    paths: Sequence[str], options: ChipOptions, wanted: Domain | None
) -> tuple[list[SceneFacts], Geometry]:
    """Open all scenes and check that they belong to one domain.

    Args:
        paths: the scenes.
        options: how to look at them.
        wanted: the domain that they are added to, if there is one.

    Raises:
        NotFoundError, SceneError, OptionError: one cannot be used, or two are not alike.
    """
    layers = _layers(options, len(paths))
    views = []
    for path, layer in zip(paths, layers, strict=True):
        with gdal_env(), open_scene(path, options.bands, amplitude=options.amplitude) as scene:
            source = Source(
                path,
                tuple(band.index for band in scene.bands),
                options.amplitude,
                _target(scene, options),
                options.resampling,
                masks=layer.masks,
                undeclared=undeclared_value(options.nodata, scene.bands, told(scene.path)),
                unit=_unit(options.unit, scene, "unit"),
            )
            own = scene.grid
        views += [_View(seen, layer, base) for seen, base in _turn(source, own, options)]
    return _facts(views, options, wanted)


def open_pairs(
    paths: Sequence[str],
    partners: Sequence[str],
    options: tuple[ChipOptions, ChipOptions],
    wanted: tuple[Domain | None, Domain | None],
) -> tuple[tuple[list[SceneFacts], list[SceneFacts]], Geometry]:
    """Open pairs of scenes, each on one grid: that of the first, where the second lies over it.

    Raises:
        NotFoundError, SceneError, OptionError: see `open_scenes`; or two do not overlap.
    """
    layers = _layers(options[0], len(paths))
    views: tuple[list[_View], list[_View]] = ([], [])
    for path, partner, layer in zip(paths, partners, layers, strict=True):
        pair = []
        with (
            gdal_env(),
            open_scene(path, options[0].bands, amplitude=options[0].amplitude) as first,
            open_scene(partner, options[1].bands, amplitude=options[1].amplitude) as second,
        ):
            grid = joint_grid(
                _target(first, options[0]) or first.grid, second.grid, (path, partner)
            )
            both = (
                (first, options[0], layer.masks, ""),
                (second, options[1], (), "pair-"),
            )
            for scene, given, own, option in both:
                bands = tuple(band.index for band in scene.bands)
                where = told(scene.path)
                undeclared = undeclared_value(given.nodata, scene.bands, where, f"{option}nodata")
                source = Source(
                    *(scene.path, bands, given.amplitude, grid, given.resampling),
                    masks=own,
                    undeclared=undeclared,
                    unit=_unit(given.unit, scene, f"{option}unit"),
                )
                pair.append(_turn(source, grid, options[0]))
        for (ours, base), (theirs, _) in zip(*pair, strict=True):
            views[0].append(_View(ours.with_partner(theirs), layer, base))
            # Both have the same windows, so those are drawn from the same classes.
            same = _Layers(balance=layer.balance)
            views[1].append(_View(theirs.with_partner(ours), same, base))
    first_facts, geometry = _facts(views[0], options[0], wanted[0])
    second_facts, _ = _facts(views[1], options[1], wanted[1])
    return (first_facts, second_facts), geometry


def _unit(wanted: str | None, scene: Scene, option: str) -> str | None:
    """Return the unit of a scene's numbers where its file states none.

    Raises:
        OptionError: its file states another.
    """
    if wanted is None:
        return None
    for band in scene.bands:
        if band.unit and band.unit.strip().casefold() != wanted.strip().casefold():
            raise OptionError(
                f"--{option} {wanted}: {told(scene.path)} states {band.unit} for band {band.index};"
                f" leave --{option} out"
            )
    return wanted.strip()


@dataclass(frozen=True)
class _Layers:
    """Rasters that go with a scene."""

    masks: tuple[ClassMask, ...] = ()
    labels: str | None = None
    balance: str | None = None


@dataclass(frozen=True)
class _View:
    """A scene at one angle; `base` is the grid that it was turned from, if chips are cut at any."""

    source: Source
    layers: _Layers
    base: Grid | None


def _turn(source: Source, own: Grid, options: ChipOptions) -> list[tuple[Source, Grid | None]]:
    """Return a scene at each angle, and the grid before it was turned."""
    if options.angles == (0.0,):
        return [(source, None)]
    base = source.grid or own
    return [
        (replace(source, grid=turned(base, angle)) if angle % 360.0 else source, base)
        for angle in options.angles
    ]


def _layers(options: ChipOptions, count: int) -> list[_Layers]:
    """Return the rasters that go with each scene."""

    def spread(option: str, given: Sequence[str]) -> list[str | None]:
        if not given:
            return [None] * count
        files = expand_scenes(given, repeats=True)
        if len(files) not in (1, count):
            raise OptionError(
                f"--{option}: {len(files)} files for {count} scenes; name one for all, or one for"
                " each in the order of the scenes"
            )
        return [*files] * (count if len(files) == 1 else 1)

    masks, labels, balance = (
        spread(option, given)
        for option, given in (
            ("mask", options.mask),
            ("labels", options.labels),
            ("balance", options.balance),
        )
    )
    return [
        _Layers(() if mask is None else (ClassMask(mask, options.mask_values),), label, classes)
        for mask, label, classes in zip(masks, labels, balance, strict=True)
    ]


def _target(scene: Scene, options: ChipOptions) -> Grid | None:
    """Return the grid that a scene is put on, None for its own."""
    if options.like is not None:
        (like,) = _one_of(options.like)
        with open_scene(like, classes=True, amplitude=True) as other:
            grid = other.grid
        if grid == scene.grid:
            return None
        try:
            under = shared_window(scene.grid, grid)
        except SceneError as error:
            raise SceneError(f"{told(scene.path)}: {error}") from error
        if under is None:
            raise SceneError(
                f"{told(scene.path)}: it does not overlap with --like {like}; leave it out"
            )
        return grid
    if options.crs is None and options.res is None:
        return None
    crs = None if options.crs is None else parse_crs(options.crs)
    res = None if options.res is None else parse_res(options.res)
    grid = regrid(scene.grid, crs, res, scene.path)
    return None if grid == scene.grid else grid


def _one_of(like: str) -> list[str]:
    found = expand_scenes([like])
    if len(found) != 1:
        raise OptionError(f"--like {like}: {len(found)} rasters; name the one whose grid it is")
    return found


def _facts(
    views: Sequence[_View], options: ChipOptions, wanted: Domain | None
) -> tuple[list[SceneFacts], Geometry]:
    facts: list[SceneFacts] = []
    opened = []
    for view in views:
        with gdal_env():
            seen, domain, grid, block = _look(view.source, wanted)
            _check_layers(view, grid)
        if wanted is None:
            wanted = domain
        opened.append((seen, domain, grid, block, view))
    geometry = options.geometry([(source.path, grid) for source, _, grid, _, _ in opened])
    for source, domain, grid, block, view in opened:
        place = [] if source.grid is None else [str(source.grid.transform), source.grid.shape]
        name = scene_id(source.path, geometry.size, *source.bands, domain.dtype, *place)
        layers = view.layers
        found = SceneFacts(
            name, source, domain, grid, block, layers.labels, view.base, layers.balance
        )
        if facts:
            unlike = difference(facts[0].domain, found.domain)
            if unlike is not None:
                raise SceneError(
                    f"scenes of one domain must be alike: {told(facts[0].path)} has {unlike[0]},"
                    f" {told(found.path)} has {unlike[1]}; choose bands with --bands or chip them"
                    " into different domains"
                )
            warn_of_gsd(facts[0].domain, found)
        facts.append(found)
    if wanted is not None and options.bands is None:
        _warn_of_places(wanted, facts)
    return facts, geometry


def _warn_of_places(wanted: Domain, facts: Sequence[SceneFacts]) -> None:
    """Say so once if bands are told apart by their place alone, in some scenes or in the others."""
    found: dict[str, str] = {}
    for scene in facts:
        if scene.domain.count == wanted.count:
            text = taken_by_place(wanted.names, scene.domain.names, "scenes before it")
            found |= {} if text is None else {scene.path: text}
    if found:
        path, text = next(iter(found.items()))
        more = f"; so it is with {len(found) - 1} more" if len(found) > 1 else ""
        log.warning("%s: %s%s", told(path), text, more)


def _check_layers(view: _View, grid: Grid) -> None:
    """Make sure of the rasters that go with a scene before anything is written."""
    layers = [("mask", mask.path) for mask in view.source.masks]
    layers += [
        (option, path)
        for option, path in (("labels", view.layers.labels), ("balance", view.layers.balance))
        if path is not None
    ]
    for option, path in layers:
        with open_classes(path, grid) as classes:
            under = shared_window(classes.scene.grid, grid)
        if under is None:
            raise OptionError(
                f"--{option} {path}: it does not overlap with {told(view.source.path)}; name the"
                " raster of that place"
            )


def _look(source: Source, wanted: Domain | None) -> tuple[Source, Domain, Grid, tuple[int, int]]:
    """Open a source; where its numbers mean others than those wanted, have them turned."""
    with source.open() as scene:
        domain, grid, block = _describe(scene, source), scene.grid, scene.block_shape
    if wanted is None or not can_repack(wanted, domain):
        return source, domain, grid, block
    log.info(
        "%s: its stored numbers are turned into those of the domain, by their scales and offsets",
        source.path,
    )
    source = replace(source, packing=Packing(packing(wanted), wanted.dtype, wanted.nodata))
    with source.open() as scene:
        return source, _describe(scene, source), grid, block


def _describe(scene: OpenSource, source: Source) -> Domain:
    return replace(describe(scene), undeclared=source.undeclared)


def warn_of_gsd(domain: Domain, scene: SceneFacts) -> None:
    """Warn if a scene's pixels differ in size from the domain's, since its objects would, too."""
    if _differ(domain.gsd, scene.domain.gsd):
        log.warning(
            "%s: its pixels measure %.3g m, those of the domain %.3g m; a model learns both sizes"
            " as one; --res brings scenes to one",
            told(scene.path),
            scene.domain.gsd,
            domain.gsd,
        )


def warn_of_domains(ours: Domain, theirs: Domain, folder: Path) -> None:
    """Warn if the pixels of the two domains differ in size."""
    if _differ(ours.gsd, theirs.gsd):
        log.warning(
            "%s: pixels of one domain measure %.3g m, of the other %.3g m; products keep the size"
            " of their scene, so objects change size; --res brings both to one",
            folder,
            ours.gsd,
            theirs.gsd,
        )


def _differ(ours: float | None, theirs: float | None) -> bool:
    return bool(ours and theirs and abs(theirs / ours - 1.0) > _GSD_TOLERANCE)
