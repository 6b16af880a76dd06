"""Statistics, scalings and domains: exact where they must be, invertible always."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geocyclegan.errors import OptionError, SceneError
from geocyclegan.raster.domain import BandInfo, Domain, mapped_bands, shared_bands
from geocyclegan.raster.radiometry import BandScaling, ScaleSpec, fit_scaling
from geocyclegan.raster.sketch import BandSketch

METHODS = ["auto", "linear:-3,50000", "percentile:0,100", "log1p", "zscore"]


def sketch_of(values: npt.NDArray[Any]) -> BandSketch:
    sketch = BandSketch(values.dtype.name)
    sketch.update(values)
    return sketch


def domain_of(values: npt.NDArray[Any], scale: str = "auto", nodata: float | None = None) -> Domain:
    scaling = fit_scaling(ScaleSpec.parse(scale), sketch_of(values), "test")
    return Domain((BandInfo(scaling),), values.dtype.name, nodata)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16"])
def test_integer_quantiles_are_exact(dtype: str) -> None:
    info = np.iinfo(dtype)
    values = np.random.default_rng(0).integers(info.min, info.max, 5001, dtype=dtype)
    sketch = sketch_of(values)
    for share in (0.0, 0.01, 0.5, 0.99, 1.0):
        expected = np.quantile(values, share, method="lower")
        assert abs(sketch.quantile(share) - expected) <= 1
    assert sketch.minimum == values.min()
    assert sketch.maximum == values.max()
    assert sketch.mean == pytest.approx(values.astype(float).mean())
    assert sketch.std == pytest.approx(values.astype(float).std())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_float_quantiles_are_right_to_a_fifth_of_a_percent(scale: float) -> None:
    values = (np.random.default_rng(1).normal(-12, 4, 20_000) * scale).astype(np.float32)
    sketch = sketch_of(values)
    for share in (0.01, 0.25, 0.5, 0.99):
        exact = np.quantile(values, share)
        assert sketch.quantile(share) == pytest.approx(exact, rel=2e-3, abs=0.02 * scale)


@given(
    hnp.arrays(np.float32, 300, elements=st.floats(-1e6, 1e6, width=32)),
    st.integers(1, 299),
)
def test_a_sketch_does_not_depend_on_how_pixels_were_split(
    values: npt.NDArray[np.float32], cut: int
) -> None:
    whole = sketch_of(values)
    left, right = sketch_of(values[:cut]), sketch_of(values[cut:])
    right.merge(left)
    np.testing.assert_array_equal(right.bins, whole.bins)
    assert right.minimum == whole.minimum
    assert right.count == whole.count
    assert right.mean == pytest.approx(whole.mean, rel=1e-6, abs=1e-3)
    back = BandSketch.from_arrays(right.to_arrays())
    np.testing.assert_array_equal(back.bins, right.bins)
    assert back.quantile(0.3) == right.quantile(0.3)


def test_an_empty_sketch_merges_and_has_no_quantile() -> None:
    empty = BandSketch("uint8")
    empty.merge(BandSketch("uint8"))
    with pytest.raises(ValueError, match="no quantiles"):
        empty.quantile(0.5)
    with pytest.raises(SceneError, match="no valid pixel"):
        fit_scaling(ScaleSpec.parse("auto"), empty, "VV")


@given(
    st.sampled_from(["uint8", "int16", "uint16"]),
    st.sampled_from(["auto", "percentile:0,100", "log1p"]),
    st.integers(0, 2**31),
    st.sampled_from(["flat", "normal", "spiky"]),
)
def test_pixels_come_back_to_within_half_a_quantum(
    dtype: str, scale: str, seed: int, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    if kind == "flat":
        values = rng.integers(info.min, info.max, (1, 20, 20), dtype=dtype, endpoint=True)
    else:
        wide = rng.normal(120, 20, (1, 20, 20))
        if kind == "spiky":
            wide[0, 0, 0] = 300
        values = np.clip(wide, info.min, info.max).astype(dtype)
    domain = domain_of(values, scale)
    np.testing.assert_array_equal(domain.to_pixels(domain.to_levels(values)), values)


@pytest.mark.parametrize("scale", METHODS)
def test_levels_are_monotone_and_bounded(scale: str) -> None:
    values = np.sort(np.random.default_rng(2).gamma(2, 300, 4000).astype(np.float32))
    domain = domain_of(values, scale)
    levels = domain.to_levels(values.reshape(1, 40, 100)).ravel()
    assert (np.diff(levels) >= 0).all()
    assert levels.min() >= -1
    assert levels.max() <= 1


def test_db_of_power_and_refusal_of_db() -> None:
    power = np.random.default_rng(3).gamma(1, 0.1, (1, 50, 50)).astype(np.float32)
    power[0, 0, 0] = 0.0
    domain = domain_of(power, "db")
    back = domain.to_pixels(domain.to_levels(power))
    positive = power > 0
    np.testing.assert_allclose(back[positive], power[positive], rtol=1e-3)
    assert np.isfinite(back).all()
    in_db = np.full((1, 5, 5), -12.0, np.float32)
    with pytest.raises(SceneError, match="--scale auto"):
        domain_of(in_db, "db")


def test_db_of_a_scene_that_is_mostly_zeros_points_at_nodata() -> None:
    sketch = BandSketch("uint16")
    sketch.update(np.array([0, 0, 0, 70], np.uint16))
    with pytest.raises(SceneError, match=r"75% of the valid pixels are zero,.*-a_nodata 0"):
        fit_scaling(ScaleSpec("db"), sketch, "VV")


@pytest.mark.parametrize("scale", ["auto", "percentile:0,100", "zscore", "log1p"])
def test_doubles_beyond_single_precision_overflow_nothing(scale: str) -> None:
    values = np.array([-np.finfo(np.float64).max, 1.0, 2.0, 3.0, np.finfo(np.float64).max])
    sketch = BandSketch("float64")
    with np.errstate(all="raise"):
        sketch.update(values)
        scaling = fit_scaling(ScaleSpec.parse(scale), sketch, "band")
    assert np.isfinite(scaling.knots).all()
    assert sketch.maximum == np.finfo(np.float32).max


@pytest.mark.parametrize(
    ("values", "filler"),
    [
        (np.array([-9999, 100, 200], np.int16), -9999.0),
        (np.array([-32768, 100], np.int16), -32768.0),
        (np.array([-np.finfo(np.float32).max, 0.1], np.float32), -float(np.finfo(np.float32).max)),
        (np.array([0.1, 9.96921e36], np.float32), float(np.float32(9.96921e36))),
        (np.array([-9998.0, 0.1], np.float32), None),
        (np.array([0, 255], np.uint8), None),
    ],
)
def test_values_that_stand_for_no_data(values: npt.NDArray[Any], filler: float | None) -> None:
    sketch = BandSketch(values.dtype.name)
    assert sketch.filler is None
    sketch.update(values)
    assert sketch.filler == filler


def test_a_constant_band_returns_its_constant() -> None:
    for dtype, value in (("uint8", 7), ("float32", -12.5), ("uint16", 60000)):
        values = np.full((1, 4, 4), value, dtype)
        for scale in ("auto", "percentile:2,98", "zscore", "log1p"):
            domain = domain_of(values, scale)
            levels = domain.to_levels(values)
            assert np.isfinite(levels).all()
            np.testing.assert_allclose(domain.to_pixels(levels), values, rtol=1e-5)


def test_outliers_do_not_steal_the_contrast() -> None:
    values = np.random.default_rng(4).normal(500, 50, (1, 100, 100)).astype(np.uint16)
    values[0, 0, 0] = 60000
    levels = domain_of(values).to_levels(values)
    assert np.std(levels) > 0.3


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 0), ("uint8", 255), ("int16", -9999), ("uint16", 300)]
)
def test_no_valid_pixel_becomes_nodata(dtype: str, nodata: int) -> None:
    info = np.iinfo(dtype)
    values = np.linspace(info.min, min(info.max, 1000), 500).reshape(1, 20, 25).astype(dtype)
    domain = domain_of(values, nodata=nodata)
    valid = np.ones((20, 25), bool)
    valid[3:5, 7] = False
    out = domain.to_pixels(domain.to_levels(values), valid)
    assert (out[0][valid] != nodata).all()
    assert (out[0][~valid] == nodata).all()
    assert np.abs(out[0][valid].astype(int) - values[0][valid].astype(int)).max() <= 1


def test_products_clip_and_round_and_never_wrap() -> None:
    domain = Domain((BandInfo(BandScaling("linear", (-100.0, 400.0), (-1.0, 1.0))),), "uint8")
    levels = np.array([[[-1.0, -0.599, 1.0, 5.0]]], np.float32)
    np.testing.assert_array_equal(domain.to_pixels(levels), [[[0, 0, 255, 255]]])
    wide = Domain((BandInfo(BandScaling("linear", (0.0, 2.0**63), (-1.0, 1.0))),), "int64")
    assert wide.to_pixels(levels).min() >= 0


def test_invalid_pixels_are_level_zero_whatever_they_hold() -> None:
    values = np.array([[[1.0, np.nan], [np.inf, 3.0]]], np.float32)
    valid = np.isfinite(values[0])
    domain = domain_of(values[:, valid].reshape(1, 1, 2))
    with np.errstate(all="raise"):
        levels = domain.to_levels(values, valid)
    assert (levels[0][~valid] == 0).all()


@pytest.mark.parametrize(
    "text",
    ["", "minmax", "linear", "linear:1", "linear:5,1", "percentile:-1,50", "db:1,2", "linear:a,b"],
)
def test_a_scale_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--scale"):
        ScaleSpec.parse(text)


def test_scale_round_trip() -> None:
    for text in ("auto", "linear:-25,0", "percentile:2,98", "db"):
        assert str(ScaleSpec.parse(text)) == text


def test_domain_json_round_trip_and_shared_bands() -> None:
    scaling = BandScaling("auto", (0.0, 1.0, 9.0), (-1.0, 0.9, 1.0))
    a = Domain(
        tuple(BandInfo(scaling, n) for n in ("red", "green", None)), "float32", float("nan"), 10.0
    )
    b = Domain(tuple(BandInfo(scaling, n) for n in (None, "NIR", "Red")), "uint8", 0.0)
    back = Domain.from_json(a.to_json())
    assert np.isnan(back.nodata or 0)
    assert back.bands == a.bands
    assert shared_bands(a, b) == ((0, 2),)
    assert a.labels == ("red", "green", "band 3")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_a_histogram_counts_every_pixel_between_its_ends(dtype: str) -> None:
    values = np.random.default_rng(0).normal(100, 8, 10_000).astype(dtype)
    sketch = BandSketch(dtype)
    sketch.update(values)
    low, high = float(values.min()), float(values.max())
    counts = sketch.histogram(low, high, 256)
    assert counts.sum() == 10_000
    assert np.argmax(counts) == pytest.approx((100 - low) / (high - low) * len(counts), rel=0.25)
    if dtype != "float32":
        assert counts.tolist() == [int((values == v).sum()) for v in range(int(low), int(high) + 1)]
    assert sketch.histogram(0.0, low - 1.0, 64).sum() == 0


def _domain(*names: str | None) -> Domain:
    return Domain(
        tuple(BandInfo(BandScaling("linear", (0.0, 1.0), (-1.0, 1.0)), name) for name in names),
        "uint8",
    )


def test_bands_that_a_text_maps() -> None:
    a, b = _domain("B04", "B08", None), _domain("red", "nir")
    assert mapped_bands("B04=red, b08=NIR", a, b) == ((0, 0), (1, 1))
    assert mapped_bands("3=1,1=nir", a, b) == ((2, 0), (0, 1))
    assert mapped_bands("band 3=red", a, b) == ((2, 0),)
    for text, message in (
        ("B04", "'B04' is no pair"),
        ("", "'nothing' is no pair"),
        ("B04=", "no pair"),
        ("B05=red", "A has no band B05; it has B04, B08, band 3"),
        ("B04=3", "B has no band 3; it has red, nir"),
        ("B04=red,1=nir", "B04 of A is named twice"),
        ("B04=red,B08=1", "red of B is named twice"),
    ):
        with pytest.raises(ValueError, match=message):
            mapped_bands(text, a, b)
