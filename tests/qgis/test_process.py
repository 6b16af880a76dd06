"""The three algorithms in a real QGIS, by qgis_process as in users' scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rasterio

from geocyclegan import samples
from geocyclegan.qgis.assemble import script_texts
from geocyclegan.qgis.plugin.geocyclegan_processing.table_translate import TRANSLATE

if TYPE_CHECKING:
    from tests.qgis.conftest import QGIS

pytestmark = pytest.mark.qgis

SCENE = samples.path("spain_sentinel1")
MODEL = Path(__file__).parents[2] / "examples" / "qgis" / "chip_train_translate.model3"


def is_empty(group: int, within_s: float = 40.0) -> bool:
    """Say whether nothing of a process group is left."""
    deadline = time.monotonic() + within_s
    while True:
        if group not in _living_groups():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)


def _living_groups() -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            if state != "Z":
                found.add(int(group))
    return found


def pid_of(note: Path) -> int:
    return int(json.loads(note.read_text())["pid"])


def check_product(path: Path, bands: int = 3) -> None:
    with rasterio.open(SCENE) as scene, rasterio.open(path) as product:
        assert product.crs == scene.crs
        assert product.crs.to_epsg() == 4326
        assert product.transform == scene.transform
        assert product.shape == scene.shape
        assert product.count == bands
        assert product.tags()["SYNTHETIC"] == "YES"


def test_the_toolbox_has_three_algorithms_with_help(qgis: QGIS) -> None:
    listed = qgis.process("list").stdout
    for name in ("chipscenes", "traintranslationmodel", "translatescene"):
        assert f"geocyclegan:{name}\t" in listed
    told = qgis.process("help", "geocyclegan:translatescene").stdout
    assert "not a measurement" in told
    for option in TRANSLATE:
        assert f"{option.name}: {option.label}\n\t{option.help}" in told


def test_chip_scenes(chips: Path) -> None:
    assert list((chips / "train_a").glob("*.tif"))
    assert list((chips / "val_b").glob("*.tif"))
    with rasterio.open(next((chips / "train_b").glob("*.tif"))) as chip:
        assert chip.descriptions == ("B04", "B03", "B02")
        assert chip.shape == (64, 64)


def test_chip_within_polygons(qgis: QGIS, tmp_path: Path) -> None:
    with rasterio.open(SCENE) as scene:
        west, south, east, north = scene.bounds
    middle = (west + east) / 2
    ring = [[west, south], [middle, south], [middle, north], [west, north], [west, south]]
    area = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "properties": {}, "geometry": area}
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    done = qgis.run(
        "geocyclegan:chipscenes",
        SCENES_A=SCENE,
        SIZE=64,
        AOI=path,
        VAL=0,
        EDGE="drop",
        OUT=tmp_path / "chips",
    )
    assert done.code == 0, done.output
    # 320 x 512 px: two and a half columns in the western half, of which the half counts.
    assert len(list((tmp_path / "chips" / "train_a").glob("*.tif"))) == 3 * 8


def test_train_translation_model(run: Path) -> None:
    assert (run / "model" / "model.json").is_file()
    config = (run / "config.yaml").read_text()
    assert "steps: 2" in config
    assert "width: 4" in config


def test_training_goes_on(qgis: QGIS, chips: Path, run: Path) -> None:
    given = {"CHIPS": chips, "STEPS": 3, "OUT": run}
    refused = qgis.run("geocyclegan:traintranslationmodel", **given)
    assert refused.code != 0
    assert "--resume" in refused.output
    done = qgis.run("geocyclegan:traintranslationmodel", **given, RESUME="true")
    assert done.code == 0, done.output
    assert json.loads((run / "model" / "model.json").read_text())["training"]["steps"] == 3


def test_translate_scene_with_qgis_variables_leaked(qgis: QGIS, run: Path, tmp_path: Path) -> None:
    """QGIS on Windows and macOS, and any OSGeo4W shell, sets these for its own libraries."""
    leaked = {
        "PROJ_LIB": "/usr/share/proj",
        "PROJ_DATA": "/usr/share/proj",
        "GDAL_DATA": "/usr/share/gdal",
        "PYTHONPATH": "/usr/lib/python3/dist-packages",
    }
    product, note = tmp_path / "ö" / "translated scene.tif", tmp_path / "note"
    done = qgis.with_environment(leaked | {"TEST_NOTE": str(note)}).run(
        "geocyclegan:translatescene", SCENE=SCENE, MODEL=run, OUT=product, TILE=128
    )
    assert done.code == 0, done.output
    assert Path(done.outputs["OUT"]) == product
    check_product(product)
    assert not set(leaked) & set(json.loads(note.read_text())["environment"])


def test_a_missing_command_is_told(qgis: QGIS, run: Path, tmp_path: Path) -> None:
    done = qgis.run(
        "geocyclegan:translatescene",
        SCENE=SCENE,
        MODEL=run,
        OUT=tmp_path / "out.tif",
        EXECUTABLE="/nowhere/geocyclegan",
    )
    assert done.code != 0
    assert "/nowhere/geocyclegan, from the parameter 'geocyclegan command', does not exist" in (
        done.output
    )
    assert not list(tmp_path.iterdir())


def test_a_failing_run_is_told_in_the_toolkits_words(qgis: QGIS, tmp_path: Path) -> None:
    empty = tmp_path / "no model"
    empty.mkdir()
    out = tmp_path / "out"
    done = qgis.run(
        "geocyclegan:translatescene", SCENE=SCENE, MODEL=empty, OUT=out / "translated.tif"
    )
    assert done.code != 0
    assert "geocyclegan infer failed (exit code" in done.output
    assert "no model" in done.output
    assert "Traceback" not in done.output
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"OUT": "out.png", "SCENE": SCENE}, "products are GeoTIFFs; name it out.tif"),
        ({"OUT": "out.tif", "SCENE": SCENE, "EXTRA": "--tile '64"}, "Further options"),
    ],
)
def test_what_cannot_be_is_refused(
    qgis: QGIS, tmp_path: Path, given: dict[str, str], told: str
) -> None:
    out = tmp_path / given.pop("OUT")
    done = qgis.run("geocyclegan:translatescene", MODEL=tmp_path, OUT=out, **given)
    assert done.code != 0
    assert told in done.output
    assert not out.exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "Choose scenes of domain A, of domain B, or of both."),
        ({"SCENES_A": "nowhere.tif"}, "SCENES_A"),
        ({"SCENES_A": SCENE, "AOI": "nowhere.gpkg"}, "nowhere.gpkg not found"),
        ({"SCENES_A": SCENE, "PAIR": "true"}, "not 1 and 0"),
        (
            {"SCENES_A": SCENE, "SCENES_B": SCENE, "PAIR": "true", "LABELS_B": SCENE},
            "Labels of domain B: pairs have those of A",
        ),
    ],
)
def test_chips_of_nothing_are_refused(
    qgis: QGIS, tmp_path: Path, given: dict[str, object], told: str
) -> None:
    done = qgis.run("geocyclegan:chipscenes", OUT=tmp_path / "chips", **given)
    assert done.code != 0
    assert told in done.output
    assert not (tmp_path / "chips").exists()


# Cancels as soon as the first tile is done, in QGIS's own Python.
_CANCEL = """
from qgis.core import *
QgsApplication.setPrefixPath('/usr', True)
app = QgsApplication([], False); app.initQgis()
from processing.core.Processing import Processing
Processing.initialize()
from geocyclegan_processing.provider import GeoCycleGANProvider
provider = GeoCycleGANProvider()
QgsApplication.processingRegistry().addProvider(provider)

class Feedback(QgsProcessingFeedback):
    def setProgress(self, value):
        super().setProgress(value)
        if value > 0:
            self.cancel()

scene, model, out = sys.argv[1:]
algorithm = QgsApplication.processingRegistry().createAlgorithmById('geocyclegan:translatescene')
context, feedback = QgsProcessingContext(), Feedback()
results, ok = algorithm.run({'SCENE': scene, 'MODEL': model, 'OUT': out, 'TILE': 16}, context,
                            feedback)
print('canceled', feedback.isCanceled(), results, feedback.textLog())
"""


def test_cancel_leaves_no_orphan_and_no_partial_file(
    qgis: QGIS, toolkit: Path, run: Path, tmp_path: Path
) -> None:
    note, out = tmp_path / "note", tmp_path / "out" / "translated.tif"
    more = {"GEOCYCLEGAN_EXECUTABLE": str(toolkit), "TEST_NOTE": str(note)}
    done = qgis.with_environment(more).python(_CANCEL, str(SCENE), str(run), str(out))
    assert "canceled True {}" in done.stdout, done.stdout + done.stderr
    assert "geocyclegan infer was stopped" in done.stdout
    assert is_empty(pid_of(note), within_s=1)
    assert not list(out.parent.glob("*tif*"))
    assert not list(out.parent.glob(".*tif*"))


def test_the_toolkit_does_not_outlive_qgis(qgis: QGIS, chips: Path, tmp_path: Path) -> None:
    note, runs = tmp_path / "note", tmp_path / "runs"
    words = [f"--CHIPS={chips}", "--STEPS=100000", "--GENERATOR=resnet6", "--WIDTH=4"]
    program = subprocess.Popen(
        [qgis.program, "run", "geocyclegan:traintranslationmodel", *words, f"--OUT={runs / 'x'}"],
        env=qgis.environment | {"TEST_NOTE": str(note)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 90
        while not (runs / "x" / "config.yaml").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (runs / "x" / "config.yaml").exists()
        assert not is_empty(pid_of(note), within_s=0.5)
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
        assert is_empty(pid_of(note))
        assert not list(runs.rglob("*.part*"))
        assert list((runs / "x" / "checkpoints").iterdir()), "it was not asked to stop, it broke"
    finally:
        program.kill()
        program.wait()
        with suppress(OSError):
            os.killpg(pid_of(note), signal.SIGKILL)


_STYLE = """
from qgis.core import *
app = QgsApplication([], False); app.initQgis()
from geocyclegan_processing.style import StyleProduct
for path in sys.argv[1:]:
    layer = QgsRasterLayer(path, 'product')
    StyleProduct.create().postProcessLayer(layer, None, None)
    renderer = layer.renderer()
    bands = renderer.usesBands()
    band = renderer.redContrastEnhancement() if len(bands) == 3 else renderer.contrastEnhancement()
    print(type(renderer).__name__, bands, band.contrastEnhancementAlgorithm())
"""


def test_a_product_is_shown_in_its_colours(qgis: QGIS, make_bytes: Path) -> None:
    scenes = [str(samples.path("spain_sentinel2")), str(SCENE), str(make_bytes)]
    done = qgis.python(_STYLE, *scenes)
    assert done.stdout.splitlines() == [
        "QgsMultiBandColorRenderer [4, 3, 2] 1",
        "QgsSingleBandGrayRenderer [1] 1",
        "QgsMultiBandColorRenderer [3, 2, 1] 0",
    ], done.stderr


@pytest.fixture
def make_bytes(tmp_path: Path) -> Path:
    """An 8-bit picture whose bands are blue, green, red."""
    import numpy as np
    from rasterio.enums import ColorInterp
    from rasterio.transform import from_origin

    path = tmp_path / "bytes.tif"
    shape = {"count": 3, "height": 8, "width": 8, "dtype": "uint8"}
    with rasterio.open(
        path, "w", driver="GTiff", transform=from_origin(0, 8, 1, 1), crs="EPSG:32630", **shape
    ) as file:
        file.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
        file.write(np.zeros((3, 8, 8), np.uint8))
    return path


_SETTING = """
from qgis.core import *
app = QgsApplication([], False, sys.argv[1]); app.initQgis()
QgsSettings().setValue('Processing/Configuration/GEOCYCLEGAN_EXECUTABLE', '/saved/command')
from processing.core.ProcessingConfig import ProcessingConfig
from geocyclegan_processing import classFactory, toolkit
plugin = classFactory(None)
plugin.initGui()
registry = QgsApplication.processingRegistry()
print([each.name() for each in registry.providerById('geocyclegan').algorithms()])
print(ProcessingConfig.getSetting('GEOCYCLEGAN_EXECUTABLE'), toolkit.saved_executable())
plugin.unload()
print(registry.providerById('geocyclegan'))
"""


def test_the_plugin_comes_and_goes_with_its_setting(qgis: QGIS, tmp_path: Path) -> None:
    done = qgis.python(_SETTING, str(tmp_path))
    assert done.stdout.splitlines() == [
        "['chipscenes', 'traintranslationmodel', 'translatescene']",
        "/saved/command /saved/command",
        "None",
    ], done.stderr


def test_scripts_need_nothing_beside_them(qgis: QGIS, run: Path, tmp_path: Path) -> None:
    folder = qgis.profile / "processing" / "scripts"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in script_texts().items():
        (folder / name).write_text(text, encoding="utf-8")
    try:
        listed = qgis.process("list").stdout
        for name in ("chipscenes", "traintranslationmodel", "translatescene"):
            assert f"script:{name}\t" in listed
        product = tmp_path / "translated.tif"
        done = qgis.run("script:translatescene", SCENE=SCENE, MODEL=run, OUT=product)
        assert done.code == 0, done.output
        check_product(product)
    finally:
        for name in script_texts():
            (folder / name).unlink()


_MODEL = """
from qgis.core import *
QgsApplication.setPrefixPath('/usr', True)
app = QgsApplication([], False); app.initQgis()
from geocyclegan_processing import classFactory
plugin = classFactory(None)  # QGIS keeps it, too
plugin.initGui()
model = QgsProcessingModelAlgorithm()
print(model.fromFile(sys.argv[1]), model.validate())
for name in sorted(model.childAlgorithms()): print(name, model.validateChildAlgorithm(name))
"""


def test_the_example_model_is_sound(qgis: QGIS) -> None:
    done = qgis.python(_MODEL, str(MODEL))
    assert done.stdout.splitlines() == [
        "True (True, [])",
        "chip (True, [])",
        "train (True, [])",
        "translate (True, [])",
    ], done.stderr


def test_the_example_model_runs(qgis: QGIS, tmp_path: Path) -> None:
    done = qgis.run(
        str(MODEL),
        scenes_a=SCENE,
        scenes_b=samples.path("spain_sentinel2"),
        scene=SCENE,
        chip_size=64,
        steps=1,
        width=4,
        **{
            "chip:chips": tmp_path / "chips",
            "train:run": tmp_path / "run",
            "translate:translated": tmp_path / "translated.tif",
        },
    )
    assert done.code == 0, done.output
    check_product(tmp_path / "translated.tif", bands=13)
