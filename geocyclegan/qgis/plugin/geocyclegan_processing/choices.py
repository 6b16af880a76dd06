# SPDX-License-Identifier: GPL-2.0-or-later
"""Names that the toolkit knows; written by `python -m geocyclegan.qgis.assemble`."""

METHODS = ("cyclegan", "pix2pix", "cut", "fastcut", "munit", "dcgan", "semantic")
GENERATORS = (
    "resnet9",
    "resnet6",
    "unet256",
    "unet128",
    "densenet",
    "smp-unet",
    "smp-unetplusplus",
    "smp-fpn",
    "smp-segformer",
    "munit",
)
