"""SAR to optical: what would Sentinel-2 see where Sentinel-1 looked?

The scenes need not show the same day, nor the same place: training is unpaired. Here they do, so
that the last picture has the truth beside it. With your own scenes:

    python examples/sar_to_optical.py --sar YOUR_S1.tif --optical YOUR_S2.tif --bands B04,B03,B02
"""

from __future__ import annotations

from pathlib import Path

import click
from walkthrough import Walk, walkthrough

from geocyclegan import samples

CHIPS = ("--size", 128, "--stride", 64, "--overwrite")


@walkthrough()
@click.option("--sar", type=click.Path(path_type=Path), default=samples.path("spain_sentinel1"))
@click.option("--optical", type=click.Path(path_type=Path), default=samples.path("spain_sentinel2"))
@click.option("--bands", default="B04,B03,B02,B08", help="Optical bands to learn.")
def main(walk: Walk, sar: Path, optical: Path, bands: str) -> None:
    """Chip both, train, translate, look."""
    # Backscatter of these scenes is in decibels already; for linear power give --scale db.
    walk.geocyclegan("chip", sar, "--domain", "a", "--out", walk.chips, *CHIPS)
    walk.geocyclegan(
        "chip", optical, "--domain", "b", "--bands", bands, "--out", walk.chips, *CHIPS
    )
    walk.train()
    product = walk.infer(sar)
    walk.geocyclegan("info", product)
    walk.picture([("SAR", sar, "a"), ("translated", product, "b"), ("optical", optical, "b")])


if __name__ == "__main__":
    main()
