"""From a file of weights of another program to a product on the scene's own grid."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

from geocyclegan.bundle import load_bundle
from geocyclegan.cli.main import cli
from geocyclegan.importing import eight_bit
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling

MakeRaster = Any
WIDTH, BLOCKS = 4, 6


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        half = [
            (nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3), nn.InstanceNorm2d(16)) for _ in range(2)
        ]
        self.conv_block = nn.Sequential(*half[0], nn.ReLU(True), *half[1])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv_block(x)
        return out


def published(bands_in: int = 3, bands_out: int = 3, seed: int = 0) -> nn.Module:
    """The reference architecture as plain modules in the published layout."""

    def after(channels: int) -> tuple[nn.Module, nn.Module]:
        return nn.InstanceNorm2d(channels), nn.ReLU(True)

    torch.manual_seed(seed)
    network = nn.Module()
    network.model = nn.Sequential(
        *(nn.ReflectionPad2d(3), nn.Conv2d(bands_in, WIDTH, 7), *after(WIDTH)),
        *(nn.Conv2d(WIDTH, 8, 3, 2, 1), *after(8)),
        *(nn.Conv2d(8, 16, 3, 2, 1), *after(16)),
        *(Block() for _ in range(BLOCKS)),
        *(nn.ConvTranspose2d(16, 8, 3, 2, 1, 1), *after(8)),
        *(nn.ConvTranspose2d(8, WIDTH, 3, 2, 1, 1), *after(WIDTH)),
        *(nn.ReflectionPad2d(3), nn.Conv2d(WIDTH, bands_out, 7), nn.Tanh()),
    )
    return network.eval()


def save(network: nn.Module, path: Path) -> str:
    torch.save(network.state_dict(), path)
    return str(path)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def geocyclegan(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def photo(make_raster: MakeRaster) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 88)).astype(np.uint8)
    path: Path = make_raster("photo.tif", pixels)
    return path


@pytest.mark.parametrize("arguments", [(), ("--norm-stats", "exact", "--tile", "32")])
def test_a_scene_is_translated_as_the_other_program_would(
    photo: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    theirs = published()
    said = geocyclegan("import", save(theirs, tmp_path / "net.pth"), "--out", "runs/style").output
    assert "geocyclegan infer SCENE --model runs/style --out translated.tif" in said
    geocyclegan("infer", str(photo), "--model", "runs/style", "--out", "out.tif", *arguments)
    with rasterio.open(photo) as scene, rasterio.open("out.tif") as product:
        pixels, ours = scene.read(), product.read()
        assert product.crs == scene.crs
        assert product.transform == scene.transform
        assert product.dtypes == ("uint8",) * 3
        assert [color.name for color in product.colorinterp] == ["red", "green", "blue"]
        tags = product.tags()
    assert tags["GEOCYCLEGAN_METHOD"] == "imported"
    # 8 bits to [-1, 1] and back, as the program's transforms do it.
    levels = torch.from_numpy(pixels).float()[None] / 127.5 - 1
    with torch.no_grad():
        expected = theirs.model(levels)  # type: ignore[operator]
    exact = (expected[0].numpy() + 1) * 127.5
    network = load_bundle(Path("runs/style")).generator("a2b")
    torch.testing.assert_close(network(levels), expected, atol=1e-5, rtol=0)
    # Rounding is the only difference.
    assert np.abs(ours - exact).max() <= 0.5 + 1e-2
    assert ours.std() > 0


def test_two_generators_lead_there_and_back(photo: Path, tmp_path: Path) -> None:
    there, back = published(3, 1), published(1, 3, seed=1)
    files = save(there, tmp_path / "G_A.pth"), save(back, tmp_path / "G_B.pth")
    geocyclegan("import", *files, "--out", "runs/both", "--bands-b", "VV")
    bundle = load_bundle(Path("runs/both"))
    assert set(bundle.generators) == {"a2b", "b2a"}
    assert bundle.domains["a"].names == ("red", "green", "blue")
    assert bundle.domains["b"].names == ("VV",)
    assert [entry["direction"] for entry in bundle.training["imported"]] == ["a2b", "b2a"]
    assert Path(files[0]).name == bundle.training["imported"][0]["file"]
    geocyclegan("infer", str(photo), "--model", "runs/both", "--out", "b.tif")
    geocyclegan("infer", "b.tif", "--model", "runs/both", "--direction", "b2a", "--out", "a.tif")
    with rasterio.open("b.tif") as b, rasterio.open("a.tif") as a:
        assert b.descriptions == ("VV",)
        assert (b.count, a.count) == (1, 3)
    assert "imported" in geocyclegan("info", "runs/both").output
    geocyclegan("verify", "runs/both")


def test_one_generator_may_be_the_way_back(photo: Path, tmp_path: Path) -> None:
    file = save(published(3, 1), tmp_path / "G_B.pth")
    geocyclegan("import", file, "--direction", "b2a", "--out", "runs/back")
    bundle = load_bundle(Path("runs/back"))
    assert set(bundle.generators) == {"b2a"}
    assert (bundle.domains["a"].count, bundle.domains["b"].count) == (1, 3)
    infer = ("infer", str(photo), "--model", "runs/back", "--out", "x.tif")
    said = geocyclegan(*infer, "--direction", "a2b", code=1)
    assert "translates b2a only" in said.output
    # The one way that there is need not be named.
    geocyclegan(*infer)


def test_domains_of_a_chip_folder_give_bands_and_units(tmp_path: Path) -> None:
    scaling = BandScaling("auto", (-30.0, 10.0), (-1.0, 1.0))
    sar = Domain(tuple(BandInfo(scaling, name) for name in ("VV", "VH")), "float32", None, 10.0)
    chips = tmp_path / "chips"
    chips.mkdir()
    (chips / "domain_a.json").write_text(json.dumps(sar.to_json() | {"size": 256, "scenes": []}))
    (chips / "domain_b.json").write_text(json.dumps(eight_bit("b", 3).to_json()))
    file = save(published(2, 3), tmp_path / "net.pth")
    said = geocyclegan("import", file, code=2).output
    assert "domain A has 2 bands, so it is no plain image: name them with --bands-a" in said
    geocyclegan("import", file, "--chips", "chips", "--out", "runs/sar")
    assert load_bundle(Path("runs/sar")).domains["a"] == sar
    geocyclegan("import", file, "--domain-a", "chips/domain_a.json", "--out", "runs/again")
    assert load_bundle(Path("runs/again")).domains == load_bundle(Path("runs/sar")).domains


def test_mistakes_end_in_one_line_and_leave_nothing(tmp_path: Path) -> None:
    good, wide = save(published(), tmp_path / "a.pth"), save(published(2, 3), tmp_path / "b.pth")
    (tmp_path / "bad.json").write_text('{"bands": 3}')
    (tmp_path / "two.json").write_text(json.dumps(eight_bit("a", 2, ("x", "y")).to_json()))
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    cases: list[tuple[tuple[str, ...], int, str]] = [
        (("other.pth",), 1, "other.pth: 1 tensors, the first named a"),
        (("gone.pth",), 2, "gone.pth: no such file"),
        ((good, good, good), 2, "3 files of weights: give one, or two"),
        ((good, wide), 2, "do not lead back to each other: domain B has 3 bands in one and 2"),
        ((good, good, "--direction", "a2b"), 2, "two files are A to B and B to A"),
        ((good, "--bands-a", "x,y"), 2, "--bands-a x,y: 2 names, the generator has 3 bands"),
        ((good, "--domain-a", "bad.json"), 1, "bad.json: no domain in it"),
        ((good, "--domain-a", "two.json"), 2, "two.json: 2 bands (x, y), the generator has 3"),
        ((good, "--domain-a", "no.json"), 2, "no.json: no such file"),
        ((good, "--domain-a", "two.json", "--bands-a", "x"), 2, "give one of them"),
        ((good, "--tile", "30"), 2, "--tile 30: the generator a2b takes multiples of 4 px"),
        ((good, "--out", "a.pth"), 2, "a.pth: a file"),
    ]
    for arguments, code, said in cases:
        result = geocyclegan("import", *arguments, code=code)
        assert said in result.output
        assert result.output.count("\n") == 1
        assert not Path("runs").exists()


def test_a_model_that_is_there_is_kept(tmp_path: Path) -> None:
    first, second = (save(published(seed=i), tmp_path / f"{i}.pth") for i in range(2))
    geocyclegan("import", first)
    before = load_bundle(Path("runs/imported")).weights_sha256
    assert "it exists; give --overwrite" in geocyclegan("import", second, code=1).output
    assert load_bundle(Path("runs/imported")).weights_sha256 == before
    geocyclegan("import", second, "--overwrite")
    assert load_bundle(Path("runs/imported")).weights_sha256 != before
    # Never over a run that was trained here.
    shutil.rmtree("runs")
    Path("runs/trained").mkdir(parents=True)
    Path("runs/trained/config.yaml").write_text("width: 4")
    said = geocyclegan("import", first, "--out", "runs/trained", "--overwrite", code=1).output
    assert "a trained run" in said
