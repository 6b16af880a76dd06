"""The contrastive loss over patches: where something is must still tell what it was.

Features of the translation at one place should be nearer to those of the source at that place than
to those of the source at other places of the same image. Source: Park, Efros, Zhang, Zhu,
"Contrastive Learning for Unpaired Image-to-Image Translation", ECCV 2020.

The features are those of the first half of the generator itself. That half takes images of the
source domain, and a translation is one of the target domain. Where both have as many bands, it is
read by the same layers, as in the paper. Where they differ, a second first convolution ("stem") for
the target's bands is learnt beside the generator's own, and all later layers are shared; the taps
then begin behind the stem, since pixels of unlike bands cannot be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocyclegan.models.generator import Generator
from geocyclegan.models.init import init_weights
from geocyclegan.models.taps import (
    Tap,
    encoder_taps,
    features_at,
    first_convolution,
    run_with,
    stem_tap,
    valid_share,
)


# Not frozen: in mixed precision, Fabric copies what a network is given, and sets its fields.
@dataclass(eq=False)
class Places:
    """Pixels of features at which two images are compared.

    Attributes:
        index: numbers of the pixels, counted row by row (samples, places), int64.
        there: which of them count (samples, places), bool; an image with few valid pixels has fewer
            than another.
    """

    index: Tensor
    there: Tensor

    def mirrored(self, width: int) -> Places:
        """The same places in an image whose left and right are swapped, `width` features wide."""
        rows = self.index.div(width, rounding_mode="floor")
        return Places(rows * width + (width - 1 - self.index % width), self.there)


class PatchEncoder(nn.Module):
    """The first half of a generator as a reader of patches, with what is learnt for it.

    Args:
        generator: a plan; it is used, not owned: its weights are not among the ones here.
        dims: length of the projected features.

    Attributes:
        taps: where features are taken.

    Raises:
        OptionError: the generator's layers cannot be looked into.
    """

    def __init__(self, generator: Generator, dims: int = 256) -> None:
        super().__init__()
        # In a tuple, so that the generator is not registered here, too.
        self._generator = (generator,)
        taps = encoder_taps(generator)
        self.stem: nn.Conv2d | None = None
        if generator.in_channels != generator.out_channels:
            _, conv = first_convolution(generator)
            self.stem = _like(conv, generator.out_channels)
            taps = tuple(dict.fromkeys((stem_tap(generator), *taps[1:])))
        self.taps: tuple[Tap, ...] = taps
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(tap.channels, dims), nn.ReLU(), nn.Linear(dims, dims))
            for tap in taps
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0.0, 0.02)
                nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Tensor,
        valid: Tensor | None = None,
        places: Sequence[Places] | None = None,
        *,
        target: bool = False,
    ) -> list[Tensor] | Tensor:
        """Read patches, or run the whole generator on images of the target domain.

        Args:
            x: images (samples, bands, height, width) in [−1, 1], 0 where not valid.
            valid: mask (samples, 1, height, width); None: all are valid.
            places: at each tap; None: the whole generator.
            target: whether `x` is of the target domain.

        Returns:
            Unit vectors (samples, places, dims), float32, at each tap; without `places` images
            (samples, bands of the target domain, height, width).
        """
        generator = self._generator[0]
        stem = self.stem if target else None
        if places is None:
            return run_with(generator, x, valid, stem)
        wanted: Mapping[int, Tensor] = {
            tap.step: place.index for tap, place in zip(self.taps, places, strict=True)
        }
        found = features_at(generator, x, valid, wanted, stem)
        return [
            F.normalize(project(features).float(), dim=-1)
            for project, features in zip(self.projections, found, strict=True)
        ]


def choose_places(
    taps: Sequence[Tap],
    shape: tuple[int, int, int],
    valid: Tensor | None,
    count: int,
    device: torch.device,
    random: torch.Generator | None = None,
) -> list[Places]:
    """Draw places at each tap, different ones for each image, among its valid pixels.

    Args:
        taps: where features are taken.
        shape: samples, height and width of the images.
        valid: mask (samples, 1, height, width); None: all are valid.
        count: places per image, at most as many as there are features.
        device: where the images are.
        random: a generator of the device; None: its global one.

    Returns:
        The places at each tap, in its order. A feature counts if more than half of it is valid.
    """
    samples, height, width = shape
    chosen = []
    for tap in taps:
        rows, cols = height // tap.scale, width // tap.scale
        score = torch.rand(samples, rows * cols, device=device, generator=random)
        if valid is not None:
            share = valid_share(valid, tap.scale).flatten(1)
            # Behind all that are valid, and left out below.
            score = score - (share <= 0.5).float() * 2.0
        best = score.topk(min(count, rows * cols), dim=1)
        chosen.append(Places(best.indices, best.values >= 0))
    return chosen


def patch_nce(
    query: Sequence[Tensor],
    key: Sequence[Tensor],
    places: Sequence[Places],
    temperature: float = 0.07,
) -> Tensor:
    """Return the loss, averaged over places, then over taps.

    Args:
        query: unit vectors of the translation at each tap (samples, places, dims).
        key: those of the source; no gradient goes into them.
        places: which of the places count.
        temperature: what similarities are divided by.

    Returns:
        A scalar; 0 where no place counts.
    """
    total = query[0].new_zeros(())
    for q, k, place in zip(query, key, places, strict=True):
        # Row: a place of the translation; column: a place of the source in the same image.
        logits = torch.bmm(q, k.detach().transpose(1, 2)) / temperature
        logits = logits.masked_fill(~place.there[:, None, :], -1e4)
        itself = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
        loss = F.cross_entropy(logits.flatten(0, 1), itself.flatten(), reduction="none")
        weight = place.there.flatten().to(loss.dtype)
        total = total + (loss * weight).sum() / weight.sum().clamp_min(1.0)
    return total / len(query)


def _like(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A convolution of the same geometry for other bands, drawn as the generator's are."""
    size = (conv.kernel_size[0], conv.kernel_size[1])
    stride = (conv.stride[0], conv.stride[1])
    padding = (int(conv.padding[0]), int(conv.padding[1]))
    made = nn.Conv2d(channels, conv.out_channels, size, stride, padding, bias=conv.bias is not None)
    init_weights(made)
    return made
