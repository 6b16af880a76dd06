# SPDX-License-Identifier: GPL-2.0-or-later
"""The parameters of "Translate scene". Nothing here needs QGIS."""

from __future__ import annotations

from .options import Option
from .table_common import COMMON, DEVICE

TRANSLATE = (
    Option(
        "SCENE",
        "",
        "Scene",
        "raster",
        "The scene to translate, of any size, with the bands that the model was trained on.",
        needed=True,
        advanced=False,
    ),
    Option(
        "MODEL",
        "",
        "Model",
        "folder",
        "Folder of a training run, or of its model.",
        needed=True,
        advanced=False,
    ),
    Option(
        "DIRECTION",
        "--direction",
        "Direction",
        "choice",
        "a2b: from the kind of scenes of domain A to that of domain B; b2a: back. Left empty: a2b,"
        " or the one way that the model knows.",
        choices=("a2b", "b2a"),
        advanced=False,
    ),
    Option(
        "BANDS",
        "--bands",
        "Bands",
        "text",
        "Bands of the scene in the model's order, by number or description: 4,3,2 or VV,VH. Left"
        " empty: those that the model names.",
    ),
    Option(
        "NODATA",
        "--nodata",
        "Undeclared nodata",
        "text",
        "Number, such as 0 or -9999, that stands for no data though the scene does not say so:"
        " pixels are invalid where all bands have it. none: there is no such number. Left empty:"
        " that of the chips that the model was trained on.",
    ),
    Option(
        "NORM_STATS",
        "--norm-stats",
        "Normalisation statistics",
        "choice",
        "Those of the training set (frozen), of some crops of the scene (sample), of all of it"
        " (exact), of each pixel's surroundings (dense), or of each tile (with seams); auto: as the"
        " model was trained.",
        default="auto",
        choices=("auto", "frozen", "sample", "exact", "dense", "tile"),
    ),
    Option(
        "STATS_MEMORY",
        "--stats-memory",
        "Memory for statistics",
        "text",
        "For the passes of sample and exact, such as 512M or 4G.",
        default="2G",
    ),
    Option(
        "TILE",
        "--tile",
        "Tile",
        "integer",
        "Pixels per tile side, without its halo; smaller tiles need less memory. Left empty: by"
        " device and scene.",
        least=1,
    ),
    Option(
        "BATCH",
        "--batch",
        "Batch",
        "integer",
        "Tiles per forward pass. Left empty: by device.",
        least=1,
    ),
    DEVICE,
    *COMMON,
)
