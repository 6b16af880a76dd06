"""xBD, the data of xView2: before and after disasters, with damage labels (Gupta et al. 2019)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import rasterio
import shapely
from rasterio.features import rasterize

from data_prep.recipe import Found, Item, Made, Recipe, pairs_by_key, recipe_command
from data_prep.vectors import class_profile
from geocyclegan.errors import SceneError
from geocyclegan.files import atomic_write

_NAME = re.compile(r"(.+_\d{8})_(pre|post)_disaster\.(png|tif|tiff)$", re.IGNORECASE)
DAMAGE = {"no-damage": 1, "minor-damage": 2, "major-damage": 3, "destroyed": 4, "un-classified": 5}
"""Classes of the label chips; 0 is the ground."""


def find(root: Path, disaster: str | None = None, labels: bool = False) -> Found:
    """Match `..._pre_disaster` with `..._post_disaster` in every folder `images`."""
    kinds: dict[str, dict[str, Path]] = {"pre": {}, "post": {}}
    for path in sorted(root.rglob("*_disaster.*")):
        match = _NAME.match(path.name)
        # Targets and masks carry other suffixes; pictures of labels lie in folders of their own.
        is_image = match and path.parent.name not in ("targets", "masks")
        if match and is_image and (disaster is None or match[1].startswith(disaster)):
            kinds[match[2].lower()][str(path.parent / match[1])] = path
    pairs, missing = pairs_by_key(kinds["pre"], kinds["post"], ("pre-disaster", "post-disaster"))
    items = []
    for key, pre, post in pairs:
        name = Path(key).name
        damage = post.parent.parent / "labels" / f"{name}_post_disaster.json"
        if labels and not damage.is_file():
            missing.append(f"{post}: no labels/{damage.name}")
            continue
        made = _damage(name, post, damage) if labels else None
        items.append(Item(name, pre, post, labels=made))
    return Found(tuple(items), tuple(missing))


def _damage(name: str, image: Path, labels: Path) -> Made:
    return Made(f"{name}_damage.tif", (labels,), lambda path: draw_damage(path, image, labels))


def draw_damage(path: Path, image: Path, labels: Path) -> Path:
    """Draw the buildings of a label file by their damage, in the image's pixels.

    Args:
        path: the GeoTIFF to write: `DAMAGE`, 0 elsewhere.
        image: gives the size and the grid.
        labels: JSON with polygons in pixels, `features.xy`.

    Returns:
        `path`.

    Raises:
        SceneError: the image or the labels cannot be read.
    """
    try:
        document = json.loads(labels.read_text(encoding="utf-8"))
        shapes = [
            (shapely.from_wkt(feature["wkt"]), DAMAGE[_class(feature)])
            for feature in document["features"]["xy"]
        ]
    except (OSError, ValueError, KeyError, TypeError, shapely.errors.ShapelyError) as error:
        raise SceneError(f"{labels}: no labels of xBD ({error!r})") from error
    profile = class_profile(image)
    size = profile["height"], profile["width"]
    # rasterize refuses an empty list, and many places have no building.
    drawn = rasterize(shapes, out_shape=size, dtype="uint8") if shapes else None
    with atomic_write(path) as part, rasterio.open(part, "w", **profile) as out:
        if drawn is not None:
            out.write(drawn, 1)
    return path


def _class(feature: dict[str, Any]) -> str:
    # A building before the disaster has no subtype.
    return str(feature["properties"].get("subtype", "no-damage"))


RECIPE = Recipe(
    title=(
        "xBD / xView2: images of 1024 px before and after disasters, with --labels the damage of"
        " each building: 1 none, 2 minor, 3 major, 4 destroyed, 5 not classified."
    ),
    layout=(
        "train/images/joplin-tornado_00000001_pre_disaster.png\n"
        "train/images/joplin-tornado_00000001_post_disaster.png\n"
        "train/labels/joplin-tornado_00000001_post_disaster.json (for --labels)"
    ),
    find=find,
    options=(
        click.option("--disaster", help="Only that one, such as joplin-tornado."),
        click.option("--labels", is_flag=True, help="Cut the damage classes alongside."),
    ),
)
command = recipe_command(RECIPE, "xbd")

if __name__ == "__main__":
    command()
