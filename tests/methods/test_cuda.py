"""Steps on a GPU: those of a CPU, finite in half precision, and waiting for nothing.

They read no raster, so that a machine with PyTorch and Lightning is enough to run them.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geocyclegan.catalogue import METHODS
from geocyclegan.methods import Batch, Method, NetworkSpec, build_method
from geocyclegan.training.ema import RunningMean
from geocyclegan.training.engine import Engine
from geocyclegan.training.meter import LossMeter
from geocyclegan.training.precision import PrecisionName, set_float32
from geocyclegan.training.ranks import Layout, launch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SIDE = 64
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    yield
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed
    # What was compiled counts against a limit, and recordings keep their memory.
    torch.compiler.reset()
    gc.collect()


class Run:
    """A method in the engine of training."""

    def __init__(
        self,
        name: str,
        device: torch.device,
        precision: PrecisionName = "32",
        *,
        compiled: bool = False,
        graphs: bool = False,
    ) -> None:
        torch.manual_seed(0)
        own = METHODS[name].generators
        spec = NetworkSpec(
            bands_a=2,
            bands_b=3,
            shared_bands=((1, 0),),
            generator=own[0] if own else "resnet6",
            generator_args={"width": 8},
            discriminator_args={"width": 8},
            crop=SIDE,
            classes=3,
        )
        set_float32(precision)
        self.method: Method = build_method(name, spec)
        self.engine = Engine(
            self.method,
            launch(Layout(1, 1), device, precision),
            precision,
            compiled=compiled,
            recorded=graphs,
        )
        self.engine.prepare(batch_of(device, False))
        assert self.engine.graphs.on == graphs

    def step(self, *batches: Batch) -> dict[str, Tensor]:
        return self.engine.step(*batches)[-1]

    def finite(self) -> bool:
        return all(bool(torch.isfinite(weight).all()) for weight in self.method.parameters())


def batch_of(device: torch.device, masked: bool, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(2, n, SIDE, SIDE, generator=random) * 2 - 1 for n in (2, 3))
    labels = torch.randint(-1, 3, (2, SIDE, SIDE), generator=random)
    if not masked:
        return Batch(a, b, labels_a=labels).to(device)
    mask = torch.rand(2, 1, SIDE, SIDE, generator=random) < 0.7
    return Batch(a * mask, b * mask, mask, mask, labels_a=labels).to(device)


def drawn_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both devices see the same random numbers."""

    def same(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def drawn(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            return draw(*args, **kwargs).to(device or CPU)

        return drawn

    for name in ("rand", "randn"):
        monkeypatch.setattr(torch, name, same(getattr(torch, name)))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_that_of_a_cpu(name: str, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In single precision. Adam turns what is nearly 0 into whole steps, so later ones drift."""
    drawn_on_the_cpu(monkeypatch)
    found = []
    for device in (CPU, CUDA):
        run = Run(name, device)
        torch.manual_seed(1)
        losses = [run.step(batch_of(device, masked, seed)) for seed in range(2)]
        found.append([{key: float(loss) for key, loss in each.items()} for each in losses])
    for (here, there), tolerance in zip(zip(*found, strict=True), (5e-3, 5e-2), strict=True):
        assert here.keys() == there.keys()
        for key, value in here.items():
            assert there[key] == pytest.approx(value, rel=tolerance, abs=tolerance), key


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
@pytest.mark.parametrize("name", METHODS)
def test_losses_and_weights_are_finite(name: str, precision: PrecisionName) -> None:
    run = Run(name, CUDA, precision)
    before = [weight.detach().clone() for weight in run.method.parameters()]
    # fp16 begins with a scale that is too large, and skips the steps in which it overflows.
    for seed in range(12 if precision == "fp16" else 3):
        losses = run.step(batch_of(CUDA, seed % 2 == 1, seed))
        assert all(bool(torch.isfinite(loss)) for loss in losses.values()), losses
    assert run.finite()
    weights = list(run.method.parameters())
    moved = [not torch.equal(one, two) for one, two in zip(before, weights, strict=True)]
    assert sum(moved) > 0.5 * len(moved)


@pytest.mark.parametrize(
    ("name", "masked", "graphs"),
    [
        *((name, masked, False) for name in METHODS for masked in (False, True)),
        ("cyclegan", False, True),
        ("cyclegan", True, True),
    ],
)
def test_a_step_waits_for_nothing(name: str, masked: bool, graphs: bool) -> None:
    """Not for the GPU to finish, that is; the CPU runs ahead."""
    run = Run(name, CUDA, "bf16", graphs=graphs)
    batch = batch_of(CUDA, masked)
    pairs = replace(batch, labels_a=None)
    batch = replace(batch, pairs=pairs, weak=pairs)
    networks: dict[Any, nn.Module] = {**run.method.generators(), **run.method.makers()}
    meter, mean = LossMeter(), RunningMean(networks, 0.9)

    def step(number: int) -> None:
        meter.add(number, run.step(batch))
        mean.update(number)

    # A recording takes three steps, and this is not about the steps that make it.
    before = 5 if graphs else 2
    for number in range(1, before + 1):
        step(number)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(before + 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert meter.bad() is None


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_compiled_steps_are_those_that_are_not(
    precision: PrecisionName, caplog: pytest.LogCaptureFixture
) -> None:
    """With masks and without; both are compiled."""
    losses = []
    for compiled in (False, True):
        run = Run("cyclegan", CUDA, precision, compiled=compiled)
        for masked in (False, True):
            found = run.step(batch_of(CUDA, masked))
            losses.append({key: float(loss) for key, loss in found.items()})
    assert "not compiled" not in caplog.text
    plain, compiled_ones = losses[:2], losses[2:]
    tolerance = 5e-2 if precision == "32" else 0.2
    for one, two in zip(plain, compiled_ones, strict=True):
        for key, value in one.items():
            assert two[key] == pytest.approx(value, rel=tolerance, abs=tolerance), key


def recordings() -> int:
    """How many there have been so far; to ask counts as one."""
    from torch._inductor.cudagraph_trees import get_manager

    manager: Any = get_manager(torch.cuda.current_device(), create_if_none_exists=False)
    return int(manager.new_graph_id().id)


def ten_steps(run: Run) -> list[dict[str, float]]:
    """With masks and without, in one pass and in two; what each step says."""
    torch.manual_seed(1)
    found = []
    for number in range(10):
        batches = [batch_of(CUDA, number % 2 == 1, number)]
        if number % 5 == 4:
            batches.append(batch_of(CUDA, False, 100 + number))
        found.append({key: float(loss) for key, loss in run.step(*batches).items()})
    return found


@pytest.fixture
def same_sums() -> Iterator[None]:
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = before


@pytest.mark.usefixtures("same_sums")
@pytest.mark.parametrize("precision", ["32", "bf16", "fp16"])
@pytest.mark.parametrize("name", METHODS)
def test_recorded_steps_are_those_that_are_not(name: str, precision: PrecisionName) -> None:
    """The other ones run the same code in the same memory, and are never recorded."""
    from torch._inductor import config

    with config.patch({"triton.force_cudagraphs_warmup": True}):
        plain = ten_steps(Run(name, CUDA, precision, graphs=True))
    run = Run(name, CUDA, precision, graphs=True)
    before = recordings()
    recorded = ten_steps(run)
    # Each of the forms has been seen twice, which is when it is recorded.
    assert recordings() > before + 4
    tolerance = 2e-2 if precision == "32" else 0.1
    for one, two in zip(plain, recorded, strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():
            assert two[key] == pytest.approx(value, rel=tolerance, abs=tolerance), key
    assert run.finite()


@pytest.mark.parametrize("name", METHODS)
def test_recordings_come_to_an_end(name: str) -> None:
    run = Run(name, CUDA, "bf16", graphs=True)
    for _ in range(5):
        run.step(batch_of(CUDA, False))
    before = recordings()
    for seed in range(4):
        run.step(batch_of(CUDA, False, seed))
    assert recordings() == before + 1


def test_pools_hold_what_they_were_given() -> None:
    run = Run("cyclegan", CUDA, "32", graphs=True)
    method: Any = run.method
    given: list[Tensor] = []
    for pool in (method.pool_a, method.pool_b):

        def query(images: Tensor, valid: Any, own: Any = pool.query) -> Any:
            given.extend(images.detach().clone().cpu())
            return own(images, valid)

        pool.query = query
    for number in range(8):
        run.step(batch_of(CUDA, number % 2 == 1, number))
    held = [image for p in (method.pool_a, method.pool_b) for image in p.state_dict()["images"]]
    assert len(held) == len(given) == 8 * 2 * 2
    for image in held:
        assert any(torch.equal(image.cpu(), each) for each in given)


@pytest.mark.usefixtures("same_sums")
@pytest.mark.parametrize("name", ["cyclegan", "cut", "munit"])
def test_recorded_training_goes_on_where_it_was(name: str) -> None:
    found: list[list[dict[str, float]]] = []
    whole = Run(name, CUDA, graphs=True)
    for number in range(4):
        whole.step(batch_of(CUDA, False, number))
    again = Run(name, CUDA, graphs=True)
    # Not by `load_state_dict`, which the engine's wrappers do not take their own state by.
    states = again.method.state_dict(), whole.method.state_dict()
    for into, value in zip(*(state.values() for state in states), strict=True):
        into.copy_(value)
    again.method.load_extra_state(copy.deepcopy(whole.method.extra_state()))
    for key, optimizer in again.engine.optimizers.items():
        optimizer.load_state_dict(copy.deepcopy(whole.engine.optimizers[key].state_dict()))
    for run in (whole, again):
        torch.manual_seed(1)
        losses = [run.step(batch_of(CUDA, False, number)) for number in range(4, 10)]
        found.append([{key: float(loss) for key, loss in each.items()} for each in losses])
    for one, two in zip(*found, strict=True):
        for key, value in one.items():
            assert two[key] == pytest.approx(value, rel=2e-2, abs=2e-2), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_generators_translate_as_on_a_cpu(dtype: torch.dtype) -> None:
    """Norm layers and padding in both orders of pixels and channels, with and without a mask."""
    from geocyclegan.models import build_generator, padding
    from geocyclegan.models.padding import replace_padding

    set_float32("32")
    for name in ("resnet6", "unet128", "munit", "densenet"):
        torch.manual_seed(0)
        network = build_generator(name, in_channels=2, out_channels=3, width=8).eval()
        images = torch.rand(2, 2, 128, 128) * 2 - 1
        mask = torch.rand(2, 1, 128, 128) < 0.8
        for valid in (None, mask):
            with torch.inference_mode():
                expected = network.to(CPU)(images, valid)
            for order in (torch.contiguous_format, torch.channels_last):
                network.to(CUDA).to(memory_format=order)
                before, padding._MANY = padding._MANY, 1
                try:
                    replace_padding([network])
                    half = dtype != torch.float32
                    with torch.inference_mode(), torch.autocast("cuda", dtype, enabled=half):
                        there = None if valid is None else valid.to(CUDA)
                        found = network(images.to(CUDA), there).float().cpu()
                finally:
                    padding._MANY = before
                error = (found - expected).abs().mean()
                assert float(error) < (0.1 if half else 1e-4), (name, order)
