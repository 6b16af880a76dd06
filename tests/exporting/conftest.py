"""Small bundles to export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from geocyclegan.bundle import Bundle, load_bundle, save_bundle
from geocyclegan.models.passes import Patch, lockstep
from geocyclegan.models.registry import build_generator
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling

AUTO = BandScaling("auto", (-30.0, -20.0, 0.0, 10.0), (-1.0, -0.9, 0.9, 1.0))
DB = BandScaling("db", (-25.0, -20.0, 5.0), (-1.0, -0.9, 1.0))
LOG = BandScaling("log1p", (0.0, 2.0, 9.0), (-1.0, 0.5, 1.0))
LINEAR = BandScaling("linear", (0.0, 4000.0), (-1.0, 1.0))
DOMAINS = {
    "a": Domain((BandInfo(AUTO, "VV"), BandInfo(DB, "VH")), "float32", float("nan"), 10.0),
    "b": Domain(
        (BandInfo(LINEAR, "B04", "DN"), BandInfo(LOG, "B03"), BandInfo(LINEAR, "B02")),
        "uint16",
        0.0,
        10.0,
    ),
}

MakeBundle = Callable[..., Bundle]


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """Write a bundle of a tiny generator each way, with statistics of random crops."""

    def make(generator: str = "resnet6", *, statistics: bool = True, pool: str = "scene") -> Bundle:
        torch.manual_seed(0)
        networks, found = {}, {}
        for direction in ("a2b", "b2a"):
            ins, outs = (DOMAINS[direction[i]].count for i in (0, -1))
            # One block only: what takes the time of an export is the number of layers.
            depth = {"blocks": 1} if generator.startswith("resnet") else {}
            network = build_generator(
                generator, in_channels=ins, out_channels=outs, width=4, **depth
            )
            for weight in network.parameters():
                # Wide enough for outputs all over the range.
                torch.nn.init.normal_(weight, 0.0, 0.2)
            found[direction] = lockstep(
                network.eval(), [Patch(torch.rand(2, ins, 128, 128) * 2 - 1)]
            )
            network.thaw()
            networks[direction] = (generator, network)
        folder = save_bundle(
            tmp_path / "spain" / "model",
            method="cyclegan",
            generators=networks,  # type: ignore[arg-type]
            domains=DOMAINS,
            tile=64,
            training={"steps": 5, "torch": torch.__version__, "scenes": {"a": [], "b": []}},
            normalization={
                "kind": "instance",
                "pool": pool,
                "statistics": {"crops": 2} if statistics else None,
            },
            statistics=found if statistics else None,  # type: ignore[arg-type]
        )
        return load_bundle(folder)

    return make
