"""The pix2pix `maps` layout: pictures of two images, aerial left, map right (Isola et al. 2017)."""

from __future__ import annotations

import re
from pathlib import Path

import rasterio

from data_prep.recipe import Found, Item, Made, Recipe, recipe_command
from geocyclegan.errors import SceneError
from geocyclegan.files import atomic_write
from geocyclegan.raster.opening import GDAL_ERRORS, first_line, gdal_env

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def find(root: Path) -> Found:
    """Take each picture of train/, val/ and test/ as a pair."""
    folders = [root / name for name in ("train", "val", "test") if (root / name).is_dir()]
    pictures = sorted(
        (path for folder in folders or [root] for path in folder.iterdir()
         if path.suffix.lower() in _SUFFIXES),
        key=_natural,
    )  # fmt: skip
    items = []
    for path in pictures:
        name = f"{path.parent.name}_{path.stem}" if folders else path.stem
        items.append(Item(name, _half(path, name, 0), _half(path, name, 1)))
    return Found(tuple(items))


def _natural(path: Path) -> tuple[str, list[int | str]]:
    parts = re.split(r"(\d+)", path.stem)
    return str(path.parent), [int(part) if part.isdigit() else part for part in parts]


def _half(picture: Path, name: str, side: int) -> Made:
    def write(path: Path) -> Path:
        try:
            with gdal_env(), rasterio.open(picture) as dataset:
                width = dataset.width // 2
                if dataset.width % 2 or not width:
                    raise SceneError(
                        f"{picture}: {dataset.width} px wide; expected two images side by side"
                    )
                window = rasterio.windows.Window(side * width, 0, width, dataset.height)
                pixels = dataset.read(window=window)
                profile = {
                    "driver": "GTiff", "dtype": dataset.dtypes[0], "count": dataset.count,
                    "width": width, "height": dataset.height, "compress": "deflate",
                    "photometric": "RGB" if dataset.count == 3 else "MINISBLACK",
                }  # fmt: skip
                with atomic_write(path) as part, rasterio.open(part, "w", **profile) as out:
                    out.write(pixels)
        except GDAL_ERRORS as error:
            raise SceneError(f"{picture}: cannot be read ({first_line(error)})") from error
        return path

    return Made(f"{name}_{'ab'[side]}.tif", (picture,), write)


RECIPE = Recipe(
    title="The maps layout of pix2pix: two images side by side in each picture, left and right.",
    layout="train/1.jpg\nval/1.jpg",
    find=find,
)
command = recipe_command(RECIPE, "maps")

if __name__ == "__main__":
    command()
