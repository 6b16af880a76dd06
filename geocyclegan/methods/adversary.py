"""What adversarial methods do alike: judge images, fool the judge, freeze it, take a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim import Optimizer

from geocyclegan.errors import OptionError
from geocyclegan.methods.losses import GanKind, GanLoss, bare, gradient_penalty
from geocyclegan.models import Discriminator

Images = tuple[Tensor, Tensor | None]
"""Images and where they are valid; None: everywhere."""


_GRADIENT_PENALTY = 10.0


class Adversary:
    """An adversarial loss: what discriminators learn from, and what fools them.

    Args:
        kind: one of `losses.GAN_KINDS`.
        penalty: weight of the gradient penalty of "wgan-gp"; None: 10, as in its paper.

    Raises:
        OptionError: `kind` is not known, or the weight is not 0 or more.
    """

    def __init__(self, kind: GanKind, penalty: float | None = None) -> None:
        self.loss = GanLoss(kind)
        if penalty is not None and not 0 <= penalty < math.inf:
            raise OptionError(f"gradient_penalty is {penalty}; expected a finite number, 0 or more")
        self.penalty = _GRADIENT_PENALTY if penalty is None else penalty

    def error(
        self,
        discriminator: Discriminator,
        real: Images,
        fake: Images,
        logits: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Return the loss of a discriminator that should tell real images from made ones.

        Half the sum of both errors, which slows the discriminator as in the papers of methods; the
        sum itself for the losses whose own papers have it, and the gradient penalty.

        Args:
            discriminator: to be taught.
            real: images (samples, bands, height, width) in [−1, 1] and their mask (samples, 1,
                height, width), None where all pixels are valid.
            fake: the same of made ones, which must be detached from their generator.
            logits: what it says of both, each (samples, 1, rows, columns); None: it is asked.

        Returns:
            A scalar.
        """
        of_real, of_fake = logits or (discriminator(*real), discriminator(*fake))
        on_real: Tensor = self.loss(of_real, True, discriminator.weights_for(*real))
        on_fake: Tensor = self.loss(of_fake, False, discriminator.weights_for(*fake))
        error = (on_real + on_fake) * (0.5 if self.loss.halved else 1.0)
        if self.loss.kind == "wgan-gp":
            penalty = gradient_penalty(bare(discriminator), discriminator.logit_weights, real, fake)
            error = error + penalty * self.penalty
        return error

    def fooled(self, discriminator: Discriminator, images: Images) -> Tensor:
        """Return the loss of a generator whose images a discriminator should take for real.

        Args:
            discriminator: what judges; freeze it, see `frozen`.
            images: images (samples, bands, height, width) in [−1, 1] and their mask (samples, 1,
                height, width), None where all pixels are valid.

        Returns:
            A scalar.
        """
        return self.loss.fooled(discriminator(*images), discriminator.weights_for(*images))


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
    """Take one optimisation step on a loss.

    Args:
        optimizer: whose weights move; their former gradients are forgotten.
        loss: a scalar.
        backward: computes its gradients.
    """
    optimizer.zero_grad(set_to_none=True)
    backward(loss)
    optimizer.step()


def sum_of(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of all losses, one or more scalars, as one scalar."""
    first, *others = losses.values()
    return sum(others, start=first)
