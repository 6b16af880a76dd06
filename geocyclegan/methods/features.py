"""What a discriminator sees before it judges: distances between its features of two images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from geocyclegan.methods.losses import bare, masked_l1, single, unwrapped


def feature_distance(
    discriminator: nn.Module, real: Tensor, image: Tensor, valid: Tensor | None
) -> Tensor:
    """Mean absolute difference of a discriminator's last features of two images.

    Source: Wang and Lin, "CycleGAN with Better Cycles", 2018.

    Args:
        discriminator: its features are what goes into its layers of one output channel, which give
            the logits; one of several scales has several.
        real: images (samples, bands, height, width); no gradient goes to them.
        image: images of the same shape.
        valid: mask (samples, 1, height, width) of both; None: all are valid. A feature counts by
            the valid share of the pixels that it stands for.

    Returns:
        A scalar, the mean over the scales.
    """
    wanted = [features.detach() for features in _features(discriminator, real, valid)]
    found = _features(discriminator, image, valid)
    total = real.new_zeros((), dtype=single(real).dtype)
    for x, y in zip(found, wanted, strict=True):
        share = None
        if valid is not None:
            share = F.adaptive_avg_pool2d(valid.to(total.dtype), (x.shape[-2], x.shape[-1]))
        total = total + masked_l1(x, y, share)
    return total / len(found)


def _features(discriminator: nn.Module, images: Tensor, valid: Tensor | None) -> list[Tensor]:
    # The bare network: compiled ones do not see what is hooked to them later.
    with _tapped(unwrapped(discriminator)) as found:
        bare(discriminator)(images, valid)
    return found


@contextmanager
def _tapped(discriminator: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what goes into the judging layers while the discriminator runs."""
    heads = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d) and m.out_channels == 1]
    found: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        found.append(inputs[0])

    handles = [head.register_forward_pre_hook(keep) for head in heads]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
