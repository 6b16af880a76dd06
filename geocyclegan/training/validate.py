"""A look at chips that training does not see: the same few crops every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from geocyclegan.chips.reader import evenly
from geocyclegan.methods.base import Batch, Method
from geocyclegan.training.augment import centred
from geocyclegan.training.data import stack
from geocyclegan.training.distances import kernel_distance, patches, sliced_wasserstein
from geocyclegan.training.features import Features
from geocyclegan.training.levels import LevelReader

MOST_PAIRS = 64
"""Validation takes so many crops at most, spread evenly over the chips."""


class FixedBatches(Protocol):
    """Batches by number, the same every time."""

    def __len__(self) -> int: ...

    def spread(self, most: int) -> list[int]:
        """Return up to `most` numbers of batches, evenly spread."""
        ...

    def load(self, index: int) -> Batch:
        """Read a batch, on the CPU; shapes are those of `Batch`.

        Raises:
            ChipsError: a chip cannot be read.
        """
        ...


@dataclass(frozen=True)
class FixedCrops:
    """The middle of each chip; a chip of A and one of B make a batch, unpaired as in training.

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
        return evenly(len(self), most)

    def load(self, index: int) -> Batch:
        """Read a chip of each domain, with others of its scene; the shorter domain starts over.

        One that is skipped gives way to the next one that can be read.

        Returns:
            Images (samples, bands, crop, crop) of both domains and their masks, see `Batch`.

        Raises:
            ChipsError: a chip cannot be read.
        """
        a, valid_a = self._read(self.a, index % len(self.a))
        b, valid_b = self._read(self.b, index % len(self.b))
        return Batch(a, b, valid_a, valid_b)

    def _read(self, reader: LevelReader, index: int) -> tuple[Tensor, Tensor | None]:
        crops = []
        among = None if self.together == 1 else reader.others(index, same_scene=True)
        for companion in self._companions(reader, index):
            levels, valid = reader.read_from(companion, among)
            crops.append((levels, valid, centred(reader.chips.size, self.crop, valid)))
        return stack(crops, self.crop)

    def _companions(self, reader: LevelReader, index: int) -> list[int]:
        """The chip and the next ones of its scene, each once."""
        if self.together == 1:
            return [index]
        scene = reader.others(index, same_scene=True)
        first = scene.index(index)
        return [scene[(first + i) % len(scene)] for i in range(min(self.together, len(scene)))]


def validate(
    method: Method,
    crops: FixedBatches,
    device: torch.device,
    stop: Callable[[], bool] = lambda: False,
    features: Features | None = None,
) -> dict[str, float] | None:
    """Return the mean of the method's errors over the crops, and distances from real images.

    Args:
        method: what is judged.
        crops: where to look.
        device: where the method is.
        stop: says when to give up.
        features: what to compare images by, beside patches.

    Returns:
        The errors by the method's own names; `swd_<direction>` and `kernel_<direction>`, distances
        of translated crops from the real ones of their target domain, where there is something to
        compare; the same of features, as `features_swd_<direction>` and `kid_<direction>`. None if
        `stop` came true.

    Raises:
        ChipsError: a chip cannot be read.
    """
    sums: dict[str, Tensor] = {}
    seen = _Seen(method, features)
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
    """Patches and features of real and translated crops."""

    def __init__(self, method: Method, features: Features | None) -> None:
        self._method, self._network = method, features
        self._directions = [
            direction
            for direction, network in method.generators().items()
            if direction in ("a2b", "b2a") and isinstance(network, nn.Module)
        ]
        self._patches: dict[str, list[Tensor]] = {}
        self._features: dict[str, list[Tensor]] = {}

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
        side = name[-1]
        if self._network is not None and side in self._network.domains:
            known = seed if name == side else None
            found = self._network.see(side, images, valid, known)
            self._features.setdefault(name, []).append(found)

    def distances(self) -> dict[str, float]:
        return self._compare(self._patches, "swd", "kernel") | self._compare(
            self._features, "features_swd", "kid"
        )

    def _compare(
        self, points: Mapping[str, list[Tensor]], wasserstein: str, kernel: str
    ) -> dict[str, float]:
        sets = {name: torch.cat(found) for name, found in points.items()}
        told: dict[str, float] = {}
        for direction in self._directions:
            if direction not in sets:
                continue
            fake, real = sets[direction], sets[direction[-1]]
            if min(len(fake), len(real)) >= 2:
                told[f"{wasserstein}_{direction}"] = sliced_wasserstein(fake, real)
                told[f"{kernel}_{direction}"] = kernel_distance(fake, real)
        return told
