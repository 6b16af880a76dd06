"""What adversarial methods do alike: judge images, freeze the judge, take a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim import Optimizer

from geocyclegan.methods.losses import GanLoss
from geocyclegan.models import Discriminator

Images = tuple[Tensor, Tensor | None]
"""Images and where they are valid; None: everywhere."""


def judge(gan_loss: GanLoss, discriminator: Discriminator, images: Images, is_real: bool) -> Tensor:
    """Return the loss of a discriminator that should say `is_real`, over what is valid."""
    weights = discriminator.weights_for(*images)
    loss: Tensor = gan_loss(discriminator(*images), is_real, weights)
    return loss


def discriminator_loss(
    gan_loss: GanLoss, discriminator: Discriminator, real: Images, fake: Images
) -> Tensor:
    """Return half the sum of both errors, which slows the discriminator as in the papers."""
    on_real = judge(gan_loss, discriminator, real, is_real=True)
    return (on_real + judge(gan_loss, discriminator, fake, is_real=False)) * 0.5


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """No gradients for these networks inside the block; those for their input pass through."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


def descend(optimizer: Optimizer, loss: Tensor, backward: Callable[[Tensor], None]) -> None:
    """Take one step down a loss."""
    optimizer.zero_grad(set_to_none=True)
    backward(loss)
    optimizer.step()


def sum_of(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of all losses, as one scalar tensor."""
    first, *others = losses.values()
    return sum(others, start=first)
