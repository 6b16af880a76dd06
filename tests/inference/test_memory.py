"""Tiles follow from the memory, and running out of it costs time, not the product."""

from __future__ import annotations

import re
import socket
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from geocyclegan.device import has_bf16, is_shortage
from geocyclegan.errors import MemoryShortage, OptionError, OutputError
from geocyclegan.inference import memory
from geocyclegan.inference.engine import EngineOptions, TileEngine
from geocyclegan.inference.memory import fit, forward_bytes, free_memory
from geocyclegan.inference.precision import (
    Precision,
    choose_precision,
    lower,
    rounded_products,
)
from geocyclegan.inference.spill import DiskStore
from geocyclegan.inference.statistics import NormStats, StatisticsOptions
from geocyclegan.models import Generator, ResNetGenerator, UNetGenerator, build_generator
from geocyclegan.models.passes import Patch, State, lockstep
from geocyclegan.models.style import seeded_style
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.raster.windows import Window, split_tile, tile_plan

CPU = torch.device("cpu")
BAND = BandInfo(BandScaling("linear", (0.0, 1000.0), (-1.0, 1.0)))
SOURCE, TARGET = Domain((BAND,) * 2, "uint16"), Domain((BAND,) * 3, "float32")
CROP = 32


class ArrayScene:
    """A scene in memory, with a hole."""

    def __init__(self, height: int, width: int) -> None:
        rng = np.random.default_rng(0)
        ramp = np.linspace(0, 700, width)[None, :] * np.linspace(0.2, 1, height)[:, None]
        self.pixels = (ramp + rng.integers(0, 300, (2, height, width))).astype(np.uint16)
        self.valid = np.ones((height, width), bool)
        self.valid[: height // 3, width // 2 :] = False

    def read(self, window: Window) -> tuple[Any, Any]:
        part = np.s_[window.row : window.row_stop, window.col : window.col_stop]
        return self.pixels[:, *part], self.valid[part]


def network() -> Generator:
    torch.manual_seed(0)
    generator = ResNetGenerator(2, 3, width=4, blocks=1)
    for parameter in generator.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    return generator.eval().requires_grad_(False)


def limit(generator: nn.Module, pixels: int, error: type[Exception]) -> list[int]:
    """Let a generator fail above a number of pixels, as a full memory would; count those taken."""
    taken: list[int] = []
    first = next(m for m in generator.modules() if isinstance(m, nn.Conv2d))

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        size = args[0].shape[0] * args[0].shape[-2] * args[0].shape[-1]
        if size > pixels:
            raise error("CUDA out of memory. Tried to allocate 3.00 GiB")
        taken.append(size)

    first.register_forward_pre_hook(hook)
    return taken


def levels(
    generator: Generator, scene: ArrayScene, mode: NormStats, **options: Any
) -> npt.NDArray[np.float32]:
    torch.manual_seed(1)
    trained = lockstep(network(), [Patch(torch.rand(4, 2, CROP, CROP) * 2 - 1)])
    statistics = StatisticsOptions(mode=mode, crops=5, **options.pop("statistics", {}))
    cut = EngineOptions(window=CROP, statistics=statistics, **options)
    given = trained if mode == "frozen" else None
    engine = TileEngine(generator, SOURCE, TARGET, CPU, cut, given)
    height, width = scene.valid.shape
    product = np.full((3, height, width), np.nan, np.float32)
    for output in engine.outputs(scene, height, width):
        rows, cols = output.window.slices_in(Window(0, 0, height, width))
        product[:, rows, cols] = output.levels
    assert np.isfinite(product).all()
    return product


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
@pytest.mark.parametrize("mode", ["frozen", "sample", "exact", "dense"])
def test_out_of_memory_halves_the_tile_and_keeps_the_pixels(
    mode: NormStats, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    scene = ArrayScene(250, 290)
    expected = levels(network(), scene, mode, tile=128)
    generator = network()
    # A tile of 64 px and its halo of 20 fit, none of 128 px, and no two cells.
    taken = limit(generator, 110 * 110, error)
    found = levels(generator, scene, mode, tile=128, batch=2)
    assert taken
    assert "goes on with 64 px" in caplog.text
    assert "goes on with 1 tiles at a time" in caplog.text
    assert np.abs(found - expected)[:, scene.valid].max() * 127.5 < 0.01
    # What would have been cut so from the beginning is the same to the last bit.
    direct = levels(network(), scene, mode, tile=64)
    if mode in ("frozen", "sample"):
        np.testing.assert_array_equal(found, direct)


def test_there_is_an_end_to_halving() -> None:
    generator, scene = network(), ArrayScene(250, 290)
    limit(generator, 10, torch.OutOfMemoryError)
    with pytest.raises(MemoryShortage, match="even with tiles of 64 px"):
        levels(generator, scene, "frozen", tile=128)
    with pytest.raises(MemoryShortage, match="give a smaller --tile"):
        levels(generator, scene, "tile", tile=128)
    with pytest.raises(MemoryShortage, match="crops of 32 px"):
        levels(generator, scene, "sample", tile=128)


def test_windows_that_blend_are_not_halved() -> None:
    unet = UNetGenerator(2, 3, width=4, depth=3).eval().requires_grad_(False)
    limit(unet, 10, torch.OutOfMemoryError)
    with pytest.raises(MemoryShortage, match="takes no smaller ones"):
        levels(unet, ArrayScene(50, 60), "tile")


def test_other_errors_stay_what_they_are() -> None:
    generator = network()
    limit(generator, 10, ValueError)
    with pytest.raises(ValueError, match="Tried to allocate"):
        levels(generator, ArrayScene(50, 60), "frozen", tile=128)
    allocator = "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
    assert is_shortage(RuntimeError(allocator))
    assert not is_shortage(RuntimeError("sizes of tensors must match"))
    assert not is_shortage(KeyError("not enough memory"))


@given(
    height=st.integers(8, 300),
    width=st.integers(8, 300),
    core=st.sampled_from([32, 60, 128]),
    halo=st.sampled_from([0, 8, 20]),
    part=st.sampled_from([16, 32, 64]),
    min_size=st.sampled_from([1, 40]),
)
@settings(max_examples=40)
def test_parts_of_a_tile_partition_it_and_read_inside(
    height: int, width: int, core: int, halo: int, part: int, min_size: int
) -> None:
    plan = tile_plan(height, width, core=core, halo=halo, stride=4, min_size=min_size)
    for tile in plan:
        seen = np.zeros(tile.core.shape, int)
        for piece in split_tile(
            tile, height, width, core=part, halo=halo, stride=4, min_size=min_size
        ):
            rows, cols = piece.core.slices_in(tile.core)
            seen[rows, cols] += 1
            assert tile.read.row <= piece.read.row <= piece.read.row_stop <= tile.read.row_stop
            assert tile.read.col <= piece.read.col <= piece.read.col_stop <= tile.read.col_stop
            assert piece.read.row % 4 == piece.read.col % 4 == 0
        assert (seen == 1).all()


def test_the_tile_follows_from_the_budget(caplog: pytest.LogCaptureFixture) -> None:
    generator = build_generator("resnet9", in_channels=2, out_channels=3)
    shape = 5000, 5000

    def chosen(budget: float, **given: Any) -> tuple[int, int]:
        asked = {"tile": None, "batch": None} | given
        found = fit(generator, CPU, shape, budget=budget, **asked)
        assert found.need <= budget
        return found.tile, found.batch

    per_pixel = forward_bytes(generator)
    assert chosen(64e9) == (512, 1)
    need = per_pixel * (256 + 2 * 84) ** 2
    assert chosen(need) == (256, 1)
    assert chosen(need - 1) == (128, 1)
    assert chosen(64e9, tile=4096) == (4096, 1)
    assert not caplog.text
    assert chosen(20e9, tile=20_000) == (2500, 1)
    assert "tiles of 20000 px do not fit" in caplog.text
    with pytest.raises(MemoryShortage, match="a tile of 64 px takes about"):
        chosen(1e6)
    # A small scene goes in one piece, where that fits.
    assert fit(generator, CPU, (800, 900), tile=None, batch=None, budget=64e9).tile == 900
    assert fit(generator, CPU, (800, 900), tile=None, batch=None, budget=5e8).tile < 512


def test_a_gpu_takes_larger_tiles_and_batches() -> None:
    generator, cuda = network(), torch.device("cuda")
    found = fit(generator, cuda, (9000, 9000), tile=None, batch=None, budget=1e12)
    assert (found.tile, found.batch) == (2048, 4)


def test_free_memory_is_what_the_control_group_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 1 << 20 < free_memory(CPU) < 1 << 50
    group = tmp_path / "slice" / "job"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("100\n")
    outer = tmp_path / "slice"
    (outer / "memory.max").write_text("5000000\n")
    (outer / "memory.current").write_text("2000000\n")
    (outer / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/slice/job\n")
    assert memory._group_v2(tmp_path, membership) == 3_500_000
    assert memory._group_v2(tmp_path, tmp_path / "none") is None
    monkeypatch.setattr(memory, "_group_v2", lambda: 77)
    assert free_memory(CPU) == 77


def test_control_groups_of_version_1_bind_below_their_root(tmp_path: Path) -> None:
    """In a container the group is the root; on the host it is where the process says."""
    group = tmp_path / "jobs" / "7"
    group.mkdir(parents=True)
    for folder, limit in ((tmp_path, 2**63 - 4096), (group, 3_000_000)):
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (folder / "memory.usage_in_bytes").write_text("1000000\n")
        (folder / "memory.stat").write_text("total_inactive_file 250000\n")
    membership = tmp_path / "cgroup"
    membership.write_text("5:cpu,cpuacct:/elsewhere\n4:hugetlb,memory:/jobs/7\n0::/\n")
    assert memory._group_v1(tmp_path, membership) == 2_250_000
    membership.write_text("4:memory:/of/the/host\n")
    assert memory._group_v1(tmp_path, membership) == 2**63 - 4096 - 750_000
    assert memory._group_v1(tmp_path / "jobs" / "7", membership) == 2_250_000
    assert memory._group_v1(tmp_path / "none", membership) is None


@pytest.mark.parametrize("make", [network, lambda: UNetGenerator(2, 3, width=8, depth=3)])
def test_the_estimate_covers_what_a_forward_pass_holds(make: Any) -> None:
    """All tensors that are alive at once, counted as they are made."""
    generator = make().eval()
    x, mask = torch.rand(1, 2, 128, 128), torch.ones(1, 1, 128, 128, dtype=torch.bool)
    with (
        torch.profiler.profile(profile_memory=True) as profile,
        torch.inference_mode(),
    ):
        generator(x, mask)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    estimate = forward_bytes(generator) * 128 * 128
    assert peak <= estimate <= 4 * peak


# ---- disk


def test_activations_on_disk_give_the_same_statistics(tmp_path: Path) -> None:
    scene = ArrayScene(100, 130)
    expected = levels(network(), scene, "exact", tile=48)
    statistics = {"memory": 0, "disk": 1 << 30, "folder": tmp_path}
    seen: list[int] = []
    generator = network()
    first = next(m for m in generator.modules() if isinstance(m, nn.Conv2d))

    def hook(module: nn.Module, args: Any) -> None:
        seen.append(len(list(tmp_path.glob(".geocyclegan-states-*/*"))))

    first.register_forward_pre_hook(hook)
    found = levels(generator, scene, "exact", tile=48, statistics=statistics)
    np.testing.assert_array_equal(found, expected)
    # One sweep to measure, and one to translate.
    assert len(seen) <= 3 * 3 * 2
    assert max(seen) > 0
    assert not list(tmp_path.iterdir())


def test_a_disk_budget_that_does_not_do_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = ArrayScene(100, 130)
    little = {"memory": 0, "disk": 1000, "folder": tmp_path}
    with pytest.raises(OptionError, match=r"--stats-disk: 0.00G do not hold .* take 0.00G"):
        levels(network(), scene, "exact", tile=48, statistics=little)
    levels(network(), scene, "exact", tile=48, statistics={"memory": 0})
    assert re.search(r"8 passes over the scene instead of two; --stats-disk 1G", caplog.text)
    free = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    enough = {"memory": 0, "disk": 1 << 30, "folder": tmp_path}
    with pytest.raises(OutputError, match="--stats-disk: activations take up to"):
        levels(network(), scene, "exact", tile=48, statistics=enough)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_held_on_disk_goes(tmp_path: Path) -> None:
    orphan = tmp_path / f".geocyclegan-states-{socket.gethostname()}-999999999-x"
    other = tmp_path / ".geocyclegan-states-elsewhere-999999999-x"
    orphan.mkdir()
    other.mkdir()
    (orphan / "0_0").write_bytes(b"1")
    core = slice(0, 4), slice(4, 8)
    state = State(3, torch.rand(1, 2, 4, 4).bfloat16(), (torch.rand(1, 2, 8, 8),), None, core)
    with DiskStore(tmp_path, CPU, 0) as store:
        assert not orphan.exists()
        assert other.exists()
        store.put(0, state)
        again = store.get(0)
        assert (again.layer, again.core, len(store)) == (3, core, 1)
        assert again.x.dtype == torch.bfloat16
        torch.testing.assert_close(again.x, state.x, rtol=0, atol=0)
        torch.testing.assert_close(again.stack[0], state.stack[0], rtol=0, atol=0)
    assert list(tmp_path.iterdir()) == [other]


def test_activations_that_are_gone_or_cut_are_one_line(tmp_path: Path) -> None:
    state = State(3, torch.rand(1, 2, 4, 4), (), None, None)
    with DiskStore(tmp_path, CPU, 0) as store:
        store.put(0, state)
        (held,) = tmp_path.glob("*/0_0")
        held.write_bytes(held.read_bytes()[:-1])
        with pytest.raises(OutputError, match="activations are damaged"):
            store.get(0)
        held.write_bytes(b"")
        with pytest.raises(OutputError, match="activations are damaged"):
            store.get(0)
        held.unlink()
        with pytest.raises(OutputError, match="activations cannot be read"):
            store.get(0)


# ---- precision


def test_precision_follows_the_device(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_precision("auto", CPU) == "32"
    assert choose_precision("bf16", CPU) == "bf16"
    assert bool(caplog.text) != has_bf16(CPU)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    choose_precision("bf16", CPU)
    assert "no bfloat16 instructions" in caplog.text
    with pytest.raises(OptionError, match="it is for GPUs"):
        choose_precision("fp16", CPU)
    with pytest.raises(OptionError, match="--precision half: expected"):
        choose_precision("half", CPU)


def test_half_precision_keeps_statistics_and_the_last_convolution() -> None:
    scene = ArrayScene(100, 130)
    expected = levels(network(), scene, "exact", tile=48)
    generator = network()
    lower(generator, "bf16")
    kinds = [p.dtype for p in generator.parameters()]
    assert kinds[0] == torch.bfloat16
    assert kinds[-1] == torch.float32
    found = levels(generator, scene, "exact", tile=48)
    error = np.abs(found - expected)[:, scene.valid]
    assert 0 < error.mean() < 0.02
    # Not the 256 levels of a bfloat16 mantissa.
    assert len(np.unique(found[0])) > 5000


def test_half_precision_rounds_the_body_only() -> None:
    """What makes a style of an image, and the last weights, keep all their digits."""
    generator: Any = build_generator("munit", in_channels=2, out_channels=3, width=4).eval()
    kept = {
        name: value.clone()
        for name, value in generator.state_dict().items()
        if name.startswith(("style_", "layers.head_conv"))
    }
    assert len(kept) > 8
    lower(generator, "bf16")
    assert next(generator.parameters()).dtype == torch.bfloat16
    state = generator.state_dict()
    assert all(torch.equal(state[name], value) for name, value in kept.items())
    assert all(state[name].dtype == value.dtype for name, value in kept.items())
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        for style in (None, seeded_style(1, 8), generator(images, part="style")):
            generator.set_style(style)
            made = generator(images[:, :2])
            assert made.dtype == torch.float32
            assert len(made.unique()) > 1000


@pytest.mark.parametrize("arch", ["unet", "fpn", "segformer"])
def test_half_precision_of_a_network_that_is_no_plan(arch: str) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    encoder = "mit_b0" if arch == "segformer" else "resnet18"
    generator = build_generator(
        f"smp-{arch}", in_channels=2, out_channels=3, width=16, encoder=encoder
    ).eval()
    images = torch.rand(1, 2, 64, 64) * 2 - 1
    with torch.inference_mode():
        expected = generator(images)
        lower(generator, "bf16")
        found = generator(images)
    kinds = {p.dtype for p in generator.parameters()}
    assert kinds == {torch.bfloat16, torch.float32}
    assert found.dtype == torch.float32
    error = (found - expected).abs().mean()
    assert 0 < error < 0.1 * expected.std()


def test_single_precision_is_not_rounded_to_tf32() -> None:
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    with rounded_products("32"):
        assert [backend.allow_tf32 for backend in backends] == [False, False]
    with rounded_products("bf16"):
        assert [backend.allow_tf32 for backend in backends] == [True, False]


def test_a_shortage_lets_go_of_what_was_computed() -> None:
    """Or the next try finds the memory as full as it was."""
    held: list[weakref.ref[Tensor]] = []

    def deep() -> None:
        features = torch.zeros(5)
        held.append(weakref.ref(features))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")

    said = pytest.raises(MemoryShortage, match=r"^CUDA out of memory. Tried")
    with said as caught, memory.naming_shortage():
        deep()
    # The error, and what led to it, are still there.
    assert caught.value.__cause__ is not None
    assert held[0]() is None


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_what_the_libraries_of_cuda_say_of_a_shortage(text: str) -> None:
    assert is_shortage(RuntimeError(text))
    assert not is_shortage(ValueError(text))
    assert not is_shortage(RuntimeError("CUDA error: an illegal memory access was encountered"))


@pytest.fixture
def single_precision() -> Iterator[None]:
    with rounded_products("32"):
        yield


@pytest.mark.gpu
@pytest.mark.usefixtures("single_precision")
def test_a_gpu_gives_what_a_cpu_gives() -> None:
    """With copies on streams of their own, in every mode and at several batches."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    scene, cuda = ArrayScene(300, 280), torch.device("cuda")
    for mode in ("frozen", "sample", "exact", "dense", "tile"):
        expected = levels(network(), scene, mode, tile=48)
        for batch in (1, 4):
            generator = network().to(cuda)
            torch.manual_seed(1)
            trained = lockstep(network(), [Patch(torch.rand(4, 2, CROP, CROP) * 2 - 1)])
            statistics = StatisticsOptions(mode=mode, crops=5)
            cut = EngineOptions(tile=48, batch=batch, window=CROP, statistics=statistics)
            given = trained if mode == "frozen" else None
            engine = TileEngine(generator, SOURCE, TARGET, cuda, cut, given)
            whole = Window(0, 0, 300, 280)
            for output in engine.outputs(scene, 300, 280):
                rows, cols = output.window.slices_in(whole)
                error = np.abs(output.levels - expected[:, rows, cols])[:, output.valid]
                assert error.size == 0 or error.max() < 5e-3


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["resnet6", "munit", "unet128"])
def test_half_precision_on_a_gpu_is_close(name: str, precision: Precision) -> None:
    """Bounded generators in tiles, others in windows that blend."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    scene, cuda = ArrayScene(300, 280), torch.device("cuda")
    torch.manual_seed(0)
    generator = build_generator(name, in_channels=2, out_channels=3, width=8).eval()
    found = []
    for device, chosen in ((CPU, "32"), (cuda, precision)):
        lower(generator.to(device), cast(Precision, chosen))
        cut = EngineOptions(tile=128, batch=2, window=128)
        levels = np.zeros((3, 300, 280), np.float32)
        engine = TileEngine(generator, SOURCE, TARGET, device, cut, None)
        for output in engine.outputs(scene, 300, 280):
            rows, cols = output.window.slices_in(Window(0, 0, 300, 280))
            levels[:, rows, cols] = output.levels
        found.append(levels)
    assert np.isfinite(found[1]).all()
    assert np.abs(found[0] - found[1])[:, scene.valid].mean() < 0.1


@pytest.mark.gpu
@pytest.mark.usefixtures("single_precision")
def test_a_full_gpu_costs_time_and_not_the_product(caplog: pytest.LogCaptureFixture) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    scene, cuda = ArrayScene(1100, 1000), torch.device("cuda")
    torch.manual_seed(0)
    generator = ResNetGenerator(2, 3, width=64, blocks=1).eval().requires_grad_(False).to(cuda)
    trained = lockstep(generator, [Patch((torch.rand(4, 2, 64, 64) * 2 - 1).to(cuda))])

    def translated(tile: int, batch: int) -> npt.NDArray[np.float32]:
        statistics = StatisticsOptions(mode="frozen")
        cut = EngineOptions(tile=tile, batch=batch, window=64, statistics=statistics)
        engine = TileEngine(generator, SOURCE, TARGET, cuda, cut, trained)
        levels = np.zeros((3, 1100, 1000), np.float32)
        for output in engine.outputs(scene, 1100, 1000):
            rows, cols = output.window.slices_in(Window(0, 0, 1100, 1000))
            levels[:, rows, cols] = output.levels
        return levels

    expected = translated(128, 1)
    assert "out of memory" not in caplog.text
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(cuda).total_memory
    # One layer's features of a whole tile of 1024 px take 290 MB.
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved(cuda) + 400e6) / total, cuda
    )
    try:
        found = translated(1024, 2)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, cuda)
        torch.cuda.empty_cache()
    assert "goes on with 1 tiles at a time" in caplog.text
    assert "which gives the same pixels" in caplog.text
    assert np.abs(found - expected)[:, scene.valid].max() < 5e-3
