"""Tensors from files that others made: nothing in them is run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from geocyclegan.errors import BundleError, NotFoundError

_NESTS = ("state_dict", "model", "model_state_dict", "params")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict: safetensors, or what `torch.save` wrote.

    The second is loaded with `weights_only=True`, so that a file cannot run anything.

    Args:
        path: ending on .safetensors, or a file of PyTorch (.pth, .pt, .ckpt).

    Returns:
        Tensors on the CPU by name; those of the entry "state_dict" or "model" where the file wraps
        them in one.

    Raises:
        NotFoundError: there is no such file.
        BundleError: it cannot be read, or holds something else than named tensors.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file; expected weights, .pth or .safetensors")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BundleError(
            f"{path}: refused, it holds more than tensors, or is no file of PyTorch"
            " (weights_only=True); save its state_dict() alone"
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BundleError(f"{path}: cannot be read as weights ({line})") from error
    for nest in _NESTS:
        if isinstance(found, Mapping) and isinstance(found.get(nest), Mapping):
            found = found[nest]
    if not isinstance(found, Mapping):
        raise BundleError(
            f"{path}: holds {_kind(found)}; expected a state dict, tensors by their names"
        )
    tensors = {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
    if not tensors:
        raise BundleError(f"{path}: no tensor in it; expected a state dict, tensors by their names")
    return tensors


def _kind(value: object) -> str:
    return "a tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"
