from __future__ import annotations

import click
import pytest

from geocyclegan.cli.endings import one_line
from geocyclegan.errors import SceneError


def test_an_error_is_one_line_that_keeps_its_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    context = click.Context(click.Command("x"))
    with pytest.raises(click.exceptions.Exit), one_line(context):
        raise SceneError("it has none;\n   run: gdalwarp 'my  scene.tif' 'my  scene_warped.tif'")
    told = capsys.readouterr().err
    assert told == "Error: it has none; run: gdalwarp 'my  scene.tif' 'my  scene_warped.tif'\n"
