"""The model bundle: self-describing, safe, and whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from geocyclegan.bundle import load_bundle, newest_bundle, save_bundle
from geocyclegan.document import write_document
from geocyclegan.errors import BundleError, NotFoundError
from geocyclegan.models.passes import Patch, lockstep
from geocyclegan.models.registry import build_generator
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling

SCALING = BandScaling("auto", (-30.0, -20.0, 0.0, 10.0), (-1.0, -0.9, 0.9, 1.0))
DOMAINS = {
    "a": Domain((BandInfo(SCALING, "VV"), BandInfo(SCALING, "VH")), "float32", float("nan"), 10.0),
    "b": Domain((BandInfo(SCALING, "B04"),), "uint16", 0.0, 10.0),
}


def save(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    there = build_generator("resnet6", in_channels=2, out_channels=1, width=4)
    back = build_generator("resnet6", in_channels=1, out_channels=2, width=4)
    return save_bundle(
        folder,
        method="cyclegan",
        generators={"a2b": ("resnet6", there), "b2a": ("resnet6", back)},
        domains=DOMAINS,
        tile=128,
        training={"steps": 5, "scenes": {"a": ["x.tif"], "b": []}},
    )


def test_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = build_generator("resnet6", in_channels=2, out_channels=1, width=4).eval()
    bundle = load_bundle(save(tmp_path / "model"))
    assert bundle.generators["a2b"].halo == 60
    assert bundle.source("a2b").names == ("VV", "VH")
    assert bundle.target("b2a").names == ("VV", "VH")
    assert np.isnan(bundle.domains["a"].nodata or 0)
    assert bundle.domains["b"] == DOMAINS["b"]
    x = torch.randn(1, 2, 32, 32)
    network = bundle.generator("a2b")
    assert not network.training
    torch.testing.assert_close(network(x), original(x))
    assert bundle.generator("b2a").out_channels == 2


def test_statistics_of_the_training_set_travel_with_the_weights(tmp_path: Path) -> None:
    assert load_bundle(save(tmp_path / "none")).statistics("a2b") is None
    network = build_generator("resnet6", in_channels=2, out_channels=1, width=4, norm="scene")
    found = lockstep(network.eval(), [Patch(torch.rand(2, 2, 32, 32))])
    folder = save_bundle(
        tmp_path / "model",
        method="cyclegan",
        generators={"a2b": ("resnet6", network)},
        domains=DOMAINS,
        tile=32,
        training={},
        normalization={"kind": "instance", "pool": "scene", "statistics": {"crops": 2}},
        statistics={"a2b": found},
    )
    bundle = load_bundle(folder)
    again = bundle.statistics("a2b")
    assert again is not None
    for one, two in zip(found, again, strict=True):
        assert two.mean.dtype == torch.float64
        torch.testing.assert_close(two.count, one.count, rtol=0, atol=0)
        torch.testing.assert_close(two.mean, one.mean, rtol=0, atol=0)
        torch.testing.assert_close(two.m2, one.m2, rtol=1e-12, atol=0)
    x = torch.rand(1, 2, 32, 32)
    loaded = bundle.generator("a2b")
    loaded.freeze(again)
    torch.testing.assert_close(loaded(x), network(x))
    assert all(norm.pool == "scene" for norm in loaded.norm_layers())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="damaged"):
        bundle.statistics("a2b")


def test_a_new_bundle_replaces_the_old_one_and_leaves_no_rest(tmp_path: Path) -> None:
    save(tmp_path / "model", seed=0)
    first = load_bundle(tmp_path / "model").weights_sha256
    save(tmp_path / "model", seed=1)
    assert load_bundle(tmp_path / "model").weights_sha256 != first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_a_reader_between_the_two_renames_finds_the_old_one(tmp_path: Path) -> None:
    save(tmp_path / "run" / "model")
    (tmp_path / "run" / "model").rename(tmp_path / "run" / ".model.old")
    assert load_bundle(tmp_path / "run").method == "cyclegan"


def test_a_run_folder_stands_for_its_bundle_and_the_newest_wins(tmp_path: Path) -> None:
    import os

    for age, name in enumerate(("one", "two")):
        save(tmp_path / name / "model")
        os.utime(tmp_path / name / "model" / "model.json", (1000 + age, 1000 + age))
    assert load_bundle(tmp_path / "one").folder == tmp_path / "one" / "model"
    assert newest_bundle(tmp_path).folder == tmp_path / "two" / "model"
    with pytest.raises(NotFoundError, match="train first"):
        newest_bundle(tmp_path / "one")


def test_every_damage_to_the_weights_is_found(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(good), 20):
        bad = bytearray(good)
        bad[position] ^= 1 << int(rng.integers(8))
        weights.write_bytes(bytes(bad))
        with pytest.raises(BundleError, match="damaged"):
            load_bundle(folder).generator("a2b")
    weights.write_bytes(good[: len(good) // 2])
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(folder).generator("a2b")
    weights.unlink()
    with pytest.raises(BundleError, match="missing"):
        load_bundle(folder)


def test_200_flipped_bits_are_all_found(tmp_path: Path) -> None:
    """In every file of a bundle: before it is used, but for the catalogs' items, which are not."""
    folder = save(tmp_path / "model")
    files = sorted(folder.iterdir())
    assert len(files) == 4
    load_bundle(folder).check()
    rng = np.random.default_rng(0)
    for number in range(200):
        path = files[number % len(files)]
        good = path.read_bytes()
        bad = bytearray(good)
        bad[int(rng.integers(len(good)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(bad))
        with pytest.raises(BundleError) as caught:
            load_bundle(folder).check()
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)
        if not path.name.startswith("mlm"):
            with pytest.raises(BundleError):
                load_bundle(folder).generator("a2b")
        path.write_bytes(good)
    for path in files:
        good = path.read_bytes()
        for share in range(5):
            path.write_bytes(good[: len(good) * share // 5])
            with pytest.raises(BundleError):
                load_bundle(folder).check()
        path.write_bytes(good)
    load_bundle(folder).check()


def test_a_scaling_makes_another_model(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    bundle, document = load_bundle(folder), json.loads((folder / "model.json").read_text())
    document["domains"]["b"]["bands"][0]["scaling"]["knots"][0] *= 1.2
    (folder / "model.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="damaged or edited"):
        load_bundle(folder)
    write_document(folder, document)
    other = load_bundle(folder)
    assert other.weights_sha256 == bundle.weights_sha256
    assert other.sha256 != bundle.sha256


def test_the_layout_of_the_document_does_not_matter(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    bundle, document = load_bundle(folder), json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(dict(reversed(document.items())), indent=7))
    assert load_bundle(folder).sha256 == bundle.sha256


def test_bundles_of_before_have_an_identity(tmp_path: Path) -> None:
    """Format 1 has no hash of the document: it loads, and an edited one is another model."""
    folder = save(tmp_path / "model")
    document = json.loads((folder / "model.json").read_text())
    del document["document_sha256"], document["items"]
    (folder / "model.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(folder)
    document["format_version"] = 1
    (folder / "model.json").write_text(json.dumps(document))
    first = load_bundle(folder)
    first.check()
    first.generator("a2b")
    document["tile"] = 64
    (folder / "model.json").write_text(json.dumps(document))
    assert load_bundle(folder).sha256 not in (first.sha256, "")


def test_a_stranger_cannot_name_a_class(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    path = folder / "model.json"
    document = json.loads(path.read_text())
    for name in ("os.system", "torch.nn.Linear", "__import__"):
        document["generators"]["a2b"]["name"] = name
        write_document(folder, document)
        with pytest.raises(BundleError, match="not known"):
            load_bundle(folder).generator("a2b")


@pytest.mark.parametrize("key", ["generators", "domains", "tile", "weights", "method"])
def test_a_bundle_without_a_part_is_one_line(tmp_path: Path, key: str) -> None:
    path = save(tmp_path / "model") / "model.json"
    document = json.loads(path.read_text())
    del document[key]
    write_document(path.parent, document)
    with pytest.raises(BundleError, match="incomplete") as caught:
        load_bundle(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_other_folders_and_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such model"):
        load_bundle(tmp_path / "none")
    with pytest.raises(BundleError, match="not a model bundle"):
        load_bundle(tmp_path)
    path = save(tmp_path / "model") / "model.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 99'))
    with pytest.raises(BundleError, match="format 99"):
        load_bundle(tmp_path / "model")
    path.write_text("{ not json")
    with pytest.raises(BundleError, match="JSON"):
        load_bundle(tmp_path / "model")


def test_a_one_sided_model_says_so(tmp_path: Path) -> None:
    network = build_generator("resnet6", in_channels=2, out_channels=1, width=4)
    save_bundle(
        tmp_path / "model",
        method="cut",
        generators={"a2b": ("resnet6", network)},
        domains=DOMAINS,
        tile=64,
        training={},
    )
    with pytest.raises(BundleError, match="translates a2b only"):
        load_bundle(tmp_path / "model").generator("b2a")
