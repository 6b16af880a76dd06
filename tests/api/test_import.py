"""`import geocyclegan` is light, and typed all the same."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import click
import pytest

import geocyclegan as gcg
from geocyclegan.cli.main import cli


def test_the_import_is_light() -> None:
    # No timing, which would measure the machine: nothing but the standard library is imported.
    code = (
        "import sys; before = set(sys.modules); import geocyclegan as gcg\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "assert new - sys.stdlib_module_names <= {'geocyclegan', '_typing'}, new\n"
        "assert not [n for n in sys.modules if n.startswith('geocyclegan.')], sys.modules\n"
        "assert set(gcg.__all__) <= set(dir(gcg))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_offers_what_the_api_has() -> None:
    from geocyclegan import api

    assert gcg.__all__ == api.__all__
    for name in gcg.__all__:
        assert getattr(gcg, name) is getattr(api, name)
        assert getattr(gcg, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'fly'"):
        gcg.fly  # noqa: B018


@pytest.mark.slow
def test_type_checkers_see_the_options(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import geocyclegan as gcg\n"
        "from pathlib import Path\n"
        "reveal_type(gcg.train(Path('chips'), steps=5, resume=True))\n"
        "reveal_type(gcg.infer('a.tif', direction='b2a'))\n"
        "gcg.chip('a.tif', domain='c')\n"
        "gcg.train(stepz=5)\n"
    )
    pytest.importorskip("mypy")
    root = Path(gcg.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-incremental", "--follow-imports=silent", str(script)],
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert "TrainResult" in done.stdout, done.stdout + done.stderr
    assert "list[pathlib" in done.stdout.replace("builtins.", "")
    assert "incompatible type \"Literal['c']\"" in done.stdout
    assert 'Unexpected keyword argument "stepz"' in done.stdout


@pytest.mark.parametrize("verb", ["chip", "train", "infer"])
def test_arguments_are_those_of_the_command_line(verb: str) -> None:
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    given = inspect.signature(getattr(gcg, verb)).parameters
    names = {
        name.replace("-", "_") for p in command.params if p.expose_value for name in [str(p.name)]
    }
    names = {"config" if name == "config_file" else name for name in names}
    if verb == "chip":
        # Pairs have a function of their own.
        names -= {"pair", "pair_bands", "pair_scale", "pair_nodata", "pair_unit"}
    # A trial that trains no run.
    names -= {"finds_lr"}
    assert names == set(given), names ^ set(given)
    parsed = command.make_context(verb, ["x"]).params
    for parameter in command.params:
        name = str(parameter.name)
        if name in given and isinstance(parameter, click.Option):
            theirs, ours = parsed[name], given[name].default
            if str(ours) == "<factory>":
                # Made anew for each, as the scaling of chip.
                ours = getattr(gcg.ChipOptions(), name)
            assert str(theirs) == str(ours) or (not theirs and not ours), (name, theirs, ours)
