"""What the norm layers see in the training set, for inference with frozen statistics.

The same crops every time, the middles of chips spread evenly over the set, go through a generator
together, layer by layer, so the statistics of each layer are those of all crops under the frozen
statistics of the layers before it: what inference will do. Nothing is drawn at random and nothing
in training changes by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from geocyclegan.chips.reader import evenly
from geocyclegan.methods.base import Direction
from geocyclegan.models import Generator
from geocyclegan.models.moments import Moments
from geocyclegan.models.passes import Patch, pooled_statistics
from geocyclegan.models.style import StyledGenerator
from geocyclegan.training.augment import centred
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import stack
from geocyclegan.training.levels import LevelReader

CROPS = 16
"""Crops of each domain; more of them change the statistics little, and cost time at each save."""

_MEMORY = 1024**3


def regime(config: TrainConfig) -> dict[str, Any]:
    """Return what a bundle says about the statistics of its norm layers."""
    return {
        "kind": "instance",
        "pool": "scene" if config.norm == "scene" else "crop",
        "crops": config.scene_crops or 1,
        "statistics": {"crops": CROPS},
    }


def training_statistics(
    generators: Mapping[Direction, Generator],
    readers: tuple[LevelReader, LevelReader],
    crop: int,
    device: torch.device,
) -> dict[Direction, list[Moments]]:
    """Measure each generator on fixed crops of the chips of its source domain.

    Args:
        generators: by direction; left as they were.
        readers: training chips of A and of B.
        crop: side of the crops in pixels.
        device: where the generators are.

    Returns:
        Statistics of each norm layer, by direction.

    Raises:
        ChipsError: a chip cannot be read.
    """
    found: dict[Direction, list[Moments]] = {}
    for direction, generator in generators.items():
        reader = readers["ab".index(direction[0])]
        chosen = evenly(len(reader), CROPS)

        def patches(reader: LevelReader = reader, chosen: list[int] = chosen) -> Iterator[Patch]:
            for index in chosen:
                levels, valid = reader.read_from(index)
                middle = centred(reader.chips.size, crop, valid)
                x, mask = stack([(levels, valid, middle)], crop)
                yield Patch(x.to(device), None if mask is None else mask.to(device))

        was_training = generator.training
        generator.eval()
        if isinstance(generator, StyledGenerator):
            # What a model translates with, unless told otherwise.
            with torch.no_grad():
                generator.set_style(generator.mean_style[None])
        try:
            found[direction] = pooled_statistics(
                generator, patches, pixels=len(chosen) * crop * crop, memory=_MEMORY
            )
        finally:
            generator.thaw()
            if isinstance(generator, StyledGenerator):
                generator.set_style(None)
            generator.train(was_training)
    return found
