"""`geocyclegan qgis install` and `uninstall` on profiles as they are found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from geocyclegan.cli.main import cli
from geocyclegan.errors import NotFoundError
from geocyclegan.qgis import profile as profiles
from geocyclegan.qgis.assemble import NAME, plugin_files, script_texts
from geocyclegan.qgis.settings import get_value


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "profiles" / "default"
    (path / "QGIS").mkdir(parents=True)
    (path / "QGIS" / "QGIS3.ini").write_text("[PythonPlugins]\nother=true\n\n[qgis]\nkept=1\n")
    return path


@pytest.fixture
def command(tmp_path: Path) -> Path:
    path = tmp_path / "env" / "bin" / "geocyclegan"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def qgis(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, ["qgis", *map(str, args)])


def settings(profile: Path) -> str:
    return (profile / "QGIS" / "QGIS3.ini").read_text()


def installed(profile: Path) -> dict[str, bytes]:
    folder = profile / "python" / "plugins" / NAME
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def test_the_plugin_is_there_enabled_and_knows_its_command(profile: Path, command: Path) -> None:
    result = qgis("install", "--profile", profile, "--executable", command)
    assert result.exit_code == 0, result.output
    assert str(command) in result.output
    assert set(installed(profile)) | {"LICENSE"} == set(plugin_files())
    text = settings(profile)
    assert get_value(text, "PythonPlugins", NAME) == "true"
    key = r"Configuration\GEOCYCLEGAN_EXECUTABLE"
    assert get_value(text, "Processing", key) == f'"{command}"'
    assert "other=true\n\n[qgis]\nkept=1\n" in text


def test_installing_again_replaces_the_earlier_version(profile: Path, command: Path) -> None:
    qgis("install", "--profile", profile, "--executable", command)
    folder = profile / "python" / "plugins" / NAME
    (folder / "old_module.py").write_text("")
    before = settings(profile)
    assert qgis("install", "--profile", profile, "--executable", command).exit_code == 0
    assert not (folder / "old_module.py").exists()
    assert settings(profile) == before
    assert [p.name for p in folder.parent.iterdir()] == [NAME]


def test_what_somebody_else_put_there_stays(profile: Path, command: Path, tmp_path: Path) -> None:
    folder = profile / "python" / "plugins" / NAME
    mine = tmp_path / "working-copy"
    mine.mkdir()
    (mine / "precious.py").write_text("mine")
    folder.parent.mkdir(parents=True)
    folder.symlink_to(mine)
    before = settings(profile)
    result = qgis("install", "--profile", profile, "--executable", command)
    assert result.exit_code == 1
    assert "--overwrite" in result.output
    assert folder.is_symlink()
    assert settings(profile) == before
    result = qgis("install", "--profile", profile, "--executable", command, "--overwrite")
    assert result.exit_code == 0, result.output
    assert not folder.is_symlink()
    assert (mine / "precious.py").read_text() == "mine"


def test_scripts_instead_of_the_plugin(profile: Path, command: Path) -> None:
    arguments = ("install", "--scripts", "--profile", profile, "--executable", command)
    scripts = profile / "processing" / "scripts"
    scripts.mkdir(parents=True)
    (scripts / "mine.py").write_text("mine")
    assert qgis(*arguments).exit_code == 0
    assert qgis(*arguments).exit_code == 0
    assert {p.name for p in scripts.iterdir()} == {"mine.py", *script_texts()}
    assert not (profile / "python").exists()
    assert get_value(settings(profile), "PythonPlugins", NAME) is None
    own = scripts / "geocyclegan_chip.py"
    own.write_text("my own chip script")
    result = qgis(*arguments)
    assert result.exit_code == 1
    assert own.read_text() == "my own chip script"


def test_uninstall_takes_out_what_install_put_there(profile: Path, command: Path) -> None:
    before = settings(profile)
    assert "nothing installed" in qgis("uninstall", "--profile", profile).output
    (profile / "processing" / "scripts").mkdir(parents=True)
    mine = profile / "processing" / "scripts" / "geocyclegan_train.py"
    qgis("install", "--profile", profile, "--executable", command)
    qgis("install", "--scripts", "--profile", profile, "--executable", command)
    mine.write_text("my own")
    assert qgis("uninstall", "--profile", profile).exit_code == 0
    assert not list((profile / "python" / "plugins").iterdir())
    assert [p.name for p in mine.parent.iterdir()] == [mine.name]
    assert settings(profile) == before + "\n[Processing]\n"


def test_a_write_that_fails_leaves_the_earlier_version(
    profile: Path, command: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qgis("install", "--profile", profile, "--executable", command)
    before = installed(profile)

    def fail(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").write_text("")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(profiles, "_write_files", fail)
    result = qgis("install", "--profile", profile, "--executable", command)
    assert result.exit_code == 1
    assert "No space left on device" in result.output
    assert installed(profile) == before
    assert [p.name for p in (profile / "python" / "plugins").iterdir()] == [NAME]


def test_wrong_places_are_told(profile: Path, command: Path, tmp_path: Path) -> None:
    result = qgis("install", "--profile", tmp_path, "--executable", command)
    assert result.exit_code == 2
    assert "it holds profiles; name one of them: default" in result.output
    result = qgis("install", "--profile", tmp_path / "nowhere", "--executable", command)
    assert result.exit_code == 2
    assert "no such folder or profile" in result.output
    result = qgis("install", "--profile", profile, "--executable", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "no such command" in result.output


def test_the_command_of_this_environment_is_recorded(
    command: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = command.with_name("python")
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    assert profiles.find_command(None) == command
    command.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFoundError, match="--executable"):
        profiles.find_command(None)


@pytest.mark.parametrize(
    ("platform", "environment", "place"),
    [
        ("linux", {"HOME": "/h"}, "/h/.local/share/QGIS/QGIS3"),
        ("linux", {"HOME": "/h", "XDG_DATA_HOME": "/d"}, "/d/QGIS/QGIS3"),
        ("linux", {"HOME": "/h"}, "/h/.var/app/org.qgis.qgis/data/QGIS/QGIS3"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Application Support/QGIS/QGIS3"),
        ("win32", {"APPDATA": "/r", "USERPROFILE": "/u"}, "/r/QGIS/QGIS3"),
    ],
)
def test_each_system_has_its_place(platform: str, environment: dict[str, str], place: str) -> None:
    assert Path(place) in profiles.profile_roots(environment, platform)


def test_an_own_place_of_settings_comes_first() -> None:
    environment = {"QGIS_CUSTOM_CONFIG_PATH": "/own", "HOME": "/h"}
    assert profiles.profile_roots(environment, "linux") == [Path("/own")]


def test_the_default_profile_is_the_one_that_qgis_starts_with(tmp_path: Path) -> None:
    root = tmp_path / "QGIS3"
    with pytest.raises(NotFoundError, match="start QGIS once"):
        profiles.find_profile(None, [tmp_path / "QGIS4", root])
    (root / "profiles" / "work").mkdir(parents=True)
    (root / "profiles" / "default").mkdir()
    assert profiles.find_profile(None, [root]).path.name == "default"
    (root / "profiles" / "profiles.ini").write_text("[core]\ndefaultProfile=work\n")
    assert profiles.find_profile(None, [tmp_path / "QGIS4", root]).path.name == "work"
    assert profiles.find_profile("default", [root]).path.name == "default"


def test_package_writes_a_zip_and_says_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "geocyclegan", "qgis", "package"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert done.stdout == "geocyclegan_processing.zip\n"
    assert "--repository" in done.stderr
    assert (tmp_path / "geocyclegan_processing.zip").is_file()
