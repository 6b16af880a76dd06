"""The pages about training name every option of `train`."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from geocyclegan.cli.train import command
from geocyclegan.training.config import TrainConfig

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("training.md", "methods.md", "networks.md", "pair-hints.md")


@pytest.fixture(scope="module")
def text() -> str:
    if not DOCS.is_dir():
        pytest.skip("needs docs/, which is not in the source distribution")
    return "".join((DOCS / page).read_text(encoding="utf-8") for page in PAGES)


def test_every_option_is_named(text: str) -> None:
    named = set(re.findall(r"--[a-z][a-z0-9-]*", text))
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            names = {*parameter.opts, *parameter.secondary_opts}
            assert names & named, f"{sorted(names)} is on none of {', '.join(PAGES)}"


def test_no_option_is_named_that_there_is_not(text: str) -> None:
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
    pieces = re.findall(r"geocyclegan train[^\n`]*", text)
    assert len(pieces) > 3
    for piece in pieces:
        assert set(re.findall(r"--[a-z][a-z0-9-]*", piece)) <= known, piece


def test_defaults_of_the_table_of_the_other_options(text: str) -> None:
    part = text.split("## The other options")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `--([a-z0-9-]+)` \| ([^|]+) \|", part, flags=re.MULTILINE)
    config = TrainConfig().with_defaults()
    assert len(rows) > 8
    for name, default in rows:
        value = getattr(config, name.replace("-", "_"))
        if value is not None:
            assert default.strip() == str(value), name
