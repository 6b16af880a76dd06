"""Files that are whole or absent, and locks that name their holder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from geocyclegan.errors import OptionError, OutputError
from geocyclegan.files import atomic_write, flush_tree, make_folder, output_lock, sha256, write_json


def test_a_write_is_published_whole(tmp_path: Path) -> None:
    final = tmp_path / "sub" / "a.txt"
    with atomic_write(final) as part:
        part.write_text("new")
        assert part.suffix == ".txt"
        assert not final.exists()
    assert final.read_text() == "new"
    assert [p.name for p in final.parent.iterdir()] == ["a.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    final = tmp_path / "a.txt"
    final.write_text("old")

    def fail() -> None:
        with atomic_write(final) as part:
            part.write_text("half")
            raise KeyError("midway")

    with pytest.raises(KeyError):
        fail()
    assert final.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    final = tmp_path / "a.json"
    write_json(final, {"good": 1})

    def broken(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, broken)
    with pytest.raises(OutputError, match="No space left"):
        write_json(final, {"good": 2})
    monkeypatch.undo()
    assert json.loads(final.read_text()) == {"good": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OptionError, match="file: a file, where a folder was expected"):
        make_folder(tmp_path / "file" / "sub")


def test_a_url_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match="folders of this machine"):
        make_folder(Path("s3://bucket/chips"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "name:").mkdir()
    make_folder(Path("name:/below"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="not writable"):
        make_folder(tmp_path)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a").startswith("ba7816bf8f01cfea")


HOLD = """
import sys, time
from pathlib import Path
from geocyclegan.files import output_lock
with output_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_and_a_dead_holder_is_not_in_the_way(tmp_path: Path) -> None:
    out = tmp_path / "p.tif"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    started = time.monotonic()
    with pytest.raises(OutputError, match=f"process {holder.pid} on"), output_lock(out):
        pass
    assert time.monotonic() - started < 2
    holder.kill()
    holder.wait()
    with output_lock(out):
        pass
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("fault", [OSError, AttributeError, TypeError])
def test_systems_without_syncfs_flush_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("x")

    def refuse(*args: object, **kwargs: object) -> None:
        raise fault

    flushed: list[int] = []
    monkeypatch.setattr("ctypes.CDLL", refuse)
    monkeypatch.setattr(os, "fsync", flushed.append)
    flush_tree(tmp_path)
    assert len(flushed) == 1


@pytest.mark.parametrize("name", ["-", "./-"])
def test_standard_output_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match="--out -: nothing is written to standard output"):
        make_folder(Path(name))
    assert not list(tmp_path.iterdir())
