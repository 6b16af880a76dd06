"""Generators that are no plan: a network of another library, run as it is.

Nothing says how far such a network sees, so it has no halo: inference translates windows of a fixed
size and blends them, and statistics that would need windows which do not depend on the cut
("exact", "dense") are refused. What remains: its norm layers are ours. They see valid pixels only,
pool statistics over the crops of a scene in training, and can be frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocyclegan.models.dense import At
from geocyclegan.models.discriminator import as_weight
from geocyclegan.models.generator import Generator
from geocyclegan.models.norm import SceneNorm2d


class Surroundings:
    """What the norm layers of a network must know and their callers do not hand on.

    Attributes:
        valid: mask of the images (samples, 1, height, width), float; None: all are valid.
        core: mask of the same shape, 1 where pixels count in statistics; None: all do.
    """

    def __init__(self) -> None:
        self.valid: Tensor | None = None
        self.core: Tensor | None = None

    def share(self, x: Tensor) -> Tensor | None:
        """Valid share (samples, 1, rows, columns) of features (samples, channels, rows, columns).

        None: all are valid.
        """
        return None if self.valid is None else _pooled(self.valid, x)

    def counted(self, x: Tensor) -> Tensor | None:
        """Weight of features in statistics: the share that is valid and in the core of its patch.

        Args:
            x: features (samples, channels, rows, columns).

        Returns:
            Weights (samples, 1, rows, columns) from 0 to 1; None: all are 1.
        """
        if self.core is None:
            return self.share(x)
        weight = self.core if self.valid is None else self.core * self.valid
        return _pooled(weight, x)


class InnerNorm2d(SceneNorm2d):
    """A norm layer inside a network that calls it with nothing but features.

    Args:
        channels: number of channels.
        around: where it finds the mask; shared by all norm layers of a generator.
        pool: which pixels share statistics.
        act: what follows, where the layer stands for one that ends with an activation.
    """

    def __init__(
        self,
        channels: int,
        around: Surroundings,
        *,
        eps: float,
        pool: Any,
        act: nn.Module | None = None,
    ) -> None:
        super().__init__(channels, eps=eps, pool=pool, affine=True)
        self.around = around
        self.act = act

    def forward(
        self, x: Tensor, valid: Tensor | None = None, at: Sequence[At] | None = None
    ) -> Tensor:
        """Normalise features.

        Args:
            x: (samples, channels, height, width).
            valid: weights (samples, 1, height, width); None: those that `around` has.
            at: see `SceneNorm2d.forward`.

        Returns:
            Features of the same shape, after `act` where there is one.
        """
        out = super().forward(x, self.around.share(x) if valid is None else valid, at)
        return out if self.act is None else self.act(out)


class OpaqueGenerator(Generator):
    """A generator around a network that is no plan.

    Args:
        in_channels: bands of the source domain.
        out_channels: bands of the target domain.
        network: from images (samples, in_channels, height, width) to ones of as many pixels, whose
            last operation is followed by tanh here; its norm layers are `InnerNorm2d`.
        around: the one that its norm layers know.
        stride: input sides must be multiples of it.
        min_size: smallest side of an input, in pixels.
    """

    bounded: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        network: nn.Module,
        around: Surroundings,
        *,
        stride: int,
        min_size: int,
    ) -> None:
        super().__init__(in_channels, out_channels, plan=())
        self.network = network
        self.around = around
        self.stride = stride
        self.min_size = min_size
        self._norms = _call_order(network, in_channels, min_size)

    def forward(
        self, x: Tensor, valid: Tensor | None = None, at: Sequence[At] | None = None
    ) -> Tensor:
        """Translate images; see `Generator.forward`.

        Args:
            x: images (samples, in_channels, height, width) in [−1, 1], 0 where not valid.
            valid: mask (samples, 1, height, width), bool or float; None: all are valid.
            at: without effect, since no norm layer is in mode "dense".

        Returns:
            Images (samples, out_channels, height, width) in [−1, 1].

        Raises:
            ValueError: the shape of `x` or `valid` does not fit.
        """
        self.check(x, valid)
        self.around.valid = None if valid is None else as_weight(valid)
        try:
            return torch.tanh(self.network(x))
        finally:
            self.around.valid = None

    def norm_layers(self) -> list[SceneNorm2d]:
        """The norm layers in the order in which the network calls them."""
        return [cast(SceneNorm2d, self.network.get_submodule(name)) for name in self._norms]


def _call_order(network: nn.Module, channels: int, side: int) -> list[str]:
    """Names of the norm layers in the order of their first call, then those that have none."""
    names: dict[nn.Module, str] = {
        m: name for name, m in network.named_modules() if isinstance(m, SceneNorm2d)
    }
    order: list[str] = []

    def note(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        if names[norm] not in order:
            order.append(names[norm])

    was_training = network.training
    # So that neither dropout nor the input draws from the random generator.
    network.eval()
    with ExitStack() as stack, torch.inference_mode():
        for norm in names:
            stack.enter_context(norm.register_forward_pre_hook(note))
        device = next(network.parameters()).device
        network(torch.zeros(1, channels, side, side, device=device))
    network.train(was_training)
    return order + [name for name in names.values() if name not in order]


def _pooled(weight: Tensor, x: Tensor) -> Tensor:
    """Weights at the resolution of features."""
    return F.adaptive_avg_pool2d(weight, (x.shape[-2], x.shape[-1]))
