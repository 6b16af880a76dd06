"""A web server that fails as it is told to, and scenes on it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class FaultyServer:
    """The server of `faulty_server.py`; a context manager.

    Its port is new for each, so that nothing of it was cached before.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        script = str(Path(__file__).with_name("faulty_server.py"))
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", script, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._line())

    def __enter__(self) -> FaultyServer:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def fail(self, kind: str, **orders: Any) -> None:
        """Fail from now on, as `faulty_server.Orders` says; requests are counted anew."""
        self._order({"kind": kind, **orders})

    def requests(self) -> list[str]:
        """Return method, path and range of all requests since the last order."""
        return self._order(None)

    def url(self, name: str) -> str:
        """Return the URL of a file."""
        return f"http://127.0.0.1:{self.port}/{name}"

    def _order(self, order: dict[str, Any] | None) -> list[str]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return list(json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    """A server of `tmp_path / "web"`."""
    folder = tmp_path / "web"
    folder.mkdir()
    with FaultyServer(folder) as running:
        yield running
