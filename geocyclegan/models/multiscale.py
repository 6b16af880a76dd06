"""Several discriminators that see an image at several resolutions."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocyclegan.models.discriminator import Discriminator, as_weight
from geocyclegan.models.layers import require_positive
from geocyclegan.models.patchgan import PatchDiscriminator


class MultiscaleDiscriminator(Discriminator):
    """A PatchGAN for the image, one for it at half the resolution, and so on.

    All logits come in one row, those of the finest scale first. With the weights of `weights_for`
    the mean over them is the mean of the scales' means, however many logits each has. Source: Wang
    et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs", CVPR
    2018 (pix2pixHD).

    Args:
        in_channels: bands of the domain that is judged.
        width: channels of the first layer of each.
        layers: number of halvings of each.
        scales: how many.
        norm: "instance", "scene" or "none".
        spectral_norm: divide the weight of each convolution by its largest singular value.

    Attributes:
        patch: side of the patch that a logit of the coarsest scale sees, in pixels.
        min_size: smallest side of an input, in pixels.

    Raises:
        OptionError: an argument is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int = 64,
        layers: int = 3,
        scales: int = 3,
        norm: str = "instance",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        require_positive(scales=scales)
        judges = [
            PatchDiscriminator(
                in_channels, width=width, layers=layers, norm=norm, spectral_norm=spectral_norm
            )
            for _ in range(scales)
        ]
        self.judges = nn.ModuleList(judges)
        self.in_channels = in_channels
        self._arguments = judges[0].config() | {"scales": scales}
        self.patch = judges[0].patch
        for _ in range(1, scales):
            self.patch = 2 * (self.patch - 1) + 3
        # Halving rounds up.
        self.min_size = (judges[0].min_size - 1) * 2 ** (scales - 1) + 1

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits of being real.

        Args:
            x: images (samples, in_channels, height, width) in [−1, 1], 0 where not valid.
            valid: mask (samples, 1, height, width), bool or float; None: all are valid.

        Returns:
            Logits (samples, 1, 1, all patches of all scales).

        Raises:
            ValueError: the shape of `x` or `valid` does not fit.
        """
        self.check(x, valid)
        weight = None if valid is None else as_weight(valid)
        logits: list[Tensor] = []
        for judge in self.judges:
            if logits:
                x, weight = _halved(x, weight)
            logits.append(judge(x, weight).flatten(1))
        return torch.cat(logits, dim=1)[:, None, None]

    def logit_weights(self, valid: Tensor) -> Tensor:
        """Share of valid pixels in each patch, scaled so that the scales count alike.

        Args:
            valid: mask (samples, 1, height, width), bool or float.

        Returns:
            Weights (samples, 1, 1, all patches of all scales) from 0 to 1, which only the coarsest
            scale reaches: where all pixels are valid, the weights of every scale have the same sum.
        """
        weight = as_weight(valid)
        found: list[Tensor] = []
        for judge in self.judges:
            if found:
                weight = _pooled(weight)
            found.append(cast(Discriminator, judge).logit_weights(weight).flatten(1))
        fewest = found[-1].shape[1]
        return torch.cat([part * (fewest / part.shape[1]) for part in found], dim=1)[:, None, None]

    def weights_for(self, images: Tensor, valid: Tensor | None) -> Tensor | None:
        """Weights with which the logits of images enter a mean, so that each scale counts alike.

        Args:
            images: (samples, in_channels, height, width).
            valid: mask (samples, 1, height, width); None: all are valid.

        Returns:
            Weights (samples, 1, 1, all patches of all scales); never None.
        """
        if valid is None:
            valid = images.new_ones(images.shape[0], 1, *images.shape[-2:])
        return self.logit_weights(valid)

    def config(self) -> dict[str, Any]:
        """JSON arguments from which `build_discriminator` makes the same architecture again."""
        return dict(self._arguments)


def _halved(x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Halve images and their mask; each pixel is the mean of the valid ones that it covers."""
    if weight is None:
        return _pooled(x), None
    share = _pooled(weight)
    # What is 0 because it is not valid must not darken its neighbours.
    return _pooled(x * weight.to(x.dtype)) / share.clamp_min(1e-6).to(x.dtype), share


def _pooled(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
