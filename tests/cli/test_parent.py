"""Commands that end with the program that started them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_CODE = (
    "import sys, time\n"
    "from geocyclegan.cli import main\n"
    "main.cli = lambda **_: (print('ready', flush=True), time.sleep({0}))\n"
    "main.main()"
)


def start(seconds: float, **more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _CODE.format(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | more,
    )


@pytest.mark.skipif(os.name != "posix", reason="exit codes of POSIX")
def test_the_end_of_the_input_ends_the_command_where_asked_for() -> None:
    with start(60, GEOCYCLEGAN_EXIT_WITH_STDIN="1") as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(10) == 143


def test_it_does_not_matter_otherwise() -> None:
    with start(0.5) as child:
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(30) == 0


def test_a_command_that_ends_by_itself_does_not_wait_for_its_input() -> None:
    with start(0.1, GEOCYCLEGAN_EXIT_WITH_STDIN="1") as child:
        assert child.wait(30) == 0


_TALKER = (
    "import pathlib, signal, sys, time\n"
    "from geocyclegan.cli import main\n"
    "def work(**_):\n"
    "    try: print('ready', flush=True); time.sleep(60)\n"
    "    finally:\n"
    "        print('saving', flush=True); print('saving', file=sys.stderr, flush=True)\n"
    "        pathlib.Path(sys.argv[1]).touch()\n"
    "main.cli = work\n"
    "main.main()"
)


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_messages_that_nobody_reads_do_not_keep_it_from_saving(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    child = subprocess.Popen(
        [sys.executable, "-c", _TALKER, str(saved)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT), "GEOCYCLEGAN_EXIT_WITH_STDIN": "1"},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.readline() == b"ready\n"
    for pipe in (child.stdin, child.stdout, child.stderr):
        pipe.close()
    assert child.wait(15) == 143
    assert saved.exists()
