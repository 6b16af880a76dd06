"""What is derived from the plugin's sources, and that the plugin fits the toolkit."""

from __future__ import annotations

import ast
import zipfile
from pathlib import Path

import click
import pytest

from geocyclegan import __version__
from geocyclegan.cli.main import cli
from geocyclegan.errors import OptionError, OutputError
from geocyclegan.qgis.assemble import (
    NAME,
    PLUGIN,
    SCRIPTS,
    choices_text,
    plugin_files,
    read_metadata,
    script_texts,
    write_package,
)
from geocyclegan.qgis.plugin.geocyclegan_processing.options import Option, arguments, split_extra
from geocyclegan.qgis.plugin.geocyclegan_processing.table_chip import CHIP
from geocyclegan.qgis.plugin.geocyclegan_processing.table_train import TRAIN
from geocyclegan.qgis.plugin.geocyclegan_processing.table_translate import TRANSLATE

_REMEDY = "run `python -m geocyclegan.qgis.assemble`"
_TABLES = {"chip": CHIP, "train": TRAIN, "infer": TRANSLATE}
_OPTIONS = [
    pytest.param(verb, option, id=f"{verb}-{option.name}")
    for verb, table in _TABLES.items()
    for option in table
    if option.flag
]


def test_scripts_are_in_step_with_the_plugin() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in SCRIPTS.glob("*.py")}
    assert found == script_texts(), _REMEDY


def test_choices_are_in_step_with_the_toolkit() -> None:
    assert (PLUGIN / "choices.py").read_text(encoding="utf-8") == choices_text(), _REMEDY


@pytest.mark.parametrize("name", sorted(script_texts()))
def test_a_script_stands_alone(name: str) -> None:
    tree = ast.parse(script_texts()[name], feature_version=(3, 9))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [node.module for node in imports if node.level]
    defined = [
        node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)
    ] + [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    assert len(set(defined)) == len(defined), "two modules give one name to different things"
    # QGIS takes the first class that it finds.
    bases = [ast.unparse(base) for node in tree.body for base in getattr(node, "bases", [])]
    assert bases.count("QgsProcessingAlgorithm") == 1


@pytest.mark.parametrize("name", [name for name in plugin_files() if name.endswith(".py")])
def test_the_python_of_old_qgis_can_read_the_plugin(name: str) -> None:
    text = plugin_files()[name].decode()
    ast.parse(text, feature_version=(3, 9))
    assert text.startswith("# SPDX-License-Identifier: GPL-2.0-or-later\n")


@pytest.mark.parametrize(("verb", "option"), _OPTIONS)
def test_every_option_is_one_of_the_toolkit_with_its_default(verb: str, option: Option) -> None:
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    known = {name: p for p in command.params for name in (*p.opts, *p.secondary_opts)}
    assert option.flag in known
    parameter = known[option.flag]
    if option.flag in parameter.secondary_opts or option.kind == "crs":
        return
    if isinstance(parameter.type, click.Choice):
        assert set(option.choices) == set(parameter.type.choices)
    default = parameter.to_info_dict()["default"]
    if default == "auto" and option.kind == "integer":
        assert option.default is None
    elif option.kind in ("integer", "number") and default is not None:
        assert float(option.default) == float(default)
    elif option.kind != "rasters":
        assert option.default == default


def test_what_equals_the_default_is_left_to_the_toolkit() -> None:
    values = {option.name: option.default for option in TRAIN}
    assert arguments(TRAIN, values) == []
    assert arguments(TRAIN, values | {"STEPS": 5, "LR": 1e-5, "NO_FLIP": True, "CONFIG": ""}) == [
        "--steps=5",
        "--lr=1e-05",
        "--no-flip",
    ]
    assert arguments(CHIP, {"MASK_A": ["a.tif", "-b.tif"]}) == ["--mask=a.tif", "--mask=-b.tif"]


def test_further_options_are_split_as_on_a_command_line() -> None:
    assert split_extra(None) == []
    assert split_extra(r'--like "C:\my data\x.tif" --tile=5') == [
        "--like",
        r"C:\my data\x.tif",
        "--tile=5",
    ]
    with pytest.raises(ValueError, match="Further options"):
        split_extra("--like 'x")


def test_the_plugin_has_the_version_of_the_toolkit() -> None:
    assert read_metadata((PLUGIN / "metadata.txt").read_text())["version"] == __version__


def test_the_zip_is_what_the_plugin_repository_takes(tmp_path: Path) -> None:
    out = tmp_path / "plugin.zip"
    address = "https://geo.test/cyclegan"
    given = {"repository": address, "tracker": f"{address}/issues", "homepage": address}
    given |= {"email": "anna@geo.test", "author": "Anna"}
    assert write_package(out, given, overwrite=False) == []
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        fields = read_metadata(archive.read(f"{NAME}/metadata.txt").decode())
    assert {name.split("/")[0] for name in names} == {NAME}
    assert {f"{NAME}/__init__.py", f"{NAME}/metadata.txt", f"{NAME}/LICENSE"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or ".pyc" in name or ".." in name]
    assert f"{NAME}/{fields['icon']}" in names
    for field in ("name", "description", "version", "qgisMinimumVersion", "author", "email"):
        assert fields[field].strip()
    assert fields["repository"] == address
    assert fields["about"].count("\n") > 0
    assert fields["hasProcessingProvider"] == "yes"
    assert out.stat().st_size < 25_000_000
    again = tmp_path / "again.zip"
    write_package(again, given, overwrite=False)
    assert again.read_bytes() == out.read_bytes()


def test_placeholders_are_told_and_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    out = tmp_path / "plugin.zip"
    assert write_package(out, {}, overwrite=False) == [
        "homepage",
        "repository",
        "tracker",
        "email",
    ]
    with pytest.raises(OutputError, match="it exists"):
        write_package(out, {}, overwrite=False)
    with pytest.raises(OptionError, match="--author"):
        write_package(out, {"author": "a\nb"}, overwrite=True)
    write_package(out, {}, overwrite=True)
