"""Where networks run."""

from __future__ import annotations

import torch

from geocyclegan.errors import OptionError


def choose_device(name: str) -> torch.device:
    """Turn "auto", "cpu" or "cuda" into a device.

    Raises:
        OptionError: CUDA was asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise OptionError("--device cuda: there is no CUDA device; use --device cpu")
    return torch.device(name)
