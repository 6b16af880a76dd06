"""Generators that are told how their output shall look: one style for a whole image or scene.

A style is a short vector. It sets the gain and the offset that follow the norm layers of the second
half of the generator (adaptive instance normalisation: Huang, Belongie, ICCV 2017). Nothing in it
depends on the place, so that tiles of a scene that are given one style fit together; and the norm
layers are those of every other generator, so that a scene's statistics can be shared by its tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocyclegan.errors import OptionError
from geocyclegan.models.dense import At
from geocyclegan.models.generator import Generator
from geocyclegan.models.layers import Step, advance, require_positive, unit
from geocyclegan.models.norm import Pool, SceneNorm2d, norm_layer

Part = Literal["content", "style", "decode"]

_STYLE_HIDDEN = 256


class AdaptiveNorm2d(SceneNorm2d):
    """A norm layer followed by a gain and an offset for each channel that a style sets.

    Args:
        channels: number of channels.
        pool: which pixels share statistics; see `SceneNorm2d`.
    """

    def __init__(self, channels: int, pool: Pool = "crop") -> None:
        super().__init__(channels, pool=pool)
        # No buffers: they are what the style's own network makes of a style.
        self._gain: Tensor | None = None
        self._offset: Tensor | None = None

    def set_style(self, gain: Tensor | None, offset: Tensor | None) -> None:
        """Set what follows the norm, each (samples or 1, channels); None: nothing does.

        A feature is multiplied by 1 + `gain`, then `offset` is added.
        """
        self._gain, self._offset = gain, offset

    def forward(
        self, x: Tensor, valid: Tensor | None = None, at: Sequence[At] | None = None
    ) -> Tensor:
        """Normalise features, then apply gain and offset; what is not valid stays 0.

        Args:
            x: features (samples, channels, height, width).
            valid: weights (samples, 1, height, width); None: all are valid.
            at: see `SceneNorm2d.forward`.

        Returns:
            Features of the same shape.
        """
        out = super().forward(x, valid, at)
        if self._gain is None or self._offset is None:
            return out
        gain, offset = (t.to(out.dtype)[..., None, None] for t in (self._gain, self._offset))
        out = out * (1 + gain) + offset
        return out if valid is None else out * (valid > 0)


class StyleEncoder(nn.Module):
    """From an image to its style: four halvings, the mean over the image, a linear map.

    There is no norm layer, which would take away what makes a style.

    Args:
        in_channels: bands.
        width: channels of the first layer.
        dims: length of a style.
    """

    def __init__(self, in_channels: int, width: int, dims: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(in_channels, width, 7)]
        channels = width
        for _ in range(4):
            wider = min(channels * 2, width * 4)
            layers += [
                nn.ReLU(),
                nn.ReflectionPad2d(1),
                nn.Conv2d(channels, wider, 4, stride=2),
            ]
            channels = wider
        self.layers = nn.Sequential(*layers, nn.ReLU())
        self.head = nn.Linear(channels, dims)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the styles (samples, dims) of images.

        Args:
            x: images (samples, bands, height, width) in [−1, 1], 0 where not valid.
            valid: mask (samples, 1, height, width); None: all are valid.
        """
        total, weight = self.sums(x, valid)
        styles: Tensor = self.head((total / weight.clamp_min(1e-6)).to(x.dtype))
        return styles

    def sums(self, x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what the mean is made of, so that an image may come in windows.

        Args:
            x: images (samples, bands, height, width) in [−1, 1], 0 where not valid.
            valid: mask (samples, 1, height, width); None: all are valid.

        Returns:
            Weighted sums of features (samples, channels), and sums of weights (samples, 1).
        """
        features = self.layers(x).float()
        if valid is None:
            count = features.new_full((x.shape[0], 1), features.shape[2] * features.shape[3])
            return features.sum(dim=(2, 3)), count
        share = F.adaptive_avg_pool2d(valid.float(), (features.shape[2], features.shape[3]))
        return (features * share).sum(dim=(2, 3)), share.sum(dim=(2, 3))


class StyledGenerator(Generator):
    """Content of the source, style of the target: one direction of MUNIT.

    It holds the content encoder of the source domain, and the decoder and the style encoder of the
    target domain. Source: Huang, Liu, Belongie, Kautz, "Multimodal Unsupervised Image-to-Image
    Translation", ECCV 2018, with two changes: enlarging is followed by the adaptive norm, too,
    where the paper has a layer norm over the whole image, which would differ from tile to tile; and
    a gain is one plus what the style says, so that training begins with plain features.

    Args:
        in_channels: bands of the source domain.
        out_channels: bands of the target domain.
        width: channels of the first layer.
        blocks: residual blocks of the encoder, and of the decoder.
        style_dims: length of a style.
        norm: "instance" or "scene".

    Attributes:
        mean_style: mean of the styles of the target's images (style_dims,), as training saw them;
            used where no other style is set.
        styles_seen: batches that the mean has seen, a scalar of int64.

    Raises:
        OptionError: an argument is out of range.
    """

    mean_style: Tensor
    styles_seen: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 64,
        blocks: int = 4,
        style_dims: int = 8,
        norm: str = "instance",
    ) -> None:
        require_positive(
            in_channels=in_channels,
            out_channels=out_channels,
            width=width,
            blocks=blocks,
            style_dims=style_dims,
        )
        if norm not in ("instance", "scene"):
            raise OptionError(f"norm {norm!r}: a style needs norm layers; choose instance or scene")
        content = _content_plan(in_channels, width, blocks, norm)
        pool: Pool = "scene" if norm == "scene" else "crop"
        super().__init__(
            in_channels, out_channels, content + _decoder_plan(out_channels, width, blocks, pool)
        )
        self.width, self.blocks, self.style_dims, self.norm = width, blocks, style_dims, norm
        self.split = len(content)
        self.adaptive = [s.module for s in self.plan if isinstance(s.module, AdaptiveNorm2d)]
        self.style_encoder = StyleEncoder(out_channels, width, style_dims)
        self.style_map = nn.Sequential(
            nn.Linear(style_dims, _STYLE_HIDDEN),
            nn.ReLU(),
            nn.Linear(_STYLE_HIDDEN, _STYLE_HIDDEN),
            nn.ReLU(),
            nn.Linear(_STYLE_HIDDEN, 2 * sum(norm.channels for norm in self.adaptive)),
        )
        self.register_buffer("mean_style", torch.zeros(style_dims))
        self.register_buffer("styles_seen", torch.zeros((), dtype=torch.int64))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Tensor,
        valid: Tensor | None = None,
        at: Sequence[At] | None = None,
        *,
        part: Part | None = None,
        style: Tensor | None = None,
    ) -> Tensor:
        """Translate images, or do a part of it.

        Args:
            x: images of the source domain (samples, in_channels, height, width); for part "style"
                those of the target domain, for part "decode" content.
            valid: mask (samples, 1, height, width); None: all are valid.
            at: row and column of each sample in its scene; see `Generator.forward`.
            part: "content", "style" or "decode"; None: from image to image.
            style: (samples or 1, style_dims); None: the one that was set, or the mean style.

        Returns:
            Images (samples, out_channels, height, width) in [−1, 1]; content (samples, four times
            the first layer's channels, height / 4, width / 4); or styles (samples, style_dims).

        Raises:
            ValueError: the shape of `x` or `valid` does not fit.
        """
        if part == "style":
            styles: Tensor = self.style_encoder(x, valid)
            return styles
        if part != "decode":
            self.check(x, valid)
        if part != "content" and (style is not None or not self._is_set()):
            self.set_style(self.mean_style[None] if style is None else style)
            once = True
        else:
            once = False
        weights = self.weights(valid)
        stack: list[Tensor] = []
        first = self.split if part == "decode" else 0
        last = self.split if part == "content" else len(self.plan)
        for step in self.plan[first:last]:
            x = advance(step, x, stack, weights, at)
        if once:
            self.set_style(None)
        return x

    def set_style(self, style: Tensor | None) -> None:
        """Use one style (samples or 1, style_dims) from now on; None: the mean style again."""
        if style is None:
            for norm in self.adaptive:
                norm.set_style(None, None)
            return
        numbers = self.style_map(style)
        sizes = [norm.channels for norm in self.adaptive for _ in range(2)]
        parts = numbers.split(sizes, dim=1)
        for norm, gain, offset in zip(self.adaptive, parts[::2], parts[1::2], strict=True):
            norm.set_style(gain, offset)

    def see_styles(self, styles: Tensor) -> None:
        """Let the mean style follow styles (samples, style_dims) of training images."""
        with torch.no_grad():
            self.styles_seen += 1
            share = (1.0 / self.styles_seen).clamp_min(0.01)
            self.mean_style += (styles.detach().float().mean(dim=0) - self.mean_style) * share

    def config(self) -> dict[str, Any]:
        """JSON arguments from which `build_generator` makes the same architecture again."""
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "width": self.width,
            "blocks": self.blocks,
            "style_dims": self.style_dims,
            "norm": self.norm,
        }

    def _is_set(self) -> bool:
        return self.adaptive[0]._gain is not None


def seeded_style(seed: int, dims: int) -> Tensor:
    """Return the style (1, dims) of a seed, drawn from the prior on the CPU."""
    return torch.randn(1, dims, generator=torch.Generator().manual_seed(seed))


def _content_plan(in_channels: int, width: int, blocks: int, norm: str) -> list[Step]:
    plan = unit(
        "stem",
        nn.ReflectionPad2d(3),
        nn.Conv2d(in_channels, width, 7),
        norm_layer(norm, width),
        nn.ReLU(inplace=True),
    )
    for level in (1, 2):
        fine, coarse = width * 2 ** (level - 1), width * 2**level
        plan += unit(
            f"down{level}",
            nn.ReflectionPad2d(1),
            nn.Conv2d(fine, coarse, 4, stride=2),
            norm_layer(norm, coarse),
            nn.ReLU(inplace=True),
        )
    for number in range(1, blocks + 1):
        norms = [norm_layer(norm, width * 4) for _ in range(2)]
        plan += _block(f"content{number}", width * 4, norms)
    return plan


def _decoder_plan(out_channels: int, width: int, blocks: int, pool: Pool) -> list[Step]:
    plan: list[Step] = []
    for number in range(1, blocks + 1):
        norms: list[SceneNorm2d | None] = [AdaptiveNorm2d(width * 4, pool) for _ in range(2)]
        plan += _block(f"decode{number}", width * 4, norms)
    for level in (2, 1):
        fine, coarse = width * 2 ** (level - 1), width * 2**level
        plan += unit(
            f"up{level}",
            nn.Upsample(scale_factor=2),
            nn.ReflectionPad2d(2),
            nn.Conv2d(coarse, fine, 5),
            AdaptiveNorm2d(fine, pool),
            nn.ReLU(inplace=True),
        )
    head = unit("head", nn.ReflectionPad2d(3), nn.Conv2d(width, out_channels, 7), nn.Tanh())
    return plan + head


def _block(name: str, channels: int, norms: list[SceneNorm2d | None]) -> list[Step]:
    first, second = norms
    return [
        Step("save"),
        *unit(f"{name}a", nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), first),
        *unit(f"{name}r", nn.ReLU(inplace=True)),
        *unit(f"{name}b", nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), second),
        Step("add"),
    ]
