# SPDX-License-Identifier: GPL-2.0-or-later
"""The parameters of "Chip scenes". Nothing here needs QGIS."""

from __future__ import annotations

from .options import Option
from .table_common import COMMON, SEED


def _domain_options(name: str) -> tuple[Option, ...]:
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
            f"NODATA_{name}",
            "--nodata",
            f"Undeclared nodata of domain {name}",
            "text",
            "Number, such as 0 or -9999, that stands for no data though the files do not say so:"
            " pixels are invalid where all chosen bands have it.",
        ),
        Option(
            f"UNIT_{name}",
            "--unit",
            f"Unit of domain {name}",
            "text",
            "Unit of the pixel values, such as dB, where the files do not state it.",
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
    *_domain_options("A"),
    *_domain_options("B"),
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
    SEED,
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
