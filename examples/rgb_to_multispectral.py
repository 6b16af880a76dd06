"""RGB to multispectral: which red edge and short-wave infrared would go with these colours?

Domain A takes three bands of a scene, domain B the others. With your own scene:

    python examples/rgb_to_multispectral.py --scene YOUR_S2.tif --rgb B04,B03,B02 --others B05-B12

Invented bands look right and may be wrong: compare them with truth before an index is made of them.
The picture shows an infrared composite of what came out, beside the real one.
"""

from __future__ import annotations

from pathlib import Path

import click
from walkthrough import Walk, walkthrough

from geocyclegan import samples

CHIPS = ("--size", 128, "--stride", 64, "--overwrite")


@walkthrough()
@click.option("--scene", type=click.Path(path_type=Path), default=samples.path("spain_sentinel2"))
@click.option("--rgb", default="B04,B03,B02", help="Bands of domain A.")
@click.option("--others", default="B12,B8A,B05,B06,B07,B08,B11", help="Bands of domain B.")
def main(walk: Walk, scene: Path, rgb: str, others: str) -> None:
    """Chip twice, train, translate, look."""
    walk.geocyclegan("chip", scene, "--domain", "a", "--bands", rgb, "--out", walk.chips, *CHIPS)
    walk.geocyclegan("chip", scene, "--domain", "b", "--bands", others, "--out", walk.chips, *CHIPS)
    walk.train()
    product = walk.infer(scene)
    walk.geocyclegan("info", product)
    walk.picture(
        [("RGB", scene, "a"), (f"translated {others[:11]}", product, "b"), ("real", scene, "b")]
    )


if __name__ == "__main__":
    main()
