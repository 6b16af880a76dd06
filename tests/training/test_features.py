"""Validation by the features of a network that the user gives."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geocyclegan.errors import GeoCycleGANError, NotFoundError, OptionError
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.data import Chips
from geocyclegan.training.distances import kernel_distance
from geocyclegan.training.features import FeatureNetwork, Features
from geocyclegan.training.loop import train
from geocyclegan.training.resolve import resolve
from geocyclegan.training.score import score_of

onnx = pytest.importorskip("onnx", reason='needs pip install "geocyclegan[export]"')
pytest.importorskip("onnxruntime", reason='needs pip install "geocyclegan[export]"')

MakeConfig = Callable[..., TrainConfig]
Size = int | str


@pytest.fixture
def network(tmp_path: Path) -> Callable[..., Path]:
    """Write a network whose features are the means of the bands."""

    def write(*shape: Size, pooled: bool = True, kind: str = "FLOAT") -> Path:
        from onnx import TensorProto, helper

        shape = shape or ("n", "bands", "h", "w")
        number = getattr(TensorProto, kind)
        inputs: list[Any] = [helper.make_tensor_value_info("image", number, shape)]
        constants = []
        if pooled:
            constants = [helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])]
            node = helper.make_node("ReduceMean", ["image", "axes"], ["y"], keepdims=0)
        else:
            node = helper.make_node("Neg", ["image"], ["y"])
        out = helper.make_tensor_value_info("y", number, None)
        graph = helper.make_graph([node], "means", inputs, [out], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        path = tmp_path / "features.onnx"
        onnx.save(model, path)
        return path

    return write


def rows(run: Path) -> list[dict[str, float]]:
    with open(run / "validation.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_the_kernel_distance_is_that_of_kid() -> None:
    """Bińkowski et al., ICLR 2018: unbiased squared MMD, kernel (x·y / d + 1)³, term by term."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(7, 5)), random.normal(0.3, size=(9, 5))

    def kernel(a: Any, b: Any) -> float:
        return float((a @ b / 5 + 1) ** 3)

    def within(points: Any) -> float:
        count = len(points)
        among = [kernel(points[i], points[j]) for i in range(count) for j in range(count) if i != j]
        return sum(among) / (count * (count - 1))

    across = np.mean([[kernel(a, b) for b in y] for a in x])
    expected = within(x) + within(y) - 2 * across
    assert kernel_distance(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected)


def test_runs_are_compared_by_features(tiny: MakeConfig, network: Callable[..., Path]) -> None:
    run = train(tiny(steps=4, features=network(), panel_every=0)).run
    (row,) = rows(run)
    for way in ("a2b", "b2a"):
        # Means of bands of thousands: physical units, which levels are not.
        assert row[f"features_swd_{way}"] > 10
        assert np.isfinite(row[f"kid_{way}"])
    mean = (row["features_swd_a2b"] + row["features_swd_b2a"]) / 2
    assert row["score"] == pytest.approx(mean, rel=1e-5)
    assert row["swd_a2b"] < 1


def test_resumed_it_goes_on_as_if_never_stopped(
    tiny: MakeConfig,
    network: Callable[..., Path],
    assert_same_run: Callable[[Path, Path], None],
) -> None:
    options = {"features": network(), "save_every": 2, "val_every": 2, "panel_every": 4}
    whole = train(tiny(steps=4, name="whole", **options)).run
    again = train(tiny(steps=4, name="again", **options)).run
    for path in again.glob("checkpoints/step_0000004*"):
        path.unlink()
    assert_same_run(train(tiny(steps=4, name="again", **options), resume=True).run, whole)


def test_it_looks_at_the_direction_whose_bands_it_takes(
    tiny: MakeConfig, network: Callable[..., Path]
) -> None:
    config = tiny(features=network("n", 3, "h", "w"))
    chips = Chips.open(config.chips)
    features = Features.of_run(resolve(config, chips), chips)
    assert features is not None
    assert set(features.domains) == {"b"}


def test_images_reach_it_in_physical_units_and_with_something_to_see(
    tiny: MakeConfig, network: Callable[..., Path]
) -> None:
    # A network for one image at a time does for several.
    config = tiny(features=network(1, 2, 24, 24))
    chips = Chips.open(config.chips)
    features = Features.of_run(resolve(config, chips), chips)
    assert features is not None
    levels = torch.rand(3, 2, 24, 24) * 2 - 1
    valid = torch.ones(3, 1, 24, 24, dtype=torch.bool)
    valid[0, :, :6] = False
    valid[1, :, :20] = False
    found = features.see("a", levels, valid)
    expected = []
    for i in (0, 2):
        filled = np.where(valid[i].numpy(), levels[i].numpy(), np.float32(0))
        pixels = chips.train_a.domain.radiometry.inverse(filled)
        expected.append([band.mean() for band in pixels])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)
    assert features.see("a", levels[1:2], valid[1:2]).shape == (0, 2)
    # What is the same every time is seen once.
    assert features.see("a", levels, valid, known=5) is features.see("a", -levels, valid, known=5)


@pytest.mark.parametrize(
    ("shape", "options", "line"),
    [
        (("n", 7, "h", "w"), {}, r"images of 7 bands; translations have 3, those of B or 2"),
        (("n", 2, "h", "w"), {"method": "cut"}, r"translations have 3, those of B$"),
        (("n", "c", 64, 64), {}, r"images of 64 x 64 px, and crops have 24; .* --crop 64"),
        ((8, "c", "h", "w"), {}, r"8 images at once; export it with a free number"),
        (("n", 12), {"pooled": False}, r"its input is image tensor\(float\) .* one, float32"),
        (("n", "c", "h", "w"), {"kind": "DOUBLE"}, r"tensor\(double\)"),
        (("n", "c", "h", "w"), {"pooled": False}, r"it makes float32 \(1, 3, 24, 24\); expected"),
        (("n", "c", "h", "w"), {"method": "dcgan", "crop": 16}, r"dcgan translates no images"),
        (("n", "c", "h", "w"), {"val_every": 0}, r"it needs validations; give --val-every"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    tiny: MakeConfig,
    network: Callable[..., Path],
    tmp_path: Path,
    shape: tuple[Size, ...],
    options: dict[str, Any],
    line: str,
) -> None:
    written = {name: options[name] for name in options.keys() & {"pooled", "kind"}}
    path = network(*shape, **written)
    if options.get("method"):
        options = {"generator": None, "pool": None} | options
    chosen = {name: value for name, value in options.items() if name not in written}
    with pytest.raises(OptionError, match=line) as caught:
        train(tiny(features=path, **chosen))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_what_is_no_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.onnx"
    with pytest.raises(NotFoundError, match=r"--features .*x.onnx: no such file"):
        FeatureNetwork(path)
    path.write_bytes(b"no network")
    with pytest.raises(OptionError, match="not an ONNX network") as caught:
        FeatureNetwork(path)
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(GeoCycleGANError, match=r'pip install "geocyclegan\[export\]"'):
        FeatureNetwork(path)


def test_without_validation_chips_there_is_nothing_to_compare(
    tiny: MakeConfig, network: Callable[..., Path], chips_folder: Path, tmp_path: Path
) -> None:
    import shutil

    for split in ("train_a", "train_b"):
        shutil.copytree(chips_folder / split, tmp_path / "chips" / split)
    with pytest.raises(OptionError, match=r"has not those of both domains"):
        train(tiny(chips=tmp_path / "chips", features=network()))


def test_chosen_features_count_before_patches_and_after_truth() -> None:
    errors = {"swd_a2b": 0.2, "swd_b2a": 0.4, "features_swd_a2b": 7.0}
    assert score_of(errors) == 7.0
    assert score_of(errors | {"r_a2b": 0.5}) == 0.5
