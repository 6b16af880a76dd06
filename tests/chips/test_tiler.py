from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from shapely import box

from geocyclegan.chips import commit, parts, tiler
from geocyclegan.chips.manifest import read_rows
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.reader import ChipSet
from geocyclegan.chips.tiler import chip_pairs, chip_scenes
from geocyclegan.errors import ChipsError, NotFoundError, OptionError, OutputError, SceneError
from geocyclegan.files import output_lock
from geocyclegan.raster.radiometry import ScaleSpec
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window

# The fixture is a function; what it takes is told where it is defined.
MakeScene = Callable[..., Path]


@pytest.fixture
def options(tmp_path: Path) -> ChipOptions:
    return ChipOptions(out=tmp_path / "chips", size=32)


def snapshot(folder: Path) -> dict[str, str]:
    """Every file of a folder with its hash."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_value_that_looks_like_no_data_is_pointed_at(
    make_raster: Callable[..., Path], options: ChipOptions, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.random.default_rng(0).uniform(0, 1, (2, 64, 64)).astype(np.float32)
    chip_scenes([make_raster("sound.tif", pixels)], options)
    assert not caplog.records
    pixels[1, :20] = -9999
    chip_scenes([make_raster("border.tif", pixels)], replace(options, overwrite=True))
    assert "band 2: -9999 is among the valid pixels" in caplog.text
    assert "gdal_edit.py -a_nodata -9999" in caplog.text


@pytest.mark.parametrize("option", ["mask", "labels", "balance", "like"])
def test_rasters_of_another_place_are_named(
    make_scene: MakeScene, options: ChipOptions, option: str
) -> None:
    far = make_scene("far.tif", bands=1, transform=Affine(10, 0, 9e5, 0, -10, 6e6))
    given: dict[str, Any] = {option: str(far) if option == "like" else (str(far),)}
    given |= {"random": 3} if option == "balance" else {}
    with pytest.raises(
        (OptionError, SceneError),
        match=rf"--{option} \S*far.tif.*does not overlap|does not overlap.*--{option}",
    ):
        chip_scenes([make_scene()], replace(options, **given))
    assert not options.out.exists()


def test_one_partner_for_two_scenes_is_refused(make_scene: MakeScene, options: ChipOptions) -> None:
    days = [make_scene("day1.tif"), make_scene("day2.tif")]
    with pytest.raises(OptionError, match=r"map.tif: it is named for several scenes.*--like"):
        chip_pairs(days, [make_scene("map.tif")] * 2, options, options.partner(None, None))


def test_one_mask_for_two_of_three_scenes(make_scene: MakeScene, options: ChipOptions) -> None:
    scenes = [make_scene(f"day{day}.tif") for day in range(3)]
    clear = make_scene("clear.tif", pixels=np.zeros((1, 96, 128), np.uint8))
    cloudy = make_scene("cloudy.tif", pixels=np.ones((1, 96, 128), np.uint8))
    with rasterio.open(cloudy, "r+") as file:
        file.write(np.zeros((1, 32, 128), np.uint8), window=rasterio.windows.Window(0, 0, 128, 32))
    chip_scenes(scenes, replace(options, mask=(str(clear), str(cloudy), str(clear))))
    chips = Counter(Path(row.scene).stem for row in read_rows(options.out))
    assert chips == {"day0": 12, "day1": 4, "day2": 12}


def test_chips_are_windows_of_the_scene(make_scene: MakeScene, options: ChipOptions) -> None:
    path = make_scene(names=["VV", "VH"], nodata=0)
    report = chip_scenes([path], options)
    rows = read_rows(options.out)
    assert (report.train + report.val, report.scenes, report.windows) == (12, 1, 12)
    assert report.val == 1
    assert len(rows) == 12
    with Scene(path) as scene:
        for row in rows:
            with Scene(options.out / row.chip) as chip:
                window = Window(row.row, row.col, 32, 32)
                assert chip.grid == scene.grid.window(window)
                assert np.array_equal(chip.read(Window(0, 0, 32, 32))[0], scene.read(window)[0])
                assert [band.name for band in chip.bands] == ["VV", "VH"]
            assert row.chip.startswith(f"{row.split}_a/")
            assert row.scene == str(path)
    frame = geopandas.read_parquet(options.out / "chips.parquet")
    assert frame.crs == "EPSG:4326"
    outline = box(*rasterio.open(path).bounds)
    expected = geopandas.GeoSeries([outline], crs=32630).to_crs(4326)[0]
    assert frame.union_all().symmetric_difference(expected).area < 1e-3 * expected.area


def test_the_reader_sees_the_set(make_scene: MakeScene, options: ChipOptions) -> None:
    path = make_scene()
    report = chip_scenes([path], options)
    chips = ChipSet.open(options.out, "a")
    assert (len(chips), chips.size, chips.scenes) == (report.train, 32, (str(path),))
    assert len(ChipSet.open(options.out, "a", "val")) == report.val
    assert chips.domain.gsd == pytest.approx(10.0)
    pixels, valid = chips.read(0)
    assert valid.all()
    levels = chips.domain.to_levels(pixels, valid)
    assert -1.0 <= levels.min() < -0.8 < 0.8 < levels.max() <= 1.0
    with pytest.raises(ChipsError, match="domain b"):
        ChipSet.open(options.out, "b")


def test_rerun_refreshes_to_the_identical_set(make_scene: MakeScene, options: ChipOptions) -> None:
    one, two = make_scene("1.tif"), make_scene("2.tif", seed=1)
    chip_scenes([one, two], options)
    before = snapshot(options.out)
    chip_scenes([two, one], options)
    assert snapshot(options.out) == before
    chip_scenes([two], options)
    assert snapshot(options.out) == before


def test_a_new_scene_is_added_and_the_radiometry_fitted_over_all(
    make_scene: MakeScene, options: ChipOptions, tmp_path: Path
) -> None:
    one = make_scene("1.tif")
    two = make_scene("2.tif", pixels=np.full((2, 64, 64), 900, np.uint16))
    chip_scenes([one], options)
    one.rename(tmp_path / "moved.tif")  # an old scene need not be read again
    report = chip_scenes([two], options)
    assert report.total_train + report.total_val == 12 + 4
    scaling = report.record.domain.bands[0].scaling
    assert (scaling.knots[0], scaling.knots[-1]) == (100.0, 900.0)
    assert ChipSet.open(options.out, "a").scenes == (str(one), str(two))
    both = replace(options, out=tmp_path / "both")
    (tmp_path / "moved.tif").rename(one)
    assert chip_scenes([one, two], both).record == report.record


def test_refresh_removes_chips_that_are_no_longer_wanted(
    make_scene: MakeScene, options: ChipOptions
) -> None:
    path = make_scene()
    chip_scenes([path], replace(options, stride=16))
    chip_scenes([path], options)
    files = {name for name in snapshot(options.out) if name.endswith(".tif")}
    assert files == {row.chip for row in read_rows(options.out)}
    assert len(files) == 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 16}, r"--size 16.*32 px.*--overwrite"),
        ({"scale": ScaleSpec("zscore")}, r"--scale zscore.*auto.*--overwrite"),
        ({"bands": ("1",)}, r"1 band .*2 bands .*--overwrite"),
    ],
)
def test_contradictions_change_nothing(
    make_scene: MakeScene, options: ChipOptions, change: dict[str, Any], words: str
) -> None:
    path = make_scene()
    chip_scenes([path], options)
    before = snapshot(options.out)
    with pytest.raises(OptionError, match=words):
        chip_scenes([path], replace(options, **change))
    assert snapshot(options.out) == before
    report = chip_scenes([path], replace(options, overwrite=True, **change))
    files = {name for name in snapshot(options.out) if name.endswith(".tif")}
    assert files == {row.chip for row in read_rows(options.out)}
    assert len(ChipSet.open(options.out, "a")) == report.train
    assert len(list((options.out / ".statistics" / "a").iterdir())) == 1


def test_another_type_contradicts_the_folder(make_scene: MakeScene, options: ChipOptions) -> None:
    chip_scenes([make_scene("1.tif")], options)
    with pytest.raises(OptionError, match=r"2\.tif.*float32 pixels.*uint16 pixels"):
        chip_scenes([make_scene("2.tif", dtype="float32")], options)


@pytest.mark.parametrize("other", [{"bands": 3}, {"dtype": "int16"}, {"names": ["VV", "HH"]}])
def test_unlike_scenes_are_both_named(
    make_scene: MakeScene, options: ChipOptions, other: dict[str, Any]
) -> None:
    one, two = make_scene("1.tif", names=["VV", "VH"]), make_scene("2.tif", **other)
    with pytest.raises(SceneError, match=r"1\.tif.*2\.tif"):
        chip_scenes([one, two], options)
    assert not options.out.exists()


def test_coarser_pixels_are_warned_of(
    make_scene: MakeScene, options: ChipOptions, caplog: pytest.LogCaptureFixture
) -> None:
    coarse = make_scene("2.tif", transform=Affine(30.0, 0.0, 0.0, 0.0, -30.0, 0.0))
    chip_scenes([make_scene("1.tif"), coarse], options)
    assert "2.tif: its pixels measure 30 m" in caplog.text


def test_a_small_scene_is_padded_and_masked(make_scene: MakeScene, options: ChipOptions) -> None:
    path = make_scene(shape=(20, 50), nodata=0)
    assert chip_scenes([path], options).train == 2
    chips = ChipSet.open(options.out, "a")
    for i, row in enumerate(sorted(read_rows(options.out), key=lambda row: row.chip)):
        pixels, valid = chips.read(i)
        assert row.valid == 1.0
        assert valid[:20].all()
        assert not valid[20:].any()
        assert not pixels[:, 20:].any()


@pytest.mark.parametrize("how", ["nodata", "nan", "mask", "alpha"])
def test_invalid_pixels_are_masked_and_counted(
    make_scene: MakeScene, options: ChipOptions, how: str
) -> None:
    valid = np.ones((64, 64), np.bool_)
    valid[:40, :30] = False
    pixels = np.random.default_rng(0).integers(100, 200, (2, 64, 64)).astype(np.float32)
    extra: dict[str, Any] = {}
    if how == "nodata":
        pixels[0, ~valid] = -9999
        extra["nodata"] = -9999
    elif how == "nan":
        pixels[1, ~valid] = np.nan
    elif how == "mask":
        extra["mask"] = valid
    else:
        pixels = np.concatenate([pixels, valid[np.newaxis] * 255]).astype(np.uint8)
    path = make_scene(pixels=pixels, **extra)
    if how == "alpha":
        with rasterio.open(path, "r+") as scene:
            scene.colorinterp = [*scene.colorinterp[:2], rasterio.enums.ColorInterp.alpha]
    report = chip_scenes([path], replace(options, min_valid=0.05, val=0.0))
    assert (report.train, report.left_out["invalid"]) == (4, 0)
    for row in read_rows(options.out):
        window = valid[row.row : row.row + 32, row.col : row.col + 32]
        with Scene(options.out / row.chip) as chip:
            got, mask = chip.read(Window(0, 0, 32, 32))
        assert np.array_equal(mask, window)
        assert row.valid == window.mean()
        assert np.isfinite(got).all()
    scaling = report.record.domain.bands[0].scaling
    assert scaling.knots[0] >= 100.0
    assert chip_scenes([path], replace(options, min_valid=0.5, val=0.0)).left_out["invalid"] == 1


@pytest.mark.parametrize(
    "place",
    [
        {"transform": Affine(10.0, 0.0, 5e5, 0.0, 10.0, 4e6)},
        {"transform": Affine(10.0, 0.0, 5e5, 0.0, -10.0, 4e6) * Affine.rotation(25.0)},
        {"crs": None, "transform": Affine.identity()},
        {"crs": None},
    ],
)
def test_south_up_rotated_and_placeless(
    make_scene: MakeScene, options: ChipOptions, place: dict[str, Any]
) -> None:
    path = make_scene(**place)
    chip_scenes([path], options)
    with Scene(path) as scene:
        for row in read_rows(options.out):
            with Scene(options.out / row.chip) as chip:
                assert chip.grid == scene.grid.window(Window(row.row, row.col, 32, 32))
    frame = geopandas.read_parquet(options.out / "chips.parquet")
    assert frame.geometry.isna().all() == ("crs" in place)


def test_complex_pixels_need_a_scaling(make_scene: MakeScene, options: ChipOptions) -> None:
    random = np.random.default_rng(0)
    pixels = (random.normal(size=(1, 64, 64)) + 1j * random.normal(size=(1, 64, 64))) * 50
    path = make_scene(pixels=pixels.astype(np.complex64))
    with pytest.raises(SceneError, match="--scale db"):
        chip_scenes([path], options)
    assert not options.out.exists()
    report = chip_scenes([path], replace(options, scale=ScaleSpec("db")))
    assert report.record.domain.amplitude
    chips = ChipSet.open(options.out, "a")
    assert chips.read(0)[0].dtype == np.float32


def test_bands_by_name_and_number(make_scene: MakeScene, options: ChipOptions) -> None:
    path = make_scene(bands=4, names=["B02", "B03", "B04", "B08"])
    chip_scenes([path], replace(options, bands=("b08", "1-2")))
    chips = ChipSet.open(options.out, "a")
    assert chips.domain.names == ("B08", "B02", "B03")
    with pytest.raises(OptionError, match=r"--bands B99.*B02"):
        chip_scenes([path], replace(options, bands=("B99",)))


def test_aoi_and_cover(make_scene: MakeScene, options: ChipOptions, tmp_path: Path) -> None:
    path = make_scene()
    with rasterio.open(path) as scene:
        left, _, _, top = scene.bounds
    # The left column of chips, and two fifths of the next.
    frame = geopandas.GeoDataFrame(
        geometry=[box(left, top - 960, left + 448, top)], crs="EPSG:32630"
    )
    frame.to_file(tmp_path / "aoi.gpkg")
    with_aoi = replace(options, aoi=tmp_path / "aoi.gpkg")
    report = chip_scenes([path], with_aoi)
    assert (report.train + report.val, report.left_out["uncovered"]) == (3, 9)
    assert {row.col for row in read_rows(options.out)} == {0}
    report = chip_scenes([path], replace(with_aoi, min_cover=0.4))
    assert (report.train + report.val, report.left_out["uncovered"]) == (6, 6)
    assert {round(row.cover, 6) for row in read_rows(options.out)} == {1.0, 0.4}
    # Without any cover there is no chip, even if none is asked for.
    assert chip_scenes([path], replace(with_aoi, min_cover=0.0)).left_out["uncovered"] == 6


def test_what_is_refused_leaves_nothing_behind(
    make_scene: MakeScene, options: ChipOptions, tmp_path: Path
) -> None:
    good = make_scene("good.tif")
    empty = make_scene("empty.tif", pixels=np.zeros((2, 64, 64), np.uint16), nodata=0)
    pixels = np.zeros((2, 64, 64), np.uint16)
    pixels[:, 0, 0] = 1
    sparse = make_scene("sparse.tif", pixels=pixels, nodata=0)
    far = tmp_path / "far.gpkg"
    geopandas.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs=4326).to_file(far)
    cut = make_scene("cut.tif", shape=(300, 300))
    cut.write_bytes(cut.read_bytes()[:20_000])
    out = tmp_path / "new" / "deep" / "chips"
    options = replace(options, out=out)
    cases: list[tuple[Any, list[Path], ChipOptions, str]] = [
        (NotFoundError, [tmp_path / "none.tif"], options, "none.tif"),
        (SceneError, [good, empty], options, r"empty\.tif: no valid pixel"),
        (SceneError, [cut], options, r"cut\.tif"),
        (ChipsError, [sparse], options, "4 with less than 90% valid.*lower --min-valid or --size"),
        (OptionError, [good], replace(options, aoi=far), "do not touch"),
    ]
    for error, scenes, given, words in cases:
        with pytest.raises(error, match=words) as found:
            chip_scenes(scenes, given)
        assert "\n" not in str(found.value)
        assert not (tmp_path / "new").exists()


def test_only_validation_chips_are_no_set(make_scene: MakeScene, options: ChipOptions) -> None:
    path = make_scene(shape=(32, 64))
    chip_scenes([path], options)
    row = next(r for r in read_rows(options.out) if r.split == "val")
    with rasterio.open(path) as scene:
        profile = scene.profile
    part = make_scene(
        "part.tif",
        shape=(32, 32),
        transform=profile["transform"] @ Affine.translation(row.col, row.row),
    )
    # The only ground of the other domain is for validation in this one.
    with pytest.raises(ChipsError, match="shown for validation"):
        chip_scenes([part], replace(options, domain="b"))
    assert chip_scenes([part], replace(options, domain="b", out=options.out / "new")).train == 1


def test_a_chip_is_no_scene(make_scene: MakeScene, options: ChipOptions) -> None:
    chip_scenes([make_scene()], options)
    with pytest.raises(OptionError, match="a chip of"):
        chip_scenes([options.out / "train_a"], options)


def test_both_domains_share_a_folder_and_a_split(
    make_scene: MakeScene, options: ChipOptions
) -> None:
    one, two = make_scene("1.tif"), make_scene("2.tif", bands=5, dtype="float32")
    with output_lock(options.out / "domain_b.json"):
        chip_scenes([one], options)
        with pytest.raises(OutputError, match="is writing it now"):
            chip_scenes([two], replace(options, domain="b"))
    chip_scenes([two], replace(options, domain="b"))
    rows = read_rows(options.out)
    windows = {
        domain: {(row.row, row.col, row.split) for row in rows if row.domain == domain}
        for domain in ("a", "b")
    }
    assert windows["a"] == windows["b"]
    assert len(ChipSet.open(options.out, "b")) == len(ChipSet.open(options.out, "a"))


@pytest.mark.parametrize(
    "where",
    [
        "cut_scenes",
        "save_statistics",
        "_publish",
        "write_record",
        "update_manifest",
        "remove_stale",
    ],
)
def test_stopped_anywhere_the_rerun_completes_the_same_set(
    make_scene: MakeScene,
    options: ChipOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    one, two = make_scene("1.tif"), make_scene("2.tif", seed=1)
    chip_scenes([one], replace(options, out=tmp_path / "expected"))
    chip_scenes([two], replace(options, out=tmp_path / "expected"))

    module: Any = tiler if where == "cut_scenes" else commit
    real = getattr(module, where)

    def killed(*args: Any, **kwargs: Any) -> None:
        if where in ("cut_scenes", "_publish"):
            real(*args, **kwargs)
        raise KeyboardInterrupt

    # What a kill leaves is not tidied up.
    monkeypatch.setattr(tiler, "clean_folder", lambda _: nullcontext())

    with monkeypatch.context() as patch:
        patch.setattr(module, where, killed)
        with pytest.raises(KeyboardInterrupt):
            chip_scenes([one], options)
        if where != "remove_stale":
            with pytest.raises(ChipsError, match="not finished"):
                ChipSet.open(options.out, "a")
    (options.out / ".statistics" / "a" / ".x.1.part.npz").touch()
    chip_scenes([one], options)
    old = ChipSet.open(options.out, "a")
    with monkeypatch.context() as patch:
        patch.setattr(module, where, killed)
        with pytest.raises(KeyboardInterrupt):
            chip_scenes([two], options)
        if where in ("cut_scenes", "save_statistics", "_publish"):
            assert ChipSet.open(options.out, "a") == old
    chip_scenes([two], options)
    assert snapshot(options.out) == snapshot(tmp_path / "expected")


def test_a_full_disk_leaves_the_old_set(
    make_scene: MakeScene, options: ChipOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = make_scene("1.tif"), make_scene("2.tif", seed=1)
    full = OutputError("no space left")

    def fail(*_: object) -> str:
        raise full

    with monkeypatch.context() as patch:
        patch.setattr("geocyclegan.chips.cut.save_chip", fail)
        with pytest.raises(OutputError):
            chip_scenes([one], options)
        assert not options.out.exists()
    chip_scenes([one], options)
    before = snapshot(options.out)
    monkeypatch.setattr("geocyclegan.chips.cut.save_chip", fail)
    with pytest.raises(OutputError):
        chip_scenes([two], options)
    assert snapshot(options.out) == before


def test_overwriting_keeps_the_old_set_until_the_new_one_is_complete(
    make_scene: MakeScene, options: ChipOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_scene()
    chip_scenes([path], options)
    old = ChipSet.open(options.out, "a")
    pixels = old.read(0)[0]

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commit, "write_record", killed)
    with pytest.raises(KeyboardInterrupt):
        chip_scenes([path], replace(options, bands=("2",), overwrite=True))
    assert ChipSet.open(options.out, "a") == old
    assert np.array_equal(old.read(0)[0], pixels)


def test_the_number_of_processes_and_parts_changes_nothing(
    make_scene: MakeScene, options: ChipOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_scene(
        shape=(200, 300), dtype="float32", tiled=True, blockxsize=64, blockysize=48, seed=3
    )
    overlapping = replace(options, stride=20, val=0.2)
    report = chip_scenes([path], overlapping)
    many = replace(overlapping, out=tmp_path / "many", workers=2)
    chip_scenes([path], many)
    assert snapshot(many.out) == snapshot(overlapping.out)
    monkeypatch.setattr(parts, "SAMPLES_AT_ONCE", 2 * 64 * 48)
    monkeypatch.setattr(parts, "_SAMPLES_IN_STRIPS", 2 * 64 * 48)
    small = replace(overlapping, out=tmp_path / "parts")
    again = chip_scenes([path], small)
    assert read_rows(small.out) == read_rows(overlapping.out)
    assert again.record.domain.bands == report.record.domain.bands


def test_lost_statistics_are_named(make_scene: MakeScene, options: ChipOptions) -> None:
    one, two = make_scene("1.tif"), make_scene("2.tif")
    chip_scenes([one], options)
    (statistics,) = (options.out / ".statistics" / "a").iterdir()
    statistics.write_bytes(b"")
    with pytest.raises(ChipsError, match=r"statistics of .*1\.tif"):
        chip_scenes([two], options)
    chip_scenes([one, two], options)


def test_the_description_is_plain_json(make_scene: MakeScene, options: ChipOptions) -> None:
    path = make_scene(dtype="float32", nodata=float("nan"))
    chip_scenes([path], options)
    value = json.loads((options.out / "domain_a.json").read_text())
    assert value["nodata"] == "nan"
    assert value["scenes"][0]["path"] == str(path)
    assert value["scenes"][0]["options"]["stride"] == 32
    assert value["scale"] == "auto"


def test_bands_that_share_a_scale_keep_their_ratios(
    make_scene: Callable[..., Path], tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(1, 100, (2, 64, 64)).astype(np.uint16)
    pixels[1] *= 10
    scene = make_scene(pixels=pixels)
    out = tmp_path / "chips"
    options = ChipOptions(out=out, size=16, shared_scale=True)
    bands = chip_scenes([scene], options).record.domain.bands
    assert bands[0].scaling == bands[1].scaling
    assert bands[0].scaling.knots[-1] == 990
    with pytest.raises(OptionError, match="give --shared-scale"):
        chip_scenes([scene], replace(options, shared_scale=False))
    with rasterio.open(scene, "r+") as file:
        file.units = ["m", "K"]
    with pytest.raises(OptionError, match="differ in unit"):
        chip_scenes([scene], replace(options, out=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_footprints_on_the_180th_meridian_do_not_span_the_globe(
    make_scene: MakeScene, options: ChipOptions
) -> None:
    place = {"crs": "EPSG:32760", "transform": Affine(500, 0, 800_000, 0, -500, 8.17e6)}
    chip_scenes([make_scene(**place)], options)
    outlines = geopandas.read_parquet(options.out / "chips.parquet").geometry
    assert {outline.geom_type for outline in outlines} == {"Polygon", "MultiPolygon"}
    for outline in outlines:
        parts = getattr(outline, "geoms", [outline])
        assert all(part.bounds[2] - part.bounds[0] < 0.3 for part in parts)
        assert -180.0 <= outline.bounds[0] <= outline.bounds[2] <= 180.0


@pytest.mark.parametrize("names", [("2", "1"), ("a,b", "1"), ("1-2", "3")])
def test_bands_whose_names_are_numbers_stay_where_they_are(
    make_scene: MakeScene, options: ChipOptions, names: tuple[str, str]
) -> None:
    pixels = np.random.default_rng(0).integers(1, 99, (2, 64, 64)).astype(np.uint8)
    pixels[1] += 100
    chip_scenes([make_scene(pixels=pixels, names=names)], options)
    for row in read_rows(options.out):
        with rasterio.open(options.out / row.chip) as chip:
            assert chip.descriptions == names
            cut = pixels[:, row.row : row.row + chip.height, row.col : row.col + chip.width]
            assert np.array_equal(chip.read(), cut)


@pytest.mark.parametrize("apart", [False, True])
def test_bands_that_are_told_apart_by_place_are_told(
    make_scene: MakeScene, options: ChipOptions, caplog: pytest.LogCaptureFixture, apart: bool
) -> None:
    names = ["nir", "red", "green"]
    named = make_scene("named.tif", bands=3, names=names)
    unnamed = [make_scene(f"unnamed{i}.tif", bands=3, seed=i) for i in (1, 2)]

    def told(*runs: list[Path], **more: Any) -> list[str]:
        caplog.clear()
        how = replace(options, overwrite=True, val=0.0)
        together = [[path for run in runs for path in run]]
        for paths in runs if apart else together:
            chip_scenes(paths, replace(how, **more))
            how = replace(how, overwrite=False)
        return [r.getMessage() for r in caplog.records if "--bands" in r.getMessage()]

    (line,) = told([named], unnamed)
    assert line.endswith(
        "unnamed1.tif: it names no bands; they are taken to be nir, red, green, in this order"
        " (--bands chooses); so it is with 1 more"
    )
    (line,) = told(unnamed, [named])
    assert "named.tif: its bands are nir, red, green; scenes before it name none" in line
    assert not told(unnamed)
    assert not told([named], unnamed, bands=("1-3",))
    # By elimination, the last one has no choice.
    most = make_scene("most.tif", bands=3, names=["nir", "red", ""])
    assert not told([named], [most])
