"""What a worker does: parts of scenes, for a client that puts them together (`cluster.py`).

Every task may run twice, at any worker: what it needs comes with it, what it makes is written whole
under a name with its hash, and what it remembers from one task to the next only saves time.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from geocyclegan import __version__
from geocyclegan.bundle import Bundle, load_bundle
from geocyclegan.crew_check import stamp
from geocyclegan.errors import ClusterError, OutputError
from geocyclegan.inference.fitting import open_scene
from geocyclegan.inference.levels import SceneLevels
from geocyclegan.inference.memory import free_memory
from geocyclegan.inference.options import TranslateOptions
from geocyclegan.inference.precision import choose_precision, rounded_products
from geocyclegan.inference.resume import read_piece, save_piece
from geocyclegan.inference.statistics import Measured, choose_store, patches_of
from geocyclegan.inference.translate import (
    SceneWork,
    load_generator,
    nothing_valid,
    prepare,
    write_product,
)
from geocyclegan.models.generator import Generator
from geocyclegan.models.moments import Moments
from geocyclegan.models.passes import LayerPass, held_bytes
from geocyclegan.raster.product import ProductWriter
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window


@dataclass(frozen=True)
class SceneJob:
    """A scene to translate, as workers are told.

    Attributes:
        scene: path of the scene.
        known: what tells the file from another one; see `crew_check.stamp`.
        out: the product.
        model: folder of the bundle.
        model_sha256: what tells it from other models.
        options: how; tile, batch, device and precision are settled.
        version: of geocyclegan.
    """

    scene: str
    known: tuple[int, int] | None
    out: Path
    model: Path
    model_sha256: str
    options: TranslateOptions
    version: str = __version__


@dataclass(frozen=True)
class Place:
    """What a worker can compute with.

    Attributes:
        devices: CUDA devices.
        memory: free bytes of the device that it would use.
    """

    devices: int
    memory: int


def describe(device: str) -> Place:
    """Say what there is to compute with; `device` is "auto", "cpu" or "cuda"."""
    count = torch.cuda.device_count()
    use = torch.device("cuda" if device != "cpu" and count else "cpu")
    return Place(count, free_memory(use))


def measure(
    job: SceneJob, part: int, windows: Sequence[Measured], known: Sequence[Moments]
) -> tuple[str, Moments | None]:
    """Measure windows of a scene at the norm layer that follows those that are known.

    Args:
        job: the scene.
        part: number of this part of it.
        windows: of this part.
        known: statistics of the norm layers before, of the whole scene.

    Returns:
        The name of this worker, and statistics of each window with valid pixels; None: of none.

    Raises:
        ClusterError: this worker has other files or another version than the client.
        GeoCycleGANError: the scene or the model cannot be used, see `translate.prepare`.
    """
    with _exclusive(job) as (generator, bundle):
        generator.thaw()
        for norm, statistics in zip(generator.norm_layers(), known, strict=False):
            norm.freeze(statistics)
        walk = _walk(job, part, windows, generator, bundle)
        found = walk.measure(len(known))
        generator.thaw()
    return _name(), Moments.cat(found) if found else None


def translate_part(
    job: SceneJob, trained: Sequence[Moments] | None, wanted: Sequence[Window]
) -> int:
    """Translate some windows of a scene; each becomes a piece beside the product.

    Args:
        job: the scene.
        trained: statistics of the scene, in modes "sample" and "exact".
        wanted: windows of the engine's outputs.

    Returns:
        How many valid pixels they have.

    Raises:
        OutputError: a piece cannot be written.
        ClusterError: this worker has other files or another version than the client.
        GeoCycleGANError: the scene or the model cannot be used, see `translate.prepare`.
    """
    forget(job)  # its statistics are known
    valid = 0
    with _opened(job, trained) as (_, work):
        height, width = work.spec.grid.shape
        every = {window for row in work.engine.rows(height, width) for window in row}
        folder = work.kept.folder
        for output in work.engine.outputs(work.adapted, height, width, every - set(wanted)):
            try:
                save_piece(folder, work.engine.finish(output))
            except OSError as error:
                raise OutputError(
                    f"{folder}: parts of the product cannot be written ({error.strerror or error})"
                ) from error
            valid += int(output.valid.sum())
    return valid


def merge(job: SceneJob) -> list[Window]:
    """Make the product of its pieces.

    Returns:
        Windows whose piece is missing or damaged; with none of these, the product is there.

    Raises:
        SceneError: there is no valid pixel in the scene.
        OutputError: the product cannot be written.
        ClusterError: this worker has other files or another version than the client.
        GeoCycleGANError: the scene or the model cannot be used, see `translate.prepare`.
    """
    with _opened(job, None) as (scene, work):
        missing = {w for row in work.engine.rows(*scene.grid.shape) for w in row}
        try:
            with ProductWriter(job.out, work.spec) as product:
                for path in sorted(work.kept.folder.glob("*.npz")):
                    piece = read_piece(path)
                    if piece is None:
                        path.unlink(missing_ok=True)
                    elif piece.window in missing:
                        product.write(piece.window, piece.pixels, piece.valid)
                        missing.discard(piece.window)
                if missing:
                    raise _Incomplete
                if not product.valid_pixels:
                    raise nothing_valid(scene.path)
        except _Incomplete:
            return sorted(missing)
    return []


def translate_whole(job: SceneJob) -> None:
    """Translate a scene that is not worth sharing; the client holds the lock of the product.

    Raises:
        GeoCycleGANError: see `translate.write_product`.
    """
    with (
        _exclusive(job) as (generator, bundle),
        open_scene(job.scene, generator, bundle, job.options) as scene,
    ):
        write_product(scene, generator, bundle, job.out, job.options)


def forget(job: SceneJob) -> None:
    """Drop what this worker remembers of a scene."""
    with _memory.lock:
        for key in [key for key in _memory.walks if key[0] == job.out]:
            _memory.walks.pop(key).close()


class _Incomplete(Exception):
    """Some piece is missing: no product yet."""


@dataclass
class _Walk:
    """A pass over a part of a scene that goes on from layer to layer."""

    job: SceneJob
    windows: Sequence[Measured]
    generator: Generator
    walk: LayerPass
    need: float
    stack: ExitStack

    def close(self) -> None:
        self.stack.close()


@dataclass
class _Memory:
    """What a process keeps between tasks."""

    # Norm layers hold statistics, so a generator serves one task at a time; torch uses all threads.
    lock: threading.RLock = field(default_factory=threading.RLock)
    loaded: dict[Any, tuple[Generator, Bundle]] = field(default_factory=dict)
    walks: dict[tuple[Path, int], _Walk] = field(default_factory=dict)


_memory = _Memory()


@contextmanager
def _exclusive(job: SceneJob) -> Iterator[tuple[Generator, Bundle]]:
    """Have this process for one task, with the generator of its job.

    Raises:
        ClusterError: this worker has other files or another version than the client.
    """
    if job.version != __version__:
        raise ClusterError(
            f"worker {_name()} has geocyclegan {__version__}, the job is of {job.version}; install"
            " the same version on all machines"
        )
    if job.known is not None and stamp(job.scene)[1] != job.known:
        raise ClusterError(
            f"worker {_name()}: {job.scene} is not there, or is another file; workers need the"
            " scenes at the same paths, on a file system that all share"
        )
    with _memory.lock:
        _use_threads()
        options = job.options
        key = (
            (job.model, job.model_sha256, options.direction),
            (str(options.device), options.precision),
        )
        if key not in _memory.loaded:
            bundle = load_bundle(job.model)
            if bundle.sha256 != job.model_sha256:
                raise ClusterError(f"worker {_name()}: {job.model} is another model there")
            _memory.loaded.clear()
            _memory.loaded[key] = load_generator(bundle, options), bundle
        with rounded_products(choose_precision(options.precision, options.device)):
            yield _memory.loaded[key]


@contextmanager
def _opened(job: SceneJob, trained: Sequence[Moments] | None) -> Iterator[tuple[Scene, SceneWork]]:
    with (
        _exclusive(job) as (generator, bundle),
        open_scene(job.scene, generator, bundle, job.options) as scene,
    ):
        yield scene, prepare(scene, generator, bundle, job.out, job.options, trained)


def _walk(
    job: SceneJob, part: int, windows: Sequence[Measured], generator: Generator, bundle: Bundle
) -> LayerPass:
    """Return the pass over a part of a scene: the one begun here, or a new one."""
    key = job.out, part
    old = _memory.walks.get(key)
    if old is not None:
        if (old.job, old.windows) == (job, windows) and old.generator is generator:
            return old.walk
        _memory.walks.pop(key).close()
    options = job.options.engine.statistics
    pixels = sum(read.height * read.width for read, _ in windows)
    left = options.memory - sum(walk.need for walk in _memory.walks.values())
    stack = ExitStack()
    # Not beside the product: that is on a file system which all share.
    options = replace(options, memory=max(int(left), 0), folder=Path(tempfile.gettempdir()))
    first, store = choose_store(generator, pixels, job.options.device, options, stack)

    def patches() -> Iterator[Any]:
        with _opened(job, None) as (scene, work):
            levels = SceneLevels(
                work.adapted, bundle.source(job.options.direction), *scene.grid.shape
            )
            device = job.options.device
            yield from patches_of(levels, windows, device, at_least_one=False)()

    walk = LayerPass(generator, patches, first, store)
    held = held_bytes(generator, next(generator.parameters()).itemsize)
    need = max(held[first:-1], default=0.0) * pixels
    _memory.walks[key] = _Walk(job, windows, generator, walk, need, stack)
    return walk


def _name() -> str:
    """Return what the crew calls this process."""
    try:
        from distributed import get_worker

        return str(get_worker().address)
    except (ImportError, ValueError):
        return f"process {os.getpid()}"


def _use_threads() -> None:
    """Use the threads that a Dask worker was given; Dask tells libraries to use one."""
    try:
        from distributed import get_worker

        torch.set_num_threads(get_worker().state.nthreads)
    except (ImportError, ValueError):
        return
