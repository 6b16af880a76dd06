"""The state of every random generator, in types that `torch.load(weights_only=True)` takes."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Return the states of torch (all devices), Python and NumPy."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": json.dumps([version, list(numbers), gauss]),
        # A NumPy array would not pass weights_only.
        "numpy": json.dumps([str(kind), np.asarray(keys).tolist(), position, has_gauss, cached]),
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Go on from what `random_state` gave.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: the state is not one.
    """
    version, numbers, gauss = json.loads(state["python"])
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = json.loads(state["numpy"])
    np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    # A checkpoint may move to a machine with other devices; its streams then start anew.
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
