"""Panels: images and what a method makes of them, side by side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geocyclegan.methods.base import Method
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.picture import captioned_row, picture
from geocyclegan.training.validate import FixedBatches

PAIRS = 2
_LEAST_SIDE = 192

Image = npt.NDArray[np.uint8]


def draw_panel(
    method: Method, crops: FixedBatches, domains: tuple[Domain, Domain], device: torch.device
) -> Image:
    """Draw what a method shows of a few fixed crops.

    Args:
        method: the networks.
        crops: where the images come from.
        domains: A and B.
        device: where the networks are.

    Returns:
        An RGB picture `(height, width, 3)`, 8 bits, one row below the other.

    Raises:
        ChipsError: a chip cannot be read.
    """
    rows: list[Image] = []
    for index in crops.spread(PAIRS):
        for row in method.show(crops.load(index).to(device)):
            pictures = [
                _picture(domains["ab".index(each.domain)], each.images, each.valid) for each in row
            ]
            rows.append(captioned_row(pictures, [shown.caption for shown in row]))
    # Rows of a method that translates one way only may be shorter than others.
    widest = max(row.shape[1] for row in rows)
    wide = [
        np.pad(r, ((0, 0), (0, widest - r.shape[1]), (0, 0)), constant_values=255) for r in rows
    ]
    return np.concatenate(wide)


def _picture(domain: Domain, levels: Tensor, valid: Tensor | None) -> Image:
    mask = None if valid is None else valid[0, 0].cpu().numpy().astype(np.bool_)
    drawn = picture(domain, levels[0].float().cpu().numpy(), mask)
    factor = -(-_LEAST_SIDE // drawn.shape[0])
    return drawn.repeat(factor, axis=0).repeat(factor, axis=1)
