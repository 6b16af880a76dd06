"""QGIS's settings files: one value changes, every other byte stays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocyclegan.errors import OutputError
from geocyclegan.qgis.settings import edit, get_value, quoted, remove_value, set_value

if TYPE_CHECKING:
    from tests.qgis.conftest import QGIS

_EXISTING = (
    "[PythonPlugins]\nother=true\nGeocyclegan_processing=kept\n\n"
    "[Processing]\nConfiguration\\ACTIVATE=@Variant(\\0\\x1)\nlist=a, b\\x142\n"
    "[qgis]\r\ngeocyclegan_processing=not this one\r\n%5Bodd%5D=1"
)


def test_a_value_is_added_to_its_section_and_nothing_else_changes() -> None:
    new = set_value(_EXISTING, "PythonPlugins", "geocyclegan_processing", "true")
    lines = new.splitlines(keepends=True)
    assert lines[1] == "geocyclegan_processing=true\n"
    assert "".join([lines[0], *lines[2:]]) == _EXISTING + "\n"
    assert set_value(new, "PythonPlugins", "geocyclegan_processing", "true") == new


def test_a_section_is_added_at_the_end() -> None:
    assert set_value("", "a", "k", "1") == "[a]\nk=1\n"
    assert set_value("[b]\r\nx=1", "a", "k", "1") == "[b]\r\nx=1\r\n\r\n[a]\r\nk=1\r\n"


_words = st.text("abAB=;%\\ ", min_size=1).map(str.strip).filter(bool)
_lines = st.one_of(
    _words.map("[{}]".format), st.builds("{}={}".format, _words, _words), st.just("")
)
_files = st.lists(_lines.map("{}\n".format)).map("".join)


@given(_files, _files)
def test_what_is_set_is_there_and_all_else_stays(before: str, after: str) -> None:
    heading, mine = "[section]\n", "key=value\n"
    new = set_value(before + heading + after, "section", "key", "value")
    assert new == before + heading + mine + after
    assert remove_value(new, "section", "key") == before + heading + after
    new = set_value(before, "section", "key", "value")
    assert new in (before + heading + mine, before + "\n" + heading + mine)
    assert get_value(new, "section", "key") == "value"


def test_an_edit_keeps_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "QGIS" / "QGIS3.ini"
    path.parent.mkdir()
    path.write_bytes(b"[x]\ny=\xff\xfe\xe4\r\n")
    path.chmod(0o600)
    edit(path, {("a", "k"): "1"})
    assert path.read_bytes() == b"[x]\ny=\xff\xfe\xe4\r\n\n[a]\nk=1\n"
    assert path.stat().st_mode & 0o777 == 0o600
    edit(path, {("a", "k"): None, ("x", "none"): None})
    assert path.read_bytes() == b"[x]\ny=\xff\xfe\xe4\r\n\n[a]\n"
    assert [p.name for p in path.parent.iterdir()] == ["QGIS3.ini"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "QGIS3.ini"
    path.mkdir()
    with pytest.raises(OutputError, match=r"QGIS3\.ini: cannot be changed"):
        edit(path, {("a", "k"): "1"})


_PATHS = (
    "/home/anna/geo, cycle;gan/bin/geocyclegan",
    r"C:\Users\Jürgen Ädler\envs\gcg\Scripts\geocyclegan.exe",
    '/tmp/a "quoted" name/fé0/x\U0001f6f0Ab',
    "/opt/%h/=x",
)


@pytest.mark.qgis
def test_qt_reads_what_was_written(bare_qgis: QGIS, tmp_path: Path) -> None:
    path = tmp_path / "settings.ini"
    edit(path, {("Processing", rf"Configuration\KEY{i}"): quoted(p) for i, p in enumerate(_PATHS)})
    done = bare_qgis.python(
        "from qgis.PyQt.QtCore import QSettings\n"
        "settings = QSettings(sys.argv[1], QSettings.IniFormat)\n"
        "for i in range(4): print(ascii(settings.value(f'Processing/Configuration/KEY{i}')))",
        str(path),
    )
    assert [eval(line) for line in done.stdout.splitlines()] == list(_PATHS), done.stderr
