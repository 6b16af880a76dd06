"""The command line of `train`: options, their file, and what is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from geocyclegan.bundle import newest_bundle
from geocyclegan.cli.main import cli
from geocyclegan.training.config import TrainConfig

SMALL = ["--generator", "resnet6", "--width", "4", "--device", "cpu", "--val-every", "0"]
SMALL += ["--panel-every", "0"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `chips`, as the working directory."""
    random = np.random.default_rng(0)
    for domain, bands in (("a", 1), ("b", 2)):
        folder = tmp_path / "chips" / f"train_{domain}"
        folder.mkdir(parents=True)
        for i in range(2):
            np.save(folder / f"{i}.npy", random.random((bands, 32, 32)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["train", *arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_train_and_go_on(project: Path) -> None:
    result = _run(*SMALL, "--steps", "2")
    assert "Trained 2 steps: runs/cyclegan-001" in result.stdout
    assert "geocyclegan infer" in result.stdout
    assert newest_bundle(project / "runs").training["steps"] == 2
    # Only the total is said again; the rest is what the run was started with.
    result = _run("--name", "cyclegan-001", "--resume", "--steps", "3")
    assert "Trained 3 steps" in result.stdout
    assert TrainConfig.load(project / "runs/cyclegan-001/config.yaml").width == 4
    assert "give --resume" in _run(*SMALL, "--name", "cyclegan-001", code=1).output
    said = _run("--name", "cyclegan-001", "--resume", "--no-flip", code=2).output
    assert "--flip off: the run cyclegan-001 was started with on" in said
    _run(*SMALL, "--name", "cyclegan-001", "--steps", "1", "--overwrite")
    assert newest_bundle(project / "runs").training["steps"] == 1


def test_quiet(project: Path) -> None:
    result = CliRunner().invoke(cli, ["-q", "train", *SMALL, "--steps", "1"])
    assert (result.exit_code, result.stdout) == (0, "")


def test_a_file_holds_the_same_names_and_the_command_line_comes_first(project: Path) -> None:
    Path("c.yaml").write_text(
        "generator: resnet6\nwidth: 4\nd-width: 6\nepochs: 50\nlr: 1e-3\nflip: false\nname: one\n"
    )
    _run("--config", "c.yaml", "--steps", "1", "--width", "5")
    config = TrainConfig.load(project / "runs/one/config.yaml")
    assert (config.width, config.d_width, config.lr, config.flip) == (5, 6, 1e-3, False)
    assert (config.steps, config.epochs) == (1, None)
    # What a run wrote about itself starts another one like it.
    _run("--config", "runs/one/config.yaml", "--name", "two")
    other = TrainConfig.load(project / "runs/two/config.yaml")
    assert other.updated({"name": "one"}) == config
    weights = [project / "runs" / name / "model/model.safetensors" for name in ("one", "two")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere"], 2, "nowhere: no such chip folder"),
        (["--generator", "vgg"], 2, "choose one of: resnet9"),
        (["--crop", "31"], 2, "needs a multiple of 4"),
        (["--steps", "0"], 2, "--steps 0: expected 1 or more"),
        (["--steps", "5", "--epochs", "5"], 2, "give one of them"),
        (["--config", "none.yaml"], 2, "no such file"),
        (["--resume"], 2, "say which run with --name"),
        (["--resume", "--name", "x"], 2, "no run x in runs"),
        (["--config", "bad.yaml"], 2, "stepps is no option of train"),
    ],
)
def test_mistakes_end_in_one_line(
    project: Path, arguments: list[str], code: int, said: str
) -> None:
    Path("bad.yaml").write_text("stepps: 4")
    result = _run(*arguments, code=code)
    assert said in result.output
    assert result.output.count("\n") == 1
    assert not Path("runs").exists()


def test_every_option_is_on_the_command_line() -> None:
    from geocyclegan.cli.train import command

    names = {parameter.name for parameter in command.params}
    assert names == set(TrainConfig().__dict__) | {
        *("config_file", "resume", "overwrite", "finds_lr")
    }
    default: Any = TrainConfig()
    for parameter in command.params:
        if hasattr(default, str(parameter.name)):
            assert parameter.default == getattr(default, str(parameter.name))


def test_help_needs_neither_torch_nor_gdal() -> None:
    code = (
        "import sys; from geocyclegan.cli.main import cli\n"
        "try: cli(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'rasterio', 'numpy', 'yaml'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    assert "--resume" in done.stdout


def test_pairs_from_chip_to_train(project: Path) -> None:
    """Two scenes of one place, chipped as pairs without files, help loose chips, scene by scene."""
    import rasterio
    from affine import Affine

    random = np.random.default_rng(3)
    where = {"crs": "EPSG:32630", "transform": Affine(10, 0, 5e5, 0, -10, 4e6)}
    for name, bands in (("sar", 1), ("optical", 2)):
        pixels = random.random((bands, 64, 96)).astype(np.float32)
        profile = {"count": bands, "height": 64, "width": 96, "dtype": "float32", **where}
        with rasterio.open(project / f"{name}.tif", "w", driver="GTiff", **profile) as scene:
            scene.write(pixels)
    chip = ["chip", "sar.tif", "--pair", "optical.tif", "--size", "32", "--out", "pairs"]
    result = CliRunner().invoke(cli, [*chip, "--virtual"])
    assert result.exit_code == 0, result.output
    more = ["--pairs", "pairs", "--pair-weight", "3", "--gradient-loss", "0.1", "--log-every", "1"]
    more += ["--norm", "scene", "--scene-crops", "2", "--steps", "2", "--name", "hinted"]
    _run(*SMALL[:-4], "--val-every", "1", *SMALL[-2:], *more)
    run = project / "runs" / "hinted"
    assert "pair_ab" in (run / "log.csv").read_text().splitlines()[0].split(",")
    assert "r_a2b" in (run / "validation.csv").read_text().splitlines()[0].split(",")
    bundle = newest_bundle(project / "runs")
    assert bundle.training["chips"]["pairs"]["train"] > 0
    said = _run(*SMALL, "--pairs", "chips", "--name", "none", "--pair-every", "0", code=2).output
    assert "--pair-every 0" in said


def test_what_auto_picks_is_said_where_it_is_less_than_single(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    result = _run(*SMALL, "--steps", "1", "--name", "half")
    assert result.stderr.count("precision: bf16, chosen for this CPU; --precision 32") == 1
    assert TrainConfig.load(project / "runs/half/config.yaml").precision == "bf16"
    # Not where it was asked for, and quiet is quiet.
    result = _run(*SMALL, "--steps", "1", "--name", "asked", "--precision", "bf16")
    assert "precision" not in result.output
    words = ["-q", "train", *SMALL, "--steps", "1", "--name", "quiet"]
    assert "precision" not in CliRunner().invoke(cli, words).output


def test_a_cpu_without_the_instructions_gets_single_precision(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    for i, found in enumerate(({}, {"avx512_bf16": True, "amx_int8": True})):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        result = _run(*SMALL, "--steps", "1", "--name", f"run{i}")
        assert "precision" not in result.output
        assert TrainConfig.load(project / f"runs/run{i}/config.yaml").precision == "32"
