"""What the training loop knows about a method, whichever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from geocyclegan.catalogue import Direction
from geocyclegan.errors import OptionError
from geocyclegan.models.norm import is_per_sample

__all__ = ["Batch", "Direction", "Method", "Shown", "Side", "ends", "zero_invalid"]

Side = Literal["a", "b"]


@dataclass(frozen=True)
class Batch:
    """Images of both domains, in [−1, 1] and 0 where not valid.

    Args:
        a: (samples, bands of A, height, width).
        b: (samples, bands of B, height, width).
        valid_a: mask (samples, 1, height, width); None: all are valid.
        valid_b: mask (samples, 1, height, width) of `b`; None: all are valid.
        pairs: images of both domains that show the same places, pixel by pixel; None: there are
            none in this step.
        weak: images of both domains that show the same places, roughly; None: there are none.
        labels_a: classes of the pixels of `a` (samples, height, width), int64, −1 where not known;
            None: there are none, or the method does not use them.
    """

    a: Tensor
    b: Tensor
    valid_a: Tensor | None = None
    valid_b: Tensor | None = None
    pairs: Batch | None = None
    weak: Batch | None = None
    labels_a: Tensor | None = None

    def side(self, domain: Side) -> tuple[Tensor, Tensor | None]:
        """Return images (samples, bands, height, width) of a domain and their mask, see `Batch`."""
        return (self.a, self.valid_a) if domain == "a" else (self.b, self.valid_b)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device; what is one tensor here is one there."""
        tensors = self.a, self.b, self.valid_a, self.valid_b, self.labels_a
        moved = {id(t): t.to(device, non_blocking=non_blocking) for t in tensors if t is not None}
        return Batch(
            moved[id(self.a)],
            moved[id(self.b)],
            moved.get(id(self.valid_a)),
            moved.get(id(self.valid_b)),
            None if self.pairs is None else self.pairs.to(device, non_blocking),
            None if self.weak is None else self.weak.to(device, non_blocking),
            labels_a=moved.get(id(self.labels_a)),
        )


@dataclass(frozen=True)
class Shown:
    """Images for a panel.

    Attributes:
        domain: whose radiometry they have, "a" or "b".
        images: (samples, bands, height, width) in [−1, 1]; the first sample is drawn.
        caption: a few words.
        valid: mask (samples, 1, height, width); None: all are valid.
    """

    domain: Side
    images: Tensor
    caption: str
    valid: Tensor | None = None


class Method(nn.Module, ABC):
    """Networks, their losses and one optimisation step.

    Its networks are its modules, so `state_dict()` holds all weights; what else must survive a
    resume (image pools) is in `extra_state()`.
    """

    joined: bool = False
    """Whether images that need the same network shall go through it in one pass, where the results
    are the same but for rounding; for a method to heed where it can."""

    @abstractmethod
    def generators(self) -> dict[Direction, nn.Module]:
        """The generators by direction: what a model bundle keeps."""

    def makers(self) -> dict[str, nn.Module]:
        """What makes images of a domain from noise, by domain; a bundle keeps these, too."""
        return {}

    @abstractmethod
    def optimizers(self) -> dict[str, Optimizer]:
        """Fresh optimisers by name, in the order in which they step."""

    @abstractmethod
    def step(
        self,
        batch: Batch,
        optimizers: Mapping[str, Optimizer],
        backward: Callable[[Tensor], None],
    ) -> dict[str, Tensor]:
        """Update all networks once.

        Args:
            batch: what to learn from.
            optimizers: those of `optimizers()`, wrapped or not.
            backward: computes gradients of a scalar; the engine's own, which may scale it.

        Returns:
            Detached scalar losses by name, with the weight they have in the total.
        """

    @abstractmethod
    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """Measure the errors of one batch, without weights, without gradients.

        Returns:
            Scalars by name.
        """

    def through(
        self, network: nn.Module, inputs: Sequence[tuple[Tensor, Tensor | None]]
    ) -> list[Tensor]:
        """Put images with their masks through a network, in one pass where that changes nothing.

        That is done if `joined` asks for it, the network looks at each image by itself, and all
        inputs have masks or none has: images without one take a shorter way.

        Args:
            network: called as `network(images, mask)`.
            inputs: images (samples, bands, height, width), all of one shape but for the samples,
                each with its mask (samples, 1, height, width), None where all are valid.

        Returns:
            What the network makes of each, in order.
        """
        masks = [mask for _, mask in inputs if mask is not None]
        alike = len(masks) in (0, len(inputs))
        if not (self.joined and alike and len(inputs) > 1 and is_per_sample(network)):
            return [network(images, mask) for images, mask in inputs]
        images = torch.cat([images for images, _ in inputs])
        together: Tensor = network(images, torch.cat(masks) if masks else None)
        return list(torch.split(together, [len(images) for images, _ in inputs]))

    def translate(
        self, x: Tensor, valid: Tensor | None = None, direction: Direction = "a2b"
    ) -> Tensor:
        """Translate images as inference would, 0 where not valid.

        Args:
            x: (samples, bands of the source domain, height, width).
            valid: mask (samples, 1, height, width); None: all are valid.
            direction: "a2b" or "b2a".

        Returns:
            Images (samples, bands of the target domain, height, width) in [−1, 1].

        Raises:
            OptionError: the method has no generator for `direction`.
        """
        generators = self.generators()
        if direction not in generators:
            known = ", ".join(generators)
            raise OptionError(f"direction {direction!r} is not known; choose one of: {known}")
        with self.evaluating():
            return zero_invalid(generators[direction](x, valid), valid)

    def show(self, batch: Batch) -> list[list[Shown]]:
        """Return rows of images that let an eye judge the networks.

        A row for each direction: an image, its translation and, where the method has the other
        direction too, that translated back.
        """
        rows: list[list[Shown]] = []
        directions = self.generators()
        for direction in directions:
            home, away, back = ends(direction)
            image, valid = batch.side(home)
            there = self.translate(image, valid, direction)
            way = f"{home.upper()} to {away.upper()}"
            row = [Shown(home, image, home.upper(), valid), Shown(away, there, way, valid)]
            if back in directions:
                again = self.translate(there, valid, back)
                row.append(Shown(home, again, f"{way} to {home.upper()}", valid))
            rows.append(row)
        return rows

    def set_progress(self, share: float) -> None:
        """Take notice of how far training is, from 0 to 1; called before each step.

        A resumed run is told what an uninterrupted one would be, so this needs no saving.
        """

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode without gradients inside the block; the former mode after it."""
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(training)

    def extra_state(self) -> dict[str, Any]:
        """State beside the weights, loadable with `weights_only=True`."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `extra_state` gave.

        Raises:
            BundleError: the state does not fit.
        """


def zero_invalid(images: Tensor, valid: Tensor | None) -> Tensor:
    """Set what is not valid to 0, as in batches.

    Args:
        images: (samples, bands, height, width).
        valid: mask (samples, 1, height, width); None: all are valid.

    Returns:
        Images of the same shape and type.
    """
    return images if valid is None else images * valid.to(images.dtype)


def ends(direction: Direction) -> tuple[Side, Side, Direction]:
    """Return the source and the target of a direction, and the direction that leads back."""
    return ("a", "b", "b2a") if direction == "a2b" else ("b", "a", "a2b")
