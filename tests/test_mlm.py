"""The STAC items of a bundle, against what STAC and its MLM extension ask for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from geocyclegan.bundle import load_bundle, save_bundle
from geocyclegan.mlm import EXTENSION
from geocyclegan.models.registry import build_generator
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling

_DTYPES = {"enum": ["uint8", "uint16", "int16", "float32"]}
SCALING = BandScaling("linear", (0.0, 255.0), (-1.0, 1.0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle whose domains share a band, and one has neither names nor a place."""
    there = build_generator("resnet6", in_channels=2, out_channels=3, width=2)
    back = build_generator("resnet6", in_channels=3, out_channels=2, width=2)
    sar = Domain((BandInfo(SCALING, "VV", "dB"), BandInfo(SCALING, "B04")), "float32", float("nan"))
    optical = Domain(
        (BandInfo(SCALING, "B04"), BandInfo(SCALING, None), BandInfo(SCALING, "B02")),
        "uint16",
        0.0,
        10.0,
    )
    return save_bundle(
        tmp_path / "model",
        method="cyclegan",
        generators={"a2b": ("resnet6", there), "b2a": ("resnet6", back)},
        domains={"a": sar, "b": optical},
        tile=128,
        training={"steps": 7, "torch": "2.15.0+cu130"},
    )


def items(folder: Path) -> dict[str, dict[str, Any]]:
    return {d: json.loads((folder / f"mlm_{d}.json").read_text()) for d in ("a2b", "b2a")}


def test_an_item_says_what_goes_in_and_comes_out(folder: Path) -> None:
    item = items(folder)["b2a"]
    properties = item["properties"]
    (ins,), (outs,) = properties["mlm:input"], properties["mlm:output"]
    assert ins["bands"] == ["B04", "band 2", "B02"]
    assert ins["input"]["shape"] == [-1, 3, 128, 128]
    assert outs["bands"] == ["VV", "B04"]
    bands = item["assets"]["weights"]["raster:bands"]
    assert {band["name"] for band in bands} == {"VV", "B02", "B04", "band 2"}
    assert bands[0]["nodata"] == 0.0
    assert items(folder)["a2b"]["assets"]["weights"]["raster:bands"][0]["nodata"] == "nan"
    assert properties["gsd"] == 10.0
    assert properties["mlm:framework_version"] == "2.15.0+cu130"
    network = load_bundle(folder).generator("b2a")
    assert properties["mlm:total_parameters"] == sum(w.numel() for w in network.parameters())
    assert (folder / item["assets"]["weights"]["href"]).is_file()
    assert load_bundle(folder).item("b2a") == item | {
        "properties": properties
        | {"datetime": load_bundle(folder).item("b2a")["properties"]["datetime"]}
    }


def test_an_item_tells_of_undeclared_nodata(tmp_path: Path, folder: Path) -> None:
    networks: dict[Any, Any] = {
        way: ("resnet6", build_generator("resnet6", in_channels=1, out_channels=1, width=2))
        for way in ("a2b", "b2a")
    }
    band = (BandInfo(SCALING, "B04"),)
    collared = save_bundle(
        tmp_path / "collared",
        method="cyclegan",
        generators=networks,
        domains={"a": Domain(band, "uint8", undeclared=0.0), "b": Domain(band, "uint8")},
        tile=128,
        training={},
    )
    there, back = (items(collared)[way]["properties"] for way in ("a2b", "b2a"))
    assert there["mlm:hyperparameters"]["undeclared_nodata"] == 0.0
    assert "where all bands hold 0." in there["mlm:input"][0]["description"]
    for plain in (back, items(folder)["a2b"]["properties"]):
        assert "undeclared_nodata" not in plain["mlm:hyperparameters"]
        assert "all bands hold" not in plain["mlm:input"][0]["description"]


def test_items_are_valid_stac(folder: Path) -> None:
    pystac = pytest.importorskip("pystac", reason="needs pystac and jsonschema")
    validation = pytest.importorskip("pystac.validation.stac_validator")
    pytest.importorskip("jsonschema")
    validator = validation.JsonSchemaSTACValidator()
    for item in items(folder).values():
        # The schemas of STAC itself come with pystac; those of extensions would be fetched.
        validator.validate_core(item, pystac.STACObjectType.ITEM, item["stac_version"])
        assert pystac.Item.from_dict(item).id == item["id"]
        with pytest.raises(pystac.errors.STACValidationError):
            validator.validate_core(item | {"geometry": 1}, pystac.STACObjectType.ITEM, "1.1.0")


def test_items_are_what_the_extension_models(folder: Path) -> None:
    stac_model = pytest.importorskip("stac_model.schema", reason="needs stac-model")
    for item in items(folder).values():
        read = stac_model.MLModelProperties(**item["properties"])
        assert read.input[0].bands == item["properties"]["mlm:input"][0]["bands"]
        broken = item["properties"] | {"mlm:tasks": ["translation"]}
        with pytest.raises(ValueError, match="tasks"):
            stac_model.MLModelProperties(**broken)


def test_items_fit_the_schema_of_the_extension(folder: Path) -> None:
    """The official schema is not on PyPI; its place is given by MLM_SCHEMA."""
    jsonschema = pytest.importorskip("jsonschema")
    referencing = pytest.importorskip("referencing")
    path = os.environ.get("MLM_SCHEMA")
    if not path:
        pytest.skip("needs the extension's schema.json, named by MLM_SCHEMA")
    schema = json.loads(Path(path).read_text())
    assert schema["$id"] == EXTENSION
    # The parts of other extensions that it refers to, as far as an item of ours meets them.
    elsewhere = {
        "raster/v1.1.0": {"bands": {"items": {"properties": {"data_type": _DTYPES}}}},
        "processing/v1.1.0": {
            "fields": {
                "properties": {
                    "processing:expression": {
                        "type": "object",
                        "required": ["format", "expression"],
                        "properties": {"format": {"type": "string"}},
                    }
                }
            }
        },
    }
    registry = referencing.Registry().with_resources(
        (
            f"https://stac-extensions.github.io/{name}/schema.json",
            referencing.Resource.from_contents(
                {"$schema": schema["$schema"], "definitions": definitions}
            ),
        )
        for name, definitions in elsewhere.items()
    )
    validator = jsonschema.Draft7Validator(schema, registry=registry)
    for item in items(folder).values():
        validator.validate(item)
        wrong: list[dict[str, Any]] = [{"mlm:name": "?"}, {"mlm:input": [{}]}, {"mlm:tasks": ["x"]}]
        for broken in wrong:
            with pytest.raises(jsonschema.ValidationError):
                validator.validate(item | {"properties": item["properties"] | broken})
        item["assets"]["weights"].pop("raster:bands")
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(item)
