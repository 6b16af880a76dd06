"""Before to after: what does an event, or twenty years, do to a place?

Without arguments, Landsat of 1985 to 2005. For disasters, the pre- and post-disaster images of xBD,
as downloaded:

    python examples/before_to_after.py --xbd train --disaster joplin-tornado

A model learns what such events look like, not which house was hit: see its products as scenarios.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
from walkthrough import Walk, walkthrough

from geocyclegan import samples

CHIPS = ("--size", 128, "--stride", 64, "--overwrite")


@walkthrough()
@click.option("--before", type=click.Path(path_type=Path), default=samples.path("landsat_1985"))
@click.option("--after", type=click.Path(path_type=Path), default=samples.path("landsat_2005"))
@click.option("--xbd", type=click.Path(path_type=Path), help="A folder of xBD, instead.")
@click.option("--disaster", help="Which one of xBD, such as joplin-tornado.")
def main(walk: Walk, before: Path, after: Path, xbd: Path | None, disaster: str | None) -> None:
    """Chip both, train, translate there and back, look."""
    if xbd is None:
        walk.geocyclegan("chip", before, "--pair", after, "--out", walk.chips, *CHIPS)
    else:
        before, after = chip_xbd(walk, xbd, disaster)
    walk.train()
    product = walk.infer(before)
    back = walk.infer(after, "translated_back.tif", "--direction", "b2a")
    walk.picture(
        [
            ("before", before, "a"), ("before to after", product, "b"),
            ("after", after, "b"), ("after to before", back, "a"),
        ],
        side=256,
    )  # fmt: skip


def chip_xbd(walk: Walk, folder: Path, disaster: str | None) -> tuple[Path, Path]:
    """Chip xBD by its recipe, and return the first pair of images."""
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", "data_prep.xbd", str(folder.resolve())]
    command += ["--out", str(walk.chips.resolve()), "--size", "256", "--overwrite"]
    command += ["--disaster", disaster] if disaster else []
    subprocess.run(command, check=True, cwd=root)
    before = sorted(folder.rglob(f"{disaster or ''}*_pre_disaster.*"))[0]
    return before, before.with_name(before.name.replace("_pre_", "_post_"))


if __name__ == "__main__":
    main()
