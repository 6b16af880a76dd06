"""The networks of DCGAN: from noise to an image, and from an image to one verdict.

Source: Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional
Generative Adversarial Networks", ICLR 2016: strided convolutions instead of pooling, batch norm but
for the generator's last and the discriminator's first layer, ReLU and LeakyReLU 0.2, tanh at the
end. The paper makes 64 px; here each halving or doubling more makes twice as many.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from geocyclegan.errors import OptionError
from geocyclegan.models.init import init_weights
from geocyclegan.models.layers import require_positive

LEAST_SIDE = 16
_START = 4
_WIDEST = 8


class SceneMaker(nn.Module):
    """From noise to an image.

    Args:
        out_channels: bands.
        size: side of the images in pixels, a power of two of 16 or more.
        width: channels of the layer before the last; earlier ones have up to eight times as many.
        noise: numbers that an image is made of.

    Raises:
        OptionError: an argument is out of range.
    """

    def __init__(
        self, out_channels: int, *, size: int = 64, width: int = 64, noise: int = 100
    ) -> None:
        super().__init__()
        require_positive(out_channels=out_channels, size=size, width=width, noise=noise)
        self.out_channels, self.size, self.width, self.noise = out_channels, size, width, noise
        channels = _channels(size, width)[::-1]
        layers: list[nn.Module] = [nn.ConvTranspose2d(noise, channels[0], _START, bias=False)]
        for coarse, fine in zip(channels, [*channels[1:], 0], strict=True):
            layers += [nn.BatchNorm2d(coarse), nn.ReLU(inplace=True)]
            last = fine == 0
            layers.append(
                nn.ConvTranspose2d(coarse, fine or out_channels, 4, stride=2, padding=1, bias=last)
            )
        self.layers = nn.Sequential(*layers, nn.Tanh())
        _init(self)

    def forward(self, noise: Tensor) -> Tensor:
        """Make images (samples, out_channels, size, size) in [−1, 1] of noise (samples, noise)."""
        images: Tensor = self.layers(noise[:, :, None, None])
        return images

    def config(self) -> dict[str, Any]:
        """JSON arguments that make the same architecture again."""
        return {
            "out_channels": self.out_channels,
            "size": self.size,
            "width": self.width,
            "noise": self.noise,
        }


class SceneJudge(nn.Module):
    """From an image to one logit of being real.

    Args:
        in_channels: bands.
        size: side of the images in pixels, a power of two of 16 or more.
        width: channels of the first layer; later ones have up to eight times as many.

    Raises:
        OptionError: an argument is out of range.
    """

    def __init__(self, in_channels: int, *, size: int = 64, width: int = 64) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, size=size, width=width)
        self.in_channels = in_channels
        layers: list[nn.Module] = []
        before = in_channels
        for number, channels in enumerate(_channels(size, width)):
            layers.append(nn.Conv2d(before, channels, 4, stride=2, padding=1, bias=number == 0))
            if number:
                layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            before = channels
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, _START, bias=True))
        _init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (samples, 1, 1, 1) of images (samples, in_channels, size, size)."""
        logits: Tensor = self.layers(x)
        return logits


def seeded_noise(seed: int, count: int, noise: int) -> Tensor:
    """Draw the noise (count, noise) of the first images of a seed, on the CPU.

    One by one, so that an image does not depend on how many are made.
    """
    random = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(noise, generator=random) for _ in range(count)])


def _channels(size: int, width: int) -> list[int]:
    """Channels of the layers between image and 4 × 4 px, from fine to coarse."""
    levels = (size // _START).bit_length() - 1
    if size < LEAST_SIDE or size != _START << levels:
        raise OptionError(f"size is {size} px; expected a power of two of {LEAST_SIDE} or more")
    return [width * min(2**level, _WIDEST) for level in range(levels)]


def _init(module: nn.Module) -> None:
    init_weights(module)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
