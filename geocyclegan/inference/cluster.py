"""Scenes over many workers: parts of each are translated anywhere, and put together in one order.

What a pixel becomes does not depend on who did what: windows, batches and the order in which
statistics are merged follow from the plan of the scene. Workers read the scene and write pieces of
the product, with their hash, beside it; a worker then makes the Cloud-Optimised GeoTIFF of them.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from geocyclegan.bundle import Bundle
from geocyclegan.crew import Crew, Task, result_of
from geocyclegan.crew_check import check_crew, stamp
from geocyclegan.errors import ClusterError, GeoCycleGANError, OptionError, ServerError
from geocyclegan.files import make_folder, output_lock
from geocyclegan.inference import member
from geocyclegan.inference.fitting import open_scene
from geocyclegan.inference.levels import SceneLevels
from geocyclegan.inference.member import Place, SceneJob
from geocyclegan.inference.memory import budget_of
from geocyclegan.inference.options import TranslateOptions
from geocyclegan.inference.precision import choose_precision
from geocyclegan.inference.translate import KEPT_FROM_TILES, SceneWork, nothing_valid, prepare
from geocyclegan.models.generator import Generator
from geocyclegan.models.moments import Moments
from geocyclegan.models.passes import merged
from geocyclegan.progress import Progress, ProgressKind
from geocyclegan.raster.bandfiles import paths_of
from geocyclegan.raster.opening import require_unchanged
from geocyclegan.raster.scene import Scene

log = logging.getLogger(__name__)

# Parts per worker: more even out their speeds, fewer share what neighbours both need.
_PARTS_PER_WORKER = 3
# Scenes under way at a time; each has a thread here that waits.
_MOST_SCENES = 32
# Rounds of translating pieces that were damaged between writing and merging.
_ROUNDS = 3


def translate_scenes(
    crew: Crew,
    sources: Sequence[str],
    products: Sequence[Path],
    bundle: Bundle,
    options: TranslateOptions,
    device: str,
) -> Iterator[tuple[int, GeoCycleGANError | None]]:
    """Translate scenes with a crew.

    Args:
        crew: the workers.
        sources: the scenes.
        products: their products.
        bundle: the model.
        options: how.
        device: "auto", "cpu" or "cuda"; auto takes CUDA if all workers have it.

    Yields:
        The number of each scene as it is finished, and what went wrong with it.

    Raises:
        ClusterError: a worker lacks a file, or has another version.
        OptionError: a worker has no such device, or cannot compute in the precision asked for.
        NotFoundError, SceneError: the files of a scene are not there.
        OutputError: the folder of a product cannot be made.
        BundleError: the model cannot be loaded.
    """
    for folder in {product.parent for product in products}:
        make_folder(folder)
    files = [path for source in sources for path in paths_of(source)]
    weights = [str(bundle.folder / name) for name in ("model.json", "model.safetensors")]
    folders = sorted({str(product.parent.absolute()) for product in products})
    check_crew(crew, [*files, *weights], folders)
    options = _settled(crew, options, device)
    generator = bundle.generator(options.direction)
    many = len(sources) > 1
    shepherd = _Shepherd(crew, generator, bundle, options, None if not many else "none")
    with (
        Progress(
            len(sources), f"infer on {crew.name}", "scene", kind=None if many else "none"
        ) as progress,
        ThreadPoolExecutor(min(len(sources), _MOST_SCENES, 2 * len(crew))) as threads,
    ):
        begun = {
            threads.submit(shepherd.translate, source, product.absolute()): number
            for number, (source, product) in enumerate(zip(sources, products, strict=True))
        }
        try:
            for done in as_completed(begun):
                error = done.exception()
                if error is not None and not isinstance(error, GeoCycleGANError):
                    raise error
                progress.update()
                yield begun[done], error
        finally:
            shepherd.stop()
            for one in begun:
                one.cancel()


def _settled(crew: Crew, options: TranslateOptions, device: str) -> TranslateOptions:
    """Settle what must be the same at all workers: device, precision and memory."""
    places: dict[str, Place] = crew.ask(member.describe, device)
    for worker, place in places.items():
        if isinstance(place, GeoCycleGANError):
            raise place
        if device == "cuda" and not place.devices:
            raise OptionError(f"--device cuda: worker {worker} has no CUDA device")
    every = all(place.devices for place in places.values())
    kind = torch.device("cuda" if device != "cpu" and every else "cpu")
    stated = options.memory
    if stated is None:
        least = min(place.memory for place in places.values())
        stated = int(budget_of(kind, None, free=least))
    precision = options.precision
    if kind.type == "cpu":
        precision = choose_precision(precision, kind)
    elif precision == "auto":
        # Which only a worker with the GPU can say; one answer for all.
        found = set(crew.ask(choose_precision, "auto", kind).values())
        precision = found.pop() if len(found) == 1 else "32"
    return replace(options, device=kind, memory=stated, precision=precision)


@dataclass
class _Shepherd:
    """Brings scenes through the crew, one thread for each."""

    crew: Crew
    generator: Generator
    bundle: Bundle
    options: TranslateOptions
    progress: ProgressKind | None
    _tasks: set[Task] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def stop(self) -> None:
        """Cancel all that is under way."""
        with self._lock:
            self._stopped = True
            tasks = list(self._tasks)
        for task in tasks:
            task.cancel()

    def translate(self, source: str, out: Path) -> None:
        """Translate a scene.

        Raises:
            GeoCycleGANError: what went wrong.
        """
        with (
            open_scene(source, self.generator, self.bundle, self.options) as scene,
            output_lock(out),
        ):
            work = prepare(scene, self.generator, self.bundle, out, self.options)
            cut = work.engine.options
            # Workers have other memory; what was settled here holds for all.
            options = replace(
                self.options, engine=replace(self.options.engine, tile=cut.tile, batch=cut.batch)
            )
            job = SceneJob(
                scene.path,
                stamp(scene.path)[1],
                out,
                self.bundle.folder,
                self.bundle.sha256,
                options,
            )
            if work.engine.count(*scene.grid.shape) < KEPT_FROM_TILES:
                self._run([(member.translate_whole, (job,))])
                return
            try:
                self._share(job, scene, work)
            except GeoCycleGANError as error:
                if not isinstance(error, ClusterError | ServerError):
                    # The next run would fail as well: nothing is left behind.
                    work.kept.discard()
                raise

    def _share(self, job: SceneJob, scene: Scene, work: SceneWork) -> None:
        done = {piece.window for piece in work.kept.load()}
        if done:
            log.warning(
                "%s: goes on where an interrupted run stopped, with %d finished parts",
                *(job.out, len(done)),
            )
        rows = work.engine.rows(*scene.grid.shape)
        parts = _parts(rows, _PARTS_PER_WORKER * len(self.crew))
        missing = [[w for w in part if w not in done] for part in parts]
        trained = None
        if any(missing):
            trained = self._statistics(job, scene, work)
        for _ in range(_ROUNDS):
            calls = [(member.translate_part, (job, trained, part)) for part in missing if part]
            with Progress(len(calls), f"infer {scene.name}", "part", kind=self.progress) as shown:
                self._run(calls, shown)
            require_unchanged(scene.files)
            (left,) = self._run([(member.merge, (job,))])
            if not left:
                work.kept.discard()
                return
            log.warning("%s: %d parts were damaged and are done again", job.out, len(left))
            missing = [left]
        raise ClusterError(
            f"{job.out}: parts that workers write do not read back; do all share the file system?"
        )

    def _statistics(self, job: SceneJob, scene: Scene, work: SceneWork) -> list[Moments] | None:
        """Find the statistics of a scene, layer by layer: mapped over windows, reduced here."""
        engine = work.engine
        norms = self.generator.norm_layers()
        if not norms or engine.options.statistics.mode not in ("sample", "exact"):
            return None
        source = self.bundle.source(self.options.direction)
        levels = SceneLevels(work.adapted, source, *scene.grid.shape)
        windows = engine.measured(levels)
        parts = _parts([[window] for window in windows], _PARTS_PER_WORKER * len(self.crew))
        found: list[Moments] = []
        near: list[str | None] = [None] * len(parts)
        total = len(norms) * len(parts)
        try:
            with Progress(total, "statistics", "part", kind=self.progress) as shown:
                for _ in norms:
                    calls = [
                        (member.measure, (job, number, part, tuple(found)))
                        for number, part in enumerate(parts)
                    ]
                    answers = self._run(calls, shown, near)
                    # A worker remembers how far its parts have come.
                    near = [worker for worker, _ in answers]
                    moments = [part for _, part in answers if part is not None]
                    if not moments:
                        raise nothing_valid(scene.path)
                    # All windows in the order of the scene, whoever measured them.
                    found.append(merged(moments))
        finally:
            with suppress(GeoCycleGANError, OSError):
                self.crew.ask(member.forget, job)
        return found

    def _run(
        self,
        calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]],
        progress: Progress | None = None,
        near: Sequence[str | None] | None = None,
    ) -> list[Any]:
        """Run tasks; the first error ends them all."""
        finished: queue.SimpleQueue[Task] = queue.SimpleQueue()
        tasks: list[Task] = []
        try:
            for number, (function, args) in enumerate(calls):
                with self._lock:
                    if self._stopped:
                        raise ClusterError("stopped")
                    place = None if near is None else near[number]
                    task = self.crew.submit(function, *args, near=place)
                    self._tasks.add(task)
                tasks.append(task)
                task.add_done_callback(finished.put)
            for _ in tasks:
                result_of(finished.get())
                if progress is not None:
                    progress.update()
            return [result_of(task) for task in tasks]
        finally:
            with self._lock:
                self._tasks.difference_update(tasks)
            for task in tasks:
                task.cancel()


def _parts(rows: Sequence[list[Any]], wanted: int) -> list[list[Any]]:
    """Join rows into about as many parts as wanted."""
    size = -(-len(rows) // max(wanted, 1))
    return [
        [window for row in rows[i : i + size] for window in row] for i in range(0, len(rows), size)
    ]
