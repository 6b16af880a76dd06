"""Losses over valid pixels only, in single precision whatever the networks run in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocyclegan.errors import OptionError

GanKind = Literal["lsgan", "vanilla", "hinge", "wgan-gp"]
GAN_KINDS: tuple[str, ...] = get_args(GanKind)


def masked_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean sum(w · v) / sum(w); 0 where nothing has weight.

    Args:
        values: (samples, channels, height, width).
        weights: (samples, 1, height, width), bool or float, the same for all channels; None: the
            plain mean.

    Returns:
        A scalar.
    """
    if weights is None:
        return values.mean()
    weights = weights.to(values.dtype)
    # Any weight there is lies far above 1e-12, so only an empty batch meets the clamp.
    total = (weights.sum() * values.shape[1]).clamp_min(1e-12)
    return (values * weights).sum() / total


def masked_l1(x: Tensor, y: Tensor, valid: Tensor | None) -> Tensor:
    """Mean absolute difference of valid pixels.

    Args:
        x: images (samples, bands, height, width).
        y: images of the same shape.
        valid: mask (samples, 1, height, width); None: all are valid.

    Returns:
        A scalar.
    """
    return masked_mean((single(x) - single(y)).abs(), valid)


class GanLoss(nn.Module):
    """Distance of a discriminator's logits from what they should say.

    Args:
        kind: "lsgan", the squared distance to 1 (real) or 0 (Mao et al., ICCV 2017), "vanilla",
            the cross-entropy (Goodfellow et al., NeurIPS 2014), "hinge", how far logits are short
            of 1 (real) or above -1 (Lim and Ye, "Geometric GAN", 2017), or "wgan-gp", their mean
            (Gulrajani et al., NeurIPS 2017), to which `gradient_penalty` belongs.

    Raises:
        OptionError: `kind` is not known.
    """

    def __init__(self, kind: GanKind = "lsgan") -> None:
        super().__init__()
        if kind not in GAN_KINDS:
            raise OptionError(
                f"gan_loss {kind!r} is not known; choose one of: {', '.join(GAN_KINDS)}"
            )
        self.kind = kind

    def forward(self, logits: Tensor, is_real: bool, weights: Tensor | None = None) -> Tensor:
        """Mean loss of a discriminator; what a generator makes of its logits is `fooled`.

        Args:
            logits: (samples, 1, rows, columns).
            is_real: what the logits should say.
            weights: valid share of each logit's patch, of the shape of `logits`; None: all valid.

        Returns:
            A scalar.
        """
        logits = single(logits)
        sign = 1.0 if is_real else -1.0
        if self.kind == "hinge":
            values = F.relu(1.0 - sign * logits)
        elif self.kind == "wgan-gp":
            values = -sign * logits
        else:
            target = torch.full_like(logits, float(is_real))
            if self.kind == "lsgan":
                values = (logits - target).square()
            else:
                values = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return masked_mean(values, weights)

    def fooled(self, logits: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean loss of a generator, whose images should be taken for real.

        Args:
            logits: what the discriminator says of them (samples, 1, rows, columns).
            weights: valid share of each logit's patch, of the same shape; None: all are valid.

        Returns:
            A scalar.
        """
        if self.kind == "hinge":
            return masked_mean(-single(logits), weights)
        loss: Tensor = self(logits, True, weights)
        return loss

    @property
    def halved(self) -> bool:
        """Whether a discriminator's loss is the mean of its two parts, or their sum.

        CycleGAN halves it to slow the discriminator. Hinge and WGAN-GP have the sum in their
        papers, and the weight of the gradient penalty counts against that sum.
        """
        return self.kind in ("lsgan", "vanilla")


def gradient_penalty(
    discriminator: Callable[[Tensor, Tensor | None], Tensor],
    weights_of: Callable[[Tensor], Tensor],
    real: tuple[Tensor, Tensor | None],
    fake: tuple[Tensor, Tensor | None],
) -> Tensor:
    """Squared distance to 1 of the gradient's length, midway between real and fake images.

    A discriminator's value is the weighted mean of its logits, the number that enters its loss.
    Pixels that are invalid in either image are 0 in between, and their gradient does not count.
    Source: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017.

    Args:
        discriminator: gives logits (samples, 1, rows, columns) of images and their mask.
        weights_of: gives the weights of these logits, of the same shape, for a mask.
        real: images (samples, bands, height, width) and mask (samples, 1, height, width) or None.
        fake: the same, as many.

    Returns:
        The mean over the samples, without a weight (the paper's is 10). It draws from torch's
        global random generator.
    """
    images, other = real[0].detach(), fake[0].detach()
    masks = [mask.bool() for mask in (real[1], fake[1]) if mask is not None]
    valid = None if not masks else torch.stack(masks).all(0)
    share = torch.rand(images.shape[0], 1, 1, 1, dtype=images.dtype, device=images.device)
    between = share * images + (1.0 - share) * other
    if valid is not None:
        between = between * valid
    between.requires_grad_(True)
    logits = single(discriminator(between, valid))
    weights = None if valid is None else weights_of(valid)
    # Samples do not touch each other, so the gradient of the sum is that of each.
    value = torch.stack(
        [
            masked_mean(logits[i : i + 1], None if weights is None else weights[i : i + 1])
            for i in range(len(logits))
        ]
    ).sum()
    (slope,) = torch.autograd.grad(value, between, create_graph=True)
    if valid is not None:
        slope = slope * valid
    # The root has no slope at 0, where nothing is valid.
    length = (single(slope).square().flatten(1).sum(1) + 1e-12).sqrt()
    return (length - 1.0).square().mean()


def bare(network: nn.Module) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Return a network's own forward, in single precision where its weights are.

    An engine wraps networks, to run them in half precision and to allow no gradients but by its own
    backward pass, and compiles them. A penalty needs gradients of its own and of these again, and
    squares of half precision vanish.

    Args:
        network: called as `network(x, valid)`, wrapped or not.

    Returns:
        A function of images (samples, bands, height, width) and their mask (samples, 1, height,
        width) or None, which gives what the network gives.
    """
    own = unwrapped(network)

    def forward(x: Tensor, valid: Tensor | None) -> Tensor:
        weight = next(own.parameters())
        with torch.autocast(x.device.type, enabled=False):
            # Not by calling it, which may be what is compiled.
            out: Tensor = own.forward(x.to(weight.dtype), valid)
        return out

    return forward


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the network that an engine has wrapped, or the same if none has."""
    own = getattr(network, "module", network)
    return own if isinstance(own, nn.Module) else network


def single(x: Tensor) -> Tensor:
    """Return the values of a tensor (any shape) in single precision or better."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
