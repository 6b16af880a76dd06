"""Sen1Floods11: Sentinel-1, Sentinel-2 and flood labels by hand (Bonafilia et al. 2020)."""

from __future__ import annotations

from pathlib import Path

import click

from data_prep.recipe import Found, Item, Recipe, pairs_by_key, recipe_command


def find(root: Path, labels: bool = False) -> Found:
    """Match `NAME_S1Hand.tif`, `NAME_S2Hand.tif` and `NAME_LabelHand.tif`."""
    kinds = {
        kind: {
            path.name.removesuffix(f"_{kind}Hand.tif"): path
            for path in sorted(root.rglob(f"*_{kind}Hand.tif"))
        }
        for kind in ("S1", "S2", "Label")
    }
    pairs, missing = pairs_by_key(kinds["S1"], kinds["S2"], ("S1Hand", "S2Hand"))
    items = []
    for key, a, b in pairs:
        label = kinds["Label"].get(key) if labels else None
        if labels and label is None:
            missing.append(f"{a}: no LabelHand beside it")
        else:
            items.append(Item(key, a, b, labels=label))
    return Found(tuple(items), tuple(missing))


RECIPE = Recipe(
    title="Sen1Floods11, hand-labelled part: Sentinel-1 (VV, VH in dB) and Sentinel-2 (13 bands).",
    layout=(
        "v1.1/data/flood_events/HandLabeled/S1Hand/Spain_1199913_S1Hand.tif\n"
        "v1.1/data/flood_events/HandLabeled/S2Hand/Spain_1199913_S2Hand.tif\n"
        "v1.1/data/flood_events/HandLabeled/LabelHand/Spain_1199913_LabelHand.tif (for --labels)"
    ),
    find=find,
    options=(click.option("--labels", is_flag=True, help="Cut the flood labels alongside."),),
)
command = recipe_command(RECIPE, "sen1floods11")

if __name__ == "__main__":
    command()
