"""Several devices of one machine: a process for each, all working on parts of the same scenes."""

from __future__ import annotations

import os

import torch

from geocyclegan.crew import LocalCrew
from geocyclegan.errors import OptionError
from geocyclegan.threads import usable_cores


def count_devices(asked: str, device: torch.device) -> int:
    """Read `--devices`: a number, or "all". On a CPU a device is a process with its share of cores.

    Raises:
        OptionError: it is none, or there are fewer.
    """
    is_cuda = device.type == "cuda"
    there = torch.cuda.device_count() if is_cuda else usable_cores()
    if asked == "all":
        return there if is_cuda else 1
    if not asked.isdigit() or int(asked) < 1:
        raise OptionError(f"--devices {asked}: expected a number of at least 1, or all")
    if int(asked) > there:
        what = "CUDA device" if is_cuda else "processor core"
        raise OptionError(
            f"--devices {asked}: this machine has {there} {what}{'s' * (there != 1)};"
            f" give --devices {there} or fewer"
        )
    return int(asked)


def device_crew(count: int, device: torch.device) -> LocalCrew:
    """Make a crew of one process for each device."""
    environments = []
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    for index in range(count):
        if device.type == "cuda":
            # Each sees one GPU, as on a cluster, so no task needs to know where it runs.
            name = visible[index] if visible else str(index)
            environments.append({"CUDA_VISIBLE_DEVICES": name})
        else:
            environments.append({"OMP_NUM_THREADS": str(max(usable_cores() // count, 1))})
    return LocalCrew(count, environments)
