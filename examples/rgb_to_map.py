"""RGB to map: draw a map from vectors on an image's grid, and learn to draw it from the image.

Without arguments, a map of water drawn from hand-made labels of the Sentinel-2 sample scene. With
your own image and any vectors, OpenStreetMap's for instance:

    python examples/rgb_to_map.py --image aerial.tif --vectors osm.gpkg

Unpaired training may settle on the flipped meaning, land drawn as water: nothing in its losses
tells. `--pairs` gives it the pairs that the map makes possible, as hints.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np
import rasterio
from walkthrough import Walk, walkthrough

from geocyclegan import samples

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_prep.osm_map import GROUND, STYLE, draw_map

LABELS = Path(__file__).parent / "data" / "spain_water.tif"
WATER = next(colour for _, values, colour in STYLE if values == ("water",))
CHIPS = ("--size", 128, "--stride", 64, "--overwrite")


@walkthrough()
@click.option("--image", type=click.Path(path_type=Path), help="Your image.")
@click.option("--vectors", type=click.Path(path_type=Path), help="Your vectors.")
@click.option("--buildings", is_flag=True, help="Polygons without tags are buildings.")
@click.option("--pairs/--no-pairs", default=True, show_default=True, help="Give pairs as hints.")
def main(
    walk: Walk, image: Path | None, vectors: Path | None, buildings: bool, pairs: bool
) -> None:
    """Draw the map, chip both on one grid, train, translate, look."""
    drawn = walk.out / "map.tif"
    bands: tuple[str, ...] = ()
    if image is None or vectors is None:
        image, bands = samples.path("spain_sentinel2"), ("--bands", "B04,B03,B02")
        draw_water(drawn)
    else:
        draw_map(drawn, image, [vectors], buildings)
    # The colours of a map are what they are; percentiles would stretch them.
    colours = ("--pair-scale", "linear:0,255")
    walk.geocyclegan("chip", image, "--pair", drawn, *bands, *colours, "--out", walk.chips, *CHIPS)
    walk.train(*(("--pairs", walk.chips) if pairs else ()))
    product = walk.infer(image)
    walk.picture([("image", image, "a"), ("translated", product, "b"), ("map", drawn, "b")])


def draw_water(path: Path) -> None:
    """Draw the labels in the colours of the map; what nobody knows is masked."""
    with rasterio.open(LABELS) as labels:
        water = labels.read(1)
        profile = {
            "driver": "GTiff", "dtype": "uint8", "count": 3, "crs": labels.crs,
            "transform": labels.transform, "width": labels.width, "height": labels.height,
            "photometric": "RGB",
        }  # fmt: skip
    colours = np.array([GROUND, WATER], np.uint8)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **profile) as out,
    ):
        out.descriptions = ("red", "green", "blue")
        out.write(colours[np.clip(water, 0, 1)].transpose(2, 0, 1))
        out.write_mask(water >= 0)


if __name__ == "__main__":
    main()
