"""Images from noise, written as chips: GeoTIFFs in stored units of their domain, of no place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from affine import Affine

from geocyclegan import __version__
from geocyclegan.bundle import Bundle
from geocyclegan.errors import OptionError, OutputError
from geocyclegan.files import make_folder, output_lock, refuse_as_folder
from geocyclegan.models.dcgan import seeded_noise
from geocyclegan.progress import Progress
from geocyclegan.raster.grid import Grid
from geocyclegan.raster.product import ProductSpec, ProductWriter
from geocyclegan.raster.windows import Window

_BATCH = 16


def sample_scenes(
    bundle: Bundle,
    out: Path,
    *,
    count: int,
    seed: int,
    device: torch.device,
    overwrite: bool = False,
) -> list[Path]:
    """Make images and write them.

    Image number i of a seed is the same however many are made. They are of no place, so they have
    no CRS.

    Args:
        bundle: a model that makes images.
        out: the folder to write to.
        count: how many.
        seed: of the noise.
        device: where to run.
        overwrite: replace files of the same names.

    Returns:
        The files.

    Raises:
        OptionError: `count` is not positive.
        BundleError: the model makes no images, or is damaged.
        OutputError: a file exists, or cannot be written.
    """
    if count < 1:
        raise OptionError(f"--n {count}: expected 1 or more")
    maker = bundle.maker("a", device)
    refuse_as_folder(out)
    paths = [out / f"sample_{seed}_{number:05d}.tif" for number in range(count)]
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise OutputError(f"{there[0]}: it exists; give --overwrite or another --out or --seed")
    make_folder(out)
    domain = bundle.domains["a"]
    grid = Grid(None, Affine.identity(), maker.size, maker.size)
    window = Window(0, 0, maker.size, maker.size)
    valid = np.ones((maker.size, maker.size), np.bool_)
    noise = seeded_noise(seed, count, maker.noise)
    with output_lock(out / "samples"), Progress(count, "sample", "chip") as progress:
        for first in range(0, count, _BATCH):
            with torch.inference_mode():
                levels = maker(noise[first : first + _BATCH].to(device)).float().cpu().numpy()
            for number, image in enumerate(levels, start=first):
                tags = {
                    "SYNTHETIC": "YES",
                    "TIFFTAG_SOFTWARE": f"geocyclegan {__version__}",
                    "GEOCYCLEGAN_MODEL_SHA256": bundle.sha256,
                    "GEOCYCLEGAN_METHOD": bundle.method,
                    "GEOCYCLEGAN_SEED": str(seed),
                    "GEOCYCLEGAN_SAMPLE": str(number),
                }
                if domain.gsd is not None:
                    tags["GEOCYCLEGAN_GSD"] = f"{domain.gsd:g}"
                spec = ProductSpec(grid, domain, tags, masked=False)
                with ProductWriter(paths[number], spec) as product:
                    product.write(window, domain.to_pixels(image, valid), valid)
                progress.update()
    return paths
