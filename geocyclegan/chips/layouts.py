"""Chip sets in the layouts of other programs, beside the set itself.

- `cyclegan`: `cyclegan/trainA`, `trainB`, `testA`, `testB` with 8-bit PNGs, as
  pytorch-CycleGAN-and-pix2pix and its many relatives read them; validation chips go to `test`.
- `arcgis`: `arcgis/A` and `arcgis/B`, each with `images/`, `labels/` where there are labels,
  `map.txt` and `esri_accumulated_stats.json`, the names of ArcGIS's Export Training Data.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from geocyclegan.chips.manifest import ChipRow, DomainName, DomainRecord, read_record, read_rows
from geocyclegan.chips.reader import ChipSet
from geocyclegan.errors import OptionError, OutputError
from geocyclegan.files import flush_tree, fsync_folder, make_folder, write_json, write_text
from geocyclegan.progress import Progress
from geocyclegan.raster.domain import Domain

Layout = Literal["cyclegan", "arcgis"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def check_layout(layout: Layout, domain: Domain, *, has_files: bool) -> None:
    """Refuse what a layout cannot hold, before anything is cut.

    Raises:
        OptionError: it cannot hold this domain.
    """
    if layout == "cyclegan" and domain.count not in (1, 3):
        raise OptionError(
            f"--layout cyclegan: 8-bit pictures hold 1 or 3 bands, these scenes have"
            f" {domain.count} ({', '.join(domain.labels[:6])}); choose with --bands, such as"
            " --bands 1-3"
        )
    if layout == "arcgis" and not has_files:
        raise OptionError(
            "--layout arcgis: it is made of GeoTIFF chips; leave out --virtual and --format npy"
        )


def write_layout(folder: Path, domain: DomainName, layout: Layout) -> None:
    """Write a domain of a finished set in another layout; what was there before is replaced.

    Raises:
        ChipsError: a chip cannot be read.
        OutputError: the layout cannot be written.
    """
    record = read_record(folder, domain)
    assert record is not None  # for mypy: the set has just been written
    writer = {"cyclegan": _write_cyclegan, "arcgis": _write_arcgis}[layout]
    try:
        writer(folder, domain, record)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{folder / layout}: the layout cannot be written ({error.strerror or error})"
        ) from error


def _write_cyclegan(folder: Path, domain: DomainName, record: DomainRecord) -> None:
    from PIL import Image

    for split, theirs in (("train", "train"), ("val", "test")):
        chips = ChipSet.open(folder, domain, split)  # type: ignore[arg-type]
        final = folder / "cyclegan" / f"{theirs}{domain.upper()}"
        part = _begin(final)
        with Progress(len(chips), final.name, "chip") as progress:
            for i, path in enumerate(chips.paths):
                levels = record.domain.to_levels(*chips.read(i))
                # The other program maps 0 to 255 onto -1 to 1 again; invalid pixels are in the
                # middle, where networks see nothing.
                grey = np.rint(np.clip((levels + 1.0) * 127.5, 0, 255)).astype(np.uint8)
                picture = grey[0] if len(grey) == 1 else np.moveaxis(grey, 0, -1)
                Image.fromarray(picture).save(part / f"{path.stem}.png")
                progress.update()
        _publish(part, final)


def _write_arcgis(folder: Path, domain: DomainName, record: DomainRecord) -> None:
    final = folder / "arcgis" / domain.upper()
    part = _begin(final)
    rows = sorted(
        (row for row in read_rows(folder) if row.domain == domain), key=lambda row: row.chip
    )
    (part / "images").mkdir()
    if any(row.label for row in rows):
        (part / "labels").mkdir()
    lines = []
    for i, row in enumerate(rows):
        image = f"images/{i:012d}.tif"
        shutil.copyfile(folder / row.chip, part / image)
        if row.label:
            label = f"labels/{i:012d}.tif"
            shutil.copyfile(folder / row.label, part / label)
            lines.append(f"{image} {label}")
        else:
            lines.append(image)
    write_text(part / "map.txt", "\n".join(lines) + "\n")
    write_json(part / "esri_accumulated_stats.json", _arcgis_stats(rows, record))
    _publish(part, final)


def _arcgis_stats(rows: Sequence[ChipRow], record: DomainRecord) -> dict[str, object]:
    domain = record.domain
    size = {"x": domain.gsd or 1.0, "y": domain.gsd or 1.0}
    return {
        "Version": 1,
        "NumTiles": len(rows),
        "NumBands": domain.count,
        "MetaDataMode": "Classified_Tiles" if any(row.label for row in rows) else "Export_Tiles",
        "TileSizeX": record.size,
        "TileSizeY": record.size,
        "PixelType": domain.dtype,
        "MinCellSize": size,
        "MaxCellSize": size,
    }


def _begin(final: Path) -> Path:
    part = final.with_name(f".{final.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    make_folder(part)
    return part


def _publish(part: Path, final: Path) -> None:
    flush_tree(part)
    shutil.rmtree(final, ignore_errors=True)
    os.rename(part, final)
    fsync_folder(final.parent)
