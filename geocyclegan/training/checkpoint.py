"""Training state on disk: whole or absent, checked before use, never unpickled as code.

A checkpoint is `step_0001000.pt` with its SHA-256 in `step_0001000.pt.sha256`. The hash is written
first, so a checkpoint that is there has one; the last two are kept, so one that is damaged later
leaves another to go back to.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geocyclegan.errors import BundleError, OutputError
from geocyclegan.files import atomic_write, make_folder, sha256, write_text

KEPT = 2
_FORMAT = 1


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return folder / f"step_{step:07d}.pt"


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first; their content is not looked at."""
    return sorted(folder.glob("step_*.pt"), key=lambda path: (len(path.name), path.name))


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write the state after a step, then remove what is older than the last two.

    Args:
        folder: where checkpoints lie; made if it is not there.
        step: steps done.
        state: tensors, numbers, texts, and lists and dictionaries of these.

    Raises:
        OutputError: it cannot be written; earlier checkpoints are as they were.
    """
    make_folder(folder)
    path = checkpoint_path(folder, step)
    _require_space(path, state)
    try:
        with atomic_write(path) as part:
            # Through a file of ours, of which torch passes on what the system says.
            with open(part, "wb") as file:
                torch.save({"format": _FORMAT, "step": step, **state}, file)
            # Never a moment with a file and the hash of another one.
            path.unlink(missing_ok=True)
            write_text(_hash_path(path), _hash_line(part, path))
    except OutputError:
        raise
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: cannot be written ({_reason(error)})") from error
    # A file that cannot be removed costs space, not the run.
    with suppress(OSError):
        _remove_old(folder)
    return path


def _reason(error: BaseException) -> str:
    """What the system said; torch hides it behind a RuntimeError that says "unexpected pos"."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__context__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _remove_old(folder: Path) -> None:
    for old in checkpoints(folder)[:-KEPT]:
        old.unlink()
    names = {path.name for path in checkpoints(folder)}
    for file in folder.glob("step_*.pt.sha256"):
        if file.name.removesuffix(".sha256") not in names:
            file.unlink()


def load_latest(folder: Path) -> dict[str, Any] | None:
    """Read the latest checkpoint, on the CPU; None if there is none.

    Raises:
        BundleError: it is damaged; the message names the last good one. An older one is never
            taken in its place without being asked.
    """
    found = checkpoints(folder)
    if not found:
        return None
    latest = found[-1]
    try:
        return _load(latest)
    except BundleError as error:
        good = next((path for path in reversed(found[:-1]) if damage(path) is None), None)
        if good is None:
            advice = "no good one is left; start anew with --overwrite or another --name"
        else:
            advice = f"the last good one is {good.name}; remove {latest.name} to resume from it"
        raise BundleError(f"{error}; {advice}") from error


def _load(path: Path) -> dict[str, Any]:
    wrong = damage(path)
    if wrong is not None:
        raise BundleError(f"{path}: {wrong}")
    try:
        # An environment variable can undo the default, so it is said here.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise BundleError(f"{path}: not a checkpoint that can be read safely") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise BundleError(f"{path}: not a checkpoint of this version of geocyclegan")
    return state


def damage(path: Path) -> str | None:
    """Return what is wrong with a checkpoint's bytes; None if nothing."""
    try:
        recorded = _hash_path(path).read_bytes()
        actual = _hash_line(path, path).encode()
    except FileNotFoundError:
        return f"damaged ({_hash_path(path).name} is missing)"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if recorded != actual:
        return f"damaged (its SHA-256 is not the one in {_hash_path(path).name})"
    return None


def _hash_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _hash_line(file: Path, path: Path) -> str:
    """Return what `sha256sum` says of a file that is called, or will be called, `path`."""
    return f"{sha256(file)}  {path.name}\n"


def _require_space(path: Path, state: Mapping[str, Any]) -> None:
    need = sum(tensor.nbytes for tensor in _tensors(state)) + 2**20
    free = shutil.disk_usage(path.parent).free
    if need > free:
        raise OutputError(
            f"{path}: needs {need / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free there; free"
            " some, then go on with --resume"
        )


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
