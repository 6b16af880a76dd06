"""Exported files: what is in them, and that they compute what the model computes."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner

from geocyclegan.bundle import Bundle
from geocyclegan.cli.main import cli
from geocyclegan.errors import OptionError, OutputError
from geocyclegan.exporting.describe import plan_tiling
from geocyclegan.exporting.files import PARITY, ExportOptions, export_model
from geocyclegan.exporting.network import Translation
from geocyclegan.exporting.statistics import settle_statistics

MakeBundle = Callable[..., Bundle]
MakeRaster = Callable[..., Path]
onnx = pytest.importorskip("onnx", reason='needs pip install "geocyclegan[export]"')
onnxruntime = pytest.importorskip("onnxruntime", reason='needs pip install "geocyclegan[export]"')


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def in_torch(
    bundle: Bundle, direction: Any, x: npt.NDArray[Any], outputs: Any = "units"
) -> npt.NDArray[Any]:
    generator = bundle.generator(direction)
    statistics = bundle.statistics(direction)
    if statistics is not None:
        generator.freeze(statistics)
    source, target = bundle.source(direction), bundle.target(direction)
    with torch.inference_mode():
        made = Translation(generator, source, target, outputs)(torch.from_numpy(x))
    assert isinstance(made, torch.Tensor)
    return made.numpy()


def test_onnx_at_sizes_it_was_not_exported_at(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle()
    result = export_model(bundle, ExportOptions(out=tmp_path / "m.onnx"))
    assert result.difference <= PARITY
    assert result.statistics == "training set"
    run = session(result.out)
    assert [i.shape for i in run.get_inputs()] == [["batch", 2, "height", "width"]]
    assert [o.shape for o in run.get_outputs()] == [["batch", 3, "height", "width"]]
    random = np.random.default_rng(1)
    for shape in ((1, 2, 40, 97), (3, 2, 21, 130), (2, 2, 5, 5)):
        x = np.stack(
            [random.uniform(low, high, (shape[0], *shape[2:])) for low, high in ((-25, 5), (0, 3))],
            axis=1,
        ).astype(np.float32)
        x[0, 0, :3, :3] = np.nan
        (found,) = run.run(None, {"image": x})
        expected = in_torch(bundle, "a2b", x)
        assert found.shape == expected.shape
        span = np.array([4000.0, np.expm1(9.0), 4000.0])[:, None, None]
        assert np.abs((found - expected) / span).max() <= PARITY
        assert (found[0, :, :3, :3] == 0).all()
        assert np.ptp(expected[:, 0]) > 100
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "spain"]
    # ONNX Runtime 1.17, which Deepness 0.6 has, reads IR version 9 and opset 20 at most.
    model = onnx.load(result.out)
    assert model.ir_version <= 9
    assert [opset.version for opset in model.opset_import if not opset.domain] == [18]
    # No name of a file on this machine gets out.
    content = result.out.read_bytes()
    assert b".py" not in content
    assert str(Path.home()).encode() not in content


def test_levels_in_levels_out(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle(statistics=False)
    options = ExportOptions(out=tmp_path / "m.onnx", radiometry=False, norm_stats="tile")
    assert export_model(bundle, options).statistics == "input"
    x = np.random.default_rng(0).uniform(-1, 1, (2, 2, 33, 46)).astype(np.float32)
    (found,) = session(tmp_path / "m.onnx").run(None, {"image": x})
    assert np.abs(found - in_torch(bundle, "a2b", x, "levels")).max() <= PARITY
    # Each sample has its own statistics, also where training shared them.
    (alone,) = session(tmp_path / "m.onnx").run(None, {"image": x[:1]})
    assert np.abs(alone - found[:1]).max() <= PARITY


@pytest.mark.slow
def test_a_unet_takes_any_size(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle("unet128")
    assert export_model(bundle, ExportOptions(out=tmp_path / "m.onnx")).difference <= PARITY
    x = np.random.default_rng(0).uniform(0.01, 3, (1, 2, 128, 70)).astype(np.float32)
    (found,) = session(tmp_path / "m.onnx").run(None, {"image": x})
    assert np.abs(found - in_torch(bundle, "a2b", x))[:, [0, 2]].max() <= 4000 * PARITY


def test_a_torch_program(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle()
    result = export_model(
        bundle, ExportOptions(format="torch", direction="b2a", out=tmp_path / "m.pt2")
    )
    assert result.difference <= PARITY
    told = {"geocyclegan_input": "", "geocyclegan_direction": ""}
    program = torch.export.load(result.out, extra_files=told).module()
    assert json.loads(told["geocyclegan_direction"]) == "b2a"
    assert json.loads(told["geocyclegan_input"])["bands"][0]["name"] == "B04"
    x = np.random.default_rng(0).uniform(1, 4000, (1, 3, 45, 71)).astype(np.float32)
    with torch.inference_mode():
        found = program(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, in_torch(bundle, "b2a", x), atol=4e-3)


@pytest.mark.parametrize(("format", "name"), [("torch", "m.pt2"), ("onnx", "m.onnx")])
def test_a_full_disk_is_one_line(
    make_bundle: MakeBundle, tmp_path: Path, file_limit: Any, format: Any, name: str
) -> None:
    """Not an end of the whole process, which is what torch makes of it."""
    bundle, out = make_bundle(), tmp_path / "exported" / name
    with file_limit(5000), pytest.raises(OutputError, match=rf"{name}: cannot be written"):
        export_model(bundle, ExportOptions(format=format, out=out))
    assert not [path for path in out.parent.iterdir() if ".lock" not in path.name]


def test_deepness_finds_what_it_reads(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle()
    result = export_model(
        bundle, ExportOptions(format="deepness", out=tmp_path / "m.onnx", tile=100)
    )
    run = session(result.out)
    told = run.get_modelmeta().custom_metadata_map
    # As the plugin reads them.
    assert str(json.loads(told["model_type"])).capitalize() == "Regressor"
    assert float(json.loads(told["resolution"])) == 1000.0
    side, percent = int(json.loads(told["tile_size"])), int(json.loads(told["tiles_overlap"]))
    assert run.get_inputs()[0].shape == ["batch", 2, side, side]
    overlap = int(side * percent / 100 * 2) // 2
    assert overlap // 2 >= bundle.generators["a2b"].halo  # type: ignore[operator]
    assert (side - overlap) % bundle.generators["a2b"].stride == 0
    names = [
        [name for _, name in sorted(layer.items(), key=lambda item: int(item[0]))]
        for layer in json.loads(told["class_names"])
    ]
    assert names == [["B04"], ["B03"], ["B02"]]
    assert [o.shape for o in run.get_outputs()] == [["batch", 1, side, side]] * 3
    # As it calls the model: divided by 255, standardised, bands last before that.
    mean, std = (
        np.array(json.loads(told[f"standardization_{k}"]), np.float32) for k in ("mean", "std")
    )

    def process(tile: npt.NDArray[Any]) -> npt.NDArray[Any]:
        x = (tile[None] * 1.0 / 255.0).astype(np.float32)
        x = np.transpose((x - mean) / std, (0, 3, 1, 2))
        outputs = run.run(None, {"image": x})
        assert all(output.dtype == np.float32 for output in outputs)
        return np.concatenate([output[:, 0] for output in outputs])

    # And as it cuts a scene: half of the overlap goes from each inner side of a tile.
    step, half = side - overlap, overlap // 2
    raw = np.random.default_rng(0).uniform(0.01, 3, (side + step, side + 2 * step, 2))
    made = np.zeros((3, *raw.shape[:2]), np.uint8)
    for row in (0, 1):
        for col in (0, 1, 2):
            y, x = row * step, col * step
            rows = slice(half if row else 0, side)
            cols = slice(half if col else 0, side)
            tile = process(raw[y : y + side, x : x + side])[:, rows, cols]
            made[:, y + rows.start : y + side, x + cols.start : x + side] = tile
    whole = in_torch(bundle, "a2b", raw.transpose(2, 0, 1)[None].astype(np.float32), "display")[0]
    assert np.ptp(whole) > 50
    # No tile shows: one step of 255 is what rounding may make of a difference of 1e-6.
    assert np.abs(made.astype(float) - whole).max() <= 1


@pytest.mark.parametrize("halo", [20, 60, 84, 108])
def test_tilings_hold_the_receptive_field(halo: int) -> None:
    tiling = plan_tiling(halo, 4, 256)
    overlap = int(tiling.tile * tiling.overlap / 100 * 2) // 2
    assert overlap >= 2 * halo
    assert overlap % 2 == 0
    assert (tiling.tile - overlap) % 4 == tiling.tile % 4 == 0
    with pytest.raises(OptionError, match="--tile 120"):
        plan_tiling(60, 4, 256, 120)


def test_statistics_are_those_of_the_scenes_named(
    make_bundle: MakeBundle, make_raster: MakeRaster, tmp_path: Path
) -> None:
    bundle = make_bundle(statistics=False)
    with pytest.raises(OptionError, match="--scene"):
        export_model(bundle, ExportOptions(out=tmp_path / "m.onnx"))
    random = np.random.default_rng(0)
    scene = make_raster(
        "s.tif", random.uniform(0.1, 3, (2, 100, 90)).astype(np.float32), names=("VV", "VH")
    )
    result = export_model(bundle, ExportOptions(out=tmp_path / "m.onnx", scenes=(str(scene),)))
    assert result.statistics == "scenes"
    one, two = bundle.generator("a2b"), bundle.generator("a2b")
    settle_statistics(one, bundle, "a2b", "frozen", [str(scene)])
    settle_statistics(two, bundle, "a2b", "frozen", [str(scene), str(scene)])
    x = torch.rand(1, 2, 64, 64)
    # The same scene twice has the statistics of one.
    torch.testing.assert_close(one(x), two(x), atol=1e-4, rtol=1e-4)


def test_a_model_trained_crop_by_crop_is_warned_of(
    make_bundle: MakeBundle, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = make_bundle(pool="crop")
    settle_statistics(bundle.generator("a2b"), bundle, "a2b", "frozen")
    assert "--norm scene" in caplog.text


def test_what_disagrees_is_not_kept(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geocyclegan.exporting import files

    out = tmp_path / "m.pt2"
    out.write_text("old")
    bundle = make_bundle()
    right = files._write_program

    def wrong(*args: Any) -> Any:
        run = right(*args)
        return lambda x: [part * 1.001 for part in run(x)]

    monkeypatch.setattr(files, "_write_program", wrong)
    with pytest.raises(OutputError, match="it exists"):
        export_model(bundle, ExportOptions(format="torch", out=out))
    with pytest.raises(OutputError, match="differs from the model"):
        export_model(bundle, ExportOptions(format="torch", out=out, overwrite=True))
    assert out.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.pt2", "spain"]


def test_a_missing_package_is_one_line(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def missing(name: str, *args: Any) -> Any:
        if name == "onnxscript":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(OptionError, match=r'pip install "geocyclegan\[export\]"') as caught:
        export_model(make_bundle(), ExportOptions(out=tmp_path / "m.onnx"))
    assert "\n" not in str(caught.value)


def test_the_command(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bundle()
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(
        cli, ["export", "--model", "spain", "--format", "torch", "--direction", "b2a"]
    )
    assert done.exit_code == 0, done.output
    assert Path("spain_b2a.pt2").is_file()
    done = CliRunner().invoke(cli, ["export", "--model", "spain", "--format", "mlm"])
    assert done.exit_code == 0, done.output
    assert json.loads(Path("spain_a2b_mlm.json").read_text())["type"] == "Feature"
    for args, word in (
        (["--tile", "512"], "--tile"),
        (["--format", "deepness", "--no-radiometry"], "--no-radiometry"),
        (["--out", "x.tif"], ".onnx"),
        (["--norm-stats", "tile", "--scene", "x.tif"], "--scene"),
    ):
        done = CliRunner().invoke(cli, ["export", "--model", "spain", *args])
        assert done.exit_code == 2, args
        assert word in done.output
