"""A product does not depend on who made it: workers, how many, and whether one was killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner

from geocyclegan.bundle import Bundle, load_bundle, save_bundle
from geocyclegan.cli.main import cli
from geocyclegan.crew import Crew, DaskCrew, LocalCrew
from geocyclegan.errors import ClusterError, OptionError, SceneError
from geocyclegan.files import sha256
from geocyclegan.inference.cluster import translate_scenes
from geocyclegan.inference.devices import count_devices
from geocyclegan.inference.engine import EngineOptions
from geocyclegan.inference.options import TranslateOptions
from geocyclegan.inference.statistics import NormStats, StatisticsOptions
from geocyclegan.inference.translate import load_generator, translate_scene_with
from geocyclegan.models import build_generator
from geocyclegan.models.passes import Patch, lockstep
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling

pytest.importorskip("distributed", reason="needs the extra dask")

ROOT = str(Path(__file__).resolve().parents[2])
MODES: tuple[NormStats, ...] = ("frozen", "sample", "exact", "dense", "tile")
SHAPE = 140, 100


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


class Cluster:
    """A scheduler and its workers, as the command line of Dask starts them."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "scheduler.json"
        self._log = open(folder / "log", "wb")  # noqa: SIM115 - closed with the processes
        where = ["--scheduler-file", str(self._file), "--no-dashboard"]
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", *where)
        self._where = where
        self.workers = [self.add_worker(), self.add_worker()]
        deadline = time.monotonic() + 60
        while not self._file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.address = str(json.loads(self._file.read_text("utf-8"))["address"])

    def add_worker(self) -> subprocess.Popen[bytes]:
        return self._start("worker", "--nthreads", "1", "--no-nanny", *self._where)

    def _start(self, kind: str, *args: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *args]
        return subprocess.Popen(command, env=environment(), stdout=self._log, stderr=self._log)

    def close(self) -> None:
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("dask"))
    try:
        yield running
    finally:
        running.close()


@pytest.fixture
def crew(cluster: Cluster) -> Iterator[DaskCrew]:
    with DaskCrew(cluster.address) as found:
        yield found


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scene, and a model whose statistics are recorded."""
    folder = tmp_path_factory.mktemp("work")
    pixels = np.random.default_rng(0).integers(1, 255, (1, *SHAPE)).astype(np.uint8)
    pixels[:, :40, :50] = 0
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 0, "crs": "EPSG:32630"}
    height, width = SHAPE
    with rasterio.open(folder / "scene.tif", "w", height=height, width=width, **profile) as scene:
        scene.write(pixels)
        scene.descriptions = ("x",)
    torch.manual_seed(0)
    domain = Domain((BandInfo(BandScaling("linear", (0.0, 255.0), (-1.0, 1.0)), "x"),), "uint8")
    network = build_generator("resnet6", in_channels=1, out_channels=1, width=2).eval()
    found = lockstep(network, [Patch(torch.rand(2, 1, 64, 64) * 2 - 1)])
    network.thaw()
    save_bundle(
        folder / "model",
        method="m",
        generators={"a2b": ("resnet6", network)},
        domains={"a": domain, "b": domain},
        tile=32,
        training={},
        normalization={"kind": "instance", "pool": "crop", "statistics": {"crops": 2}},
        statistics={"a2b": found},
    )
    return folder


def options(mode: NormStats, **statistics: Any) -> TranslateOptions:
    found = StatisticsOptions(crops=5, **statistics)
    return TranslateOptions(
        norm_stats=mode, engine=EngineOptions(tile=32, window=32, statistics=found)
    )


def alone(work: Path, mode: NormStats) -> Path:
    """The product of this process alone."""
    out = work / f"alone_{mode}.tif"
    if not out.exists():
        bundle = load_bundle(work / "model")
        generator = load_generator(bundle, options(mode))
        translate_scene_with(str(work / "scene.tif"), out, bundle, generator, options(mode))
    return out


def together(crew: Crew, work: Path, out: Path, given: TranslateOptions) -> None:
    bundle = load_bundle(work / "model")
    scene = str(work / "scene.tif")
    for _, error in translate_scenes(crew, [scene], [out], bundle, given, "cpu"):
        if error is not None:
            raise error


@pytest.mark.parametrize("mode", MODES)
def test_a_cluster_makes_the_product_of_one_machine(
    crew: DaskCrew, work: Path, tmp_path: Path, mode: NormStats
) -> None:
    together(crew, work, tmp_path / "p.tif", options(mode))
    assert sha256(tmp_path / "p.tif") == sha256(alone(work, mode))
    assert [path.name for path in tmp_path.iterdir()] == ["p.tif"]


@pytest.mark.parametrize("mode", ["sample", "tile"])
def test_workers_leave_out_undeclared_nodata(
    crew: DaskCrew, work: Path, tmp_path: Path, mode: NormStats
) -> None:
    scene = tmp_path / "collar.tif"
    with (
        rasterio.open(work / "scene.tif") as declared,
        rasterio.open(scene, "w", **(declared.profile | {"nodata": None})) as bare,
    ):
        bare.write(declared.read())
        bare.descriptions = declared.descriptions
    bundle, out = load_bundle(work / "model"), tmp_path / "out"
    out.mkdir()
    given = replace(options(mode), nodata=0.0)
    for _, error in translate_scenes(crew, [str(scene)], [out / "p.tif"], bundle, given, "cpu"):
        assert error is None
    generator = load_generator(bundle, given)
    translate_scene_with(str(scene), out / "alone.tif", bundle, generator, given)
    assert sha256(out / "p.tif") == sha256(out / "alone.tif")
    with rasterio.open(out / "p.tif") as made, rasterio.open(alone(work, mode)) as expected:
        assert np.array_equal(made.read(), expected.read())
        assert np.array_equal(made.dataset_mask(), expected.dataset_mask())
        assert (made.dataset_mask() == 0).sum() == 40 * 50


@pytest.mark.parametrize("statistics", [{"memory": 0}, {"memory": 0, "disk": 1 << 30}])
def test_what_workers_hold_does_not_show(
    crew: DaskCrew, work: Path, tmp_path: Path, statistics: dict[str, int]
) -> None:
    together(crew, work, tmp_path / "p.tif", options("exact", **statistics))
    assert sha256(tmp_path / "p.tif") == sha256(alone(work, "exact"))


@pytest.mark.parametrize(("mode", "at"), [("exact", 9), ("frozen", 4)])
def test_a_killed_worker_costs_a_retry(
    cluster: Cluster, work: Path, tmp_path: Path, mode: NormStats, at: int
) -> None:
    """Killed with tasks in its hands: in the second norm layer, and while it translates."""
    with DaskCrew(cluster.address) as crew:
        deadline = time.monotonic() + 60
        while len(crew) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        victim = cluster.workers.pop(0)
        submit, submitted = crew.submit, []

        def submit_and_kill(*args: Any, **kwargs: Any) -> Any:
            submitted.append(submit(*args, **kwargs))
            if len(submitted) == at:
                victim.kill()
            return submitted[-1]

        crew.submit = submit_and_kill  # type: ignore[method-assign]
        together(crew, work, tmp_path / "p.tif", options(mode))
        assert len(submitted) > at
        assert len(crew) == 1
    victim.wait()
    cluster.workers.append(cluster.add_worker())
    assert sha256(tmp_path / "p.tif") == sha256(alone(work, mode))
    assert [path.name for path in tmp_path.iterdir()] == ["p.tif"]


def test_a_cluster_goes_on_with_what_one_machine_left(
    crew: DaskCrew, work: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Killed(BaseException):
        pass

    bundle, out = load_bundle(work / "model"), tmp_path / "p.tif"
    generator = load_generator(bundle, options("tile"))
    calls = 0

    def hook(module: object, args: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise Killed

    generator.register_forward_pre_hook(hook)
    with pytest.raises(Killed):
        translate_scene_with(str(work / "scene.tif"), out, bundle, generator, options("tile"))
    assert len(list((tmp_path / ".p.pieces").glob("*.npz"))) > 5
    together(crew, work, out, options("tile"))
    assert "goes on where an interrupted run stopped" in caplog.text
    assert sha256(out) == sha256(alone(work, "tile"))


def test_the_command_line_spreads_scenes(
    cluster: Cluster, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small scenes whole, and one that is no raster costs the others nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("one.tif", "two.tif"):
        shutil.copy(work / "scene.tif", name)
    Path("bad.tif").write_text("no raster")
    args = ["--model", str(work / "model"), "--out", "products", "--device", "cpu"]
    result = CliRunner().invoke(
        cli, ["infer", "one.tif", "bad.tif", "two.tif", *args, "--cluster", cluster.address]
    )
    assert result.exit_code == 1
    assert "1 of 3 scenes" in result.output
    assert "bad.tif: not a raster" in result.output
    assert sorted(p.name for p in Path("products").iterdir()) == ["one_a2b.tif", "two_a2b.tif"]
    single = CliRunner().invoke(cli, ["infer", "one.tif", *args[:2], "--out", "p.tif"])
    assert single.exit_code == 0, single.output
    assert sha256(Path("p.tif")) == sha256(Path("products/one_a2b.tif"))


def refused(args: list[str]) -> str:
    result = CliRunner().invoke(cli, ["infer", *args])
    assert result.exit_code in (1, 2), result.output
    assert "Traceback" not in result.output
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1
    return result.output


def test_mistakes_end_in_one_line(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geocyclegan.crew._CONNECT_SECONDS", 1)
    args = [str(work / "scene.tif"), "--model", str(work / "model"), "--out", f"{tmp_path}/p.tif"]
    assert "no Dask scheduler answers there" in refused([*args, "--cluster", "tcp://127.0.0.1:9"])
    assert "expected the address" in refused([*args, "--cluster", "somewhere"])
    assert "expected local:N" in refused([*args, "--cluster", "local:0"])
    assert "leave it out" in refused([*args, "--cluster", "local:1", "--devices", "2"])
    assert "--devices 999: this machine has" in refused(
        [*args, "--device", "cpu", "--devices", "999"]
    )
    assert "expected a number" in refused([*args, "--devices", "some"])
    assert not list(tmp_path.iterdir())


def test_processes_that_cannot_be_started_are_one_line(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when one of them is killed for want of memory while it starts."""

    def fail(**given: Any) -> None:
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr("distributed.LocalCluster", fail)
    args = [str(work / "scene.tif"), "--model", str(work / "model"), "--out", f"{tmp_path}/p.tif"]
    line = refused([*args, "--cluster", "local:2"])
    assert "--cluster local:2: its processes cannot be started (Nanny failed to start.)" in line


def test_workers_without_the_files_are_named(crew: DaskCrew, work: Path, tmp_path: Path) -> None:
    """As on machines that do not share the file system: the paths are there, the files are not."""

    class Elsewhere:
        """A crew whose workers see other files than this process."""

        name = crew.name

        def __len__(self) -> int:
            return len(crew)

        def ask(self, function: Any, *args: Any) -> dict[str, Any]:
            moved = [self._moved(arg) for arg in args]
            return crew.ask(function, *moved)

        def _moved(self, arg: Any) -> Any:
            if not isinstance(arg, list) or not arg:
                return arg
            if isinstance(arg[0], tuple):
                return [(path.replace(hidden, "/elsewhere"), known) for path, known in arg]
            return [path.replace(hidden, "/elsewhere") for path in arg]

        submit, close = crew.submit, crew.close

    for hidden, message in (  # noqa: B007 - the class reads it
        (str(work / "scene.tif"), "is not there, or is another file"),
        (str(work / "model"), "is not there, or is another file"),
        (str(tmp_path), "is not there or not writable"),
    ):
        with pytest.raises(ClusterError, match=message):
            together(Elsewhere(), work, tmp_path / "p.tif", options("frozen"))


def test_a_scene_of_nodata_is_refused_and_leaves_nothing(
    crew: DaskCrew, work: Path, tmp_path: Path
) -> None:
    with rasterio.open(work / "scene.tif") as scene:
        profile, pixels = scene.profile, np.zeros((1, *SHAPE), np.uint8)
    with rasterio.open(tmp_path / "empty.tif", "w", **profile) as empty:
        empty.write(pixels)
        empty.descriptions = ("x",)
    bundle = load_bundle(work / "model")
    out = tmp_path / "out" / "p.tif"
    for mode in ("exact", "tile"):
        found = list(
            translate_scenes(
                crew,
                [str(tmp_path / "empty.tif")],
                [out],
                bundle,
                options(mode),
                "cpu",
            )
        )
        assert len(found) == 1
        assert isinstance(found[0][1], SceneError)
        assert "no valid pixel" in str(found[0][1])
    assert not list(out.parent.iterdir())


def test_processes_of_one_machine_make_the_same_product(work: Path, tmp_path: Path) -> None:
    """Of `--devices 2`; one of them dies, and its work is done again."""
    with LocalCrew(2, [{"OMP_NUM_THREADS": "1"}] * 2) as crew:
        together(crew, work, tmp_path / "exact.tif", options("exact"))
        (first, *_) = crew._pool._processes.values()
        os.kill(first.pid or 0, signal.SIGKILL)
        together(crew, work, tmp_path / "dense.tif", options("dense"))
    for mode in ("exact", "dense"):
        assert sha256(tmp_path / f"{mode}.tif") == sha256(alone(work, mode))


def test_devices_are_counted() -> None:
    cpu = torch.device("cpu")
    assert count_devices("all", cpu) == 1
    assert count_devices("1", cpu) == 1
    with pytest.raises(OptionError, match="--devices 0: expected"):
        count_devices("0", cpu)
    with pytest.raises(OptionError, match="or fewer"):
        count_devices("100000", cpu)


@pytest.mark.parametrize("other", ["weights_sha256", "document_sha256"])
def test_another_model_under_the_same_path_is_refused(
    crew: DaskCrew, work: Path, tmp_path: Path, other: str
) -> None:
    bundle: Bundle = replace(load_bundle(work / "model"), **{other: "0" * 64})  # type: ignore[arg-type]
    # This process does not look, as it has loaded the model already.
    object.__setattr__(bundle, "folder", work / "model")
    good = load_bundle(work / "model")
    network = good.generator("a2b")
    object.__setattr__(bundle, "generator", lambda *_: network)
    scene = str(work / "scene.tif")
    found = list(
        translate_scenes(crew, [scene], [tmp_path / "p.tif"], bundle, options("tile"), "cpu")
    )
    assert "is another model there" in str(found[0][1])
