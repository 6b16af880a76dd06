from __future__ import annotations

import logging
import re

import pytest

from geocyclegan.progress import LineHandler, Progress, print_line


@pytest.mark.parametrize("kind", ["bar", "none"])
def test_lines_are_not_printed_across_a_bar(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.Logger("test", logging.INFO)
    log.addHandler(LineHandler())
    with Progress(4, "train", "step", kind=kind) as bar:  # type: ignore[arg-type]
        bar.update()
        log.warning("chip %d is odd", 3)
        bar.update()
        print_line("half is done")
    pieces = [piece.strip() for piece in re.split(r"[\r\n]", capsys.readouterr().err)]
    assert "chip 3 is odd" in pieces
    assert "half is done" in pieces
    assert any(piece.startswith("train:") for piece in pieces) == (kind == "bar")


@pytest.mark.parametrize("kind", ["bar", "json", "none"])
def test_without_standard_error_nothing_is_printed_elsewhere(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under pythonw, or in a daemon."""
    log = logging.Logger("test", logging.INFO)
    log.addHandler(LineHandler())
    monkeypatch.setattr("sys.stderr", None)
    with Progress(2, "train", "step", kind=kind) as bar:  # type: ignore[arg-type]
        bar.update()
        log.warning("chip %d is odd", 3)
        bar.update()
    assert capsys.readouterr().out == ""
