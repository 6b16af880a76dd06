"""`geocyclegan info`: what a scene, a chip folder or a model is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geocyclegan.cli.options import Settings, bands_option, nodata_option, overwrite_option

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from rasterio.crs import CRS

    from geocyclegan.bundle import Bundle
    from geocyclegan.chips.reader import ChipSet
    from geocyclegan.errors import SceneError
    from geocyclegan.raster.domain import Domain
    from geocyclegan.raster.grid import Grid

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
    overwrite: bool,
) -> None:
    """Show what a scene, a chip folder or a model is.

    A SCENE is anything that chip takes; its values are those of a sample. CHIPS is a folder that
    chip made or of one of the layouts that train accepts. MODEL is a run or bundle folder.

    \b
        geocyclegan info sar.tif --quicklook sar.png
        geocyclegan info chips
        geocyclegan info runs/spain
    """  # noqa: D301 - click reads the backspace character
    from geocyclegan.errors import OptionError, OutputError, SceneError
    from geocyclegan.raster.picture import save_png

    folder = Path(path)
    if folder.is_dir() and not _is_scene(folder):
        if bands is not None:
            raise OptionError("--bands: it chooses bands of a scene; chips and models have theirs")
        if nodata is not None:
            raise OptionError("--nodata: it is for scenes; chips and models have theirs")
    for option, file in (("quicklook", quicklook), ("histogram", histogram)):
        if file is not None and file.exists() and not overwrite:
            raise OutputError(f"--{option} {file}: it exists; give --overwrite or another name")
    image: Image | None = None
    bars: Image | None = None
    if (folder / "model.json").exists() or (folder / "model" / "model.json").exists():
        from geocyclegan.bundle import load_bundle

        if quicklook is not None or histogram is not None:
            option = "histogram" if quicklook is None else "quicklook"
            raise OptionError(f"--{option}: a model has no pixels; name a scene or chips")
        lines = _bundle_lines(load_bundle(folder))
    elif folder.is_dir() and not _is_scene(folder):
        lines, image = _chips(folder, quicklook is not None)
        bars = _chip_histograms(folder) if histogram is not None else None
    else:
        draw, count = quicklook is not None, histogram is not None
        lines, image, bars = _scene(path, bands, nodata, draw, count)
    click.echo("\n".join(lines))
    if quicklook is not None:
        if image is None:
            raise SceneError(f"--quicklook: {path} has no valid pixel to draw")
        save_png(quicklook, image)
        click.echo(f"quick-look: {quicklook}")
    if histogram is not None:
        if bars is None:
            raise SceneError(f"--histogram: {path} has no valid pixel to count")
        save_png(histogram, bars)
        click.echo(f"histogram: {histogram}")


def _is_scene(folder: Path) -> bool:
    """Say whether a folder is a scene that GDAL reads as one."""
    from geocyclegan.raster.bandfiles import is_product

    return folder.suffix.lower() in (".safe", ".zarr") or is_product(folder)


def _scene(
    path: str, bands: Sequence[str] | None, nodata: float | None, draw: bool, count: bool
) -> tuple[list[str], Image | None, Image | None]:
    """Return what to say of a scene, its quick-look and its histograms."""
    import numpy as np

    from geocyclegan.chips.alike import describe
    from geocyclegan.raster.histogram import draw_histograms
    from geocyclegan.raster.opening import gdal_env
    from geocyclegan.raster.picture import picture
    from geocyclegan.raster.radiometry import ScaleSpec, fit_scaling
    from geocyclegan.raster.sketch import BandSketch
    from geocyclegan.raster.stack import open_scene
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
    rows = [("band", "name", "type", "nodata", "unit", "scale", "offset", "min", "mean", "max")]
    for band, sketch in zip(chosen, sketches, strict=True):
        told = [band.index, band.name, band.dtype, band.nodata, band.unit, band.scale, band.offset]
        values = [sketch.minimum, sketch.mean, sketch.maximum] if sketch.count else [None] * 3
        rows.append(tuple(_text(value) for value in (*told, *values)))  # type: ignore[arg-type]
    height, width = valid.shape
    lines = [
        path,
        *_grid_lines(grid),
        f"  blocks      {block[0]} x {block[1]} px",
        f"  valid       {valid.mean():.1%} of a sample of {height} x {width} px",
        *_table(rows),
    ]
    if not (draw or count) or not valid.any():
        return lines, None, None
    fitted = domain.with_scalings(
        [fit_scaling(ScaleSpec("auto"), sketch, path) for sketch in sketches]
    )
    scalings = fitted.radiometry.scalings
    return (
        lines,
        picture(fitted, fitted.to_levels(pixels, valid), np.asarray(valid)) if draw else None,
        draw_histograms(domain.labels, sketches, scalings) if count else None,
    )


def _grid_lines(grid: Grid) -> list[str]:
    across, down = grid.pixel_size
    place = "none"
    if grid.crs is not None:
        place = _crs_name(grid.crs)
    ground = "" if grid.gsd is None else f" ({grid.gsd:.3g} m on the ground)"
    bounds = ", ".join(f"{number:.10g}" for number in grid.footprint().bounds)
    return [
        f"  size        {grid.height} x {grid.width} px",
        f"  CRS         {place}",
        f"  pixel       {across:.6g} x {down:.6g}{ground}",
        f"  bounds      {bounds}",
        *_place_lines(grid),
    ]


def _place_lines(grid: Grid) -> list[str]:
    """Return longitudes and latitudes, where the bounds do not tell them."""
    from geocyclegan.errors import SceneError
    from geocyclegan.raster.footprint import bounds_on_globe

    try:
        bounds = None if grid.crs is None else bounds_on_globe(grid)
    except SceneError:
        bounds = None
    if bounds is None or bounds == grid.footprint().bounds:
        return []
    west, south, east, north = (f"{number:.6g}" for number in bounds)
    how = ", across the 180th meridian" if bounds[0] > bounds[2] else ""
    return [f"  lon, lat    {west} to {east}, {south} to {north}{how}"]


def _crs_name(crs: CRS) -> str:
    """Return the code of a CRS, its name where it has none, or its projection without either."""
    authority = crs.to_authority()
    if authority:
        return ":".join(authority)
    found = re.search(r'^\w+\["([^"]*)"', crs.to_wkt())
    name = found[1] if found else ""
    if name.casefold() in ("", "unknown", "unnamed"):
        return re.sub(r" \+(no_defs|type)\S*", "", crs.to_proj4()) or "without a name"
    return f"{name} (no code)"


def _chips(folder: Path, draw: bool) -> tuple[list[str], Image | None]:
    from geocyclegan.chips.reader import ChipSet
    from geocyclegan.errors import ChipsError
    from geocyclegan.raster.bandfiles import told
    from geocyclegan.raster.picture import captioned_row

    lines = [str(folder)]
    images: list[Image] = []
    failed: list[ChipsError] = []
    names: tuple[Any, ...] = ("a", "b")
    for name in names:
        try:
            train, val = ChipSet.open(folder, name), ChipSet.open(folder, name, "val")
        except ChipsError as error:
            failed.append(error)
            continue
        kind = "virtual chips" if train.virtual else "chips"
        lines.append(
            f"domain {name}: {len(train)} train and {len(val)} val {kind} of {train.size} px"
            f" from {len(train.scenes) or 'unknown'} scene{'s' * (len(train.scenes) != 1)}"
        )
        lines.extend(f"  {told(scene)}" for scene in train.scenes[:5])
        if len(train.scenes) > 5:
            lines.append(f"  ... and {len(train.scenes) - 5} more")
        lines.extend(_domain_lines(train.domain))
        if draw:
            images.append(_sheet(train))
    if len(failed) == len(names):
        raise _nothing_there(folder) or failed[0]
    lines.extend(str(error) for error in failed)
    height = max((image.shape[0] for image in images), default=0)
    if not images:
        return lines, None
    return lines, captioned_row(
        [_extend(image, height) for image in images], ["domain A", "domain B"][: len(images)]
    )


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


def _bundle_lines(bundle: Bundle) -> list[str]:
    training = bundle.training
    where = [f" on {training['device']}"] if training.get("device") else []
    where += [f", torch {training['torch']}"] if training.get("torch") else []
    size, sha = bundle.weights_bytes / 1e6, bundle.weights_sha256[:16]
    lines = [
        str(bundle.folder),
        f"  method      {bundle.method}",
        f"  trained     {training.get('steps', '?')} steps, windows of {bundle.tile} px"
        + "".join(where),
        f"  model       SHA-256 {bundle.sha256[:16]}..., as its products tell it",
        f"  weights     {size:.1f} MB, SHA-256 {sha}...",
        f"  written by  geocyclegan {bundle.created_by}",
        f"  statistics  {_statistics(bundle)}",
        "  export      onnx, torch, deepness, mlm (geocyclegan export --format)",
    ]
    for direction, spec in bundle.generators.items():
        arguments = ", ".join(f"{key} {value}" for key, value in spec.args.items())
        halo = "unbounded" if spec.halo is None else f"{spec.halo} px"
        lines.append(f"  {direction}         {spec.name} ({arguments}), halo {halo}")
        wants, gives = bundle.source(direction).labels, bundle.target(direction).labels
        lines.append(f"              wants {', '.join(wants)}; gives {', '.join(gives)}")
    for name in ("a", "b"):
        lines.append(f"domain {name}")
        lines.extend(_domain_lines(bundle.domains[name]))
        scenes = training.get("scenes", {}).get(name, [])
        lines.extend(f"  trained on  {scene}" for scene in scenes[:5])
        if len(scenes) > 5:
            lines.append(f"  ... and {len(scenes) - 5} more")
    return lines


def _statistics(bundle: Bundle) -> str:
    """Say what a model was trained with, and what `infer --norm-stats` can be."""
    pool = str(bundle.normalization.get("pool", "crop"))
    trained = "several crops of one scene" if pool == "scene" else "each crop by itself"
    bounded = all(spec.halo is not None for spec in bundle.generators.values())
    modes = ["frozen"] if bundle.has_statistics else []
    modes += ["sample", "exact", "dense", "tile"] if bounded else ["sample", "tile"]
    return f"trained with {trained}; --norm-stats {', '.join(modes)}"


def _domain_lines(domain: Domain) -> list[str]:
    rows = [("band", "name", "type", "nodata", "unit", "scaling", "from", "to")]
    for i, band in enumerate(domain.bands, start=1):
        ends = band.scaling.inverse(_ends())
        told = (i, band.name, domain.dtype, domain.nodata, band.unit, band.scaling.method, *ends)
        rows.append(tuple(_text(value) for value in told))  # type: ignore[arg-type]
    gsd = [] if domain.gsd is None else [f"  pixel       {domain.gsd:.3g} m on the ground"]
    empty = []
    if domain.undeclared is not None:
        empty = [f"  nodata      {domain.undeclared:.9g} in all bands, undeclared"]
    return [*gsd, *empty, *_table(rows)]


def _ends() -> npt.NDArray[np.float64]:
    import numpy as np

    return np.array([-1.0, 1.0])


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{float(value):.6g}" if hasattr(value, "__float__") else str(value)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return [f"  {'  '.join(row)}".rstrip() for row in padded]
