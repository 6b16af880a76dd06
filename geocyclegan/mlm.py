"""STAC items that describe models, by the Machine Learning Model extension (MLM) 1.5.

Source: https://github.com/stac-extensions/mlm. One item describes one direction of a bundle, since
the inputs of an item are those of one call.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

EXTENSION = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"

_STAC = "1.1.0"
_ORDER = ["batch", "bands", "height", "width"]


def item_name(direction: str) -> str:
    """Return the file name of the item of a direction, in the bundle's folder."""
    return f"mlm_{direction}.json"


def mlm_item(
    document: Mapping[str, Any], direction: str, parameters: int, when: datetime
) -> dict[str, Any]:
    """Describe one direction of a bundle.

    Args:
        document: the bundle's `model.json`.
        direction: "a2b" or "b2a".
        parameters: number of weights of the generator.
        when: when the model was written.

    Returns:
        A STAC item, ready for JSON. It has no geometry: a model works wherever its bands are.
    """
    source, target = (document["domains"][direction[i]] for i in (0, -1))
    generator, training = document["generators"][direction], document["training"]
    inputs, outputs = _names(source), _names(target)
    tile, sha = document["tile"], document["weights"]["sha256"]
    told = f"{document['method']} {direction}"
    properties: dict[str, Any] = {
        "datetime": when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "description": f"Translates {', '.join(inputs)} into {', '.join(outputs)}; products are"
        " synthetic, not measured.",
        "mlm:name": f"geocyclegan {told}",
        "mlm:architecture": generator["name"],
        "mlm:tasks": ["generative"],
        "mlm:framework": "PyTorch",
        "mlm:total_parameters": parameters,
        "mlm:pretrained": True,
        "mlm:accelerator": None,
        "mlm:accelerator_constrained": False,
        "mlm:input": [
            {
                "name": source_name(direction),
                "description": "Stored units of the source domain, mapped to [-1, 1] by the scaling"
                f" of each band in model.json; 0 where there is no data{_undeclared(source)}.",
                "bands": inputs,
                "input": {
                    "shape": [-1, len(inputs), tile, tile],
                    "dim_order": _ORDER,
                    "data_type": "float32",
                },
                "pre_processing_function": _function("to_levels"),
            }
        ],
        "mlm:output": [
            {
                "name": target_name(direction),
                "description": "Levels in [-1, 1], mapped to stored units of the target domain by"
                " the scaling of each band in model.json.",
                "tasks": ["generative"],
                "bands": outputs,
                "result": {
                    "shape": [-1, len(outputs), tile, tile],
                    "dim_order": _ORDER,
                    "data_type": "float32",
                },
                "post_processing_function": _function("to_pixels"),
            }
        ],
        "mlm:hyperparameters": {
            "stride": generator["stride"],
            "halo": generator["halo"],
            "normalization": document["normalization"],
            "steps": training.get("steps"),
            **(
                {"undeclared_nodata": source["undeclared_nodata"]}
                if "undeclared_nodata" in source
                else {}
            ),
        },
    }
    if source.get("gsd"):
        properties["gsd"] = source["gsd"]
    version = str(training.get("torch", ""))
    # The extension wants semantic versions; pre-releases of torch have others.
    if re.fullmatch(r"\d+\.\d+\.\d+(\+[0-9A-Za-z.-]+)?", version):
        properties["mlm:framework_version"] = version
    return {
        "type": "Feature",
        "stac_version": _STAC,
        "stac_extensions": [EXTENSION, RASTER],
        "id": f"geocyclegan-{document['method']}-{direction}-{sha[:12]}",
        "geometry": None,
        "properties": properties,
        "links": [],
        "assets": {
            "weights": {
                "href": f"./{document['weights']['file']}",
                "title": "Weights of the generators, and statistics of their norm layers",
                "description": f"SHA-256 {sha}; tensors of this direction begin with {direction}.",
                "type": "application/octet-stream; application=safetensors",
                "roles": ["mlm:model", "mlm:weights", "data"],
                "mlm:artifact_type": "safetensors.torch.save_file",
                # Beside the file they belong to: STAC 1.1 has no bands of items, and of two domains
                # that name a band alike there is one entry, that of the source.
                "raster:bands": _bands(source)
                + [band for band in _bands(target) if band["name"] not in inputs],
            },
            "description": {
                "href": "./model.json",
                "title": "Networks, bands, radiometry and provenance",
                "type": "application/json",
                "roles": ["metadata"],
            },
        },
    }


def source_name(direction: str) -> str:
    """Return what the inputs of a direction are called."""
    return f"domain {direction[0]}"


def target_name(direction: str) -> str:
    """Return what the outputs of a direction are called."""
    return f"domain {direction[-1]}"


def _names(domain: Mapping[str, Any]) -> list[str]:
    return [band["name"] or f"band {i}" for i, band in enumerate(domain["bands"], start=1)]


def _undeclared(domain: Mapping[str, Any]) -> str:
    """Say which pixels are empty though no nodata value of a band says so."""
    value = domain.get("undeclared_nodata")
    return "" if value is None else f", which is also where all bands hold {value:.9g}"


def _bands(domain: Mapping[str, Any]) -> list[dict[str, Any]]:
    bands = []
    for name, band in zip(_names(domain), domain["bands"], strict=True):
        told = {
            "name": name,
            "data_type": domain["dtype"],
            "unit": band["unit"],
            "scale": band["scale"],
            "offset": band["offset"],
            "spatial_resolution": domain["gsd"],
        }
        nodata = domain["nodata"]
        if nodata is not None:
            # JSON has no NaN and STAC spells it so; model.json has what Python's str() gives.
            told["nodata"] = nodata if math.isfinite(float(nodata)) else str(nodata)
        bands.append({key: value for key, value in told.items() if value is not None})
    return bands


def _function(method: str) -> dict[str, str]:
    return {"format": "python", "expression": f"geocyclegan.raster.domain:Domain.{method}"}
