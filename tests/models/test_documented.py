"""The tables of docs/networks.md say what the networks are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from geocyclegan.models import build_discriminator, build_generator, discriminators, generators
from geocyclegan.models.receptive import radius

PAGE = Path(__file__).resolve().parents[2] / "docs" / "networks.md"
ARGUMENTS = {"--d-layers": "layers", "--d-scales": "scales", "--upsample": "upsample"}


def rows(heading: str) -> dict[str, list[str]]:
    """Cells of a table by what stands in its first column."""
    if not PAGE.is_file():
        pytest.skip("needs docs/, which is not in the source distribution")
    part = PAGE.read_text(encoding="utf-8").split(f"## {heading}")[1].split("## ")[0]
    lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| `")]
    return {first.strip("`"): rest for first, *rest in lines if not first.startswith("`--")}


def arguments(words: list[str]) -> dict[str, Any]:
    if "--antialias" in words:
        return {"antialias": True}
    return {
        ARGUMENTS[key]: int(value) if value.isdigit() else value
        for key, value in zip(words[::2], words[1::2], strict=True)
    }


def count(module: torch.nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()):,}".replace(",", " ")


def test_generators() -> None:
    table = rows("Generators")
    assert {name.split()[0] for name in table} == set(generators.names())
    for text, (weights, reach, crops) in table.items():
        name, *words = text.split()
        if name.startswith("smp-"):
            pytest.importorskip("segmentation_models_pytorch")
        with torch.device("meta"):
            network = build_generator(name, in_channels=3, out_channels=3, **arguments(words))
        assert weights == count(network), text
        assert crops == f"{network.stride}, {network.min_size}", text
        bound = "no bound" if network.halo is None else str(radius(network.plan))
        assert reach == bound, text


def test_discriminators() -> None:
    table = rows("Discriminators")
    assert {name.split()[0] for name in table} == set(discriminators.names())
    for text, (weights, patch, side) in table.items():
        name, *words = text.split()
        with torch.device("meta"):
            network: Any = build_discriminator(name, in_channels=3, **arguments(words))
        assert weights == count(network), text
        assert patch == str(network.patch), text
        assert side == str(network.min_size), text
