"""Export a model: build its graph, write it, and compare what was written with the model itself."""

from __future__ import annotations

import importlib
import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geocyclegan.bundle import Bundle, Direction
from geocyclegan.errors import OptionError, OutputError
from geocyclegan.exporting.describe import (
    Tiling,
    deepness_metadata,
    own_metadata,
    plan_tiling,
    value_ranges,
)
from geocyclegan.exporting.network import Outputs, Translation
from geocyclegan.exporting.statistics import ExportStats, settle_statistics
from geocyclegan.files import atomic_write, output_lock, write_json
from geocyclegan.raster.inputs import Inputs
from geocyclegan.raster.windows import round_up

log = logging.getLogger(__name__)

ExportFormat = Literal["onnx", "deepness", "torch", "mlm"]
SUFFIXES: dict[ExportFormat, str] = {
    "onnx": ".onnx",
    "deepness": ".onnx",
    "torch": ".pt2",
    "mlm": ".json",
}

PARITY = 1e-4
"""Largest difference between the model and its export, as a share of each band's range."""

_OPSET = 18
# The newest that ONNX Runtime 1.17 reads, which is what Deepness 0.6 asks for.
_IR_VERSION = 9

Image = npt.NDArray[np.float32]
Run = Callable[[Image], list[Image]]


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        format: "onnx", "torch" (a torch.export program), "deepness" (ONNX for that QGIS plugin) or
            "mlm" (a STAC item).
        direction: "a2b" or "b2a".
        out: the file; None names it after the model and the direction.
        radiometry: take and give stored units; else levels in [-1, 1].
        norm_stats: "frozen": the same statistics for every input; "tile": those of each input.
        scenes: what frozen statistics are those of; none: the training set.
        tile: side of the tiles in px, for "deepness"; None chooses.
        overwrite: replace a file that exists.

    Raises:
        OptionError: options contradict each other.
    """

    format: ExportFormat = "onnx"
    direction: Direction = "a2b"
    out: Path | None = None
    radiometry: bool = True
    norm_stats: ExportStats = "frozen"
    scenes: tuple[str, ...] = ()
    tile: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.format not in SUFFIXES:
            raise OptionError(f"--format {self.format}: choose one of: {', '.join(SUFFIXES)}")
        if self.norm_stats not in ("frozen", "tile"):
            raise OptionError(f"--norm-stats {self.norm_stats}: choose frozen or tile")
        if self.tile is not None and self.format != "deepness":
            raise OptionError(
                f"--tile {self.tile}: it is for --format deepness; other formats take any size"
            )
        if not self.radiometry and self.format == "deepness":
            raise OptionError("--no-radiometry: Deepness hands over stored units; leave it out")
        if self.format == "mlm" and (self.scenes or not self.radiometry):
            raise OptionError("--format mlm: it describes the bundle; leave other options out")


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        out: the file.
        statistics: whose statistics its norm layers carry.
        difference: largest difference from the model, as a share of a band's range; 0 for "mlm".
        tiling: how Deepness shall cut scenes; None for other formats.
    """

    out: Path
    statistics: str
    difference: float
    tiling: Tiling | None = None


def export_model(bundle: Bundle, options: ExportOptions) -> ExportResult:
    """Export one direction of a model.

    The file is run before it gets its name, on inputs of two sizes, and compared with the model.

    Args:
        bundle: the model.
        options: how.

    Raises:
        BundleError: there is no generator for the direction, or it is damaged.
        OptionError: statistics are missing, an option does not fit, a package is not installed, or
            the file is one that is read.
        OutputError: the file exists, cannot be written, or does not agree with the model.
        SceneError: a scene of `scenes` cannot be used.
    """
    out = options.out or default_path(bundle, options)
    suffix = SUFFIXES[options.format]
    if out.suffix != suffix:
        raise OptionError(f"--out {out}: expected a name that ends in {suffix}")
    Inputs(options.scenes, tuple(bundle.folder.glob("*"))).refuse("out", out)
    if out.exists() and not options.overwrite:
        raise OutputError(f"--out {out}: it exists; give --overwrite or choose another name")
    with output_lock(out):
        if options.format == "mlm":
            write_json(out, bundle.item(options.direction))
            return ExportResult(out, "none", 0.0)
        _require(options.format)
        return _export(bundle, options, out)


def default_path(bundle: Bundle, options: ExportOptions) -> Path:
    """Name a file after the run and the direction, in the working folder."""
    folder = bundle.folder
    name = folder.parent.name if folder.name == "model" else folder.name
    kind = options.format if options.format in ("deepness", "mlm") else ""
    parts = [name or "model", options.direction, *([kind] if kind else [])]
    return Path("_".join(parts) + SUFFIXES[options.format])


def _export(bundle: Bundle, options: ExportOptions, out: Path) -> ExportResult:
    direction = options.direction
    source, target = bundle.source(direction), bundle.target(direction)
    generator = bundle.generator(direction)
    statistics = settle_statistics(generator, bundle, direction, options.norm_stats, options.scenes)
    outputs: Outputs = "units" if options.radiometry else "levels"
    tiling = None
    if options.format == "deepness":
        outputs = "display"
        tiling = plan_tiling(generator.halo, generator.stride, bundle.tile, options.tile)
    module = Translation(generator, source, target, outputs, split=tiling is not None).eval()
    metadata = own_metadata(bundle, direction, statistics, outputs)
    if tiling is not None:
        metadata |= deepness_metadata(source, target, tiling)
    sides = _sides(module, bundle.tile, tiling)
    examples = [_example(module, bundle, options, *side) for side in sides]
    with atomic_write(out) as part:
        try:
            if options.format == "torch":
                run = _write_program(part, module, examples[0], metadata)
            else:
                names = target.labels if tiling is not None else ("translation",)
                run = _write_onnx(part, module, examples[0], metadata, names, tiling)
        except OSError as error:
            raise OutputError(f"{out}: cannot be written ({error.strerror or error})") from error
        ranges = _ranges(bundle, options, outputs)
        difference = max(_difference(module, run, x, ranges) for x in examples)
        # Where outputs are whole numbers, the smallest difference may become one of 1.
        allowed = 1.5 / 255.0 if outputs == "display" else PARITY
        if not difference <= allowed:
            raise OutputError(
                f"{out}: the exported file differs from the model by {difference:.2g} of the range"
                f" of a band, more than {allowed:.2g}; it was not kept, please report it"
            )
    return ExportResult(out, statistics, difference, tiling)


def _sides(module: Translation, window: int, tiling: Tiling | None) -> list[tuple[int, int]]:
    """Shapes to compare at: that of training, and one that must be padded."""
    if tiling is not None:
        return [(tiling.tile, tiling.tile)]
    first = round_up(max(window, module.least), module.generator.stride)
    return [(first, first), (first + 3, max(first - 7, module.least))]


def _example(
    module: Translation, bundle: Bundle, options: ExportOptions, height: int, width: int
) -> Tensor:
    """Make an input whose values fill the range of each band, with a corner without data."""
    random = np.random.default_rng(0)
    source = bundle.source(options.direction)
    levels = random.uniform(-1.0, 1.0, (source.count, height, width)).astype(np.float32)
    pixels = levels
    if module.outputs != "levels":
        pixels = np.stack(source.radiometry.inverse(levels)).astype(np.float32)
    empty = math.nan
    if module.nodata is not None and module.outputs != "levels":
        empty = module.nodata
    pixels[:, : height // 8, : width // 8] = empty
    # Two samples: torch.export takes a dimension of one for a constant.
    return torch.from_numpy(np.stack([pixels, pixels[:, ::-1].copy()]))


def _ranges(bundle: Bundle, options: ExportOptions, outputs: Outputs) -> Image:
    target = bundle.target(options.direction)
    if outputs == "units":
        spans = [high - low for low, high in value_ranges(target)]
    else:
        spans = [255.0 if outputs == "display" else 1.0] * target.count
    return np.array(spans, np.float32)[:, None, None]


def _difference(module: Translation, run: Run, x: Tensor, ranges: Image) -> float:
    with torch.inference_mode():
        made = module(x)
    expected = [part.numpy() for part in (made if isinstance(made, tuple) else (made,))]
    found = run(x.numpy())
    one, two = np.concatenate(expected, axis=1), np.concatenate(found, axis=1)
    if one.shape != two.shape or not np.array_equal(np.isnan(one), np.isnan(two)):
        return math.inf
    return float(np.nanmax(np.abs(one - two) / ranges, initial=0.0))


def _dynamic(module: Translation) -> tuple[dict[int, Any]]:
    least = module.least
    return (
        {
            0: torch.export.Dim("batch"),
            2: torch.export.Dim("height", min=least),
            3: torch.export.Dim("width", min=least),
        },
    )


def _write_onnx(
    path: Path,
    module: Translation,
    x: Tensor,
    metadata: dict[str, str],
    names: Sequence[str],
    tiling: Tiling | None,
) -> Run:
    import onnx

    shapes = _dynamic(module)
    if tiling is not None:
        shapes = ({0: torch.export.Dim("batch")},)
    with _silence(), torch.inference_mode():
        program = torch.onnx.export(
            module,
            (x,),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["image"],
            output_names=list(names),
            opset_version=_OPSET,
            verbose=False,
        )
    model = cast(Any, program).model_proto
    _strip(model.graph)
    model.ir_version = min(model.ir_version, _IR_VERSION)
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return _onnx_run(path)


def _onnx_run(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Its content, not the file: Windows renames no file that is open.
    model = path.read_bytes()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(x: Image) -> list[Image]:
        return list(session.run(None, {"image": x}))

    return run


def _strip(graph: Any) -> None:
    """Remove the exporter's notes, which hold names of files on this machine."""
    for node in graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip(attribute.g)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.ClearField("metadata_props")
    graph.ClearField("metadata_props")


def _write_program(path: Path, module: Translation, x: Tensor, metadata: dict[str, str]) -> Run:
    with _silence(), torch.inference_mode():
        program = torch.export.export(module, (x,), dynamic_shapes=_dynamic(module))
        # In memory first: where it meets a full disk itself, the process is aborted.
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files=dict(metadata))
        path.write_bytes(buffer.getbuffer())
        again = torch.export.load(path).module()

    def run(pixels: Image) -> list[Image]:
        with torch.inference_mode():
            made: Tensor = again(torch.from_numpy(pixels))
        return [made.numpy()]

    return run


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporters' remarks from the user, who can do nothing about them."""
    chatty = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in chatty]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in chatty:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(chatty, levels, strict=True):
                logger.setLevel(level)


def _require(format: ExportFormat) -> None:
    """Refuse a format whose packages are not installed.

    Raises:
        OptionError: says how to install them.
    """
    if format == "torch":
        return
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise OptionError(
                f'--format {format}: the package {name} is missing; pip install "geocyclegan'
                '[export]"'
            ) from None
