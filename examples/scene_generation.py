"""Scene generation: chips of places that do not exist, made from noise.

Without arguments, Landsat of 1985 and 2005; with your own scenes of one kind:

    python examples/scene_generation.py --scene ONE.tif --scene TWO.tif --bands B04,B03,B02

A few hundred steps show the chain, not the quality; give it --steps 3000, and thousands of chips.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from PIL import Image
from walkthrough import Walk, draw, walkthrough

from geocyclegan import samples
from geocyclegan.bundle import load_bundle
from geocyclegan.raster.picture import captioned_row, save_png

SIDE = 64
CHIPS = ("--size", SIDE, "--stride", SIDE // 2, "--overwrite")
DEFAULTS = (samples.path("landsat_1985"), samples.path("landsat_2005"))


@walkthrough()
@click.option("--scene", "scenes", type=click.Path(path_type=Path), multiple=True, default=DEFAULTS)
@click.option("--bands", help="Bands to learn.")
@click.option("--n", "count", type=click.IntRange(min=1), default=16, show_default=True)
def main(walk: Walk, scenes: tuple[Path, ...], bands: str | None, count: int) -> None:
    """Chip, train, make chips from noise, look."""
    chosen = ("--bands", bands) if bands else ()
    walk.geocyclegan("chip", *scenes, *chosen, "--out", walk.chips, *CHIPS)
    # The networks of the walk-throughs that translate do not make images. With the paper's loss all
    # chips came out alike on so few, whatever the noise.
    dcgan = ("--method", "dcgan", "--gan-loss", "hinge")
    small = ("--width", 32, "--crop", SIDE, "--batch", 16)
    place = ("--out", walk.run.parent, "--name", walk.run.name, "--overwrite")
    every = ("--steps", walk.steps, "--save-every", walk.steps, "--panel-every", walk.steps)
    walk.geocyclegan("train", walk.chips, *dcgan, *small, *place, *every)
    made = walk.out / "made"
    walk.geocyclegan("sample", "--model", walk.run, "--n", count, "--out", made, "--overwrite")
    contact_sheet(walk, sorted(made.glob("*.tif"))[:count])


def contact_sheet(walk: Walk, paths: list[Path], columns: int = 8, zoom: int = 2) -> Path:
    """Draw chips in rows, each under its name."""
    domain = load_bundle(walk.run).domains["a"]
    rows = []
    for first in range(0, len(paths), columns):
        some = paths[first : first + columns]
        images = [draw(path, domain, SIDE).repeat(zoom, 0).repeat(zoom, 1) for path in some]
        rows.append(Image.fromarray(captioned_row(images, [path.stem for path in some])))
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), (255, 255, 255))
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    path = walk.out / "picture.png"
    save_png(path, np.asarray(sheet))
    click.echo(f"\nPicture: {path}")
    return path


if __name__ == "__main__":
    main()
