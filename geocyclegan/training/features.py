"""Features of images from a network that the user gives, as an ONNX file.

ONNX is a graph of operators: reading one runs no code of whoever made it, as unpickling would.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geocyclegan.catalogue import method_info
from geocyclegan.errors import NotFoundError, OptionError
from geocyclegan.raster.domain import Domain
from geocyclegan.training.config import TrainConfig, resolved
from geocyclegan.training.data import Chips

_LEAST_VALID = 0.5
"""Crops with a smaller share of valid pixels show the fill more than the ground."""


class FeatureNetwork:
    """An ONNX network from images (samples, bands, height, width) to features (samples, D).

    Args:
        path: the file.

    Raises:
        NotFoundError: there is no such file.
        OptionError: onnxruntime is missing, or it is no such network.
    """

    def __init__(self, path: Path) -> None:
        self._said = f"--features {path}"
        if not path.is_file():
            raise NotFoundError(f"{self._said}: no such file")
        try:
            import onnxruntime
        except ImportError:
            raise OptionError(
                f"{self._said}: the package onnxruntime is missing; pip install"
                ' "geocyclegan[export]"'
            ) from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # As many as PyTorch has, so that --workers and OMP_NUM_THREADS mean what they say.
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            # The same numbers on every machine that goes on with the run, so the CPU.
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        # onnxruntime has no root of its errors.
        except Exception as error:
            raise OptionError(
                f"{self._said}: not an ONNX network that onnxruntime can run ({_line(error)})"
            ) from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
            found = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
            raise OptionError(
                f"{self._said}: its input is {found or 'missing'}; expected one, float32 images"
                " (samples, bands, height, width)"
            )
        self._input: str = inputs[0].name
        self._shape: Sequence[int | str | None] = inputs[0].shape
        if self._shape[0] not in (1, None) and not isinstance(self._shape[0], str):
            raise OptionError(
                f"{self._said}: it takes {self._shape[0]} images at once; export it with a free"
                " number of samples, or with 1"
            )

    @property
    def bands(self) -> int | None:
        """How many bands its images have; None: any number."""
        return self._shape[1] if isinstance(self._shape[1], int) else None

    def require_side(self, crop: int) -> None:
        """Refuse to look at crops of another size than the network was exported for.

        Raises:
            OptionError: says for which.
        """
        fixed = [side for side in self._shape[2:] if isinstance(side, int)]
        if any(side != crop for side in fixed):
            sides = " x ".join(str(side) for side in self._shape[2:])
            raise OptionError(
                f"{self._said}: it takes images of {sides} px, and crops have {crop}; export it"
                f" with free height and width, or give --crop {fixed[0]}"
            )

    def __call__(self, images: npt.NDArray[np.float32]) -> Tensor:
        """Compute features.

        Args:
            images: (samples, bands, height, width), in the units that the network expects.

        Returns:
            (samples, D), float64, on the CPU.

        Raises:
            OptionError: the network fails on them, or gives something else.
        """
        parts = np.split(images, len(images)) if self._shape[0] == 1 else [images]
        try:
            found = [self._session.run(None, {self._input: part})[0] for part in parts]
        except Exception as error:
            raise OptionError(
                f"{self._said}: it fails on images {images.shape} ({_line(error)})"
            ) from error
        features = np.concatenate([np.asarray(each) for each in found])
        if features.ndim != 2 or len(features) != len(images) or features.dtype.kind != "f":
            raise OptionError(
                f"{self._said}: from images {images.shape} it makes {features.dtype}"
                f" {features.shape}; expected floats (samples, D), such as those of a last pooling"
            )
        return torch.from_numpy(features.astype(np.float64))


class Features:
    """What validation compares images by, beside patches.

    Args:
        network: the user's.
        domains: those whose images it takes, by "a" and "b"; they reach it in physical units.
    """

    def __init__(self, network: FeatureNetwork, domains: Mapping[str, Domain]) -> None:
        self._network, self.domains = network, domains
        self._known: dict[tuple[str, Hashable], Tensor] = {}

    @classmethod
    def of_run(cls, config: TrainConfig, chips: Chips) -> Features | None:
        """Open the network of a run, if it has one, and try it.

        Args:
            config: resolved, at least its crop.
            chips: the domains.

        Raises:
            NotFoundError: there is no such file.
            OptionError: it does not fit, or nothing would be compared by it.
        """
        path = config.features
        if path is None:
            return None
        if not (len(chips.val_a) and len(chips.val_b)):
            raise OptionError(
                f"--features {path}: it compares validation chips, and {chips.folder} has not those"
                " of both domains; chip with --val, or leave it out"
            )
        directions = method_info(config.method).directions
        if not directions:
            raise OptionError(f"--features {path}: --method {config.method} translates no images")
        if config.direction in directions:
            directions = tuple(each for each in directions if each == config.direction)
        network = FeatureNetwork(path)
        both = {"a": chips.train_a.domain, "b": chips.train_b.domain}
        targets = {way[-1]: both[way[-1]] for way in directions}
        domains = {
            side: domain
            for side, domain in targets.items()
            if network.bands in (None, domain.count)
        }
        if not domains:
            wanted = " or ".join(
                f"{domain.count}, those of {side.upper()}" for side, domain in targets.items()
            )
            raise OptionError(
                f"--features {path}: it takes images of {network.bands} bands; translations have"
                f" {wanted}"
            )
        crop = resolved(config.crop)
        network.require_side(crop)
        features = cls(network, domains)
        for side, domain in domains.items():
            tried = features.see(side, torch.zeros(1, domain.count, crop, crop), None)
            if not torch.isfinite(tried).all():
                raise OptionError(
                    f"--features {path}: features of the middle of the range of domain"
                    f" {side.upper()} are not finite; images reach it in the units of the chips"
                )
        return features

    def see(
        self, side: str, images: Tensor, valid: Tensor | None, known: Hashable | None = None
    ) -> Tensor:
        """Return features of the images that are mostly valid.

        Args:
            side: domain whose bands the images have, "a" or "b".
            images: levels (samples, bands, height, width) in [−1, 1]; what is not valid is filled
                with the middle of the range, as it is for the networks in training.
            valid: mask (samples, 1, height, width); None: all are valid.
            known: name of images that are the same every time, so that they are seen once.

        Returns:
            (images, D) on the CPU, in float64; `images` are those of which at least half is valid.

        Raises:
            OptionError: the network fails on them, or gives something else.
        """
        if known is not None and (side, known) in self._known:
            return self._known[side, known]
        levels = images.detach().float().cpu()
        if valid is not None:
            mask = valid.cpu().bool()
            levels = levels.where(mask, 0.0)
            levels = levels[mask.float().mean(dim=(1, 2, 3)) >= _LEAST_VALID]
        radiometry = self.domains[side].radiometry
        pixels = np.stack(
            [np.stack(radiometry.inverse(each)) for each in levels.numpy()]
            or [np.zeros(levels.shape[1:])]
        ).astype(np.float32)
        found = self._network(pixels)[: len(levels)]
        if known is not None:
            self._known[side, known] = found
        return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
