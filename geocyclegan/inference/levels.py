"""A scene as the generator sees it: windows of levels with their valid mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geocyclegan.raster.domain import Domain
from geocyclegan.raster.windows import Window

Levels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Read = tuple[Levels, Mask]


@dataclass(frozen=True, eq=False)
class Output:
    """A translated part of the scene, as levels.

    Attributes:
        window: where, in pixels of the scene.
        levels: `(bands, height, width)` in [-1, 1]; they mean nothing where not valid.
        valid: `(height, width)`, True where a pixel is valid.
        tiles: how many tiles are done since the last output.
    """

    window: Window
    levels: Levels
    valid: Mask
    tiles: int


class Source(Protocol):
    """What inference needs to know of a scene."""

    def read(self, window: Window) -> tuple[npt.NDArray[Any], Mask]:
        """Read a window that lies inside the scene.

        Returns:
            Pixels `(bands, height, width)` in stored units and the valid mask `(height, width)`.

        Raises:
            SceneError: the pixels cannot be read.
        """
        ...


class SceneLevels:
    """Reads windows of a scene as levels.

    Args:
        scene: gives pixels and masks.
        domain: of the scene.
        height: rows of the scene.
        width: columns of the scene.
    """

    def __init__(self, scene: Source, domain: Domain, height: int, width: int) -> None:
        self._scene, self._domain = scene, domain
        self.height, self.width = height, width

    def read(self, window: Window) -> Read:
        """Read a window as levels; what lies beyond the scene repeats its last row and column.

        Repeating is for the pad to a multiple of the stride only: at the border itself the
        generator's own padding acts.

        Returns:
            Levels `(bands, height, width)` in [-1, 1], 0 where invalid, and the valid mask
            `(height, width)`, False beyond the scene.

        Raises:
            SceneError: the pixels cannot be read.
        """
        inside = window.clip(self.height, self.width)
        pixels, valid = self._scene.read(inside)
        levels = self._domain.to_levels(pixels, valid)
        pad = ((0, window.height - inside.height), (0, window.width - inside.width))
        if pad != ((0, 0), (0, 0)):
            levels = np.pad(levels, ((0, 0), *pad), mode="edge")
            valid = np.pad(valid, pad, mode="constant", constant_values=False)
        return levels, valid


def stack_reads(reads: Sequence[Read], *, pinned: bool) -> tuple[Tensor, Tensor | None]:
    """Stack windows of one size into a batch.

    Args:
        reads: of each window, levels `(bands, height, width)` and valid mask `(height, width)`.
        pinned: put them into page-locked memory, from where a GPU copies them by itself.

    Returns:
        Levels (samples, bands, height, width), and the mask (samples, 1, height, width) or None
        where every pixel is valid.
    """
    levels = torch.from_numpy(np.stack([levels for levels, _ in reads]))
    mask: Tensor | None = None
    if not all(valid.all() for _, valid in reads):
        mask = torch.from_numpy(np.stack([valid for _, valid in reads])[:, None])
    if pinned:
        levels = levels.pin_memory()
        mask = None if mask is None else mask.pin_memory()
    return levels, mask


def to_tensors(reads: Sequence[Read], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Stack windows of one size into a batch on a device.

    Args:
        reads: of each window, levels `(bands, height, width)` and valid mask `(height, width)`.
        device: where the batch goes.

    Returns:
        Levels (samples, bands, height, width), and the mask (samples, 1, height, width) or None
        where every pixel is valid.
    """
    levels, mask = stack_reads(reads, pinned=device.type == "cuda")
    return (
        levels.to(device, non_blocking=True),
        None if mask is None else mask.to(device, non_blocking=True),
    )
