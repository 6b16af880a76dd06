"""`verify` of runs: every file with a hash is looked at, and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from geocyclegan.bundle import save_bundle
from geocyclegan.cli.main import cli
from geocyclegan.models.registry import build_generator
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.training.checkpoint import save_checkpoint

PARTS = ["model", "best", "checkpoints/step_0000001.pt", "checkpoints/step_0000002.pt"]


def verify(*paths: str) -> Result:
    return CliRunner().invoke(cli, ["verify", *paths])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    domain = Domain((BandInfo(BandScaling("linear", (0.0, 255.0), (-1.0, 1.0)), "x"),), "uint8")
    network = build_generator("resnet6", in_channels=1, out_channels=1, width=2)
    for name in ("model", "best"):
        save_bundle(
            tmp_path / "run" / name,
            method="cut",
            generators={"a2b": ("resnet6", network)},
            domains={"a": domain, "b": domain},
            tile=64,
            training={},
        )
    for step in (1, 2):
        save_checkpoint(tmp_path / "run" / "checkpoints", step, {"weights": torch.zeros(9)})
    return tmp_path / "run"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_sound_run_has_a_line_for_each_part(run: Path) -> None:
    result = verify("run")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == len(PARTS)
    for line, part in zip(lines, PARTS, strict=True):
        assert f"run/{part}: sound" in line


@pytest.mark.parametrize(
    "name",
    [
        "model/model.safetensors",
        "model/model.json",
        "model/mlm_a2b.json",
        "best/model.safetensors",
        "best/model.json",
        "checkpoints/step_0000001.pt",
        "checkpoints/step_0000002.pt",
        "checkpoints/step_0000001.pt.sha256",
    ],
)
def test_one_flipped_bit_anywhere_in_a_run_is_named(run: Path, name: str) -> None:
    flip(run / name)
    result = verify("run")
    assert result.exit_code == 1
    (wrong,) = [line for line in result.stdout.splitlines() if ": sound" not in line]
    assert str(Path("run", name.removesuffix(".sha256"))) in wrong
    assert len(result.stdout.splitlines()) == len(PARTS)
    assert result.stderr.startswith("Error: run: 1 damaged or missing")


@pytest.mark.parametrize("name", ["model/model.json", "best/model.safetensors"])
def test_a_missing_part_of_a_model_is_named(run: Path, name: str) -> None:
    (run / name).unlink()
    result = verify("run")
    assert result.exit_code == 1
    assert name in result.stdout.replace("run/model: no model.json", "model/model.json")


def test_parts_by_themselves(run: Path) -> None:
    for part in [*PARTS, "checkpoints", "model/model.json"]:
        assert verify(f"run/{part}").exit_code == 0, part
    flip(run / PARTS[2])
    assert verify(f"run/{PARTS[2]}").exit_code == 1
    assert verify("run/checkpoints").exit_code == 1
    assert verify(f"run/{PARTS[3]}").exit_code == 0


def test_a_model_of_before_is_not_called_sound_in_what_it_does_not_tell(run: Path) -> None:
    path = run / "model" / "model.json"
    document = json.loads(path.read_text())
    del document["document_sha256"], document["items"]
    path.write_text(json.dumps(document | {"format_version": 1}))
    result = verify("run/model")
    assert result.exit_code == 0
    assert "no hash of the description" in result.stdout


@pytest.mark.parametrize(
    ("folder", "name", "count"), [("run", ".", 4), ("run/model", "./", 1), ("run/model", "..", 4)]
)
def test_a_run_is_verified_from_inside(
    run: Path, monkeypatch: pytest.MonkeyPatch, folder: str, name: str, count: int
) -> None:
    monkeypatch.chdir(run.parent / folder)
    result = verify(name)
    assert result.exit_code == 0, result.output
    assert result.stdout.count(": sound") == count


@pytest.mark.parametrize("name", [".", "/"])
def test_a_folder_of_nothing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = verify(name)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {name}")
    assert "unexpected" not in result.stderr
