"""The image pool: discriminators also see what the generators made some time ago."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from geocyclegan.errors import BundleError, OptionError


class ImagePool:
    """Keeps up to `size` images and hands out old ones half of the time.

    While the pool fills, each image is kept and returned. Then a fair coin decides for each image
    whether it is returned itself, or swapped with a random one of the pool. Images keep the valid
    mask that they were made with. Source: Shrivastava et al., CVPR 2017, as used by Zhu et al.,
    ICCV 2017.

    Args:
        size: images to keep; 0 turns the pool off.
        seed: of the pool's own random generator.

    Raises:
        OptionError: `size` is negative.
    """

    def __init__(self, size: int = 50, seed: int = 0) -> None:
        if size < 0:
            raise OptionError(f"pool_size is {size}; expected 0 or more images")
        self.size = size
        self._random = torch.Generator().manual_seed(seed)
        self._images: list[Tensor] = []
        self._masks: list[Tensor | None] = []

    def __len__(self) -> int:
        return len(self._images)

    def query(self, images: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Offer new images and get as many, new or old, to show to the discriminator.

        Args:
            images: (samples, bands, height, width); their gradient history is cut.
            valid: masks (samples, 1, height, width); None: all are valid.

        Returns:
            Images of the same shape, and their masks (None where all are valid).
        """
        images = images.detach()
        if self.size == 0:
            return images, valid
        if self._images and self._images[0].device != images.device:
            # As a checkpoint brought them. All at once, since each copy to a GPU waits for it.
            self._images = [image.to(images.device) for image in self._images]
            self._masks = [m if m is None else m.to(images.device) for m in self._masks]
        chosen: list[tuple[Tensor, Tensor | None]] = []
        for index, image in enumerate(images):
            # Cloned, since a view would keep the whole batch alive.
            mask = None if valid is None else valid[index].bool().clone()
            chosen.append(self._swap(image.clone(), mask))
        if all(mask is None for _, mask in chosen):
            masks = None
        else:
            full = torch.ones_like(images[0, :1], dtype=torch.bool)
            masks = torch.stack([full if mask is None else mask for _, mask in chosen])
        return torch.stack([image.to(images.dtype) for image, _ in chosen]), masks

    def _swap(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Offer one image, get one."""
        if len(self._images) < self.size:
            self._images.append(image)
            self._masks.append(mask)
            return image, mask
        if torch.rand((), generator=self._random).item() <= 0.5:
            return image, mask
        index = int(torch.randint(self.size, (), generator=self._random).item())
        old = self._images[index], self._masks[index]
        self._images[index], self._masks[index] = image, mask
        return old

    def state_dict(self) -> dict[str, Any]:
        """Images, masks and random state, as `torch.load(..., weights_only=True)` takes them."""
        return {
            "images": list(self._images),
            "masks": list(self._masks),
            "random": self._random.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            BundleError: the state is not one of a pool, or holds more images than this pool may.
        """
        try:
            images, masks, random = list(state["images"]), list(state["masks"]), state["random"]
            # The random state is a CPU tensor, also where the checkpoint was mapped to a GPU.
            random = random.cpu()
        except (AttributeError, KeyError, TypeError) as error:
            raise BundleError(f"image pool in the checkpoint is damaged: {error!r}") from None
        if len(images) != len(masks) or len(images) > self.size:
            raise BundleError(
                f"image pool in the checkpoint holds {len(images)} images and {len(masks)} masks; "
                f"expected as many of each and at most {self.size}"
            )
        self._random.set_state(random)
        self._images, self._masks = images, masks
