"""Passes over many patches that find the statistics of all of them together, layer by layer.

A layer's statistics depend on those of all layers before it, so they are found in the order of the
plan: measure every patch at a norm layer, merge, freeze the layer, go on. In lockstep all patches
go through the network side by side, which takes one forward pass and the memory of all their
activations; in a sweep each layer's turn starts over from the patches, which takes the memory of
one. Patches that are normalised each for itself must never be merged: iterating that diverges.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from geocyclegan.models import receptive
from geocyclegan.models.generator import Generator
from geocyclegan.models.layers import Step, advance
from geocyclegan.models.moments import Moments
from geocyclegan.models.norm import Core, SceneNorm2d
from geocyclegan.models.opaque import OpaqueGenerator
from geocyclegan.models.opaque_passes import opaque_statistics
from geocyclegan.models.patch import Patch as Patch

log = logging.getLogger(__name__)


@dataclass
class _Walk:
    x: Tensor
    weights: dict[int, Tensor] | None
    core: Core | None
    stack: list[Tensor] = field(default_factory=list)

    def measure(self, norm: SceneNorm2d) -> Moments:
        weight = None if self.weights is None else self.weights[norm.scale]
        return norm.measure(self.x, weight, self.core)

    def advance(self, step: Step) -> None:
        self.x = advance(step, self.x, self.stack, self.weights)


def pooled_statistics(
    generator: Generator,
    patches: Callable[[], Iterable[Patch]],
    *,
    pixels: int,
    memory: int,
    done: Callable[[], None] = lambda: None,
) -> list[Moments]:
    """Find and freeze the statistics of all patches together: in lockstep if memory allows.

    Args:
        generator: in eval mode; its norm layers are left frozen.
        patches: gives the same patches each time it is called.
        pixels: of all patches together, context included.
        memory: bytes that activations may take.
        done: called for each patch at each norm layer.

    Returns:
        The statistics of each norm layer, in order.

    Raises:
        ValueError: there is no patch, or one does not fit the generator.
    """
    if isinstance(generator, OpaqueGenerator):
        return opaque_statistics(generator, patches, memory, done)
    needed = pixels * activation_bytes(generator)
    if needed <= memory:
        return lockstep(generator, patches(), done)
    log.info(
        "statistics of all patches side by side would take %.2f GB, %.2f GB are allowed: %d sweeps"
        " over them instead",
        *(needed / 1e9, memory / 1e9, len(generator.norm_layers())),
    )
    return sweep(generator, patches, done)


def lockstep(
    generator: Generator,
    patches: Iterable[Patch],
    done: Callable[[], None] = lambda: None,
) -> list[Moments]:
    """Find and freeze the statistics of all patches together, in one forward pass.

    Args:
        generator: in eval mode; its norm layers are left frozen.
        patches: all of them are held in memory; see `activation_bytes`.
        done: called for each patch at each norm layer, `len(norm_layers())` times the patches.

    Returns:
        The statistics of each norm layer, in order.

    Raises:
        ValueError: there is no patch, or one does not fit the generator.
    """
    walks = []
    with torch.inference_mode():
        for patch in patches:
            generator.check(patch.levels, patch.valid)
            walks.append(_Walk(patch.levels, generator.weights(patch.valid), patch.core))
        found: list[Moments] = []
        for step in _measured_part(generator):
            if isinstance(step.module, SceneNorm2d):
                found.append(_merged(walk.measure(step.module) for walk in walks))
                step.module.freeze(found[-1])
            for walk in walks:
                walk.advance(step)
                if isinstance(step.module, SceneNorm2d):
                    done()
    return found


def sweep(
    generator: Generator,
    patches: Callable[[], Iterable[Patch]],
    done: Callable[[], None] = lambda: None,
) -> list[Moments]:
    """Find and freeze the same as `lockstep`, in the memory of one patch.

    Args:
        generator: in eval mode; its norm layers are left frozen.
        patches: gives the same patches each time it is called.
        done: called for each patch at each norm layer.

    Returns:
        The statistics of each norm layer, in order.

    Raises:
        ValueError: there is no patch, or one does not fit the generator.
    """
    plan = _measured_part(generator)
    found: list[Moments] = []
    with torch.inference_mode():
        for end, step in enumerate(plan):
            norm = step.module
            if not isinstance(norm, SceneNorm2d):
                continue
            parts = []
            for patch in patches():
                generator.check(patch.levels, patch.valid)
                walk = _Walk(patch.levels, generator.weights(patch.valid), patch.core)
                for earlier in plan[:end]:
                    walk.advance(earlier)
                parts.append(walk.measure(norm))
                done()
            found.append(_merged(parts))
            norm.freeze(found[-1])
    return found


def activation_bytes(generator: Generator, itemsize: int = 4) -> float:
    """Bytes per input pixel that a patch holds at the widest place of `lockstep`."""
    channels, scale = generator.in_channels, 1
    stack: list[float] = []
    held = peak = float(channels)
    for step in _measured_part(generator):
        module = step.module
        if step.kind == "save":
            stack.append(held)
        elif step.kind == "add":
            stack.pop()
        elif step.kind == "concat":
            channels += round(stack.pop() * scale * scale)
        elif module is not None:
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                channels = module.out_channels
            coarser, finer = receptive.rescaling(module)
            scale = scale * coarser // finer
        held = channels / (scale * scale)
        peak = max(peak, held + sum(stack))
    # The masks at each scale come on top.
    return itemsize * (peak + 1.5)


def _measured_part(generator: Generator) -> tuple[Step, ...]:
    """The plan up to its last norm layer."""
    last = max(
        (i for i, step in enumerate(generator.plan) if isinstance(step.module, SceneNorm2d)),
        default=-1,
    )
    return generator.plan[: last + 1]


def _merged(parts: Iterable[Moments]) -> Moments:
    found = list(parts)
    if not found:
        raise ValueError("no patch to measure")
    return Moments.cat(found).pooled()
