# SPDX-License-Identifier: GPL-2.0-or-later
"""The parameters of "Train translation model". Nothing here needs QGIS."""

from __future__ import annotations

from .choices import GENERATORS, METHODS
from .options import Option
from .table_common import COMMON, DEVICE, SEED

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
        "The networks that translate; resnet6 is smaller than resnet9. Left empty: the method's"
        " own, resnet9 for cyclegan.",
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
        "BATCH",
        "--batch",
        "Batch",
        "integer",
        "Images of each domain per step. Left empty: the method's own, 1 for cyclegan.",
        least=1,
    ),
    Option(
        "LR",
        "--lr",
        "Learning rate",
        "number",
        "Of the first half. Left empty: the method's own, 0.0002 for cyclegan.",
        least=0,
    ),
    Option(
        "LAMBDA_A",
        "--lambda-a",
        "Weight of the cycle A to B to A",
        "number",
        "How much a scene of A must survive the way there and back. Left empty: 10.",
        least=0,
    ),
    Option(
        "LAMBDA_B",
        "--lambda-b",
        "Weight of the cycle B to A to B",
        "number",
        "How much a scene of B must survive the way there and back. Left empty: 10.",
        least=0,
    ),
    Option(
        "IDENTITY",
        "--identity",
        "Weight of the identity loss",
        "number",
        "Relative to the cycle's, over the bands that both domains name alike; 0: off. Left empty:"
        " 0.5.",
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
    SEED,
    DEVICE,
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
