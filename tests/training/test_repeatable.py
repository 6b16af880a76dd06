"""With --deterministic, a step takes no operation that CUDA has no repeatable form of.

Seen on the CPU: which operations a step takes is the same there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from geocyclegan.catalogue import METHODS
from geocyclegan.methods import Batch
from geocyclegan.models import build_discriminator, build_generator, discriminators, generators
from geocyclegan.models.padding import replace_padding
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import Chips
from geocyclegan.training.resolve import resolve
from geocyclegan.training.starting import config_on
from geocyclegan.training.state import TrainingState
from geocyclegan.training.validate import validate

MakeConfig = Callable[..., TrainConfig]

SIDE = 96

UNREPEATABLE = {
    *("reflection_pad1d_backward", "reflection_pad2d_backward", "replication_pad2d_backward"),
    *("_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "grid_sampler_2d_backward"),
    *("max_unpool2d", "median", "nanmedian", "kthvalue", "histc", "put_"),
}
"""From the documentation of torch.use_deterministic_algorithms. Interpolation, which is in its
list, too, PyTorch itself replaces on CUDA."""


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what CUDA could not repeat."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: set[str] = set()
        self.count = 0

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.count += 1
        if name in UNREPEATABLE:
            self.found.add(name)
        # Repeatable only where nothing is summed: reduction 0.
        if name == "nll_loss2d_forward" and args[3] != 0:
            self.found.add(name)
        return func(*args, **(kwargs or {}))


def test_what_it_looks_for_is_found() -> None:
    x = torch.rand(1, 2, 5, 5, requires_grad=True)
    labels = torch.zeros(1, 5, 5, dtype=torch.long)
    with Operations() as seen:
        torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect").sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.functional.cross_entropy(x, labels)
    assert seen.found == {"reflection_pad2d_backward", "nll_loss2d_forward"}


@pytest.mark.parametrize("method", METHODS)
def test_steps_of_all_methods(method: str, tiny: MakeConfig, paired: TrainConfig) -> None:
    options: dict[str, Any] = {"method": method, "deterministic": True, "chips": paired.chips}
    own = METHODS[method].generators
    side = 96 if method == "munit" else 32
    options |= {"generator": own[0] if own else "resnet6", "crop": side, "precision": "32"}
    if "pool" not in METHODS[method].options:
        options["pool"] = None
    config = tiny(**options)
    cpu = torch.device("cpu")
    try:
        chips = Chips.open(config.chips, METHODS[method].sides)
        config = resolve(config_on(config, cpu), chips)
        fabric = Fabric(accelerator="cpu", devices=1)
        state = TrainingState(fabric, config, chips)
        random = torch.Generator().manual_seed(3)
        a = torch.rand(2, 2, side, side, generator=random)
        b = torch.rand(2, a.shape[1] if METHODS[method].sides == ("a",) else 3, side, side)
        labels = torch.randint(-1, 2, (2, side, side), generator=random)
        # As on CUDA.
        replace_padding([state.method], repeatable=True)
        with Operations() as seen:
            state.advance(Batch(a, b, labels_a=labels))
        mask = torch.ones(1, 1, side, side, dtype=torch.bool)
        crops = _Crops(Batch(a[:1], b[:1], mask, mask.clone()))
        with Operations() as judged:
            assert validate(state.method, crops, cpu)
    finally:
        torch.use_deterministic_algorithms(False)
    for each in (seen, judged):
        assert each.count > 100
        assert not each.found


@dataclass(frozen=True)
class _Crops:
    batch: Batch

    def __len__(self) -> int:
        return 2

    def spread(self, most: int) -> list[int]:
        return [0, 1]

    def load(self, index: int) -> Batch:
        return self.batch


@pytest.fixture
def paired(tiny: MakeConfig, tmp_path: Any) -> TrainConfig:
    """Pairs with labels, which do for all methods."""
    import numpy as np
    import rasterio
    from affine import Affine

    random = np.random.default_rng(0)
    for place, bands in (("train_a", 2), ("train_b", 3), ("labels_a", 1)):
        (tmp_path / "chips" / place).mkdir(parents=True)
        for i in range(2):
            high = 3 if place == "labels_a" else 200
            pixels = random.integers(1, high, (bands, SIDE, SIDE)).astype(np.uint8)
            with rasterio.open(
                tmp_path / "chips" / place / f"{i}.tif",
                "w",
                driver="GTiff",
                count=bands,
                height=SIDE,
                width=SIDE,
                dtype="uint8",
                crs="EPSG:32630",
                transform=Affine(10.0, 0.0, 5e5, 0.0, -10.0, 4.2e6 - 10.0 * SIDE * i),
            ) as dataset:
                dataset.write(pixels)
    return tiny(chips=tmp_path / "chips")


def _backward(network: torch.nn.Module, x: Tensor) -> Operations:
    replace_padding([network], repeatable=True)
    with Operations() as seen:
        out = network(x)
        parts: list[Tensor] = list(out) if isinstance(out, (list, tuple)) else [out]
        torch.autograd.backward([part.float().sum() for part in parts])
    assert any(weight.grad is not None for weight in network.parameters())
    return seen


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (name, options)
        for name in generators.names()
        for options in ({}, {"antialias": True}, {"upsample": "bilinear"})
        if name != "unet256" and all(generators.takes(name, each) for each in options)
    ],
)
def test_all_generators(name: str, options: dict[str, Any]) -> None:
    if name.startswith("smp-"):
        pytest.importorskip("segmentation_models_pytorch")
    network = build_generator(name, in_channels=3, out_channels=2, width=16, **options)
    side = max(network.min_size, network.stride)
    assert not _backward(network, torch.rand(1, 3, side, side)).found


@pytest.mark.parametrize("name", discriminators.names())
def test_all_discriminators(name: str) -> None:
    network = build_discriminator(name, in_channels=3, width=4)
    side = max(network.min_size, 32)
    assert not _backward(network, torch.rand(1, 3, side, side)).found
