from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from rasterio.control import GroundControlPoint

from geocyclegan.chips.reader import ChipSet

Write = Callable[..., Path]

S1_PATCH = "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48"
S2_PATCH = "S2A_MSIL2A_20170613T101031_87_48"
L8 = "LC08_L2SP_199031_20230714_20230716_02_T1"
HLS = "HLS.S30.T31TCJ.2023196T105629.v2.0"
S2_SAFE = "S2A_MSIL2A_20230714T105621_N0509_R094_T31TCJ_20230714T171502.SAFE"
S1_SAFE = "S1A_IW_GRDH_1SDV_20230714T055112_20230714T055137_049413_05F11E_9A3B.SAFE"
SN6 = "SN6_Train_AOI_11_Rotterdam"
SN6_TILE = "20190804111224_20190804111453_tile_8681"


def sen12(write: Write) -> None:
    for patch in (30, 100):
        write(f"ROIs1158_spring/s1_0/ROIs1158_spring_s1_0_p{patch}.png", dtype="uint8", res=None)
        write(f"ROIs1158_spring/s2_0/ROIs1158_spring_s2_0_p{patch}.png", bands=3, dtype="uint8",
              res=None)  # fmt: skip


def sen12ms(write: Write) -> None:
    for kind, bands, dtype in (("s1", 2, "float32"), ("s2", 13, "uint16"), ("lc", 4, "uint16")):
        name = f"ROIs1158_spring/{kind}_0/ROIs1158_spring_{kind}_0_p30.tif"
        write(name, bands=bands, dtype=dtype)


def sen12mscr(write: Write) -> None:
    for kind in ("s2_cloudy", "s2"):
        name = f"ROIs1158_spring_{kind}/{kind}_1/ROIs1158_spring_{kind}_1_p30.tif"
        write(name, bands=13)


def bigearthnet(write: Write) -> None:
    for band in ("VV", "VH"):
        write(f"BigEarthNet-S1/{S1_PATCH}/{S1_PATCH}_{band}.tif", side=48, dtype="float32")
    for bands, side in (
        (("B02", "B03", "B04", "B08"), 48),
        (("B05", "B06", "B07", "B8A", "B11", "B12"), 24),
        (("B01", "B09"), 8),
    ):
        for band in bands:
            write(f"BigEarthNet-S2/{S2_PATCH}/{S2_PATCH}_{band}.tif", side=side, res=480 / side)


def sen1floods11(write: Write) -> None:
    root = "v1.1/data/flood_events/HandLabeled"
    write(f"{root}/S1Hand/Spain_12_S1Hand.tif", bands=2, dtype="float32", nodata=np.nan)
    write(f"{root}/S2Hand/Spain_12_S2Hand.tif", bands=13, dtype="int16")
    write(f"{root}/LabelHand/Spain_12_LabelHand.tif", dtype="int16", low=-1, high=2)


def naip(write: Write) -> None:
    for year in (2010, 2015):
        write(f"m_4709963_se_14_1_{year}0629.tif", bands=4, dtype="uint8", res=5.0)


def landsat(write: Write) -> None:
    for band in range(1, 8):
        write(f"{L8}/{L8}_SR_B{band}.TIF", low=7000, high=20000)
    write(f"{L8}/{L8}_ST_B10.TIF")
    # Clear but for a corner of cloud.
    quality = np.full((32, 32), 1 << 6)
    quality[:8, :8] = 1 << 3
    write(f"{L8}/{L8}_QA_PIXEL.TIF", values=quality)


def hls(write: Write) -> None:
    for band in ("B02", "B03", "B04", "B8A", "B11", "B12"):
        write(f"{HLS}.{band}.tif", dtype="int16", nodata=-9999)
    write(f"{HLS}.Fmask.tif", dtype="uint8", values=0)


def sentinel2(write: Write) -> None:
    granule = f"{S2_SAFE}/GRANULE/L2A_T31TCJ_A042092_20230714T105621/IMG_DATA"
    stem = "T31TCJ_20230714T105621"
    lossless = {"QUALITY": "100", "REVERSIBLE": "YES"}
    for band in ("B02", "B03", "B04", "B08"):
        write(f"{granule}/R10m/{stem}_{band}_10m.jp2", side=48, low=1100, high=9000, **lossless)
    for band in ("B02", "B05", "B06", "B07", "B8A", "B11", "B12"):
        name = f"{granule}/R20m/{stem}_{band}_20m.jp2"
        write(name, side=24, res=20.0, low=1100, high=9000, **lossless)
    for band in ("B01", "B09"):
        name = f"{granule}/R60m/{stem}_{band}_60m.jp2"
        write(name, side=8, res=60.0, low=1100, high=9000, **lossless)
    classes = np.full((24, 24), 4)
    classes[:4, :4] = 9
    scl = write(f"{granule}/R20m/{stem}_SCL_20m.jp2", side=24, res=20.0, dtype="uint8",
                values=classes, **lossless)  # fmt: skip
    offsets = "".join(
        f'<BOA_ADD_OFFSET band_id="{number}">-1000</BOA_ADD_OFFSET>' for number in range(13)
    )
    (scl.parents[4] / "MTD_MSIL2A.xml").write_text(
        '<n1:P xmlns:n1="x"><BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>'
        f"{offsets}</n1:P>"
    )


def sentinel1(write: Write) -> None:
    points = [
        GroundControlPoint(row, column, 3.0 + column * 1.3e-4, 43.0 - row * 0.9e-4, 0.0)
        for row in (0, 32, 64)
        for column in (0, 32, 64)
    ]
    for polarisation in ("vh", "vv"):
        write(
            f"{S1_SAFE}/measurement/s1a-iw-grd-{polarisation}-20230714t055112-001.tiff",
            side=64, res=None, gcps=points, crs="EPSG:4326",
        )  # fmt: skip


def spacenet6(write: Write) -> None:
    write(f"AOI/SAR-Intensity/{SN6}_SAR-Intensity_{SN6_TILE}.tif", bands=4, dtype="float32",
          res=0.5)  # fmt: skip
    rgb = write(f"AOI/PS-RGB/{SN6}_PS-RGB_{SN6_TILE}.tif", bands=3, dtype="uint8", res=0.5)
    square = [[x, y] for x, y in
              ((500_002, 4_799_998), (500_006, 4_799_998), (500_006, 4_799_994),
               (500_002, 4_799_994), (500_002, 4_799_998))]  # fmt: skip
    document = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}},
        "features": [
            {"type": "Feature", "properties": {},
             "geometry": {"type": "Polygon", "coordinates": [square]}}
        ],
    }  # fmt: skip
    folder = rgb.parents[1] / "geojson_buildings"
    folder.mkdir()
    (folder / f"{SN6}_Buildings_{SN6_TILE}.geojson").write_text(json.dumps(document))


def xbd(write: Write) -> None:
    name = "joplin-tornado_00000001"
    for when in ("pre", "post"):
        image = write(f"train/images/{name}_{when}_disaster.png", bands=3, dtype="uint8", res=None)
    features = [
        {"properties": {"subtype": "destroyed"}, "wkt": "POLYGON ((2 2, 8 2, 8 8, 2 8, 2 2))"},
        {"properties": {}, "wkt": "POLYGON ((20 20, 26 20, 26 26, 20 26, 20 20))"},
    ]
    folder = image.parents[1] / "labels"
    folder.mkdir()
    for when in ("pre", "post"):
        (folder / f"{name}_{when}_disaster.json").write_text(
            json.dumps({"features": {"xy": features}})
        )


def maps(write: Write) -> None:
    for split in ("train", "val"):
        write(f"{split}/1.jpg", bands=3, side=64, height=32, dtype="uint8", res=None)


@dataclass(frozen=True)
class Case:
    recipe: str
    tree: Callable[[Write], None]
    options: tuple[str, ...] = ()
    bands: tuple[int, int] = (1, 1)
    labels: bool = False
    size: int = 32
    lost: str = ""

    def __str__(self) -> str:
        return "-".join((self.recipe, *self.options)) or self.recipe


CASES = [
    Case("sen12", sen12, (), (1, 3), lost="**/*_s2_0_p30.png"),
    Case("sen12ms", sen12ms, ("--labels",), (2, 13), labels=True, lost="**/*_lc_*.tif"),
    Case("sen12ms", sen12mscr, ("--first", "s2_cloudy"), (13, 13), lost="**/*_s2_1_*.tif"),
    Case("bigearthnet", bigearthnet, (), (2, 12), size=48, lost="**/*_B05.tif"),
    Case("sen1floods11", sen1floods11, ("--labels",), (2, 13), labels=True, lost="**/*_S2Hand.tif"),
    Case("naip", naip, ("--first", "2010", "--second", "2015"), (4, 4)),
    Case("naip", naip, (), (4, 0)),
    Case("landsat", landsat, (), (7, 0), lost="**/*QA_PIXEL.TIF"),
    Case("hls", hls, (), (6, 0), lost="**/*B11.tif"),
    Case("sentinel2", sentinel2, (), (12, 0), size=48, lost="**/*_B8A_20m.jp2"),
    Case("sentinel1", sentinel1, (), (2, 0), lost="**/*.tiff"),
    Case("spacenet6", spacenet6, ("--labels",), (4, 3), labels=True, lost="**/*.geojson"),
    Case("xbd", xbd, ("--labels",), (3, 3), labels=True, lost="**/*_post_disaster.json"),
    Case("maps", maps, (), (3, 3)),
]


def run(recipe: str, *words: str | Path) -> Result:
    command = importlib.import_module(f"data_prep.{recipe}").command
    return CliRunner().invoke(command, [str(word) for word in words])


def run_case(case: Case, tmp_path: Path, *words: str | Path) -> Result:
    size = ("--size", str(case.size), "--val", "0", "--min-valid", "0.2", "--progress", "none")
    out = tmp_path / "chips"
    return run(case.recipe, tmp_path / "data", "--out", out, *size, *case.options, *words)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_downloaded_tree_becomes_chips(case: Case, tmp_path: Path, write: Write) -> None:
    case.tree(write)

    result = run_case(case, tmp_path)

    assert result.exit_code == 0, result.output
    for domain, count in zip(("a", "b"), case.bands, strict=True):
        if not count:
            assert not (tmp_path / "chips" / f"train_{domain}").exists()
            continue
        chips = ChipSet.open(tmp_path / "chips", "a" if domain == "a" else "b")
        assert chips.domain.count == count
        pixels, valid = chips.read(0)
        assert valid.any()
        assert np.isfinite(pixels[:, valid]).all()
    assert (tmp_path / "chips" / "labels_a").exists() == case.labels


@pytest.mark.parametrize("case", CASES, ids=str)
def test_dry_run_lists_and_writes_nothing(case: Case, tmp_path: Path, write: Write) -> None:
    case.tree(write)

    result = run_case(case, tmp_path, "--dry-run")

    assert result.exit_code == 0, result.output
    assert " complete, 0 incomplete" in result.output
    assert "first: " in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize("case", [case for case in CASES if case.lost], ids=str)
def test_missing_part_is_named(case: Case, tmp_path: Path, write: Write) -> None:
    case.tree(write)
    for path in (tmp_path / "data").glob(case.lost):
        path.unlink()

    result = run_case(case, tmp_path)

    # SEN1-2's other patch is whole, so that one is prepared and the other named.
    assert result.exit_code == (0 if case.recipe == "sen12" else 1)
    assert "no " in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert (tmp_path / "chips").exists() == (case.recipe == "sen12")


@pytest.mark.parametrize("recipe", sorted({case.recipe for case in CASES}))
def test_other_folder_is_refused_with_the_layout(recipe: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.txt").write_text("meow")

    result = run(recipe, tmp_path / "photos", "--out", tmp_path / "chips")

    assert result.exit_code == 1
    assert "expected" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "chips").exists()


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    result = run("sen12", tmp_path / "nowhere")

    assert result.exit_code == 2
    assert "no such folder" in result.stderr


def test_pairs_show_the_same_patch(tmp_path: Path, write: Write) -> None:
    sen12(write)
    run_case(CASES[0], tmp_path)

    sets = ChipSet.open(tmp_path / "chips", "a"), ChipSet.open(tmp_path / "chips", "b")

    assert len(sets[0]) == len(sets[1]) == 2
    # Sorted by name, patch 100 comes first on either side.
    for index, patch in enumerate(("p100", "p30")):
        for chips, kind in zip(sets, ("s1", "s2"), strict=True):
            with rasterio.open(next((tmp_path / "data").rglob(f"*_{kind}_0_{patch}.png"))) as png:
                np.testing.assert_array_equal(chips.read(index)[0], png.read())


def test_clouds_of_landsat_are_not_valid(tmp_path: Path, write: Write) -> None:
    landsat(write)

    run_case(Case("landsat", landsat), tmp_path)

    chips = ChipSet.open(tmp_path / "chips", "a")
    _, valid = chips.read(0)
    assert not valid[:8, :8].any()
    assert valid.sum() == 32 * 32 - 64
    # Surface reflectance of Collection 2, as the guide has it.
    assert [(band.scale, band.offset) for band in chips.domain.bands] == [(0.0000275, -0.2)] * 7
    assert chips.domain.labels[:2] == ("SR_B1", "SR_B2")


def test_sentinel2_is_reflectance_without_clouds(tmp_path: Path, write: Write) -> None:
    sentinel2(write)

    run_case(Case("sentinel2", sentinel2, size=48), tmp_path)

    chips = ChipSet.open(tmp_path / "chips", "a")
    pixels, valid = chips.read(0)
    assert not valid[:8, :8].any()
    assert valid[10:, 10:].all()
    band = chips.domain.bands[3]
    assert band.scale == pytest.approx(0.0001)
    assert band.offset == pytest.approx(-0.1)
    # The 10 m file is taken where a band has several resolutions, and it is taken as it is.
    with rasterio.open(next((tmp_path / "data").rglob("*B02_10m.jp2"))) as dataset:
        np.testing.assert_array_equal(pixels[1][valid], dataset.read(1)[valid])


def test_coarse_bands_are_put_on_the_fine_grid(tmp_path: Path, write: Write) -> None:
    bigearthnet(write)

    run_case(Case("bigearthnet", bigearthnet, size=48), tmp_path)

    chips = ChipSet.open(tmp_path / "chips", "b")
    pixels, _ = chips.read(0)
    with rasterio.open(next((tmp_path / "data").rglob("*_B01.tif"))) as dataset:
        coarse = dataset.read(1)
    # Bilinear: at the middle of a coarse pixel stands nearly its own value.
    middles = pixels[0, 3::6, 3::6].astype(float)
    assert np.corrcoef(middles.ravel(), coarse.ravel())[0, 1] > 0.95
    assert pixels.shape == (12, 48, 48)


def test_sentinel1_is_put_where_its_control_points_say(tmp_path: Path, write: Write) -> None:
    sentinel1(write)

    result = run_case(Case("sentinel1", sentinel1), tmp_path)

    assert result.exit_code == 0, result.output
    chips = ChipSet.open(tmp_path / "chips", "a")
    assert chips.domain.labels == ("VV", "VH")
    with rasterio.open(chips.paths[0]) as chip:
        assert chip.crs == "EPSG:32631"
        assert chip.res == (10.0, 10.0)
        # 3° E is the middle of zone 31; 43° N lies 4 760 km from the equator.
        assert abs(chip.bounds.left - 500_000) < 1000
        assert abs(chip.bounds.top - 4_760_814) < 1000


def test_damage_is_drawn_where_the_buildings_are(tmp_path: Path, write: Write) -> None:
    xbd(write)

    run_case(Case("xbd", xbd, ("--labels",)), tmp_path)

    (label,) = (tmp_path / "chips" / "labels_a").glob("*.tif")
    with rasterio.open(label) as dataset:
        damage = dataset.read(1)
    assert damage[5, 5] == 4
    assert damage[23, 23] == 1
    assert set(np.unique(damage)) == {0, 1, 4}


def test_halves_of_a_map_picture(tmp_path: Path, write: Write) -> None:
    path = write("train/1.png", bands=3, side=64, height=32, dtype="uint8", res=None)

    run_case(Case("maps", maps), tmp_path)

    a, _ = ChipSet.open(tmp_path / "chips", "a").read(0)
    b, _ = ChipSet.open(tmp_path / "chips", "b").read(0)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(np.concatenate([a, b], axis=2), dataset.read())


def test_years_that_are_not_there(tmp_path: Path, write: Write) -> None:
    naip(write)

    result = run("naip", tmp_path / "data", "--first", "2010", "--second", "2012")

    assert result.exit_code == 2
    assert "2010, 2015" in result.stderr


def test_rerun_gives_the_same_set(tmp_path: Path, write: Write) -> None:
    case = CASES[3]
    case.tree(write)
    first = run_case(case, tmp_path)
    before = ChipSet.open(tmp_path / "chips", "b").read(0)[0]

    second = run_case(case, tmp_path)

    assert second.exit_code == 0, second.output
    assert first.output == second.output
    np.testing.assert_array_equal(before, ChipSet.open(tmp_path / "chips", "b").read(0)[0])
