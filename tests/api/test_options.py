"""Every option of every verb means in Python what it means on the command line."""

from __future__ import annotations

import importlib
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import click
import numpy as np
import pytest

import geocyclegan as gcg
from geocyclegan.api.options import _MISFIT, _plain, typed
from geocyclegan.api.verbs import PairOptions, TrainOptions
from geocyclegan.errors import OptionError, SceneError
from geocyclegan.exporting.files import ExportOptions
from geocyclegan.inference.run import InferOptions

VERBS: dict[str, Any] = {
    "chip_pairs": PairOptions,
    "train": TrainOptions,
    "infer": InferOptions,
    "export": ExportOptions,
}
OWN_WORDS = {
    "angles": "0,15",
    "balance_values": "1,4-6",
    "bands": "1-3,B08",
    "batch": "auto",
    "compress": "lerc:0.5",
    "mask_values": "3,8-10",
    "memory": "2G",
    "nodata": "-9999",
    "pair_bands": "2",
    "pair_nodata": "0",
    "pair_scale": "db",
    "scale": "linear:0,3000",
    "size": "1280m",
    "stats_disk": "1T",
    "stats_memory": "512M",
    "stride": "64",
    "tile": "128",
}


def command_of(verb: str) -> click.Command:
    module = importlib.import_module(f"geocyclegan.cli.{verb.partition('_')[0]}")
    found: click.Command = module.command
    return found


def option_of(verb: str, field: str) -> click.Parameter:
    names = {"config": "config_file", "scenes": "scenes"}
    return next(p for p in command_of(verb).params if p.name == names.get(field, field))


def words_for(verb: str, field: str, option: click.Parameter) -> str:
    if (verb, field) == ("train", "batch"):
        return "3"
    if field in OWN_WORDS:
        return OWN_WORDS[field]
    if isinstance(option.type, click.Choice):
        return str(list(option.type.choices)[-1])
    if getattr(option, "is_flag", False):
        return "yes"
    return {"integer": "3", "integer range": "3", "float": "0.5"}.get(option.type.name, "word")


OPTIONS = [(verb, field.name) for verb, kind in VERBS.items() for field in fields(kind)]


@pytest.mark.parametrize(("verb", "field"), OPTIONS)
def test_text_is_read_as_on_the_command_line(verb: str, field: str) -> None:
    command, option = command_of(verb), option_of(verb, field)
    text = words_for(verb, field, option)
    found = typed(VERBS[verb], {field: text}, verb)[field]
    words = [text]
    if isinstance(option, click.Option):
        words = [option.opts[0]] if option.is_flag else [option.opts[0], text]
    if verb == "chip_pairs":
        words.append("scene.tif")
    with command.make_context(verb, words, resilient_parsing=False) as context:
        assert found == context.params[str(option.name)]
    assert _plain(get_type_hints(VERBS[verb])[field], found) is not _MISFIT


@pytest.mark.parametrize(("verb", "field"), OPTIONS)
def test_defaults_are_those_of_the_command_line(verb: str, field: str) -> None:
    option = option_of(verb, field)
    if field in ("flip", "radiometry") or not isinstance(option, click.Option):
        return
    default = next(f for f in fields(VERBS[verb]) if f.name == field)
    own = getattr(VERBS[verb](), default.name)
    words = ["scene.tif"] if verb == "chip_pairs" else []
    with command_of(verb).make_context(verb, words) as context:
        theirs = context.params[str(option.name)]
    # None says "auto" where the library has a value for it.
    assert own == theirs or (field, theirs) in [("stride", None)]


@pytest.mark.parametrize(
    ("verb", "field", "value", "expected"),
    [
        ("chip", "bands", [4, 3], ("4", "3")),
        ("chip", "bands", 3, ("3",)),
        ("chip", "mask", Path("c.tif"), ("c.tif",)),
        ("chip", "mask", "a,b.tif", ("a,b.tif",)),
        ("chip", "angles", [0, 15], (0.0, 15.0)),
        ("chip", "size", np.int64(64), 64),
        ("chip", "res", 10, "10"),
        ("chip", "aoi", Path("x.gpkg"), Path("x.gpkg")),
        ("infer", "devices", 2, "2"),
        ("infer", "memory", 2e9, 2_000_000_000),
        ("infer", "nodata", "none", "none"),
        ("infer", "tile", "auto", None),
        ("infer", "tile", None, None),
        ("train", "lr", 1, 1.0),
        ("export", "scenes", ["a.tif", Path("b.tif")], ("a.tif", "b.tif")),
    ],
)
def test_what_is_plainly_meant(verb: str, field: str, value: Any, expected: Any) -> None:
    found = typed(VERBS.get(verb, gcg.ChipOptions), {field: value}, verb)[field]
    assert found == expected
    assert type(found) is type(expected)


GCG: Any = gcg
"""As who has no type checker sees it."""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GCG.chip("x.tif", compress="zip"), "compress=zip: expected"),
        (lambda: GCG.chip("x.tif", compress=5), "compress=5: expected Codec"),
        (lambda: GCG.chip("x.tif", size="big"), "size=big"),
        (lambda: GCG.chip("x.tif", bands=[None]), r"bands=\[None\]: expected a tuple of str"),
        (lambda: GCG.chip("x.tif", overwrite="maybe"), "overwrite='maybe'"),
        (lambda: GCG.infer("x.tif", memory="lots"), "memory='lots': .*amount of memory"),
        (lambda: GCG.infer("x.tif", tile=0.5), "tile=0.5: expected int or None"),
        (lambda: GCG.infer("x.tif", direction="c2d"), "direction='c2d'.*a2b"),
        (lambda: GCG.train(steps="many"), "steps='many'.*not a valid integer"),
        (lambda: GCG.train(steps=True), "steps=True: expected int or None"),
        (lambda: GCG.train(generator=["a"]), r"generator=\['a'\]: expected str or None"),
        (lambda: GCG.export(format="gif"), "format='gif'"),
        (lambda: GCG.export(fly=1), "fly: no option of export"),
        (lambda: GCG.set_progress("foo"), "progress 'foo': expected bar, json, none"),
    ],
)
def test_what_cannot_be(call: Any, message: str) -> None:
    with pytest.raises((OptionError, FileNotFoundError), match=message) as found:
        call()
    assert "\n" not in str(found.value)


def test_a_model_is_exported_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the newest run, where none is named; the package of that name is not in the way."""
    import geocyclegan.exporting.files  # noqa: F401 - what is imported may hide a function

    assert callable(gcg.export)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no trained model there"):
        gcg.export()
    with pytest.raises(FileNotFoundError, match="no such model"):
        gcg.export("runs/py")


def test_a_scene_is_still_what_is_at_fault(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_text("no raster")
    with pytest.raises(SceneError):
        GCG.chip(tmp_path / "x.tif", out=tmp_path / "chips", compress="deflate")


@pytest.mark.parametrize("scenes", [3, None, object(), [object()], b"scene.tif", [["a.tif"]]])
def test_what_names_no_scene_is_refused_in_one_line(scenes: Any) -> None:
    """An open dataset, for example: it has a name, but is none."""
    wrong = scenes[0] if isinstance(scenes, list) else scenes
    with pytest.raises(OptionError, match=rf"scenes: {type(wrong).__name__}: expected paths"):
        gcg.infer(scenes)
    with pytest.raises(OptionError, match="scenes: "):
        gcg.chip(scenes)


@pytest.mark.parametrize("pairs", [3, "a.tif", [3], [("a.tif",)], ["a.tif", "b.tif"]])
def test_what_names_no_pair_is_refused_in_one_line(pairs: Any) -> None:
    with pytest.raises(OptionError, match=r"scenes?: |pairs: "):
        gcg.chip_pairs(pairs)


def test_what_names_no_model_is_refused_in_one_line() -> None:
    model: Any = object()
    with pytest.raises(OptionError, match=r"model=.*expected a path"):
        gcg.load(model)
    with pytest.raises(OptionError, match=r"model=.*expected a path"):
        gcg.export(model)
