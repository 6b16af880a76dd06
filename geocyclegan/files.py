"""Files that are either whole or absent: temporary names, locks, hashes.

A process killed while it writes leaves a file that may open and read as zeros, so nothing is ever
written under its final name: it goes to a `.part` name beside it, is flushed to the disk, renamed,
and the folder entry is flushed too.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from geocyclegan.errors import OptionError, OutputError

# A URL, of whose two slashes a path keeps one.
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries, where the system can (Windows cannot open folders)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def flush_tree(folder: Path) -> None:
    """Flush everything that was written below a folder to the disk, in one go where possible.

    Asking for each of thousands of small files costs more than writing them.
    """
    if _sync_file_system(folder):
        return
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())


def _sync_file_system(folder: Path) -> bool:
    """Flush the file system of a folder; False where the system cannot be asked to."""
    # Only Linux has it; Windows has no library without a name (TypeError).
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None, use_errno=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            return bool(library.syncfs(handle) == 0)
        finally:
            os.close(handle)
    return False


@contextmanager
def flushing(folder: Path, seconds: float = 1.0) -> Iterator[None]:
    """Flush what is written below a folder every so often, so that the last flush is short."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(seconds) and _sync_file_system(folder):
            pass

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def publish(part: Path, final: Path) -> None:
    """Flush `part` to the disk and rename it to `final`, replacing what was there.

    Raises:
        OutputError: the file cannot be flushed or renamed (a full disk, a read-only folder).
    """
    try:
        with open(part, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(part, final)
    except OSError as error:
        raise OutputError(f"{final}: cannot be written ({error.strerror or error})") from error
    fsync_folder(final.parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says of a write into one line that names the file.

    Raises:
        OutputError: the block could not write.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextmanager
def atomic_write(final: Path) -> Iterator[Path]:
    """Give a temporary path beside `final`; publish it on success, remove it on failure.

    The temporary name keeps the suffix of the final one, which some drivers look at.

    Raises:
        OutputError: the folder cannot be made or the file cannot be renamed.
    """
    make_folder(final.parent)
    part = final.with_name(f".{final.stem}.{os.getpid()}.part{final.suffix}")
    try:
        yield part
        publish(part, final)
    finally:
        for leftover in (part, part.with_name(part.name + ".aux.xml")):
            leftover.unlink(missing_ok=True)


def write_text(final: Path, text: str) -> None:
    """Write a text file whole or not at all (UTF-8).

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(final) as part:
        try:
            part.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{final}: cannot be written ({error.strerror or error})") from error


def write_json(final: Path, value: Any) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        OutputError: it cannot be written.
        ValueError: `value` holds NaN or infinity, which JSON does not have.
        TypeError: `value` holds what JSON has no type for.
    """
    write_text(final, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def refuse_stdout(out: Path) -> None:
    """Refuse "-", by which many programs mean standard output.

    Raises:
        OptionError: that is its name.
    """
    if str(out) == "-":
        raise OptionError(
            f"--out {out}: nothing is written to standard output; name a file or a folder"
        )


def refuse_as_folder(folder: Path) -> None:
    """Refuse a path that cannot be a folder to write to, before any work.

    Raises:
        OptionError: it or what it should lie in is a file, or it is a URL, or "-".
    """
    refuse_stdout(folder)
    if _REMOTE.match(folder.as_posix()) and not Path(*folder.parts[:1]).is_dir():
        raise OptionError(
            f"{folder}: outputs are written to folders of this machine; choose one with --out and"
            " copy it there afterwards"
        )
    for part in (folder, *folder.parents):
        if part.is_file():
            raise OptionError(
                f"{part}: a file, where a folder was expected; choose another with --out"
            )


def make_folder(folder: Path) -> None:
    """Make a folder and its parents.

    Raises:
        OptionError: it cannot be one, see `refuse_as_folder`.
        OutputError: it cannot be made, or it cannot be written to.
    """
    refuse_as_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: the output folder cannot be made ({error.strerror or error});"
            " choose another with --out"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: the output folder is not writable; choose another with --out")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def output_lock(output: Path) -> Iterator[None]:
    """Hold an output for this process; a second run on the same output is refused at once.

    The lock is the operating system's (released when its holder dies), the text in the file beside
    it only names the holder.

    Raises:
        OutputError: another process holds it, or no lock can be made in its folder.
    """
    make_folder(output.parent)
    lock_path = output.with_name(f".{output.name}.lock")
    lock = FileLock(lock_path)
    holder_path = lock_path.with_suffix(".holder")
    try:
        lock.acquire(timeout=0)
    except OSError as error:
        if not isinstance(error, Timeout) or not lock_path.exists():
            # A file system without locks, or one that only looks writable.
            raise OutputError(
                f"{output.parent}: no file can be made there"
                f" ({getattr(error, 'strerror', None) or 'locking failed'}); choose another --out"
            ) from error
        try:
            holder = holder_path.read_text(encoding="utf-8").strip()
        except OSError:
            holder = "another process"
        raise OutputError(
            f"{output}: {holder} is writing it now; wait for it or choose another --out"
        ) from None
    try:
        with suppress(OSError):
            holder_path.write_text(
                f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8"
            )
        yield
    finally:
        # Both go while the lock is still held, so that no later holder's files are taken away.
        # A system that cannot remove an open file keeps an empty lock file: harmless.
        holder_path.unlink(missing_ok=True)
        with suppress(OSError):
            lock_path.unlink()
        lock.release()
