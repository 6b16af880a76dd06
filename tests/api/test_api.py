"""The chain in Python, and models on arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import torch

import geocyclegan as gcg
from geocyclegan.bundle import Bundle, save_bundle
from geocyclegan.errors import BundleError, OptionError, SceneError
from geocyclegan.models.passes import Patch, lockstep
from geocyclegan.models.registry import build_generator
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.rounding import Tf32, allow_tf32

MakeRaster = Callable[..., Path]
LINEAR = BandScaling("linear", (0.0, 1000.0), (-1.0, 1.0))
A = Domain((BandInfo(LINEAR, "VV"), BandInfo(LINEAR, "VH")), "float32", math.nan, 10.0)
B = Domain((BandInfo(LINEAR, "B04", "DN"),), "uint16", 0.0, 10.0)
SHAPE = (150, 131)


@pytest.fixture
def model(tmp_path: Path) -> gcg.Model:
    """A model of one small block, whose halo is 20 px, with statistics of noise."""
    torch.manual_seed(0)
    networks: dict[Any, Any] = {}
    found: dict[Any, Any] = {}
    for direction, ins, outs in (("a2b", 2, 1), ("b2a", 1, 2)):
        network = build_generator(
            "resnet6", in_channels=ins, out_channels=outs, width=4, blocks=1
        ).eval()
        for weight in network.parameters():
            torch.nn.init.normal_(weight, 0.0, 0.2)
        found[direction] = lockstep(network, [Patch(torch.rand(2, ins, 64, 64) * 2 - 1)])
        network.thaw()
        networks[direction] = ("resnet6", network)
    folder = save_bundle(
        tmp_path / "run" / "model",
        method="cyclegan",
        generators=networks,
        domains={"a": A, "b": B},
        tile=64,
        training={"steps": 1},
        normalization={"kind": "instance", "pool": "scene", "statistics": {"crops": 2}},
        statistics=found,
    )
    return gcg.load(folder, device="cpu")


@pytest.fixture
def scene(make_raster: MakeRaster) -> Path:
    """Two bands with a corner of NaN."""
    pixels = np.random.default_rng(0).uniform(1, 1000, (2, *SHAPE)).astype(np.float32)
    pixels[:, :30, :25] = np.nan
    return make_raster("scene.tif", pixels, names=("VV", "VH"), nodata=math.nan, tiled=True)


@pytest.mark.parametrize("kind", ["uint8", "int64", "dataset_mask"])
def test_a_mask_of_whole_numbers_is_one_of_bool(
    model: gcg.Model, scene: Path, make_raster: MakeRaster, kind: str
) -> None:
    """As rasterio's masks are: 0 and 255."""
    pixels = np.nan_to_num(read(scene), nan=1.0)
    valid = np.ones(SHAPE, bool)
    valid[:, :60] = False
    if kind == "dataset_mask":
        with rasterio.open(make_raster("masked.tif", pixels, mask=valid)) as dataset:
            mask = dataset.dataset_mask()
    else:
        mask = valid.astype(kind)
    expected = model.translate(pixels, valid=valid)
    assert (expected[0, :, :60] == 0).all()
    assert (expected[0, :, 60:] > 0).any()
    np.testing.assert_array_equal(model.translate(pixels, valid=mask), expected)


def test_a_mask_of_other_numbers_is_refused(model: gcg.Model, scene: Path) -> None:
    with pytest.raises(OptionError, match="valid: an array of float64; expected bool"):
        model.translate(read(scene), valid=np.ones(SHAPE))  # type: ignore[arg-type]


def read(path: Path) -> npt.NDArray[Any]:
    with rasterio.open(path) as dataset:
        found: npt.NDArray[Any] = dataset.read()
        return found


@pytest.fixture
def tf32_allowed() -> Iterator[None]:
    """As somebody who works with TF32 has it."""
    before = Tf32.now()
    allow_tf32(True, True)
    yield
    assert Tf32.now().allowed == (True, True)
    before.restore()


@pytest.mark.usefixtures("tf32_allowed")
def test_the_process_keeps_its_precision(
    model: gcg.Model, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(module: Any, args: Any) -> None:
        seen.append(Tf32.now().allowed)

    built = Bundle.generator

    def watched(*args: Any, **kwargs: Any) -> Any:
        generator = built(*args, **kwargs)
        generator.register_forward_pre_hook(look)
        return generator

    monkeypatch.setattr(Bundle, "generator", watched)
    model.translate(read(scene))
    model.generator("a2b")
    gcg.infer(scene, out=scene.parent / "out.tif", model=model.bundle.folder, device="cpu")
    assert len(seen) >= 2
    assert set(seen) == {(False, False)}


@pytest.mark.usefixtures("tf32_allowed")
def test_chip_train_infer(tmp_path: Path, make_raster: MakeRaster) -> None:
    random = np.random.default_rng(0)
    for name in "ab":
        pixels = random.integers(1, 200, (2, 64, 64), np.uint8)
        make_raster(f"{name}.tif", pixels, names=("one", name), nodata=0)
    chips = tmp_path / "chips"
    # Text as on the command line, which type checkers do not know.
    text: dict[str, Any] = {"out": str(chips), "size": "32px", "scale": "zscore", "bands": "1,2"}
    report = gcg.chip(str(tmp_path / "a.tif"), val=0, **text)
    assert report.train == 4
    assert report.record.scale == "zscore"
    # Ground that chips of A show for training stays so.
    assert gcg.chip([tmp_path / "b.tif"], domain="b", out=chips, size=32).train == 4
    run = gcg.train(
        chips,
        out=tmp_path / "runs",
        name="r",
        generator="resnet6",
        width=2,
        steps=1,
        device="cpu",
    )
    again = gcg.train(out=tmp_path / "runs", name="r", steps=2, resume=True)
    assert (run.steps, again.steps) == (1, 2)
    (product,) = gcg.infer(tmp_path / "a.tif", out=tmp_path / "p.tif", model=run.run, device="cpu")
    assert read(product).shape == (2, 64, 64)
    with pytest.raises(OptionError, match="stepz: no option of train"):
        gcg.train(chips, stepz=3)  # type: ignore[call-arg]
    with pytest.raises(OptionError, match="domain='c'"):
        gcg.chip("x.tif", domain="c")  # type: ignore[arg-type]


def test_pairs(tmp_path: Path, make_raster: MakeRaster) -> None:
    pixels = np.random.default_rng(0).integers(1, 200, (2, 64, 64), np.uint8)
    one, two = make_raster("a.tif", pixels), make_raster("b.tif", pixels)
    first, second = gcg.chip_pairs(
        [(one, two)], out=tmp_path / "chips", size=32, pair_bands=("2",), pair_scale="zscore"
    )
    assert first.train == second.train == 3
    assert second.record.domain.count == 1


def test_masked_arrays_keep_their_mask(model: gcg.Model, scene: Path) -> None:
    with rasterio.open(scene) as file:
        masked = file.read(masked=True)
    masked.data[:, masked.mask.any(axis=0)] = 500.0  # data, if the mask did not say otherwise
    masked[1, 100:, 100:] = np.ma.masked
    expected = masked.filled(np.nan)
    for mode in ("frozen", "sample"):
        made = model.translate(masked, norm_stats=mode)
        np.testing.assert_array_equal(made, model.translate(expected, norm_stats=mode))
    assert not made[:, 100:, 100:].any()
    ours, theirs = model.statistics(masked), model.statistics(expected)
    assert all(torch.equal(a.mean, b.mean) for a, b in zip(ours, theirs, strict=True))
    made = model.translate(masked, valid=np.ones(SHAPE, bool))  # who says so has the last word
    assert made[:, 100:, 100:].all()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"direction": "x2y"}, "translates a2b, b2a only"),
        ({"norm_stats": "whole"}, "--norm-stats whole: choose one of"),
        ({"tile": 0}, "--tile 0"),
        ({"batch": -1}, "--batch -1"),
    ],
)
def test_mistakes_are_named(model: gcg.Model, given: dict[str, Any], told: str) -> None:
    with pytest.raises((OptionError, BundleError), match=told):
        model.translate(np.ones((2, 40, 40), np.float32), **given)


def test_choices_are_checked(tmp_path: Path, scene: Path) -> None:
    with pytest.raises(
        OptionError, match="norm_stats='whole': 'whole' is not one of 'auto', 'frozen'"
    ):
        gcg.infer(scene, out=tmp_path / "p.tif", norm_stats="whole")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="direction='there': 'there' is not one of 'a2b', 'b2a'"):
        gcg.infer(scene, direction="there")  # type: ignore[arg-type]


def test_an_array_is_translated_as_its_file_is(
    model: gcg.Model, scene: Path, tmp_path: Path
) -> None:
    out = tmp_path / "product.tif"
    gcg.infer(scene, out=out, model=model.bundle.folder, device="cpu")
    made = model.translate(read(scene))
    assert made.dtype == np.uint16
    np.testing.assert_array_equal(made, read(out))
    assert (made[:, :30, :25] == 0).all()
    assert np.ptp(made) > 100
    valid = np.ones(SHAPE, bool)
    valid[:, 100:] = False
    masked = model.translate(np.nan_to_num(read(scene), nan=1.0), valid=valid)
    assert (masked[:, :, 100:] == 0).all()
    assert (masked[:, :30, :25] > 0).all()


def test_arrays_that_do_not_fit(model: gcg.Model) -> None:
    with pytest.raises(SceneError, match="3 bands: the model wants 2"):
        model.translate(np.ones((3, 32, 32)))
    with pytest.raises(SceneError, match="expected \\(bands, height, width\\)"):
        model.translate(np.ones((32, 32)))
    with pytest.raises(SceneError, match="no valid pixel"):
        model.translate(np.full((2, 32, 32), np.nan))
    with pytest.raises(OptionError, match="its shape is"):
        model.translate(np.ones((2, 32, 32)), valid=np.ones((3, 3), bool))
    assert model.translate(np.ones((32, 32)), "b2a").shape == (2, 32, 32)
    assert model.directions == ("a2b", "b2a")
    assert "cyclegan: a2b, b2a" in repr(model)


def test_statistics_of_one_array_for_another(model: gcg.Model, scene: Path) -> None:
    pixels = read(scene)
    exact = model.statistics(pixels, norm_stats="exact")
    given = model.translate(pixels, statistics=exact)
    np.testing.assert_array_equal(given, model.translate(pixels, norm_stats="exact"))
    assert (given != model.translate(pixels)).any()
    np.testing.assert_array_equal(
        model.translate(pixels, statistics=model.statistics(pixels)),
        model.translate(pixels, norm_stats="sample"),
    )
    with pytest.raises(OptionError, match="give one of them"):
        model.translate(pixels, norm_stats="frozen", statistics=exact)


def test_a_model_is_exported(model: gcg.Model, tmp_path: Path) -> None:
    result = model.export(tmp_path / "m.json", format="mlm")
    assert result.out.is_file()
    with pytest.raises(OptionError, match="fly: no option of export"):
        model.export(fly=1)


class TestDataArrays:
    """DataArrays, in memory and on dask."""

    @pytest.fixture
    def opened(self, scene: Path) -> Any:
        rioxarray = pytest.importorskip("rioxarray", reason='needs "geocyclegan[xarray]"')
        return rioxarray.open_rasterio(scene)

    def test_place_and_bands_are_kept(self, model: gcg.Model, scene: Path, opened: Any) -> None:
        made = model.translate(opened)
        np.testing.assert_array_equal(made.values, model.translate(read(scene)))
        assert made.rio.crs == opened.rio.crs
        assert made.rio.transform() == opened.rio.transform()
        assert made.rio.nodata == 0
        np.testing.assert_array_equal(made.x, opened.x)
        assert made.attrs["SYNTHETIC"] == "YES"
        assert made.attrs["long_name"] == ("B04",)
        assert list(made.band.values) == [1]

    def test_it_comes_out_as_a_file_that_lies_where_it_belongs(
        self, model: gcg.Model, scene: Path, opened: Any, tmp_path: Path
    ) -> None:
        model.translate(opened).rio.to_raster(tmp_path / "out.tif")
        with rasterio.open(tmp_path / "out.tif") as ours, rasterio.open(scene) as theirs:
            assert ours.crs == theirs.crs
            assert ours.transform == theirs.transform
            assert ours.nodata == 0
            assert ours.descriptions == ("B04",)

    def test_datasets_are_refused(self, model: gcg.Model, opened: Any) -> None:
        with pytest.raises(SceneError, match="to_dataarray"):
            model.translate(opened.to_dataset("band"))

    def test_bands_are_found_by_name(self, model: gcg.Model, opened: Any) -> None:
        swapped = opened.isel(band=[1, 0])
        swapped.attrs["long_name"] = ("vh", "vv")
        np.testing.assert_array_equal(
            model.translate(swapped).values, model.translate(opened).values
        )

    @pytest.mark.parametrize("chunks", [(64, 64), (150, 40), (50, 77)])
    def test_blocks_give_what_the_whole_gives(
        self, model: gcg.Model, opened: Any, chunks: tuple[int, int]
    ) -> None:
        whole = model.translate(opened)
        lazy = model.translate(opened.chunk(y=chunks[0], x=chunks[1]))
        assert lazy.chunks is not None
        assert lazy.shape == whole.shape
        assert lazy.dtype == whole.dtype
        blocks = lazy.compute()
        assert np.abs(blocks.values.astype(int) - whole.values).max() <= 1
        assert blocks.rio.crs == opened.rio.crs

    def test_a_part_computes_a_part(self, model: gcg.Model, opened: Any) -> None:
        import dask.array as da

        seen = []

        def watch(block: Any, block_info: Any = None) -> Any:
            seen.append(1)
            return block

        big = opened.chunk(y=32, x=32)
        map_blocks: Any = da.map_blocks
        big.data = map_blocks(watch, big.data, dtype=big.dtype, meta=big.data._meta)
        lazy = model.translate(big)
        assert not seen
        lazy[:, :20, :20].compute()
        # The blocks under the first tile's window of 72 px, of twenty-five.
        assert 0 < len(seen) <= 9

    def test_statistics_on_dask_are_given_or_frozen(self, model: gcg.Model, opened: Any) -> None:
        big = opened.chunk(y=64, x=64)
        with pytest.raises(OptionError, match=r"statistics=model\.statistics"):
            model.translate(big, norm_stats="exact")
        given = model.statistics(big, norm_stats="exact")
        whole = model.translate(opened, norm_stats="exact")
        lazy = model.translate(big, statistics=given).compute()
        assert np.abs(lazy.values.astype(int) - whole.values).max() <= 1
        with pytest.raises(OptionError, match=r"use \.chunk"):
            model.translate(big, tile=64)
        with pytest.raises(OptionError, match="where"):
            model.translate(opened, valid=np.ones(SHAPE, bool))
