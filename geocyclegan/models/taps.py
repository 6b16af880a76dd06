"""Places in the first half of a generator where a loss may look at its features.

A plan says them: its input, what each halving of the resolution gives, and, where the coarsest
level has residual blocks, the first of these and the middle one. In a ResNet of nine blocks these
are the five layers of Park et al., ECCV 2020 (input, both halvings, blocks 1 and 5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from geocyclegan.errors import OptionError
from geocyclegan.models import receptive
from geocyclegan.models.generator import Generator
from geocyclegan.models.layers import advance

INPUT = -1
"""The number of the step before the first one, whose output is the input."""

_COARSEST = 16


@dataclass(frozen=True)
class Tap:
    """A place in a plan.

    Attributes:
        step: number of the step whose output is meant; `INPUT` for the input itself.
        scale: side of one of its pixels in input pixels.
        channels: of the features there.
    """

    step: int
    scale: int
    channels: int


def encoder_taps(generator: Generator) -> tuple[Tap, ...]:
    """Return the taps of a generator's first half, from fine to coarse.

    Raises:
        OptionError: the generator is no plan, so nothing says where its features are.
    """
    plan = generator.plan
    if not plan:
        raise OptionError(
            "its layers cannot be looked into; choose a resnet, a unet or the densenet of this"
            " package as --generator"
        )
    scales = receptive.scales(plan)
    channels = _channels(generator)
    # Up to the first step that makes pixels finer.
    end = next((i for i in range(1, len(plan)) if scales[i] < scales[i - 1]), len(plan))
    before = [1, *scales]
    halvings = [i for i in range(end) if before[i] < scales[i] <= _COARSEST]
    adds = [i for i in range(end) if plan[i].kind == "add"]
    chosen = [*halvings, *sorted({adds[0], adds[len(adds) // 2]} if adds else set())]
    if not adds and scales[end - 1] <= _COARSEST and end - 1 not in chosen:
        chosen.append(end - 1)
    found = [Tap(INPUT, 1, generator.in_channels)]
    return (*found, *(Tap(i, scales[i], channels[i]) for i in chosen))


def stem_tap(generator: Generator) -> Tap:
    """Return the output of the first convolution, the first place that has features, not bands.

    Raises:
        OptionError: the plan has no convolution.
    """
    index, conv = first_convolution(generator)
    return Tap(index, receptive.scales(generator.plan)[index], conv.out_channels)


def first_convolution(generator: Generator) -> tuple[int, nn.Conv2d]:
    """Return the number of the step that takes the bands, and its convolution.

    Raises:
        OptionError: the plan has no convolution.
    """
    for index, step in enumerate(generator.plan):
        if isinstance(step.module, nn.Conv2d):
            return index, step.module
    raise OptionError("its plan has no convolution")


def features_at(
    generator: Generator,
    x: Tensor,
    valid: Tensor | None,
    places: Mapping[int, Tensor],
    stem: nn.Module | None = None,
) -> list[Tensor]:
    """Run a generator as far as its last tap and keep what it has at some places.

    Args:
        generator: a plan.
        x: images (samples, bands, height, width).
        valid: mask (samples, 1, height, width); None: all are valid.
        places: by number of step in ascending order, which pixels to keep (samples, places),
            counted along rows.
        stem: a convolution to run in place of the first one, for images of other bands.

    Returns:
        Features (samples, places, channels), one tensor for each step.
    """
    found: list[Tensor] = []
    if INPUT in places:
        found.append(_picked(x, places[INPUT]))
    for index, output in _outputs(generator, x, valid, stem):
        if index in places:
            found.append(_picked(output, places[index]))
        if len(found) == len(places):
            break
    return found


def run_with(
    generator: Generator, x: Tensor, valid: Tensor | None, stem: nn.Module | None
) -> Tensor:
    """Run a whole generator, if asked for with another first convolution.

    Args:
        generator: a plan.
        x: images (samples, bands, height, width) in [−1, 1], 0 where not valid.
        valid: mask (samples, 1, height, width); None: all are valid.
        stem: a convolution to run in place of the first one, for images of other bands; None: the
            generator's own.

    Returns:
        Images (samples, out_channels, height, width) in [−1, 1].
    """
    output = x
    for _, output in _outputs(generator, x, valid, stem):  # noqa: B007 - the last one is meant
        pass
    return output


def _outputs(
    generator: Generator, x: Tensor, valid: Tensor | None, stem: nn.Module | None
) -> Iterator[tuple[int, Tensor]]:
    """What each step gives, with its number."""
    weights = generator.weights(valid)
    stack: list[Tensor] = []
    for index, step in enumerate(generator.plan):
        if stem is not None and isinstance(step.module, nn.Conv2d):
            x, stem = stem(x), None
        else:
            x = advance(step, x, stack, weights)
        yield index, x


def _picked(x: Tensor, places: Tensor) -> Tensor:
    """Features (samples, places, channels) of some pixels."""
    flat = x.flatten(2).transpose(1, 2)
    return flat.gather(1, places[..., None].expand(-1, -1, flat.shape[2]))


def valid_share(valid: Tensor, scale: int) -> Tensor:
    """Return the valid share of each feature at a scale.

    Args:
        valid: mask (samples, 1, height, width), bool or float.
        scale: side of a feature in input pixels.

    Returns:
        Shares (samples, 1, height/scale, width/scale), float32.
    """
    return F.avg_pool2d(valid.float(), scale)


def _channels(generator: Generator) -> list[int]:
    """Channels after each step."""
    channels, stack, found = generator.in_channels, [], []
    for step in generator.plan:
        if step.kind == "save":
            stack.append(channels)
        elif step.kind == "add":
            stack.pop()
        elif step.kind == "concat":
            channels += stack.pop()
        elif isinstance(step.module, nn.Conv2d | nn.ConvTranspose2d):
            channels = step.module.out_channels
        found.append(channels)
    return found
