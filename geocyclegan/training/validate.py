"""A look at chips that training does not see: the same few crops every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from geocyclegan.methods.base import Batch, Method
from geocyclegan.training.augment import centred
from geocyclegan.training.data import LevelReader, stack
from geocyclegan.training.distances import kernel_distance, patches, sliced_wasserstein

MOST_PAIRS = 64
"""Validation takes so many crops at most, spread evenly over the chips."""


class FixedBatches(Protocol):
    """Batches by number, the same every time."""

    def __len__(self) -> int: ...

    def spread(self, most: int) -> list[int]:
        """Return up to `most` numbers of batches, evenly spread."""
        ...

    def load(self, index: int) -> Batch:
        """Read a batch."""
        ...


@dataclass(frozen=True)
class FixedCrops:
    """The middle of each chip, in pairs that mean nothing, as all pairs here.

    Attributes:
        a: chips of A.
        b: chips of B.
        crop: side of the crops in pixels.
        together: crops of one scene in a batch, for networks that pool their statistics.
    """

    a: LevelReader
    b: LevelReader
    crop: int
    together: int = 1

    def __len__(self) -> int:
        return max(len(self.a), len(self.b)) if len(self.a) and len(self.b) else 0

    def spread(self, most: int) -> list[int]:
        """Return up to `most` numbers of pairs, evenly spread."""
        count = min(len(self), most)
        return [i * len(self) // count for i in range(count)]

    def load(self, index: int) -> Batch:
        """Read a pair, each with others of its scene; the shorter domain starts over.

        Raises:
            ChipsError: a chip cannot be read.
        """
        a, valid_a = self._read(self.a, index % len(self.a))
        b, valid_b = self._read(self.b, index % len(self.b))
        return Batch(a, b, valid_a, valid_b)

    def _read(self, reader: LevelReader, index: int) -> tuple[Tensor, Tensor | None]:
        crops = []
        for companion in self._companions(reader, index):
            levels, valid = reader.read(companion)
            crops.append((levels, valid, centred(reader.chips.size, self.crop, valid)))
        return stack(crops, self.crop)

    def _companions(self, reader: LevelReader, index: int) -> list[int]:
        """The chip and the next ones of its scene, each once."""
        if self.together == 1:
            return [index]
        scene = next(scene for scene in reader.chips.by_scene() if index in scene)
        first = scene.index(index)
        return [scene[(first + i) % len(scene)] for i in range(min(self.together, len(scene)))]


def validate(
    method: Method,
    crops: FixedBatches,
    device: torch.device,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Return the mean of the method's errors over the crops, and distances from real images.

    Returns:
        The errors by the method's own names; `swd_<direction>` and `kernel_<direction>`, distances
        of translated crops from the real ones of their target domain, where there is something to
        compare. None if `stop` came true.

    Raises:
        ChipsError: a chip cannot be read.
    """
    sums: dict[str, Tensor] = {}
    seen = _Seen(method)
    chosen = crops.spread(MOST_PAIRS)
    for index in chosen:
        if stop():
            return None
        batch = crops.load(index).to(device)
        for name, error in method.validate(batch).items():
            sums[name] = error.double() + sums.get(name, 0.0)
        seen.add(batch, index)
    return {name: float(total) / len(chosen) for name, total in sums.items()} | seen.distances()


class _Seen:
    """Patches of real and translated crops."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self._directions = [
            direction
            for direction, network in method.generators().items()
            if direction in ("a2b", "b2a") and isinstance(network, nn.Module)
        ]
        self._patches: dict[str, list[Tensor]] = {}

    def add(self, batch: Batch, seed: int) -> None:
        sides = {"a": (batch.a, batch.valid_a), "b": (batch.b, batch.valid_b)}
        for domain, (images, valid) in sides.items():
            self._keep(domain, images, valid, seed)
        for direction in self._directions:
            images, valid = sides[direction[0]]
            fake = self._method.translate(images, valid, direction)
            self._keep(direction, fake, valid, seed)

    def _keep(self, name: str, images: Tensor, valid: Tensor | None, seed: int) -> None:
        self._patches.setdefault(name, []).append(patches(images, valid, seed))

    def distances(self) -> dict[str, float]:
        sets = {name: torch.cat(found) for name, found in self._patches.items()}
        told: dict[str, float] = {}
        for direction in self._directions:
            fake, real = sets[direction], sets[direction[-1]]
            if min(len(fake), len(real)) >= 2:
                told[f"swd_{direction}"] = sliced_wasserstein(fake, real)
                told[f"kernel_{direction}"] = kernel_distance(fake, real)
        return told
