"""`geocyclegan info`: what a scene, a chip folder or a model is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geocyclegan.cli.options import Settings, bands_option, nodata_option, overwrite_option

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from geocyclegan.chips.reader import ChipSet
    from geocyclegan.cli.facts import Facts
    from geocyclegan.errors import SceneError

    Image = npt.NDArray[np.uint8]

# Enough pixels for a look; statistics are told to be those of a sample.
_SAMPLE_SIDE = 1024
_SHEET_CHIPS = 8


@click.command("info")
@click.argument("path", metavar="SCENE|CHIPS|MODEL")
@click.option(
    "--quicklook",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PNG",
    help="Draw a scene, or a sheet of chips, into this file.",
)
@click.option(
    "--histogram",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PNG",
    help="Draw the histogram of each band into this file: of all valid pixels of a chipped domain,"
    " of a sample of a scene; percentiles are marked.",
)
@bands_option
@nodata_option
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON, for other programs.")
@overwrite_option
@click.pass_obj
def command(
    settings: Settings | None,
    /,
    path: str,
    quicklook: Path | None,
    histogram: Path | None,
    bands: tuple[str, ...] | None,
    nodata: float | None,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Show what a scene, a chip folder or a model is.

    A SCENE is anything that chip takes; its values are those of a sample. CHIPS is a folder that
    chip made or of one of the layouts that train accepts. MODEL is a run or bundle folder.

    \b
        geocyclegan info sar.tif --quicklook sar.png
        geocyclegan info chips
        geocyclegan info sar.tif --json
        geocyclegan info runs/spain
    """  # noqa: D301 - click reads the backspace character
    from geocyclegan.errors import SceneError
    from geocyclegan.raster.picture import save_png

    _refuse_for_folders(path, bands, nodata)
    pictures = {"quicklook": quicklook, "histogram": histogram}
    for option, file in pictures.items():
        if file is not None:
            _refuse_picture(option, file, path, overwrite)
    draw, count = quicklook is not None, histogram is not None
    facts, image, bars = look(path, bands, nodata, draw=draw, count=count)
    if facts["kind"] != "model":
        facts |= {name: None if file is None else str(file) for name, file in pictures.items()}
    if not as_json:
        click.echo("\n".join(_LINES[facts["kind"]](facts)))
    if quicklook is not None:
        if image is None:
            raise SceneError(f"--quicklook: {path} has no valid pixel to draw")
        save_png(quicklook, image)
    if histogram is not None:
        if bars is None:
            raise SceneError(f"--histogram: {path} has no valid pixel to count")
        save_png(histogram, bars)
    if as_json:
        click.echo(json.dumps(facts, indent=2, allow_nan=False, ensure_ascii=False))
        return
    for name, file in (("quick-look", quicklook), ("histogram", histogram)):
        if file is not None:
            click.echo(f"{name}: {file}")


def _refuse_for_folders(path: str, bands: Sequence[str] | None, nodata: float | None) -> None:
    """Refuse what is for scenes only.

    Raises:
        OptionError: it is given, and the path is a folder of chips or a model.
    """
    from geocyclegan.errors import OptionError

    folder = Path(path)
    if folder.is_dir() and not _is_scene(folder):
        if bands is not None:
            raise OptionError("--bands: it chooses bands of a scene; chips and models have theirs")
        if nodata is not None:
            raise OptionError("--nodata: it is for scenes; chips and models have theirs")


def look(
    path: str,
    bands: Sequence[str] | None = None,
    nodata: float | None = None,
    *,
    draw: bool = False,
    count: bool = False,
) -> tuple[Facts, Image | None, Image | None]:
    """Say what a scene, a chip folder or a model is.

    Args:
        path: what to look at.
        bands: bands of a scene, by number or description; None: all but alpha.
        nodata: stored number that stands for no data in a scene that does not say so.
        draw: draw a picture, too.
        count: draw histograms, too.

    Returns:
        What it is, and the two RGB pictures `(height, width, 3)`; None where they were not asked
        for or there is no valid pixel.

    Raises:
        GeoCycleGANError: it cannot be read, or an option is not for its kind.
    """
    from geocyclegan.errors import OptionError

    _refuse_for_folders(path, bands, nodata)
    folder = Path(path)
    if (folder / "model.json").exists() or (folder / "model" / "model.json").exists():
        from geocyclegan.bundle import load_bundle
        from geocyclegan.cli.facts import model_facts

        if draw or count:
            option = "quicklook" if draw else "histogram"
            raise OptionError(f"--{option}: a model has no pixels; name a scene or chips")
        return model_facts(load_bundle(folder)), None, None
    if folder.is_dir() and not _is_scene(folder):
        facts, image = _chips(folder, draw)
        return facts, image, _chip_histograms(folder) if count else None
    return _scene(path, bands, nodata, draw, count)


def _refuse_picture(option: str, file: Path, path: str, overwrite: bool) -> None:
    """Refuse a file that is none for a picture, above all what is looked at itself.

    Raises:
        OptionError: another name is wanted.
        OutputError: it exists.
    """
    from geocyclegan.errors import OptionError, OutputError
    from geocyclegan.raster.inputs import Inputs

    if file.suffix.lower() != ".png":
        raise OptionError(f"--{option} {file}: pictures are PNG; name it {file.stem}.png")
    folder = Path(path)
    if folder.is_dir() and not _is_scene(folder):
        # Chips lie in folders of it, pictures of them maybe beside those.
        inputs = Inputs(files=tuple(child for child in folder.iterdir() if child.is_dir()))
    else:
        inputs = Inputs((path,))
    inputs.refuse(option, file)
    if file.exists() and not overwrite:
        raise OutputError(f"--{option} {file}: it exists; give --overwrite or another name")


def _is_scene(folder: Path) -> bool:
    """Say whether a folder is a scene that GDAL reads as one."""
    from geocyclegan.raster.bandfiles import is_product

    return folder.suffix.lower() in (".safe", ".zarr") or is_product(folder)


def _scene(
    path: str, bands: Sequence[str] | None, nodata: float | None, draw: bool, count: bool
) -> tuple[Facts, Image | None, Image | None]:
    """Return what to say of a scene, its quick-look and its histograms."""
    import numpy as np

    from geocyclegan.chips.alike import describe
    from geocyclegan.cli.facts import scene_facts
    from geocyclegan.raster.histogram import draw_histograms
    from geocyclegan.raster.opening import gdal_env
    from geocyclegan.raster.picture import picture
    from geocyclegan.raster.radiometry import ScaleSpec, fit_scaling
    from geocyclegan.raster.sketch import BandSketch
    from geocyclegan.raster.stack import open_scene
    from geocyclegan.raster.synthetic import provenance
    from geocyclegan.raster.undeclared import undeclared_value

    with gdal_env(), open_scene(path, bands, amplitude=True) as scene:
        scene.leave_out(undeclared_value(nodata, scene.bands, path))
        pixels, valid = scene.overview(_SAMPLE_SIDE)
        domain, grid, chosen, block = describe(scene), scene.grid, scene.bands, scene.block_shape
    sketches = []
    for values in pixels:
        sketch = BandSketch(domain.dtype)
        sketch.update(values[valid])
        sketches.append(sketch)
    facts = scene_facts(path, grid, chosen, block, sketches, valid, provenance(path))
    if not (draw or count) or not valid.any():
        return facts, None, None
    fitted = domain.with_scalings(
        [fit_scaling(ScaleSpec("auto"), sketch, path) for sketch in sketches]
    )
    scalings = fitted.radiometry.scalings
    return (
        facts,
        picture(fitted, fitted.to_levels(pixels, valid), np.asarray(valid)) if draw else None,
        draw_histograms(domain.labels, sketches, scalings) if count else None,
    )


def _scene_lines(facts: Facts) -> list[str]:
    across, down = facts["res"]
    ground = "" if facts["gsd"] is None else f" ({facts['gsd']:.3g} m on the ground)"
    bounds = ", ".join(f"{number:.10g}" for number in facts["bounds"])
    (rows, cols), (height, width) = facts["block_shape"], facts["sample_shape"]
    return [
        facts["path"],
        *_synthetic_lines(facts),
        f"  size        {facts['height']} x {facts['width']} px",
        f"  CRS         {facts['crs'] or 'none'}",
        f"  pixel       {across:.6g} x {down:.6g}{ground}",
        f"  bounds      {bounds}",
        *_place_lines(facts),
        f"  blocks      {rows} x {cols} px",
        f"  valid       {facts['valid']:.1%} of a sample of {height} x {width} px",
        *_table(
            ("band", "name", "type", "nodata", "unit", "scale", "offset", "min", "mean", "max"),
            [list(band.values()) for band in facts["bands"]],
        ),
    ]


def _synthetic_lines(facts: Facts) -> list[str]:
    """Return what a raster says that nobody acquired, and what made it."""
    if not facts["synthetic"]:
        return []
    tags = dict(facts["provenance"])
    tags.pop("SYNTHETIC")
    made_by = tags.pop("TIFFTAG_SOFTWARE", None)
    lines = ["  synthetic   YES, no acquisition" + (f"; made by {made_by}" if made_by else "")]
    for name, value in tags.items():
        label = name.removeprefix("GEOCYCLEGAN_").lower().replace("_", " ")
        lines.append(f"              {label}: {value}")
    return lines


def _place_lines(facts: Facts) -> list[str]:
    """Return longitudes and latitudes, where the bounds do not tell them."""
    if facts["lonlat"] is None or facts["lonlat"] == facts["bounds"]:
        return []
    west, south, east, north = (f"{number:.6g}" for number in facts["lonlat"])
    how = ", across the 180th meridian" if facts["lonlat"][0] > facts["lonlat"][2] else ""
    return [f"  lon, lat    {west} to {east}, {south} to {north}{how}"]


def _chips(folder: Path, draw: bool) -> tuple[Facts, Image | None]:
    from geocyclegan.chips.reader import ChipSet
    from geocyclegan.cli.facts import chips_facts
    from geocyclegan.errors import ChipsError
    from geocyclegan.raster.picture import captioned_row

    sets: dict[str, tuple[ChipSet, ChipSet]] = {}
    failed: dict[str, ChipsError] = {}
    names: tuple[Any, ...] = ("a", "b")
    for name in names:
        try:
            sets[name] = ChipSet.open(folder, name), ChipSet.open(folder, name, "val")
        except ChipsError as error:
            failed[name] = error
    if not sets:
        raise _nothing_there(folder) or failed["a"]
    facts = chips_facts(folder, sets, {name: str(error) for name, error in failed.items()})
    if not draw:
        return facts, None
    images = [_sheet(train) for train, _ in sets.values()]
    height = max(image.shape[0] for image in images)
    captions = [f"domain {name.upper()}" for name in sets]
    return facts, captioned_row([_extend(image, height) for image in images], captions)


def _chips_lines(facts: Facts) -> list[str]:
    lines = [facts["path"]]
    for name, domain in facts["domains"].items():
        kind = "virtual chips" if domain["virtual"] else "chips"
        count = len(domain["scenes"])
        lines.append(
            f"domain {name}: {domain['train']} train and {domain['val']} val {kind} of"
            f" {domain['size']} px from {count or 'unknown'} scene{'s' * (count != 1)}"
        )
        lines += _first_scenes(domain["scenes"], "")
        lines += _domain_lines(domain)
    return [*lines, *facts["missing"].values()]


def _first_scenes(scenes: Sequence[str], before: str) -> list[str]:
    from geocyclegan.raster.bandfiles import told

    lines = [f"  {before}{told(scene)}" for scene in scenes[:5]]
    return [*lines, f"  ... and {len(scenes) - 5} more"] if len(scenes) > 5 else lines


def _nothing_there(folder: Path) -> SceneError | None:
    """Return the error of a folder of scenes, where chips or a model were expected."""
    from geocyclegan.errors import GeoCycleGANError, SceneError
    from geocyclegan.raster.sources import expand_scenes

    if (folder / "chips.parquet").exists() or list(folder.glob("domain_?.json")):
        return None
    try:
        scenes = expand_scenes([folder])
    except GeoCycleGANError:
        return SceneError(
            f"{folder}: a folder without scenes, chips or a model; expected a scene, the folder"
            " that geocyclegan chip made, or a run"
        )
    return SceneError(
        f"{folder}: a folder of {len(scenes)} scene{'s' * (len(scenes) != 1)}, neither chips nor a"
        f" model; name one scene, such as {scenes[0]}"
    )


def _chip_histograms(folder: Path) -> Image:
    """Draw the histograms of the domains that a folder has, side by side."""
    from geocyclegan.chips.manifest import read_record
    from geocyclegan.chips.statistics import domain_statistics
    from geocyclegan.errors import ChipsError
    from geocyclegan.raster.histogram import draw_histograms
    from geocyclegan.raster.picture import captioned_row

    images, captions = [], []
    names: tuple[Any, ...] = ("a", "b")
    for name in names:
        record = read_record(folder, name)
        if record is not None:
            sketches = domain_statistics(folder, name, record)
            scalings = record.domain.radiometry.scalings
            images.append(draw_histograms(record.domain.labels, sketches, scalings))
            captions.append(f"domain {name.upper()}, scaled by {record.scale}")
    if not images:
        raise ChipsError(
            f"--histogram: {folder} keeps no statistics; only sets that geocyclegan chip made do"
        )
    height = max(len(image) for image in images)
    return captioned_row([_extend(image, height) for image in images], captions)


def _sheet(chips: ChipSet) -> Image:
    """Draw a few chips, evenly chosen, one below the other in two columns."""
    import numpy as np

    from geocyclegan.raster.picture import picture

    step = max(len(chips) // _SHEET_CHIPS, 1)
    drawn = []
    for i in range(0, min(len(chips), step * _SHEET_CHIPS), step):
        pixels, valid = chips.read(i)
        drawn.append(picture(chips.domain, chips.domain.to_levels(pixels, valid), valid))
    if len(drawn) % 2:
        drawn.append(np.full_like(drawn[0], 255))
    rows = [np.concatenate(drawn[i : i + 2], axis=1) for i in range(0, len(drawn), 2)]
    return np.concatenate(rows)


def _extend(image: Image, height: int) -> Image:
    import numpy as np

    return np.pad(image, ((0, height - len(image)), (0, 0), (0, 0)), constant_values=255)


def _model_lines(facts: Facts) -> list[str]:
    where = [f" on {facts['device']}"] if facts["device"] else []
    where += [f", torch {facts['torch']}"] if facts["torch"] else []
    size, sha = facts["weights_bytes"] / 1e6, facts["weights_sha256"][:16]
    steps = "?" if facts["steps"] is None else facts["steps"]
    pooled = "several crops of one scene" if facts["pool"] == "scene" else "each crop by itself"
    lines = [
        facts["path"],
        f"  method      {facts['method']}",
        f"  trained     {steps} steps, windows of {facts['tile']} px" + "".join(where),
        f"  model       SHA-256 {facts['sha256'][:16]}..., as its products tell it",
        f"  weights     {size:.1f} MB, SHA-256 {sha}...",
        f"  written by  geocyclegan {facts['created_by']}",
        f"  statistics  trained with {pooled}; --norm-stats {', '.join(facts['norm_stats'])}",
        f"  export      {', '.join(facts['export'])} (geocyclegan export --format)",
    ]
    if facts["skipped_chips"]:
        names = facts["skipped_chips"]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(f"  without     {', '.join(names[:3])}{more}, which could not be read")
    for direction, spec in facts["generators"].items():
        arguments = ", ".join(f"{key} {value}" for key, value in spec["args"].items())
        halo = "unbounded" if spec["halo"] is None else f"{spec['halo']} px"
        lines.append(f"  {direction}         {spec['name']} ({arguments}), halo {halo}")
        wants, gives = ", ".join(spec["wants"]), ", ".join(spec["gives"])
        lines.append(f"              wants {wants}; gives {gives}")
    for name, domain in facts["domains"].items():
        lines.append(f"domain {name}")
        lines += _domain_lines(domain)
        lines += _first_scenes(domain["scenes"], "trained on  ")
    return lines


_LINES = {"scene": _scene_lines, "chips": _chips_lines, "model": _model_lines}


def _domain_lines(domain: Facts) -> list[str]:
    gsd = [] if domain["gsd"] is None else [f"  pixel       {domain['gsd']:.3g} m on the ground"]
    empty = []
    if domain["undeclared_nodata"] is not None:
        empty = [f"  nodata      {domain['undeclared_nodata']:.9g} in all bands, undeclared"]
    rows = []
    for band in domain["bands"]:
        index, name, *rest = band.values()
        rows.append([index, name, domain["dtype"], domain["nodata"], *rest])
    return [
        *gsd,
        *empty,
        *_table(("band", "name", "type", "nodata", "unit", "scaling", "from", "to"), rows),
    ]


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], cells: Sequence[Sequence[object]]) -> list[str]:
    rows = [tuple(head), *(tuple(map(_text, row)) for row in cells)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return [f"  {'  '.join(row)}".rstrip() for row in padded]
