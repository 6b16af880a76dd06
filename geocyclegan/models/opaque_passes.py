"""The statistics of all patches together, layer by layer, for a generator that is no plan.

All patches go through the network as one batch in which each norm layer measures what it meets,
freezes itself with that and goes on: the result is that of `passes.lockstep`. Where memory does not
allow it, the patches go one by one, as often as there are norm layers.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from geocyclegan.models.discriminator import as_weight
from geocyclegan.models.moments import Moments
from geocyclegan.models.norm import Core, SceneNorm2d
from geocyclegan.models.opaque import OpaqueGenerator
from geocyclegan.models.patch import Patch

log = logging.getLogger(__name__)


def opaque_statistics(
    generator: OpaqueGenerator,
    patches: Callable[[], Iterable[Patch]],
    memory: int,
    done: Callable[[], None] = lambda: None,
) -> list[Moments]:
    """Find and freeze the statistics of all patches together.

    Args:
        generator: in eval mode; its norm layers are left frozen.
        patches: gives the same patches, all of one size, each time it is called.
        memory: bytes that activations may take.
        done: called for each patch at each norm layer.

    Returns:
        The statistics of each norm layer, in the order of `norm_layers`; of one that the network
        does not call, those of nothing.

    Raises:
        ValueError: there is no patch, or one does not fit the generator.
    """
    with torch.inference_mode():
        first = next(iter(patches()), None)
        if first is None:
            raise ValueError("no patch to measure")
        order, size = _survey(generator, first)
        count = sum(1 for _ in patches())
        if size * count <= memory:
            found = _measure(generator, list(patches()), order)
            for _ in range(count * len(order)):
                done()
        else:
            log.info(
                "statistics of all patches side by side would take %.2f GB, %.2f GB are allowed:"
                " %d sweeps over them instead",
                *(size * count / 1e9, memory / 1e9, len(order)),
            )
            found = _sweep(generator, patches, order, done)
    statistics = []
    for norm in generator.norm_layers():
        statistics.append(found.get(id(norm)) or _nothing(norm.channels))
        norm.freeze(statistics[-1])
    return statistics


def _survey(generator: OpaqueGenerator, patch: Patch) -> tuple[list[SceneNorm2d], int]:
    """The norm layers in the order of their calls, and the bytes that one patch takes."""
    order: list[SceneNorm2d] = []
    alive: list[weakref.ref[Tensor]] = []
    peak = 0

    def look(module: nn.Module, args: Any, out: Any) -> None:
        nonlocal alive, peak
        if isinstance(module, SceneNorm2d) and all(module is not known for known in order):
            order.append(module)
        if isinstance(out, Tensor):
            alive = [ref for ref in alive if ref() is not None]
            alive.append(weakref.ref(out))
            held = {t.data_ptr(): t.nbytes for t in (ref() for ref in alive) if t is not None}
            peak = max(peak, sum(held.values()))

    with ExitStack() as stack:
        for module in generator.network.modules():
            stack.enter_context(module.register_forward_hook(look))
        generator(patch.levels, patch.valid)
    # Twice, since what functions make between the modules (concatenations, sums) is not seen.
    return order, 2 * peak


def _sweep(
    generator: OpaqueGenerator,
    patches: Callable[[], Iterable[Patch]],
    order: Sequence[SceneNorm2d],
    done: Callable[[], None],
) -> dict[int, Moments]:
    found: dict[int, Moments] = {}
    for norm in order:
        parts = []
        for patch in patches():
            parts.append(_measure(generator, [patch], [norm], stop=True)[id(norm)])
            done()
        found[id(norm)] = Moments.cat(parts).pooled()
        norm.freeze(found[id(norm)])
    return found


def _measure(
    generator: OpaqueGenerator,
    patches: Sequence[Patch],
    norms: Sequence[SceneNorm2d],
    stop: bool = False,
) -> dict[int, Moments]:
    """Run patches as one batch; freeze each of `norms` with what it meets, or stop at the first."""
    found: dict[int, Moments] = {}
    around = generator.around

    def measure(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        if isinstance(norm, SceneNorm2d) and id(norm) not in found:
            found[id(norm)] = norm.measure(args[0], around.counted(args[0]))
            if stop:
                raise _Enough
            norm.freeze(found[id(norm)])

    if any(patch.core is not None for patch in patches):
        around.core = torch.cat([_core(patch.levels, patch.core) for patch in patches])
    try:
        with ExitStack() as stack:
            for norm in norms:
                stack.enter_context(norm.register_forward_pre_hook(measure))
            generator(torch.cat([patch.levels for patch in patches]), _masks(patches))
    except _Enough:
        pass
    finally:
        around.core = None
    return found


class _Enough(Exception):
    """What was to be measured has been."""


def _masks(patches: Sequence[Patch]) -> Tensor | None:
    if all(patch.valid is None for patch in patches):
        return None
    return torch.cat(
        [
            _ones(patch.levels) if patch.valid is None else as_weight(patch.valid)
            for patch in patches
        ]
    )


def _ones(images: Tensor) -> Tensor:
    return images.new_ones(images.shape[0], 1, *images.shape[-2:], dtype=torch.float32)


def _core(images: Tensor, core: Core | None) -> Tensor:
    """1 in the core of a patch, 0 around it."""
    ones = _ones(images)
    if core is None:
        return ones
    inside = torch.zeros_like(ones)
    inside[..., core[0], core[1]] = 1.0
    return inside


def _nothing(channels: int) -> Moments:
    """Statistics that leave features as they are."""
    one = Moments.of_variance(torch.ones(()), torch.zeros(channels), torch.ones(channels))
    return one
