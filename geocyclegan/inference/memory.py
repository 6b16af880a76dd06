"""How much memory there is, how much a tile takes, and the tile and batch that follow."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from traceback import clear_frames

import torch
from torch import nn

from geocyclegan.device import is_shortage
from geocyclegan.errors import MemoryShortage
from geocyclegan.models.generator import Generator
from geocyclegan.models.norm import SceneNorm2d
from geocyclegan.models.receptive import rescaling
from geocyclegan.raster.windows import round_up

log = logging.getLogger(__name__)

# Of the free memory, what tiles may take unless --memory says otherwise: on a CPU other programs
# and the page cache want some, too.
_SHARE_CPU, _SHARE_CUDA = 0.5, 0.8
# Beyond the largest tile the halo costs little and a tile that is lost costs much. On a CPU larger
# tiles were not faster.
_TILES_CPU = (512, 256, 128, 64)
_TILES_CUDA = (2048, 1024, 512, 256, 128, 64)
_BATCHES_CUDA = (4, 2, 1)
SMALLEST_TILE = 64
# Convolutions rewrite what they take and what they give into blocks of channels, or into columns.
_WORKSPACE = 2.0


@dataclass(frozen=True)
class Fit:
    """What fits into memory.

    Attributes:
        tile: px per tile side without its halo.
        batch: tiles per forward pass.
        need: bytes that a forward pass takes, as estimated.
        budget: bytes that it may take.
    """

    tile: int
    batch: int
    need: float
    budget: float


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; for a CPU, what the system and its control groups allow."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch holds and does not use is free, too.
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    limits = [_available(), _group_v2(), _group_v1()]
    return min(limit for limit in limits if limit is not None)


def budget_of(
    device: torch.device, stated: int | None, *, asked: bool = False, free: int | None = None
) -> float:
    """Bytes that tiles may take: what was stated, or a share of what is free.

    Args:
        device: where the generator is.
        stated: by the user.
        asked: whether the user asked for a tile, who may know better than a cautious share.
        free: bytes that are free; None looks.
    """
    if stated is not None:
        return float(stated)
    share = _SHARE_CUDA if device.type == "cuda" else _SHARE_CPU
    return (free_memory(device) if free is None else free) * (1.0 if asked else share)


def forward_bytes(generator: Generator) -> float:
    """Bytes per input pixel that a forward pass takes at its widest place, as an estimate."""
    channels, scale = generator.in_channels, 1
    itemsize = next((weight.itemsize for weight in generator.parameters()), 4)
    stack: list[float] = []
    peak = float(channels)
    for step in generator.plan:
        module, before = step.module, channels / scale**2
        workspace = 0.0
        if step.kind == "save":
            stack.append(before)
        elif step.kind == "add":
            stack.pop()
        elif step.kind == "concat":
            channels += round(stack.pop() * scale**2)
        elif isinstance(module, SceneNorm2d):
            # In single precision: features, deviations, and their products with the mask.
            workspace = 3.0 * before * 4.0 / itemsize
        elif module is not None:
            coarser, finer = rescaling(module)
            scale = scale * coarser // finer
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                channels = module.out_channels
                workspace = _WORKSPACE * min(before, channels / scale**2)
        after = 0.0 if step.kind == "save" else channels / scale**2
        peak = max(peak, before + after + workspace + sum(stack))
    # Levels, masks at each scale and the result, in single precision.
    return peak * itemsize + 4.0 * (generator.in_channels + generator.out_channels + 2)


def fit(
    generator: Generator,
    device: torch.device,
    shape: tuple[int, int],
    *,
    tile: int | None,
    batch: int | None,
    budget: float,
) -> Fit:
    """Choose the largest tile and batch that fit.

    Args:
        generator: the network.
        device: where it runs.
        shape: rows and columns of the scene.
        tile: px per side if that was asked for; halved, with a message, until it fits.
        batch: tiles per forward pass if that was asked for.
        budget: bytes that a forward pass may take.

    Raises:
        MemoryShortage: not even the smallest tile fits.
    """
    halo, stride = generator.halo or 0, generator.stride
    per_pixel = forward_bytes(generator)
    tiles = _tiles(device, shape, stride) if tile is None else _halves(tile)
    batches = (batch,) if batch is not None else _batches(device)
    best: Fit | None = None
    for side in tiles:
        read = [min(round_up(side, stride) + 2 * halo, round_up(n, stride)) for n in shape]
        for count in batches:
            best = Fit(side, count, per_pixel * read[0] * read[1] * count, budget)
            if best.need <= budget:
                if tile not in (None, side):
                    log.warning(
                        "tiles of %d px do not fit into %.2f GB of memory: goes on with %d px",
                        *(tile, budget / 1e9, side),
                    )
                return best
    if best is None:
        raise ValueError("no tile to choose from")
    raise MemoryShortage(
        f"a tile of {best.tile} px takes about {best.need / 2**30:.2f}G with this generator, and"
        f" {budget / 2**30:.2f}G may be used; free some memory, or give a larger --memory or a"
        " smaller --tile"
    )


def _tiles(device: torch.device, shape: tuple[int, int], stride: int) -> list[int]:
    sizes = list(_TILES_CUDA if device.type == "cuda" else _TILES_CPU)
    if shape[0] * shape[1] <= UNTILED_PIXELS:
        sizes.insert(0, round_up(max(shape), stride))
    return sizes


UNTILED_PIXELS = 1024 * 1024
"""Below this many pixels a scene goes through the generator in one piece, if that fits."""


def _halves(tile: int) -> list[int]:
    found = [tile]
    while found[-1] > SMALLEST_TILE:
        found.append(-(-found[-1] // 2))
    return found


def _batches(device: torch.device) -> tuple[int, ...]:
    return _BATCHES_CUDA if device.type == "cuda" else (1,)


@contextmanager
def naming_shortage() -> Iterator[None]:
    """Turn what torch raises for want of memory into a `MemoryShortage`.

    Raises:
        MemoryShortage: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryShortage) or not is_shortage(error):
            raise
        # The functions that were left hold what they had computed for as long as the error lives.
        clear_frames(error.__traceback__)
        raise MemoryShortage(str(error).strip().splitlines()[0] or "out of memory") from error


def release(device: torch.device) -> None:
    """Give back what torch holds and does not use, before the next try."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _available() -> int | None:
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if hasattr(os, "sysconf"):
        # No such file outside Linux: half of what there is.
        with suppress(OSError, ValueError):
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return 4 << 30  # a system that says nothing


def _group_v2(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int | None:
    """What the control groups of this process leave it; a group is bound by those above it."""
    files = "memory.max", "memory.current", "inactive_file"
    return _least(root, membership, "", files)


def _group_v1(
    root: Path = Path("/sys/fs/cgroup/memory"), membership: Path = Path("/proc/self/cgroup")
) -> int | None:
    files = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
    return _least(root, membership, "memory", files)


def _least(
    root: Path, membership: Path, controller: str, files: tuple[str, str, str]
) -> int | None:
    """The least that a group of this process, or one above it, leaves; None: there is no limit.

    In a container the path may be that of the host, whose folders are not there; the root is.
    """
    left = [_left(root, *files)]
    with suppress(OSError):
        for line in membership.read_text("utf-8").splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if controller in controllers.split(","):
                folder = root / path.strip().lstrip("/")
                groups = (folder, *folder.parents)
                left += [_left(group, *files) for group in groups if group.is_relative_to(root)]
    return min((value for value in left if value is not None), default=None)


def _left(group: Path, limit: str, usage: str, cached: str) -> int | None:
    """Limit less usage; files in the page cache count as usage and give way."""
    try:
        most = int((group / limit).read_text("ascii"))
        used = int((group / usage).read_text("ascii"))
    except (OSError, ValueError):  # "max" is no number, and no limit
        return None
    reclaimable = 0
    with suppress(OSError, ValueError):
        for line in (group / "memory.stat").read_text("ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == cached:
                reclaimable = int(value)
    return max(most - used + reclaimable, 0)
