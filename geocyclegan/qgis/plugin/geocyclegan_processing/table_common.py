# SPDX-License-Identifier: GPL-2.0-or-later
"""Parameters that several algorithms have. Nothing here needs QGIS."""

from __future__ import annotations

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

DEVICE = Option(
    "DEVICE",
    "--device",
    "Device",
    "choice",
    "Where to compute; auto takes the graphics card if PyTorch can use it.",
    default="auto",
    choices=("auto", "cpu", "cuda"),
)
SEED = Option("SEED", "--seed", "Seed", "integer", "Seed of all random choices.", 0, least=0)
