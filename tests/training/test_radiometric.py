"""Changes of values: physical, of the right bands, on valid pixels, refused where they are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geocyclegan.errors import OptionError
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.radiometry import BandScaling
from geocyclegan.training.radiometric import (
    Radiometric,
    RadiometricOptions,
    check_radiometric,
    kind_of,
)

LINEAR = BandInfo(BandScaling("linear", (0.0, 10000.0), (-1.0, 1.0)), scale=1e-4, offset=-0.1)
DB = BandInfo(BandScaling("db", (-40.0, 10.0), (-1.0, 1.0)))
STORED_DB = BandInfo(BandScaling("linear", (-40.0, 10.0), (-1.0, 1.0)), unit="dB")
RADAR, OPTICAL = Domain((DB, STORED_DB), "float32"), Domain((LINEAR, LINEAR), "uint16")
AMPLITUDE = Domain((DB,), "float32", amplitude=True)
SIDE = 64


def changed(domain: Domain, level: float = 0.0, seed: int = 0, **options: float) -> np.ndarray:
    levels = np.full((domain.count, SIDE, SIDE), level, np.float32)
    look = Radiometric.of(domain, RadiometricOptions(**options))
    assert look is not None
    look.apply(levels, None, np.random.default_rng(seed))
    return levels


def test_nothing_asked_for_is_nothing() -> None:
    assert Radiometric.of(OPTICAL, RadiometricOptions()) is None
    assert Radiometric.both(OPTICAL, RADAR, None) == (None, None)


def test_kinds_of_bands() -> None:
    assert [kind_of(RADAR, band) for band in RADAR.bands] == ["power", "decibel"]
    assert kind_of(OPTICAL, LINEAR) == "linear"
    assert kind_of(AMPLITUDE, DB) == "amplitude"
    log = BandInfo(BandScaling("log1p", (0.0, 9.0), (-1.0, 1.0)))
    assert kind_of(OPTICAL, log) == "power"


@given(seed=st.integers(0, 10**6), jitter=st.floats(0.1, 6.0))
@settings(max_examples=30, deadline=None)
def test_a_change_in_decibel_is_a_shift_of_decibel(seed: int, jitter: float) -> None:
    """Power and stored decibel alike: 50 dB are the two units from -1 to 1."""
    levels = changed(RADAR, 0.0, seed, jitter_db=jitter)
    for band in levels:
        assert np.ptp(band) < 1e-5
        assert abs(band[0, 0]) * 25.0 <= jitter + 1e-4
    assert abs(levels[0, 0, 0] - levels[1, 0, 0]) > 0
    # Amplitude is the root of power, so half of the decibel that its scaling counts.
    half = changed(AMPLITUDE, 0.0, seed, jitter_db=jitter)
    assert half[0, 0, 0] == pytest.approx(levels[0, 0, 0] / 2, abs=1e-5)


def test_gain_knows_where_zero_reflectance_is() -> None:
    """Stored 1000 is reflectance 0 (offset -0.1): a gain leaves it, whatever it is."""
    zero = LINEAR.scaling.forward(np.array([1000.0], np.float32))[0]
    assert np.abs(changed(OPTICAL, float(zero), jitter_gain=0.5) - zero).max() < 1e-5
    seen = np.array([changed(OPTICAL, 0.0, seed, jitter_gain=0.2)[:, 0, 0] for seed in range(200)])
    reflectance = (seen + 1) / 2 - 0.1
    assert reflectance.min() >= 0.4 * 0.8 - 1e-5
    assert reflectance.max() <= 0.4 * 1.2 + 1e-5
    assert np.ptp(reflectance) > 0.3 * 0.4
    # Bands are changed independently.
    assert abs(np.corrcoef(reflectance[:, 0], reflectance[:, 1]).min()) < 0.3


def test_offset_is_a_share_of_the_range() -> None:
    seen = np.array([changed(OPTICAL, 0.2, s, jitter_offset=0.1)[0, 0, 0] for s in range(200)])
    assert np.abs(seen - 0.2).max() <= 0.1 * 1.8 + 1e-5
    assert np.ptp(seen) > 0.25


@pytest.mark.parametrize("looks", [1.0, 4.0])
def test_speckle_has_the_mean_and_variance_of_its_looks(looks: float) -> None:
    levels = changed(RADAR, 0.0, speckle=looks)
    base = 10 ** (-15.0 / 10)
    power = 10 ** ((levels * 25.0 - 15.0) / 10) / base
    for band in power:
        assert band.mean() == pytest.approx(1.0, abs=0.06)
        assert band.var() == pytest.approx(1.0 / looks, rel=0.15)
    amplitude = 10 ** ((changed(AMPLITUDE, 0.0, speckle=looks) * 25.0 - 15.0) / 10) / base
    assert (amplitude**2).mean() == pytest.approx(1.0, abs=0.06)


def test_speckle_leaves_optical_bands_alone() -> None:
    assert not changed(OPTICAL, 0.0, speckle=1.0).any()
    assert not changed(OPTICAL, 0.0, jitter_db=3.0).any()
    assert not changed(RADAR, 0.0, jitter_gain=0.5, jitter_offset=0.5).any()


def test_a_band_is_always_kept() -> None:
    lost = np.array(
        [(changed(OPTICAL, 0.5, seed, band_dropout=0.9) == 0).all((1, 2)) for seed in range(200)]
    )
    assert not lost.all(axis=1).any()
    assert lost.mean() == pytest.approx(0.45, abs=0.1)
    assert changed(AMPLITUDE, 0.5, band_dropout=0.9).all()


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_levels_stay_levels_and_nodata_stays_0(seed: int) -> None:
    random = np.random.default_rng(seed)
    valid = random.random((SIDE, SIDE)) < 0.6
    domain = Domain((DB, LINEAR, STORED_DB), "float32")
    levels = (random.uniform(-1, 1, (3, SIDE, SIDE)) * valid).astype(np.float32)
    other = levels.copy()
    options = RadiometricOptions(3.0, 0.3, 0.1, 2.0, 0.2)
    look = Radiometric(domain, options)
    look.apply(levels, valid, np.random.default_rng(seed))
    assert np.abs(levels).max() <= 1.0
    assert not levels[:, ~valid].any()
    assert np.isfinite(levels).all()
    look.apply(other, valid, np.random.default_rng(seed))
    assert np.array_equal(levels, other)


@pytest.mark.parametrize(
    ("options", "domains", "message"),
    [
        ({"speckle": 4.0}, (OPTICAL, OPTICAL), "--speckle 4: no band is power"),
        ({"jitter_db": 1.0}, (OPTICAL,), "--jitter-db 1: no band is in decibel"),
        (
            {"jitter_gain": 0.1},
            (RADAR, AMPLITUDE),
            r"--jitter-gain 0\.1: all bands are power or decibel",
        ),
        ({"jitter_offset": 0.1}, (RADAR,), r"--jitter-offset 0\.1: all"),
        ({"band_dropout": 0.1}, (AMPLITUDE, AMPLITUDE), r"--band-dropout 0\.1: both domains"),
    ],
)
def test_what_has_nothing_to_work_on_is_refused(
    options: dict[str, float], domains: tuple[Domain, ...], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        check_radiometric(RadiometricOptions(**options), domains)
    check_radiometric(RadiometricOptions(**options), (OPTICAL, RADAR))


@pytest.mark.parametrize(
    "wrong", [{"jitter_db": -1.0}, {"jitter_gain": 1.0}, {"speckle": 0.0}, {"band_dropout": 1.0}]
)
def test_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="expected"):
        RadiometricOptions(**wrong)
