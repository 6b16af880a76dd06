"""Panels: images, their translations, and these translated back, side by side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geocyclegan.methods.base import Direction, Method
from geocyclegan.raster.domain import Domain
from geocyclegan.raster.picture import captioned_row, picture
from geocyclegan.training.validate import FixedCrops

PAIRS = 2
_LEAST_SIDE = 192

Image = npt.NDArray[np.uint8]


def draw_panel(
    method: Method, crops: FixedCrops, domains: tuple[Domain, Domain], device: torch.device
) -> Image:
    """Draw A, A→B, A→B→A and B, B→A, B→A→B for a few fixed crops.

    Args:
        method: the networks.
        crops: where the images come from.
        domains: A and B.
        device: where the networks are.

    Returns:
        `(height, width, 3)`, one row per image.

    Raises:
        ChipsError: a chip cannot be read.
    """
    rows: list[Image] = []
    for index in crops.spread(PAIRS):
        batch = crops.load(index).to(device)
        rows.append(_row(method, batch.a, batch.valid_a, ("a2b", "b2a"), domains))
        rows.append(_row(method, batch.b, batch.valid_b, ("b2a", "a2b"), domains[::-1]))
    return np.concatenate(rows)


def _row(
    method: Method,
    image: Tensor,
    valid: Tensor | None,
    directions: tuple[Direction, Direction],
    domains: tuple[Domain, ...],
) -> Image:
    there = method.translate(image, valid, directions[0])
    back = method.translate(there, valid, directions[1])
    here, other = directions[0][0].upper(), directions[0][-1].upper()
    captions = (here, f"{here} to {other}", f"{here} to {other} to {here}")
    home, away = domains
    pictures = [
        _picture(domain, levels, valid)
        for domain, levels in ((home, image), (away, there), (home, back))
    ]
    return captioned_row(pictures, captions)


def _picture(domain: Domain, levels: Tensor, valid: Tensor | None) -> Image:
    mask = None if valid is None else valid[0, 0].cpu().numpy().astype(np.bool_)
    drawn = picture(domain, levels[0].float().cpu().numpy(), mask)
    factor = -(-_LEAST_SIDE // drawn.shape[0])
    return drawn.repeat(factor, axis=0).repeat(factor, axis=1)
