"""The group: light to start, errors in one line, exit codes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from geocyclegan import __version__
from geocyclegan.cli.main import COMMANDS, cli
from geocyclegan.cli.options import Settings
from geocyclegan.errors import OptionError, SceneError
from geocyclegan.progress import Progress, print_line


def run(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "geocyclegan", *args], capture_output=True, text=True, cwd=cwd
    )


@pytest.mark.parametrize("args", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_needs_neither_torch_nor_gdal(args: list[str]) -> None:
    code = (
        "import sys; from geocyclegan.cli.main import cli\n"
        f"try: cli({args!r}, prog_name='geocyclegan')\n"
        "except SystemExit as e: assert not e.code\n"
        "heavy = {'torch', 'rasterio', 'numpy', 'geopandas', 'lightning'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_version() -> None:
    import rasterio
    import torch

    result = CliRunner().invoke(cli, ["--version"])
    assert result.exit_code == 0
    first, *rest = result.output.splitlines()
    assert first == f"geocyclegan {__version__}"
    told = "\n".join(rest)
    for text in (torch.__version__, rasterio.__gdal_version__, rasterio.__proj_version__, "CUDA"):
        assert text in told


def test_version_tells_of_a_broken_installation() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from geocyclegan.cli.main import cli; cli(['--version'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "torch       not there (ModuleNotFoundError" in done.stdout
    assert "GDAL" in done.stdout


@pytest.mark.parametrize(
    ("shell", "words"), [("bash", "geocyclegan ex"), ("zsh", "geocyclegan ex"), ("fish", "ex")]
)
def test_shells_complete(shell: str, words: str) -> None:
    def ask(instruction: str, **more: str) -> str:
        variables = {"_GEOCYCLEGAN_COMPLETE": instruction, **more}
        done = subprocess.run(
            [sys.executable, "-m", "geocyclegan"],
            capture_output=True,
            text=True,
            env=os.environ | variables,
        )
        return done.stdout

    if shell != "bash" or shutil.which("bash"):
        # Click asks bash for its version.
        assert "_GEOCYCLEGAN_COMPLETE" in ask(f"{shell}_source")
    found = ask(f"{shell}_complete", COMP_WORDS=words, COMP_CWORD="ex" if shell == "fish" else "1")
    assert "export" in found
    assert "train" not in found
    if shell == "bash":
        words = "geocyclegan export --format d"
        assert "deepness" in ask("bash_complete", COMP_WORDS=words, COMP_CWORD="3")
        for option, value in (
            ("method", "munit"),
            ("generator", "smp-unet"),
            ("discriminator", "pixel"),
        ):
            words = f"geocyclegan train --{option} {value[:2]}"
            found = ask("bash_complete", COMP_WORDS=words, COMP_CWORD="3")
            assert value in found
            assert "resnet9" not in found


def test_every_command_shows_an_example() -> None:
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        told = command.get_help(click.Context(command, info_name=name))
        assert f"geocyclegan {name}" in told, name


def test_every_command_has_help_for_every_option() -> None:
    for name in COMMANDS:
        context = click.Context(cli)
        command = cli.get_command(context, name)
        assert command is not None
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts}"


def test_a_data_error_is_one_line_with_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "broken.tif").write_text("no raster")
    done = run("chip", "broken.tif", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "broken.tif" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.tif"]


def test_a_usage_error_has_exit_code_2(tmp_path: Path) -> None:
    for args in (["chip", "none.tif"], ["chip", "x.tif", "--size", "abc"], ["infer"], ["fly"]):
        done = run(*args, cwd=tmp_path)
        assert done.returncode == 2, args
        assert "Traceback" not in done.stderr
        assert "rror: " in done.stderr.strip().splitlines()[-1]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken.tif").write_text("no raster")
    done = run("--debug", "chip", "broken.tif", cwd=tmp_path)
    assert "Traceback" in done.stderr
    assert done.returncode != 0


def test_progress_as_json_lines(tmp_path: Path) -> None:
    import json

    from geocyclegan import samples

    path = samples.path("landsat_1985")
    done = run("--progress", "json", "chip", str(path), "--size", "128", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert lines
    assert all(line["event"] == "progress" for line in lines)
    last = lines[-1]
    assert last["done"] == last["total"] > 0


def test_what_the_shell_offers_is_what_there_is() -> None:
    from geocyclegan.catalogue import DISCRIMINATORS, GENERATORS, own_generators
    from geocyclegan.models.registry import discriminators, generators

    assert set(GENERATORS) == set(generators.names()) - own_generators()
    assert set(DISCRIMINATORS) == set(discriminators.names())


def test_the_demo_says_how_to_have_the_program_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it was called by its path, as the README does."""
    from geocyclegan.cli import demo

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert demo._activation() == "  source .venv/bin/activate\n"
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert demo._activation() == ""


@pytest.mark.skipif(os.name != "posix", reason="how shells close descriptors")
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(tmp_path: Path, closed: str) -> None:
    """And no file that the command opens takes their place."""
    code = (
        "import os, sys; from geocyclegan.cli.main import main\n"
        "sys.argv = ['geocyclegan', 'verify', 'none']\n"
        "try: main()\n"
        "except SystemExit as end:\n"
        "    with open('end', 'w') as file:\n"
        "        file.write(f'{end.code} {file.fileno() > 2}')\n"
    )
    line = f'"$0" -c "$1" {closed}'
    done = subprocess.run(["sh", "-c", line, sys.executable, code], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert (tmp_path / "end").read_text() == "2 True"


def test_without_standard_error_the_group_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with CliRunner().isolation():
        monkeypatch.setattr("sys.stderr", None)
        with pytest.raises(SystemExit) as end:
            cli(["verify", "none"])
        monkeypatch.undo()
    assert end.value.code == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("verb", ["info scene.tif --json", "info scene.tif", "--help"])
def test_results_that_cannot_be_written_are_one_line(tmp_path: Path, verb: str) -> None:
    from geocyclegan import samples

    shutil.copy(samples.path(samples.NAMES[0]), tmp_path / "scene.tif")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "geocyclegan", *verb.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=os.environ | ({"PYTHONUNBUFFERED": "1"} if "--json" in verb else {}),
        )
    assert done.returncode == 1
    assert done.stderr == ("Error: standard output: cannot be written (No space left on device)\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_progress_that_cannot_be_written_costs_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w", buffering=1) as full, Progress(2, "train", kind="json") as progress:
        monkeypatch.setattr("sys.stderr", full)
        progress.update()
        print_line("half is done")
        progress.update()
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # or closing it would fail


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (["chp"], "Did you mean geocyclegan chip?"),
        (["predict"], "Did you mean geocyclegan infer?"),
        (["help"], "Did you mean geocyclegan --help?"),
        (["qgis", "instal"], "Did you mean geocyclegan qgis install"),
        (["qgis", "predict"], "There are install, package, uninstall."),
        (["qgis", "help"], "Did you mean geocyclegan qgis --help?"),
        (["xyz"], "There are chip, train, infer,"),
    ],
)
def test_a_misspelt_command_is_guessed(args: list[str], meant: str) -> None:
    result = CliRunner().invoke(cli, args, prog_name="geocyclegan")
    assert result.exit_code == 2
    assert f"No such command {args[-1]!r}. {meant}" in result.stderr


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """A command `info` and a `qgis install` that only note what they were told."""
    from geocyclegan.cli import info, qgis

    seen: list[Settings] = []

    @click.pass_obj
    def note(settings: Settings, /, **given: object) -> None:
        seen.append(settings)

    monkeypatch.setattr(info.command, "callback", note)
    monkeypatch.setattr(qgis.install_command, "callback", note)
    return seen


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("info x -q", Settings(-1, True)),
        ("-q info x", Settings(-1, True)),
        ("-q info x -q", Settings(-2, True)),
        ("info -vv x", Settings(2)),
        ("-v info x --verbose", Settings(2)),
        ("--progress bar info x --progress json", Settings(progress="json")),
        ("--progress json info x", Settings(progress="json")),
        ("info x --debug", Settings(debug=True)),
        ("-v qgis install --debug", Settings(1, debug=True)),
        ("qgis -v install -v", Settings(2)),
    ],
)
def test_what_all_take_stands_before_the_command_or_after(
    settled: list[Settings], args: str, expected: Settings
) -> None:
    result = CliRunner().invoke(cli, args.split())
    assert result.exit_code == 0, result.output
    assert settled == [expected]


def test_debug_after_the_command_shows_the_traceback(tmp_path: Path) -> None:
    broken = tmp_path / "broken.tif"
    broken.write_text("no raster")
    for args in (["info", str(broken), "--debug"], ["info", "--debug", str(broken)]):
        assert isinstance(CliRunner().invoke(cli, args).exception, SceneError)
    # Even where another option comes before it.
    args = ["info", "x.tif", "--nodata", "none", "--debug"]
    assert isinstance(CliRunner().invoke(cli, args).exception, OptionError)


def test_help_ends_in_what_all_commands_take() -> None:
    told = CliRunner().invoke(cli, ["chip", "--help"]).output
    assert told.index("--overwrite") < told.index("--verbose") < told.index("--debug")
    assert told.index("--cluster") < told.index("-q, --quiet")
