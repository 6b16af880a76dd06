# SPDX-License-Identifier: GPL-2.0-or-later
"""The parameters of the three algorithms. Nothing here needs QGIS."""

from __future__ import annotations

from .choices import GENERATORS, METHODS
from .options import Option

COMMON = (
    Option(
        "EXTRA",
        "",
        "Further options",
        "text",
        "More options of the geocyclegan command, typed as on a command line.",
    ),
    Option(
        "EXECUTABLE",
        "",
        "geocyclegan command",
        "file",
        "Path of the geocyclegan command, or of the folder of its Python environment. Left empty:"
        " the variable GEOCYCLEGAN_EXECUTABLE, what 'geocyclegan qgis install' saved in the"
        " settings, or PATH.",
    ),
)

_DEVICE = Option(
    "DEVICE",
    "--device",
    "Device",
    "choice",
    "Where to compute; auto takes the graphics card if PyTorch can use it.",
    default="auto",
    choices=("auto", "cpu", "cuda"),
)
_SEED = Option("SEED", "--seed", "Seed", "integer", "Seed of all random choices.", 0, least=0)


def _of_domain(name: str) -> tuple[Option, ...]:
    return (
        Option(
            f"BANDS_{name}",
            "--bands",
            f"Bands of domain {name}",
            "text",
            "Bands by number or description, such as 1-3 or B04,B03,B02. Left empty: all but"
            " transparency.",
        ),
        Option(
            f"SCALE_{name}",
            "--scale",
            f"Scaling of domain {name}",
            "text",
            "How pixel values become network levels: auto, linear:LO,HI, percentile:LO,HI, db,"
            " log1p or zscore.",
            default="auto",
        ),
        Option(
            f"MASK_{name}",
            "--mask",
            f"Masks of domain {name}",
            "rasters",
            "Class rasters that make pixels invalid, such as cloud masks, on any grid: one for all"
            " scenes, or one for each in the same order.",
        ),
        Option(
            f"LABELS_{name}",
            "--labels",
            f"Labels of domain {name}",
            "rasters",
            "Class rasters to cut alongside: one for all scenes, or one for each in the same"
            " order.",
        ),
    )


CHIP = (
    Option(
        "SCENES_A",
        "",
        "Scenes of domain A",
        "rasters",
        "Scenes to translate from, such as radar. Left empty: domain A of the chip folder stays as"
        " it is.",
        advanced=False,
    ),
    Option(
        "SCENES_B",
        "",
        "Scenes of domain B",
        "rasters",
        "Scenes of the kind to translate to, such as optical. They need not show the same place or"
        " day.",
        advanced=False,
    ),
    Option(
        "SIZE",
        "--size",
        "Chip size",
        "text",
        "Side of a chip: pixels, or metres on the ground such as 1280m.",
        default="256",
        advanced=False,
    ),
    Option(
        "AOI",
        "--aoi",
        "Area of interest",
        "vector",
        "Polygons; only chips that they cover are kept.",
        advanced=False,
    ),
    Option(
        "PAIR",
        "",
        "The scenes of A and B are pairs",
        "switch",
        "Each scene of B shows the ground of the scene of A at the same place of the list: chips of"
        " the same windows of both are cut, on the grid of A, valid where both are.",
        default=False,
        advanced=False,
    ),
    Option(
        "STRIDE",
        "--stride",
        "Stride",
        "text",
        "From one chip to the next, in the units of the size. Left empty: the size, so that chips"
        " do not overlap.",
    ),
    Option(
        "EDGE",
        "--edge",
        "At a scene's edge",
        "choice",
        "Where a scene ends within a chip: shift the chip back, pad and mask it, or drop it.",
        default="shift",
        choices=("shift", "pad", "drop"),
    ),
    Option(
        "RANDOM",
        "--random",
        "Random chips per scene",
        "integer",
        "So many chips at random places of each scene, instead of a grid of chips.",
        least=1,
    ),
    *_of_domain("A"),
    *_of_domain("B"),
    Option(
        "MASK_VALUES",
        "--mask-values",
        "Invalid classes of the masks",
        "text",
        "Such as 3,8-10. Left empty: all but 0.",
    ),
    Option("LIKE", "--like", "Grid of", "raster", "Put all scenes on the grid of this raster."),
    Option("CRS", "--crs", "Reference system", "crs", "Put all scenes into this system."),
    Option(
        "RES",
        "--res",
        "Pixel size",
        "text",
        "Put all scenes to this pixel size, in units of the reference system: 10 or 10,20.",
    ),
    Option(
        "RESAMPLING",
        "--resampling",
        "Resampling",
        "choice",
        "How, where pixels do not coincide; auto: nearest for classes, bilinear for the rest.",
        default="auto",
        choices=(
            *("auto", "nearest", "bilinear", "cubic", "cubic_spline"),
            *("lanczos", "average", "mode", "med"),
        ),
    ),
    Option(
        "MIN_COVER",
        "--min-cover",
        "Least share within the area of interest",
        "number",
        "Share of a chip that the polygons must cover.",
        default=0.5,
        least=0,
        most=1,
    ),
    Option(
        "EXCLUDE",
        "--exclude",
        "Areas to leave out",
        "vector",
        "Polygons; chips that they touch are left out.",
    ),
    Option(
        "MIN_VALID",
        "--min-valid",
        "Least share of valid pixels",
        "number",
        "Of a chip; nodata, masked and transparent pixels are not valid.",
        default=0.9,
        least=0,
        most=1,
    ),
    Option(
        "MIN_STD",
        "--min-std",
        "Least standard deviation",
        "number",
        "In stored units; some band of a chip must vary that much.",
        default=0.0,
        least=0,
    ),
    Option(
        "DROP_DUPLICATES",
        "--drop-duplicates",
        "Leave out duplicates",
        "switch",
        "Leave out chips with the same pixels as an earlier chip of the domain.",
        default=False,
    ),
    Option(
        "VAL",
        "--val",
        "Share for validation",
        "number",
        "Share of the chips set aside, in blocks apart from those of training.",
        default=0.1,
        least=0,
        most=1,
    ),
    Option(
        "VIRTUAL",
        "--virtual",
        "Write no chips",
        "switch",
        "Write only the list of chips; training then reads them from the scenes.",
        default=False,
    ),
    Option(
        "WORKERS",
        "--workers",
        "Processes",
        "integer",
        "Left empty: by the size of the job.",
        least=1,
    ),
    _SEED,
    Option(
        "OVERWRITE",
        "--overwrite",
        "Replace what the folder holds",
        "switch",
        "Remove the earlier chips of each domain that is given. Otherwise scenes chipped before are"
        " refreshed, and others added.",
        default=False,
    ),
    *COMMON,
)

TRAIN = (
    Option(
        "CHIPS",
        "",
        "Chip folder",
        "folder",
        "Folder with chips of both domains, as 'Chip scenes' writes it.",
        needed=True,
        advanced=False,
    ),
    Option(
        "STEPS",
        "--steps",
        "Training steps",
        "integer",
        "Steps in total. Left empty: by epochs. A few hundred show that all works, good models"
        " take tens of thousands.",
        least=1,
        advanced=False,
    ),
    Option(
        "EPOCHS",
        "--epochs",
        "Epochs, instead of steps",
        "integer",
        "Each as many samples as the larger domain has chips. Left empty: 200, unless steps are"
        " given.",
        least=1,
    ),
    Option(
        "METHOD",
        "--method",
        "Method",
        "choice",
        "What to train.",
        default="cyclegan",
        choices=METHODS,
    ),
    Option(
        "GENERATOR",
        "--generator",
        "Generators",
        "choice",
        "The networks that translate; resnet6 is smaller than resnet9.",
        default="resnet9",
        choices=GENERATORS,
        advanced=False,
    ),
    Option(
        "WIDTH",
        "--width",
        "Width",
        "integer",
        "Channels of the generators' first layer; half the width costs about a quarter.",
        default=64,
        least=1,
        advanced=False,
    ),
    Option(
        "NORM",
        "--norm",
        "Normalisation",
        "choice",
        "What shares the generators' statistics: each crop by itself, or several crops of one"
        " scene.",
        default="instance",
        choices=("instance", "scene"),
    ),
    Option(
        "CROP",
        "--crop",
        "Crop",
        "integer",
        "Side of the random crops in pixels. Left empty: 256, or what the chips allow.",
        least=1,
    ),
    Option(
        "BATCH", "--batch", "Batch", "integer", "Images of each domain per step.", 1, least=1
    ),
    Option("LR", "--lr", "Learning rate", "number", "Of the first half.", 0.0002, least=0),
    Option(
        "LAMBDA_A",
        "--lambda-a",
        "Weight of the cycle A to B to A",
        "number",
        "How much a scene of A must survive the way there and back.",
        default=10.0,
        least=0,
    ),
    Option(
        "LAMBDA_B",
        "--lambda-b",
        "Weight of the cycle B to A to B",
        "number",
        "How much a scene of B must survive the way there and back.",
        default=10.0,
        least=0,
    ),
    Option(
        "IDENTITY",
        "--identity",
        "Weight of the identity loss",
        "number",
        "Relative to the cycle's, over the bands that both domains name alike; 0: off.",
        default=0.5,
        least=0,
    ),
    Option(
        "NO_FLIP",
        "--no-flip",
        "Keep the orientation of chips",
        "switch",
        "Do not mirror and turn crops, since shadows and radar layover have a direction.",
        default=False,
    ),
    _SEED,
    _DEVICE,
    Option(
        "SAVE_EVERY",
        "--save-every",
        "Steps between checkpoints",
        "integer",
        "Each with the model as it then is.",
        default=500,
        least=1,
    ),
    Option(
        "CONFIG",
        "--config",
        "Configuration file",
        "file",
        "YAML file with options of training; what is changed in this dialog comes first.",
    ),
    Option(
        "RESUME",
        "--resume",
        "Go on with the run in the output folder",
        "switch",
        "Go on where it was stopped, up to the given steps in total.",
        default=False,
    ),
    Option(
        "OVERWRITE",
        "--overwrite",
        "Replace the run in the output folder",
        "switch",
        "Remove an earlier run of that folder and start anew.",
        default=False,
    ),
    *COMMON,
)

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
        "a2b: from the kind of scenes of domain A to that of domain B; b2a: back.",
        default="a2b",
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
    _DEVICE,
    *COMMON,
)
