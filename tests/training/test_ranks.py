"""Two processes on the CPU against one: the same losses, one run folder, one end for both."""

from __future__ import annotations

import csv
import multiprocessing
import os
import socket
import sys
import warnings
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from geocyclegan.cli.main import main
from geocyclegan.errors import OptionError
from geocyclegan.models.norm import SceneNorm2d, sum_over_ranks
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.loop import train
from geocyclegan.training.ranks import layout
from geocyclegan.training.sampler import PassSampler, Sampler, SceneSampler

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs gloo and fork")

MakeConfig = Callable[..., TrainConfig]
SameRun = Callable[[Path, Path], None]


def _options(config: TrainConfig) -> list[str]:
    words = ["-q", "train", str(config.chips)]
    for name, value in config.to_dict().items():
        if name in ("chips", "flip") or value is None:
            continue
        if isinstance(value, bool):
            words += [f"--{name}"] if value else []
        else:
            words += [f"--{name}", str(value)]
    return words if config.flip else [*words, "--no-flip"]


def _process(
    environment: dict[str, str], words: list[str], error: Path, poison: tuple[Any, ...] | None
) -> None:
    os.environ |= environment
    sys.argv = ["geocyclegan", *words]
    # What the command prints is looked at, so it must reach the file before the process ends.
    with open(error, "w") as file:
        os.dup2(file.fileno(), 2)
        if poison is not None and int(environment["RANK"]) == poison[0]:
            _poison(*poison[1:])
        try:
            main()
        finally:
            sys.stderr.flush()


def _poison(at: int, how: str = "nan") -> None:
    """Make a loss of one process not a number in one step, or end it there."""
    from geocyclegan.methods.cyclegan import CycleGAN

    step, calls = CycleGAN.step, [0]

    def poisoned(self: CycleGAN, *args: object) -> dict[str, torch.Tensor]:
        if calls[0] + 1 == at and how == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if calls[0] + 1 == at and how == "killed":
            os.kill(os.getpid(), 9)
        losses = step(self, *args)  # type: ignore[arg-type]
        calls[0] += 1
        if calls[0] == at:
            losses["cycle_a"] = torch.tensor(float("nan"))
        return losses

    CycleGAN.step = poisoned  # type: ignore[method-assign,assignment]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[BaseProcess]]:
    """Start processes as torchrun does, and give them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["geocyclegan.training.loop", "geocyclegan.cli.train", "torch.utils.tensorboard"]
    )

    def begin(
        words: list[str], count: int = 2, poison: tuple[Any, ...] | None = None
    ) -> list[BaseProcess]:
        folder = tmp_path_factory.mktemp("said")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "test",
            "OMP_NUM_THREADS": "1",
        }
        started: list[BaseProcess] = []
        for rank in range(count):
            own = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            error = folder / f"{rank}.txt"
            process = context.Process(target=_process, args=(own, words, error, poison))
            process.start()
            process.said = error  # type: ignore[attr-defined]
            started.append(process)
        return started

    return begin


def _ended(processes: list[BaseProcess]) -> tuple[list[int | None], list[str]]:
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.is_alive():
            process.kill()
    return codes, [process.said.read_text() for process in processes]  # type: ignore[attr-defined]


def _losses(run: Path) -> np.ndarray:
    with open(run / "log.csv", newline="") as file:
        return np.array([[float(x) for x in row.values()] for row in csv.DictReader(file)])


@pytest.fixture
def whole_chips(chips_folder: Path, tmp_path: Path) -> Path:
    """Chips without nodata: a crop counts in its process by its own valid pixels."""
    import shutil

    folder = shutil.copytree(chips_folder, tmp_path / "whole")
    for path in folder.glob("train_*/?1.tif"):
        path.unlink()
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"batch": 2},
        {"norm": "scene", "scene_crops": 4},
        {"batch": 1, "accumulate": 2},
    ],
)
def test_two_processes_give_the_losses_of_one(
    tiny: MakeConfig,
    start: Callable[..., list[BaseProcess]],
    whole_chips: Path,
    changes: dict[str, object],
) -> None:
    common: dict[str, object] = {"chips": whole_chips, "steps": 4, "log_every": 1, "pool": 0}
    common |= {"precision": "32", "save_every": 4, "panel_every": 0, "val_every": 0}
    # Where a gradient is within rounding of 0, Adam's step is as long as any other, in whichever
    # direction rounding points: so steps are short, yet far longer than what losses may differ by.
    common |= {"lr": 1e-6}
    both = tiny(**common, **changes, name="both")
    codes, said = _ended(start(_options(both)))
    assert codes == [0, 0], said
    joint = dict(changes)
    if "batch" in changes:
        joint["batch"] = 2 * int(str(changes["batch"]))
    one = train(tiny(**common, **joint, name="one"))
    np.testing.assert_allclose(_losses(both.out / "both"), _losses(one.run), rtol=1e-5, atol=1e-5)


def test_a_resume_on_as_many_processes_is_exact_and_on_another_number_is_refused(
    tiny: MakeConfig,
    start: Callable[..., list[BaseProcess]],
    assert_same_run: SameRun,
) -> None:
    common = {"steps": 4, "save_every": 2, "panel_every": 4, "val_every": 2, "ema": 0.9}
    whole, halves = tiny(**common, name="whole"), tiny(**common, name="halves")
    codes, said = _ended(start(_options(whole)))
    assert codes == [0, 0], said
    # The decay is planned for the total, so the first half is told it, and then cut short.
    codes, said = _ended(start(_options(halves)))
    run = halves.out / "halves"
    for path in run.glob("checkpoints/step_0000004*"):
        path.unlink()
    with pytest.raises(OptionError, match="has states of 2 processes, this would be 1"):
        train(TrainConfig.load(run / "config.yaml").updated({"devices": 1}), resume=True)
    words = ["-q", "train", "--out", str(halves.out), "--name", "halves", "--resume"]
    codes, said = _ended(start(words))
    assert codes == [0, 0], said
    assert_same_run(run, whole.out / "whole")


def test_a_loss_that_is_not_finite_in_one_process_ends_all(
    tiny: MakeConfig, start: Callable[..., list[BaseProcess]]
) -> None:
    config = tiny(steps=6, save_every=2, accumulate=2, panel_every=0, val_every=0)
    codes, said = _ended(start(_options(config), poison=(1, 6)))
    assert codes == [1, 0], said
    assert "step 3 of process 1, pass 2 of 2: cycle_a is nan, on " in said[0]
    assert "step_0000002.pt is the last good checkpoint" in said[0]
    assert said[0].count("Error") == 1
    assert not said[1]


@pytest.mark.parametrize(("rank", "how"), [(0, "memory"), (1, "memory"), (1, "killed")])
def test_an_error_in_a_step_of_one_process_is_a_line(
    tiny: MakeConfig, start: Callable[..., list[BaseProcess]], rank: int, how: str
) -> None:
    config = tiny(steps=6, save_every=2, panel_every=0, val_every=0)
    codes, said = _ended(start(_options(config), poison=(rank, 3, how)))
    assert codes[rank] == (-9 if how == "killed" else 1)
    assert codes[1 - rank] == 1
    if how == "memory":
        assert f"Error: process {rank}: step 3: out of memory on cpu; try" in said[rank]
    if rank == 1:
        assert "Error: another of the processes that train together has ended" in said[0]
    else:
        assert "Error" not in said[1]
    assert sum(each.count("Error: ") for each in said) == 1 + (rank == 1 and how == "memory")
    assert not any("Traceback" in each for each in said)
    assert len(list((config.out / "run" / "checkpoints").glob("*.pt"))) == 1


def test_a_signal_to_one_process_ends_all_after_the_same_step(
    tiny: MakeConfig, start: Callable[..., list[BaseProcess]]
) -> None:
    import signal
    import time

    config = tiny(steps=5000, log_every=1, save_every=5000, panel_every=0, val_every=0)
    processes = start(_options(config))
    log, deadline = config.out / "run" / "log.csv", time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes[1].pid is not None
    os.kill(processes[1].pid, signal.SIGTERM)
    codes, said = _ended(processes)
    assert codes == [143, 0], said
    assert "stopped by SIGTERM at step" in said[0]
    assert len(list((config.out / "run" / "checkpoints").glob("*.pt"))) == 1


def test_an_option_that_cannot_be_ends_all_with_one_line(
    tiny: MakeConfig, start: Callable[..., list[BaseProcess]]
) -> None:
    config = tiny(norm="scene", scene_crops=3)
    codes, said = _ended(start(_options(config)))
    assert codes == [2, 2]
    assert "--scene-crops 3: the crops of a scene are spread over 2 processes" in said[0]
    assert not config.out.exists()


def _joined(
    work: Callable[[int], object], rank: int, port: int, results: multiprocessing.Queue[object]
) -> None:
    tcp_store: Any = dist.__dict__["TCPStore"]
    store = tcp_store("127.0.0.1", port, 2, rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    results.put(work(rank))
    dist.destroy_process_group()


def _in_two(work: Callable[[int], Any]) -> list[Any]:
    """Do something in two processes that can talk to each other."""
    context = multiprocessing.get_context("forkserver")
    results = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [context.Process(target=_joined, args=(work, rank, port, results)) for rank in (0, 1)]
    for process in both:
        process.start()
    found = [results.get(timeout=120) for _ in both]
    for process in both:
        process.join(30)
    return found


def _normalised(rank: int) -> list[tuple[float, ...]]:
    """Compare networks that share statistics with one process that has all crops."""
    draw = torch.Generator().manual_seed(0)
    # Where a variance of sums and squares would have lost all its digits.
    crops = torch.randn(4, 3, 6, 6, generator=draw) + 1000
    wanted = torch.randn(4, 3, 6, 6, generator=draw)
    valid = torch.rand(4, 1, 6, 6, generator=draw) > 0.3

    def measured(network: nn.Module, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        x = crops[part].clone().requires_grad_()
        y = x
        for _ in range(2):
            y = network(y, valid[part]) * 1.5
        torch.autograd.backward(((y - wanted[part]) ** 2).sum())
        assert x.grad is not None
        return y.detach(), x.grad

    part, found = slice(2 * rank, 2 * rank + 2), []
    alone = [each[part] for each in measured(SceneNorm2d(3, pool="scene"), slice(4))]
    # "aot_eager" is given both ways at once, as "inductor" is.
    for backend in (None, "aot_eager"):
        norm = SceneNorm2d(3, pool="scene")
        norm.across = sum_over_ranks
        network = norm if backend is None else torch.compile(norm, backend=backend, fullgraph=True)
        with warnings.catch_warnings():
            # Nothing that is on its way out of PyTorch.
            warnings.simplefilter("error", FutureWarning)
            here = measured(cast(nn.Module, network), part)
        found.append(tuple(float((a - b).abs().max()) for a, b in zip(here, alone, strict=True)))
    return found


def test_statistics_over_processes_are_those_of_one_compiled_or_not() -> None:
    for each in _in_two(_normalised):
        assert np.array(each).shape == (2, 2)
        np.testing.assert_allclose(each, 0, atol=1e-3)


def test_what_torchrun_started_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert layout(None, None, cpu).devices == 1
    assert layout(3, 1, cpu).devices == 3
    for name, value in (("WORLD_SIZE", "8"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    found = layout(None, None, cpu)
    assert (found.devices, found.nodes) == (4, 2)
    with pytest.raises(OptionError, match="--devices 2: torchrun started 4"):
        layout(2, None, cpu)


def test_parts_are_disjoint_and_make_up_the_pass() -> None:
    inner = Sampler(10, 7, batch=6, seed=1)
    whole = PassSampler(inner, 2)
    parts = [whole.part(rank, 3) for rank in range(3)]
    for number in range(5):
        seen = [sample for part in parts for sample in part.samples(number)]
        assert seen == list(inner.samples(number))
        assert all(len(part.samples(number)) == 2 for part in parts)
    assert (whole.steps(6), whole.epoch_of(5)) == (5, 6)
    scenes = SceneSampler(((0, 1, 2), (3, 4)), ((0, 1),), crops=4, seed=1)
    drawn = [PassSampler(scenes).part(r, 2).draw(8 + r)[0] for r in range(2)]
    assert len({index < 3 for index in drawn}) == 1


@pytest.fixture
def harmed(tmp_path: Path) -> tuple[Path, list[str]]:
    """Listed chips, and the names of three that are damaged."""
    import rasterio
    from affine import Affine

    from geocyclegan.chips.options import ChipOptions
    from geocyclegan.chips.tiler import chip_scenes

    for seed, domain in enumerate("ab"):
        pixels = np.random.default_rng(seed).integers(1, 200, (1, 128, 128)).astype(np.uint8)
        place = {"crs": "EPSG:32630", "transform": Affine(10.0, 0.0, 5e5, 0.0, -10.0, 4.2e6)}
        profile = {"driver": "GTiff", "count": 1, "height": 128, "width": 128, "dtype": "uint8"}
        with rasterio.open(tmp_path / f"{domain}.tif", "w", **profile, **place) as scene:
            scene.write(pixels)
        options = ChipOptions(domain, tmp_path / "chips", size=32, val=0.2)  # type: ignore[arg-type]
        chip_scenes([tmp_path / f"{domain}.tif"], options)
    bad = sorted((tmp_path / "chips" / "train_a").iterdir())[:3]
    for chip in bad:
        chip.write_bytes(chip.read_bytes()[:-50])
    return tmp_path / "chips", [chip.name for chip in bad]


def test_bad_chips_are_counted_over_all_processes(
    tiny: MakeConfig,
    start: Callable[..., list[BaseProcess]],
    assert_same_run: SameRun,
    harmed: tuple[Path, list[str]],
) -> None:
    chips, bad = harmed
    common = {"chips": chips, "steps": 10, "save_every": 8, "panel_every": 10, "val_every": 10}
    few = tiny(**common, max_bad=2, name="few")
    codes, said = _ended(start(_options(few)))
    assert codes == [1, 0], said
    assert "3 chips cannot be read, more than --max-bad 2" in said[0]
    assert said[0].count("Error: ") == 1
    assert not said[1]
    whole, halves = (tiny(**common, max_bad=3, name=name) for name in ("whole", "halves"))
    codes, said = _ended(start(_options(whole)))
    assert codes == [0, 0], said
    assert not said[1]
    # Quiet commands tell of nothing but errors; the bundle knows.
    from geocyclegan.bundle import load_bundle

    names = load_bundle(whole.out / "whole").training["skipped_chips"]
    assert sorted(names) == [f"train_a/{name}" for name in bad]
    _ended(start(_options(halves)))
    run = halves.out / "halves"
    for path in run.glob("checkpoints/step_0000010*"):
        path.unlink()
    words = ["-q", "train", "--out", str(halves.out), "--name", "halves", "--resume"]
    codes, said = _ended(start(words))
    assert codes == [0, 0], said
    assert_same_run(run, whole.out / "whole")
