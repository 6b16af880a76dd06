"""What all recipes share: the listing, the dry run, the options, and the way into chips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from data_prep.masks import bit_mask
from data_prep.stacks import Band, write_stack
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.tiler import ChipReport, chip_pairs, chip_scenes
from geocyclegan.cli.chipped import following, summary
from geocyclegan.cli.endings import one_line
from geocyclegan.errors import ChipsError, NotFoundError, OptionError
from geocyclegan.progress import ProgressKind, set_progress
from geocyclegan.raster.radiometry import ScaleSpec

_LISTED = 20


@dataclass(frozen=True)
class Stack:
    """A scene made of files of one band each.

    Attributes:
        name: file name of the virtual raster, without suffix.
        bands: its bands in order.
    """

    name: str
    bands: tuple[Band, ...]

    @classmethod
    def named(cls, path: Path, names: Sequence[str]) -> Stack:
        """Return a file whose bands have no names, with these."""
        bands = (Band(name, path, index) for index, name in enumerate(names, start=1))
        return cls(path.stem, tuple(bands))


@dataclass(frozen=True)
class Made:
    """A scene that has to be written first.

    Attributes:
        name: file name, with suffix.
        files: what it is made of, for the listing.
        write: writes it to a path and returns that.
    """

    name: str
    files: tuple[Path, ...]
    write: Callable[[Path], Path]


Scene = Path | Stack | Made


@dataclass(frozen=True)
class Mask:
    """Classes of a raster that make pixels invalid.

    Attributes:
        path: the raster, on any grid.
        values: the classes; empty if `bits` says it.
        bits: bits, from 0, of which one set is enough.
    """

    path: Path
    values: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()


@dataclass(frozen=True)
class Item:
    """One place, or one acquisition.

    Attributes:
        name: what the listing calls it.
        a: its scene of the first domain.
        b: its scene of the second domain, None for products of one domain.
        mask: pixels to leave out.
        labels: classes to cut alongside the first domain.
    """

    name: str
    a: Scene
    b: Scene | None = None
    mask: Mask | None = None
    labels: Scene | None = None


@dataclass(frozen=True)
class Found:
    """What lies in a folder.

    Attributes:
        items: what is complete, in order.
        missing: a line for each thing that is not.
    """

    items: tuple[Item, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A public data set or product.

    Attributes:
        title: its name, and what it is.
        layout: what the folder looks like as downloaded, an example for each file.
        find: looks into a folder; the options of `options` are its keywords.
        size: default side of a chip in pixels.
        scales: how the radiometry of the first and the second domain is fitted.
        paired: the second domain shows the same ground, so both are put on one grid.
        options: click options of its own.
    """

    title: str
    layout: str
    find: Callable[..., Found]
    size: int = 256
    scales: tuple[str, str] = ("auto", "auto")
    paired: bool = True
    options: Sequence[Callable[[Any], Any]] = field(default_factory=tuple)


class RecipeCommand(click.Command):
    """Ends in one line where the package does."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; an error that a user can meet becomes one line and an exit code."""
        with one_line(ctx):
            return super().invoke(ctx)


def recipe_command(recipe: Recipe, name: str) -> click.Command:
    """Make the command line of a recipe.

    Args:
        recipe: what it prepares.
        name: its module.
    """

    def run(
        root: Path, dry_run: bool, domain: str, limit: int | None, debug: bool,
        progress: ProgressKind,
        **given: Any,
    ) -> None:  # fmt: skip
        keywords = {option: given.pop(option) for option in list(given) if option not in _CHIP}
        if not root.is_dir():
            raise NotFoundError(f"{root}: no such folder; expected {recipe.layout.splitlines()[0]}")
        found = recipe.find(root, **keywords)
        if not found.items:
            raise ChipsError(_nothing(recipe, root, found))
        if limit is not None:
            found = replace(found, items=found.items[:limit])
        if dry_run:
            click.echo(listing(found, root))
            return
        for line in found.missing[:_LISTED]:
            click.echo(f"left out: {line}", err=True)
        set_progress(progress)
        report, last = prepare(recipe, found, domain, given)
        for text in report:
            click.echo(text)
        click.echo(last)

    for decorate in reversed([*_shared(recipe.size), *recipe.options]):
        run = decorate(run)
    examples = (
        f"    python -m data_prep.{name} FOLDER --dry-run\n"
        f"    python -m data_prep.{name} FOLDER --out chips"
    )
    text = f"{recipe.title}\n\n\b\n{recipe.layout}\n\n\b\n{examples}"
    return click.command(name, cls=RecipeCommand, help=text)(run)


def _shared(size: int) -> list[Callable[[Any], Any]]:
    """The arguments that all recipes take."""
    domain, progress = click.Choice(["a", "b"]), click.Choice(["bar", "json", "none"])
    folder, count = click.Path(path_type=Path), click.IntRange(min=1)

    def option(name: str, text: str, **given: Any) -> Callable[[Any], Any]:
        shown = given.get("default") is not None
        return click.option(name, help=text, show_default=shown, **given)

    return [
        click.argument("root", metavar="FOLDER", type=folder),
        option("--out", "The chip folder.", type=folder, default=Path("chips")),
        option("--dry-run", "List what is there and what is missing, and stop.", is_flag=True),
        option("--domain", "Which domain the first scenes become.", type=domain, default="a"),
        option("--size", "Side of a chip in pixels.", type=int, default=size),
        option("--val", "Share of the chips to validate with.", type=float, default=0.1),
        option("--min-valid", "Least share of valid pixels of a chip.", type=float, default=0.9),
        option("--limit", "Take the first N only.", type=count, metavar="N"),
        option("--virtual", "Write no chips, only the list of them.", is_flag=True),
        option("--workers", "Processes.", type=count),
        option("--overwrite", "Replace the domains that --out holds.", is_flag=True),
        option("--progress", "How progress is shown.", type=progress, default="bar"),
        option("--debug", "Show tracebacks.", is_flag=True),
    ]


_CHIP = ("out", "size", "val", "min_valid", "virtual", "workers", "overwrite")


def prepare(
    recipe: Recipe, found: Found, domain: str, given: Mapping[str, Any]
) -> tuple[list[str], str]:
    """Chip what was found.

    Args:
        recipe: what it is.
        found: its scenes.
        domain: "a" or "b", that of the first scenes.
        given: options of `ChipOptions`.

    Returns:
        A line for each domain, and what to do next.

    Raises:
        GeoCycleGANError: see `chip_scenes`.
    """
    out: Path = given["out"]
    folder = out / "sources"
    masked = [item for item in found.items if item.mask is not None]
    if masked and len(masked) < len(found.items):
        raise OptionError(
            f"{found.items[0].name}: some scenes have a mask of clouds and some have none; prepare"
            " them apart"
        )
    labelled = [item.labels for item in found.items if item.labels is not None]
    if given.get("virtual"):
        labelled = []
    masks, values = _masks([item.mask for item in masked if item.mask is not None], folder)
    options = ChipOptions(
        domain="a" if domain == "a" else "b",
        scale=ScaleSpec.parse(recipe.scales[0]),
        mask=masks,
        mask_values=values,
        labels=tuple(str(realised(labels, folder)) for labels in labelled),
        **given,
    )
    firsts = [realised(item.a, folder) for item in found.items]
    seconds = [realised(item.b, folder) for item in found.items if item.b is not None]
    if not seconds:
        reports: tuple[ChipReport, ...] = (chip_scenes(firsts, options),)
    else:
        other = replace(
            options,
            domain="b" if domain == "a" else "a",
            scale=ScaleSpec.parse(recipe.scales[1]),
            mask=(),
            mask_values=None,
            labels=(),
        )
        if recipe.paired:
            reports = chip_pairs(firsts, seconds, options, other)
        else:
            reports = (chip_scenes(firsts, options), chip_scenes(seconds, other))
    domains = [options.domain] if not seconds else [options.domain, other.domain]
    lines = [summary(report, name) for report, name in zip(reports, domains, strict=True)]
    return lines, following(reports[-1], domains[-1])


def realised(scene: Scene, folder: Path) -> Path:
    """Return the path of a scene, which is written into `folder` first if it is no file yet."""
    if isinstance(scene, Stack):
        return write_stack(folder / f"{scene.name}.vrt", scene.bands)
    if isinstance(scene, Made):
        folder.mkdir(parents=True, exist_ok=True)
        return scene.write(folder / scene.name)
    return scene


def _masks(masks: Sequence[Mask], folder: Path) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    if not masks:
        return (), None
    if masks[0].values:
        return tuple(str(mask.path) for mask in masks), masks[0].values
    made = [bit_mask(mask.path, mask.bits, folder / f"{mask.path.stem}_mask.tif") for mask in masks]
    return tuple(map(str, made)), (1,)


def listing(found: Found, root: Path) -> str:
    """Return what a dry run prints: each item with its files, then what is missing."""
    lines = []
    for item in found.items[:_LISTED]:
        lines.append(item.name)
        for role, scene in (("first", item.a), ("second", item.b), ("labels", item.labels)):
            if scene is not None:
                lines.append(f"  {role}: {_described(scene, root)}")
        if item.mask is not None:
            lines.append(f"  mask: {_relative(item.mask.path, root)}")
    if len(found.items) > _LISTED:
        lines.append(f"... and {len(found.items) - _LISTED} more")
    lines += [f"missing: {line}" for line in found.missing[:_LISTED]]
    if len(found.missing) > _LISTED:
        lines.append(f"... and {len(found.missing) - _LISTED} more are missing")
    lines.append(f"{len(found.items)} complete, {len(found.missing)} incomplete")
    return "\n".join(lines)


def _described(scene: Scene, root: Path) -> str:
    if isinstance(scene, Path):
        return _relative(scene, root)
    if isinstance(scene, Made):
        return f"{scene.name}, made of {', '.join(_relative(file, root) for file in scene.files)}"
    names = ", ".join(band.name for band in scene.bands)
    first = scene.bands[0].path
    together = first if len({band.path for band in scene.bands}) == 1 else first.parent
    return f"{_relative(together, root)}: {names}"


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _nothing(recipe: Recipe, root: Path, found: Found) -> str:
    if found.missing:
        more = f" (and {len(found.missing) - 1} more like it)" if len(found.missing) > 1 else ""
        return f"{root}: nothing complete in it: {found.missing[0]}{more}"
    expected = "; ".join(line.strip() for line in recipe.layout.splitlines() if line.strip())
    return f"{root}: nothing of this layout in it; expected {expected}"


def pairs_by_key(
    firsts: Mapping[str, Path], seconds: Mapping[str, Path], names: tuple[str, str]
) -> tuple[list[tuple[str, Path, Path]], list[str]]:
    """Match files by what their names share.

    Args:
        firsts: files of the first kind by key.
        seconds: files of the second kind by key.
        names: what the kinds are called.

    Returns:
        Key and both files of each pair, sorted; and a line for each that has no partner.
    """
    both = sorted(firsts.keys() & seconds.keys())
    missing = [
        f"{kinds[0][key]}: no {name} beside it"
        for kinds, name in (((firsts, seconds), names[1]), ((seconds, firsts), names[0]))
        for key in sorted(kinds[0].keys() - kinds[1].keys())
    ]
    return [(key, firsts[key], seconds[key]) for key in both], missing
