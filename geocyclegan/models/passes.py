"""Passes over many patches that find the statistics of all of them together, layer by layer.

A layer's statistics depend on those of all layers before it, so they are found in the order of the
plan: measure every patch at a norm layer, merge, freeze the layer, go on. How far each patch has
come can be held, in memory or on disk, and the next layer goes on from there: one forward pass in
all. What is not held starts over from its patch. The first layers and the last are of full
resolution and take most room, so what does not fit as a whole may be held from a later layer on.
Patches that are normalised each for itself must never be merged: iterating that diverges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from geocyclegan.models import receptive
from geocyclegan.models.generator import Generator
from geocyclegan.models.layers import Step, advance
from geocyclegan.models.moments import Moments
from geocyclegan.models.norm import Core, SceneNorm2d
from geocyclegan.models.opaque import OpaqueGenerator
from geocyclegan.models.opaque_passes import measure_at, opaque_statistics
from geocyclegan.models.patch import Patch as Patch


@dataclass(frozen=True, eq=False)
class State:
    """How far a patch has come.

    Attributes:
        layer: the norm layer that it stands before; -1: at the beginning of the plan.
        x: the running tensor (samples, channels, rows, columns).
        stack: saved tensors, of the same kind of shape.
        valid: mask of the patch at full resolution (samples, 1, height, width); None: all are
            valid.
        core: as in the patch.
    """

    layer: int
    x: Tensor
    stack: tuple[Tensor, ...]
    valid: Tensor | None
    core: Core | None


class Store(Protocol):
    """Holds states by number."""

    def put(self, index: int, state: State) -> None:
        """Hold a state in place of the one of that number."""
        ...

    def get(self, index: int) -> State:
        """Return the state of a number."""
        ...

    def __len__(self) -> int:
        """How many are held."""
        ...

    def clear(self) -> None:
        """Hold none any more."""
        ...


class MemoryStore:
    """Holds states where their tensors are."""

    def __init__(self) -> None:
        self._states: dict[int, State] = {}

    def put(self, index: int, state: State) -> None:
        """Hold a state in place of the one of that number."""
        self._states[index] = state

    def get(self, index: int) -> State:
        """Return the state of a number."""
        return self._states[index]

    def __len__(self) -> int:
        return len(self._states)

    def clear(self) -> None:
        """Hold none any more."""
        self._states.clear()


class LayerPass:
    """Measures patches at one norm layer after the other.

    Args:
        generator: in eval mode; when a layer is measured, those before it must be frozen.
        patches: gives the same patches each time it is called.
        hold_from: norm layer from which on states are held; see `hold_from`.
        store: holds them.
    """

    def __init__(
        self,
        generator: Generator,
        patches: Callable[[], Iterable[Patch]],
        hold_from: int,
        store: Store,
    ) -> None:
        self._generator, self._patches = generator, patches
        self._hold_from, self._store = hold_from, store
        self._ends = [
            index
            for index, step in enumerate(generator.plan)
            if isinstance(step.module, SceneNorm2d)
        ]
        self._whole = False

    def measure(self, layer: int, done: Callable[[], None] = lambda: None) -> list[Moments]:
        """Measure all patches at a norm layer; may be called again for the same layer.

        Args:
            layer: number of the norm layer, not below that of earlier calls.
            done: called for each patch.

        Returns:
            The statistics of each patch as one sample, in their order.

        Raises:
            ValueError: a patch does not fit the generator.
        """
        generator = self._generator
        norm = generator.norm_layers()[layer]
        if isinstance(generator, OpaqueGenerator):
            # Its activations cannot be taken out of it, so that each layer is reached anew.
            parts: list[Moments] = []
            for patch in self._patches():
                parts.append(measure_at(generator, patch, norm))
                done()
            return parts
        hold = self._hold_from <= layer < len(self._ends) - 1
        found: list[Moments] = []
        with torch.inference_mode():
            for index, state in enumerate(self._states()):
                weights = generator.weights(state.valid)
                x, stack = state.x, list(state.stack)
                for step in self._steps(state.layer, layer):
                    x = advance(step, x, stack, weights)
                weight = None if weights is None else weights[norm.scale]
                found.append(norm.measure(x, weight, state.core))
                if hold and state.layer < layer:
                    state = State(layer, x, tuple(stack), state.valid, state.core)
                    self._store.put(index, state)
                done()
        self._whole = self._whole or hold
        return found

    def _steps(self, reached: int, layer: int) -> Sequence[Step]:
        return self._generator.plan[0 if reached < 0 else self._ends[reached] : self._ends[layer]]

    def _states(self) -> Iterator[State]:
        if self._whole:
            yield from (self._store.get(index) for index in range(len(self._store)))
            return
        # What an earlier call that was broken off may have held is written over.
        for patch in self._patches():
            self._generator.check(patch.levels, patch.valid)
            yield State(-1, patch.levels, (), patch.valid, patch.core)


def layer_statistics(
    generator: Generator,
    patches: Callable[[], Iterable[Patch]],
    store: Store,
    *,
    hold_from: int = 0,
    done: Callable[[], None] = lambda: None,
) -> list[Moments]:
    """Find and freeze the statistics of all patches together.

    Args:
        generator: in eval mode; its norm layers are left frozen.
        patches: gives the same patches each time it is called.
        store: holds where each has come to.
        hold_from: norm layer from which on it does; see the function `hold_from`.
        done: called for each patch at each norm layer.

    Returns:
        The statistics of each norm layer, in order.

    Raises:
        ValueError: there is no patch, or one does not fit the generator.
    """
    walk = LayerPass(generator, patches, hold_from, store)
    found: list[Moments] = []
    for layer, norm in enumerate(generator.norm_layers()):
        found.append(merged(walk.measure(layer, done)))
        norm.freeze(found[-1])
    return found


def pooled_statistics(
    generator: Generator,
    patches: Callable[[], Iterable[Patch]],
    *,
    pixels: int,
    memory: int,
    done: Callable[[], None] = lambda: None,
) -> list[Moments]:
    """Find and freeze the statistics of all patches together, in the memory stated.

    Args:
        generator: in eval mode; its norm layers are left frozen.
        patches: gives the same patches each time it is called.
        pixels: of all patches together, context included.
        memory: bytes that states may take; less costs passes, and has the same result.
        done: called for each patch at each norm layer.

    Returns:
        The statistics of each norm layer, in order.

    Raises:
        ValueError: there is no patch, or one does not fit the generator.
    """
    if isinstance(generator, OpaqueGenerator):
        return opaque_statistics(generator, patches, memory, done)
    first = hold_from(held_bytes(generator), pixels, memory)
    return layer_statistics(generator, patches, MemoryStore(), hold_from=first, done=done)


def lockstep(
    generator: Generator,
    patches: Iterable[Patch],
    done: Callable[[], None] = lambda: None,
) -> list[Moments]:
    """Find and freeze the statistics of all patches together, side by side in memory.

    Args:
        generator: in eval mode; its norm layers are left frozen.
        patches: all of them are held in memory; see `held_bytes`.
        done: called for each patch at each norm layer, `len(norm_layers())` times the patches.

    Returns:
        The statistics of each norm layer, in order.

    Raises:
        ValueError: there is no patch, or one does not fit the generator.
    """
    return layer_statistics(generator, lambda: patches, MemoryStore(), done=done)


def merged(parts: Sequence[Moments]) -> Moments:
    """Statistics of several patches together, in the order given.

    Raises:
        ValueError: there is none.
    """
    if not parts:
        raise ValueError("no patch to measure")
    return Moments.cat(parts).pooled()


def held_bytes(generator: Generator, itemsize: int = 4) -> list[float]:
    """Bytes per input pixel that a state takes before each norm layer, its mask included."""
    channels, scale = generator.in_channels, 1
    stack: list[float] = []
    found: list[float] = []
    for step in generator.plan:
        module = step.module
        if isinstance(module, SceneNorm2d):
            found.append(itemsize * (channels / scale**2 + sum(stack)) + 1.0)
        elif step.kind == "save":
            stack.append(channels / scale**2)
        elif step.kind == "add":
            stack.pop()
        elif step.kind == "concat":
            channels += round(stack.pop() * scale**2)
        elif module is not None:
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                channels = module.out_channels
            coarser, finer = receptive.rescaling(module)
            scale = scale * coarser // finer
    return found


def hold_from(held: Sequence[float], pixels: int, budget: float) -> int:
    """Choose the norm layer from which on states are held.

    Args:
        held: bytes per pixel before each layer; see `held_bytes`.
        pixels: of all patches together, context included.
        budget: bytes that they may take.

    Returns:
        The first layer from which on they fit; the last layer, at which none is held, if they
        never do.
    """
    last = len(held) - 1
    for layer in range(last):
        if max(held[layer:last]) * pixels <= budget:
            return layer
    return max(last, 0)
