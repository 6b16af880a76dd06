# SPDX-License-Identifier: GPL-2.0-or-later
"""The algorithm "Translate scene" as a single file: copy it to processing/scripts of a profile."""

# Put together from the plugin's modules by geocyclegan.qgis.assemble; edit those instead.

from __future__ import annotations


# -------------------- options.py

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

KINDS = (
    *("text", "integer", "number", "choice", "switch"),
    *("raster", "rasters", "vector", "crs", "file", "folder"),
)


class Option(NamedTuple):
    """A parameter of a dialog and the option of the command line that it becomes.

    Attributes:
        name: the parameter's name in QGIS.
        flag: the option; empty for one that the algorithm itself puts into the command.
        label: what the dialog calls it.
        kind: one of `KINDS`.
        help: the tooltip.
        default: its value if it is left alone, the same as the command line's; None: not set.
        choices: of a "choice".
        least: smallest number.
        most: largest number.
        needed: it must be given.
        advanced: it is shown among the advanced parameters.
    """

    name: str
    flag: str
    label: str
    kind: str
    help: str
    default: Any = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    needed: bool = False
    advanced: bool = True


def arguments(options: Sequence[Option], values: Mapping[str, Any]) -> list[str]:
    """Return the command line's options for values of parameters.

    What is not set or equals the default is left out, so that a configuration file, or the options
    of a run that goes on, are not overruled by what nobody chose.

    Args:
        options: the table.
        values: by name of the parameter; a list for "rasters".
    """
    found: list[str] = []
    for option in options:
        value = values.get(option.name)
        if not option.flag or value is None or value == option.default or value == "":
            continue
        if option.kind == "switch":
            if value:
                found.append(option.flag)
            continue
        for each in value if isinstance(value, (list, tuple)) else (value,):
            # One word, since a value may begin with a minus.
            found.append(f"{option.flag}={_text(each)}")
    return found


def split_extra(text: str | None) -> list[str]:
    """Split further options, typed as on a command line, into words.

    Raises:
        ValueError: a quotation mark is not closed.
    """
    lexer = shlex.shlex(text or "", posix=True)
    lexer.whitespace_split = True
    lexer.commenters = lexer.escape = ""  # a backslash is part of a path on Windows
    try:
        return list(lexer)
    except ValueError as error:
        raise ValueError(f"Further options: {text}: {error}".rstrip(".")) from None


def _text(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


# -------------------- table_common.py

COMMON = (
    Option(
        "EXTRA",
        "",
        "Further options",
        "text",
        "More options of the geocyclegan command, typed as on a command line.",
    ),
    Option(
        "EXECUTABLE",
        "",
        "geocyclegan command",
        "file",
        "Path of the geocyclegan command, or of the folder of its Python environment. Left empty:"
        " the variable GEOCYCLEGAN_EXECUTABLE, what 'geocyclegan qgis install' saved in the"
        " settings, or PATH.",
    ),
)

DEVICE = Option(
    "DEVICE",
    "--device",
    "Device",
    "choice",
    "Where to compute; auto takes the graphics card if PyTorch can use it.",
    default="auto",
    choices=("auto", "cpu", "cuda"),
)
SEED = Option("SEED", "--seed", "Seed", "integer", "Seed of all random choices.", 0, least=0)


# -------------------- runner.py

import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

EXECUTABLE_VARIABLE = "GEOCYCLEGAN_EXECUTABLE"
EXECUTABLE_SETTING = "GEOCYCLEGAN_EXECUTABLE"
"""Name of the setting under Processing/Configuration in QGIS's settings."""

TAIL_LINES = 20
GRACE_S = 15.0
POLL_S = 0.1

# A leaked PROJ_LIB makes rasterio write products without their EPSG code; the others end in
# crashes or in modules of another Python.
SCRUBBED = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONEXECUTABLE",
    "__PYVENV_LAUNCHER__",
    "PROJ_LIB",
    "PROJ_DATA",
    "GDAL_DATA",
    "GDAL_DRIVER_PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "DYLD_FRAMEWORK_PATH",
    "QT_PLUGIN_PATH",
)


class ToolkitError(Exception):
    """The toolkit was not found, or did not do what was asked; the text is for the user."""


class ProgressLine(NamedTuple):
    """How far a stage of the work is.

    Attributes:
        stage: what is being done.
        done: units done.
        total: units in all; 0 if nobody knows.
        unit: what is counted.
        eta_s: seconds left, if known.
    """

    stage: str
    done: int
    total: int
    unit: str = ""
    eta_s: float | None = None

    @property
    def percent(self) -> float:
        """Share done, from 0 to 100."""
        return 100.0 * min(max(self.done / self.total, 0.0), 1.0) if self.total > 0 else 0.0

    def text(self) -> str:
        """Return a line for people, such as `train: 40 of 200 steps, about 3 min left`."""
        # Units come in the singular; "it" is none.
        units = f" {self.unit}s" if self.unit and self.unit != "it" else ""
        line = f"{self.stage}: {self.done} of {self.total}{units}"
        if self.eta_s is None or self.done >= self.total:
            return line
        if self.eta_s < 90:
            return f"{line}, about {max(round(self.eta_s), 1)} s left"
        if self.eta_s < 5400:
            return f"{line}, about {round(self.eta_s / 60)} min left"
        return f"{line}, about {self.eta_s / 3600:.1f} h left"


class Finished(NamedTuple):
    """How a child process ended.

    Attributes:
        code: its exit code; negative, the signal that ended it.
        tail: its last lines that were not progress.
        canceled: True if it was stopped on request.
    """

    code: int
    tail: tuple[str, ...]
    canceled: bool


def find_executable(
    given: str = "", saved: str = "", environment: Mapping[str, str] = os.environ
) -> str:
    """Return the path of the `geocyclegan` command.

    Looked for in this order: what the user gave, the variable GEOCYCLEGAN_EXECUTABLE, what
    `geocyclegan qgis install` saved, PATH. The running program is QGIS, so its own Python is never
    taken.

    Args:
        given: path of the command or of its environment's folder, or nothing.
        saved: the same from QGIS's settings.
        environment: the environment of QGIS.

    Raises:
        ToolkitError: it is nowhere, or the path named first is not a command.
    """
    sources = (
        ("the parameter 'geocyclegan command'", given),
        (f"the environment variable {EXECUTABLE_VARIABLE}", environment.get(EXECUTABLE_VARIABLE)),
        ("QGIS's settings", saved),
    )
    for source, text in sources:
        if text and text.strip():
            return _command_at(Path(text.strip()).expanduser(), source)
    found = shutil.which("geocyclegan", path=environment.get("PATH", ""))
    if found:
        return found
    raise ToolkitError(
        "the geocyclegan command was not found. Install geocyclegan in a Python environment of its"
        " own and run `geocyclegan qgis install` there once, or give the path of the command in the"
        " advanced parameter 'geocyclegan command'"
    )


def _command_at(path: Path, source: str) -> str:
    places = [path]
    if path.is_dir():
        names = ("geocyclegan.exe", "geocyclegan") if os.name == "nt" else ("geocyclegan",)
        folders = (path, path / "bin", path / "Scripts")
        places = [folder / name for folder in folders for name in names]
    for place in places:
        if place.is_file():
            if os.access(place, os.X_OK):
                return str(place)
            raise ToolkitError(f"{place}, from {source}, is not executable")
    if path.is_dir():
        raise ToolkitError(f"{path}, from {source}, is a folder without a geocyclegan command")
    raise ToolkitError(
        f"{path}, from {source}, does not exist; give the path of the geocyclegan command"
    )


def child_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment for the toolkit: that of QGIS without what is QGIS's own."""
    kept = {name: value for name, value in environment.items() if name not in SCRUBBED}
    return kept | {
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        "GEOCYCLEGAN_EXIT_WITH_STDIN": "1",
    }


def parse_progress(line: str) -> ProgressLine | None:
    """Read a line of `--progress json`; None if it is something else."""
    if not line.startswith("{"):
        return None
    try:
        fields: Any = json.loads(line)
        if fields["event"] != "progress":
            return None
        eta = fields.get("eta_s")
        return ProgressLine(
            str(fields["stage"]),
            int(fields["done"]),
            int(fields["total"] or 0),
            str(fields.get("unit", "")),
            None if eta is None else float(eta),
        )
    except (ValueError, KeyError, TypeError):
        return None


def run_child(
    command: Sequence[str],
    *,
    on_line: Callable[[str], None],
    on_progress: Callable[[ProgressLine], None],
    is_canceled: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    grace_s: float = GRACE_S,
) -> Finished:
    """Run a command to its end, or until it is canceled.

    Args:
        command: the program and its arguments; no shell sees them.
        on_line: called with each line of output that is not progress.
        on_progress: called with each line of progress.
        is_canceled: asked every tenth of a second.
        environment: of the child; None: `child_environment()`.
        grace_s: how long a canceled command may take to save and clean up, in seconds.

    Raises:
        ToolkitError: the command cannot be started.
    """
    process = _start(command, child_environment() if environment is None else environment)
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def take(line: str) -> None:
        progress = parse_progress(line)
        if progress is not None:
            on_progress(progress)
        elif line.strip():
            tail.append(line)
            on_line(line)

    canceled = False
    try:
        while process.poll() is None:
            if is_canceled():
                canceled = True
                break
            with suppress(queue.Empty):
                take(lines.get(timeout=POLL_S))
    finally:
        # Whatever happened here, neither the child nor a worker of it outlives this call.
        _stop(process, grace_s)
        reader.join(1.0)
        if process.stdout is not None and not reader.is_alive():
            process.stdout.close()
    while not lines.empty():
        take(lines.get_nowait())
    return Finished(process.wait(), tuple(tail), canceled)


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, with an open standard input."""
    apart: dict[str, Any] = {"start_new_session": True}
    if os.name == "nt":
        flags = ("CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW")
        apart = {"creationflags": sum(getattr(subprocess, flag) for flag in flags)}
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            text=True,
            encoding="utf-8",
            errors="replace",
            **apart,
        )
    except OSError as error:
        raise ToolkitError(f"{command[0]} cannot be started: {error.strerror or error}") from error


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    with suppress(ValueError, OSError):
        for line in process.stdout:
            lines.put(line.rstrip("\n"))


def _stop(process: subprocess.Popen[str], grace_s: float) -> None:
    """Ask the command to stop if it runs, wait, and kill what is left of its process group.

    Only the command itself is asked, since it ends its workers in an order that lets it save; a
    launcher between us and it sees its standard input end.
    """
    deadline = time.monotonic() + grace_s
    if os.name == "posix":
        process.terminate()
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_S / 2)
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    while _lives(process) and time.monotonic() < deadline:
        time.sleep(POLL_S / 2)
    if os.name == "posix":
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        tree = ["taskkill", "/T", "/F", "/PID", str(process.pid)]
        subprocess.run(tree, capture_output=True, check=False)
    process.wait()


def _lives(process: subprocess.Popen[str]) -> bool:
    """Say whether anything of the command's process group is left."""
    if process.poll() is None:
        return True
    if os.name != "posix":
        return False
    try:
        os.killpg(process.pid, 0)
    except OSError:
        return False
    return True


# -------------------- toolkit.py

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterCrs,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingUtils,
    QgsSettings,
)
from qgis.PyQt.QtGui import QIcon


_TEXT_EVERY_S = 10.0


def make_parameter(option: Option) -> QgsProcessingParameterDefinition:
    """Return the parameter of a line of a table."""
    name, label, default = option.name, option.label, option.default
    # What is not optional has to be set in each model, even if it has a default: so are advanced
    # parameters, lest a new one makes the users' models invalid.
    optional = not option.needed and (default is None or option.advanced)
    parameter: QgsProcessingParameterDefinition
    if option.kind == "text":
        parameter = QgsProcessingParameterString(name, label, default, False, optional)
    elif option.kind in ("integer", "number"):
        kinds = QgsProcessingParameterNumber
        parameter = QgsProcessingParameterNumber(
            name, label, kinds.Integer if option.kind == "integer" else kinds.Double
        )
        parameter.setDefaultValue(default)
        if option.least is not None:
            parameter.setMinimum(option.least)
        if option.most is not None:
            parameter.setMaximum(option.most)
        if option.kind == "number":
            parameter.setMetadata({"widget_wrapper": {"decimals": 6}})
    elif option.kind == "choice":
        parameter = QgsProcessingParameterEnum(
            name, label, list(option.choices), False, default, optional, True
        )
    elif option.kind == "switch":
        parameter = QgsProcessingParameterBoolean(name, label, default, optional)
    elif option.kind == "raster":
        parameter = QgsProcessingParameterRasterLayer(name, label, default, optional)
    elif option.kind == "rasters":
        raster = QgsProcessing.TypeRaster
        parameter = QgsProcessingParameterMultipleLayers(name, label, raster, default, optional)
    elif option.kind == "vector":
        polygons = [QgsProcessing.TypeVectorPolygon]
        parameter = QgsProcessingParameterFeatureSource(name, label, polygons, default, optional)
    elif option.kind == "crs":
        parameter = QgsProcessingParameterCrs(name, label, default, optional)
    else:
        is_file = option.kind == "file"
        kinds = QgsProcessingParameterFile
        parameter = kinds(name, label, kinds.File if is_file else kinds.Folder)
        if is_file:
            # The default filter refuses commands without a suffix.
            parameter.setFileFilter("All files (*)")
    flags = parameter.flags()
    if optional:
        flags |= QgsProcessingParameterDefinition.FlagOptional
    if option.advanced:
        flags |= QgsProcessingParameterDefinition.FlagAdvanced
    parameter.setFlags(flags)
    parameter.setHelp(option.help)
    return parameter


class ToolkitMixin:
    """Beside QgsProcessingAlgorithm, the base of each algorithm.

    Not itself an algorithm, since QGIS loads the first algorithm that it finds in a script.
    """

    NAME = ""
    TITLE = ""
    GROUP = ""
    ICON = ""
    SHORT = ""
    HELP = ""
    TAGS: tuple[str, ...] = ()
    OPTIONS: tuple[Option, ...] = ()

    def name(self) -> str:
        """Return the identifier."""
        return self.NAME

    def displayName(self) -> str:
        """Return the name in the toolbox."""
        return self.TITLE

    def group(self) -> str:
        """Return the group in the toolbox."""
        return self.GROUP

    def groupId(self) -> str:
        """Return the identifier of the group."""
        return self.GROUP.lower()

    def tags(self) -> list[str]:
        """Return words to find the algorithm by."""
        return list(self.TAGS)

    def shortDescription(self) -> str:
        """Return the tooltip in the toolbox."""
        return self.SHORT

    def shortHelpString(self) -> str:
        """Return the help beside the parameters."""
        # QGIS begins a new line where the text does.
        return " ".join(self.HELP.split())

    def icon(self) -> QIcon:
        """Return the icon; a single script has none of its own."""
        path = Path(globals().get("__file__", "script")).with_name("icons") / f"{self.ICON}.svg"
        return QIcon(str(path)) if path.is_file() else super().icon()  # type: ignore[misc]

    def createInstance(self) -> Any:
        """Return a fresh algorithm."""
        return type(self)()

    def add_parameters(self, *, advanced: bool) -> None:
        """Add the parameters of the table that are advanced, or those that are not."""
        for option in self.OPTIONS:
            if option.advanced == advanced:
                self.addParameter(make_parameter(option))  # type: ignore[attr-defined]

    def values(
        self, parameters: Mapping[str, Any], context: Any, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Return what the user gave, by name of the parameter; layers by their source."""
        return {
            option.name: self._value(option, parameters, context, feedback)
            for option in self.OPTIONS
        }

    def _value(self, option: Option, parameters: Any, context: Any, feedback: Any) -> Any:
        given: Any = self
        name = option.name
        if parameters.get(name) in (None, "") and option.default is None:
            return None
        if option.kind == "integer":
            return given.parameterAsInt(parameters, name, context)
        if option.kind == "number":
            return given.parameterAsDouble(parameters, name, context)
        if option.kind == "choice":
            return given.parameterAsEnumString(parameters, name, context)
        if option.kind == "switch":
            return given.parameterAsBool(parameters, name, context)
        if option.kind == "raster":
            layer = given.parameterAsRasterLayer(parameters, name, context)
            if layer is None:
                raise QgsProcessingException(given.invalidRasterError(parameters, name))
            return raster_source(layer)
        if option.kind == "rasters":
            layers = given.parameterAsLayerList(parameters, name, context)
            if not layers:
                raise QgsProcessingException(given.invalidRasterError(parameters, name))
            return [raster_source(layer) for layer in layers]
        if option.kind == "vector":
            if given.parameterAsSource(parameters, name, context) is None:
                raise QgsProcessingException(given.invalidSourceError(parameters, name))
            # Selected features, memory layers and layers of a database go to a temporary file.
            return given.parameterAsCompatibleSourceLayerPath(
                parameters, name, context, ["gpkg", "shp", "geojson"], "gpkg", feedback
            )
        if option.kind == "crs":
            crs = given.parameterAsCrs(parameters, name, context)
            return crs.authid() or crs.toWkt() if crs.isValid() else None
        if option.kind in ("file", "folder"):
            return given.parameterAsFile(parameters, name, context)
        return given.parameterAsString(parameters, name, context)

    def run_toolkit(
        self,
        commands: Sequence[Sequence[str]],
        values: Mapping[str, Any],
        feedback: QgsProcessingFeedback,
    ) -> bool:
        """Run the toolkit once for each command, which starts with the verb.

        Returns:
            False if the user canceled it.

        Raises:
            QgsProcessingException: the toolkit is missing or failed.
        """
        try:
            executable = find_executable(values.get("EXECUTABLE") or "", saved_executable())
            extra = split_extra(values.get("EXTRA"))
            for number, (verb, *words) in enumerate(commands):
                command = [executable, "--progress", "json", verb, *extra, *words]
                feedback.pushCommandInfo(shlex.join(command))
                report = _Report(feedback, number, len(commands))
                done = run_child(
                    command,
                    on_line=report.line,
                    on_progress=report.progress,
                    is_canceled=feedback.isCanceled,
                )
                if done.canceled:
                    feedback.pushInfo(f"geocyclegan {verb} was stopped.")
                    return False
                if done.code != 0:
                    raise ToolkitError(failure(verb, done))
        except (ToolkitError, ValueError) as error:
            raise QgsProcessingException(str(error)) from None
        return True


def warn_if_temporary(folder: str, feedback: QgsProcessingFeedback) -> None:
    """Say that work of hours goes where QGIS removes it; the dialog's default is such a folder."""
    if Path(QgsProcessingUtils.tempFolder()).resolve() in Path(folder).resolve().parents:
        feedback.pushWarning(
            f"{folder} is a temporary folder, which goes when QGIS is closed; choose another one to"
            " keep the result"
        )


class _Report:
    """Passes what a child says on to QGIS."""

    def __init__(self, feedback: QgsProcessingFeedback, number: int, count: int) -> None:
        self._feedback, self._number, self._count = feedback, number, count
        self._stage = ""
        self._said = 0.0

    def line(self, text: str) -> None:
        if text.startswith("WARNING: "):
            self._feedback.pushWarning(text[len("WARNING: ") :])
        else:
            self._feedback.pushInfo(text)

    def progress(self, line: ProgressLine) -> None:
        self._feedback.setProgress((100.0 * self._number + line.percent) / self._count)
        now = time.monotonic()
        # Each text stays in the log, so not too many of them.
        if line.stage != self._stage or now - self._said >= _TEXT_EVERY_S:
            self._stage, self._said = line.stage, now
            self._feedback.setProgressText(line.text())


def failure(verb: str, done: Finished) -> str:
    """Return what to say about a child that failed: its exit code and its last lines."""
    lines = [line[len("Error: ") :] if line.startswith("Error: ") else line for line in done.tail]
    how = f"exit code {done.code}" if done.code > 0 else f"killed by signal {-done.code}"
    return f"geocyclegan {verb} failed ({how}):\n" + "\n".join(lines or ["it said nothing"])


def saved_executable() -> str:
    """Return the command that `geocyclegan qgis install` saved, or nothing."""
    key = f"Processing/Configuration/{EXECUTABLE_SETTING}"
    return str(QgsSettings().value(key, "") or "")


def raster_source(layer: Any) -> str:
    """Return what GDAL opens for a raster layer.

    Raises:
        QgsProcessingException: the layer is not one of GDAL's.
    """
    if layer.dataProvider() is None or layer.dataProvider().name() != "gdal":
        raise QgsProcessingException(
            f"{layer.name()}: expected a raster file; save this layer as GeoTIFF first"
            " (Export > Save as)"
        )
    return str(layer.source()).split("|option:")[0]


# -------------------- table_translate.py

TRANSLATE = (
    Option(
        "SCENE",
        "",
        "Scene",
        "raster",
        "The scene to translate, of any size, with the bands that the model was trained on.",
        needed=True,
        advanced=False,
    ),
    Option(
        "MODEL",
        "",
        "Model",
        "folder",
        "Folder of a training run, or of its model.",
        needed=True,
        advanced=False,
    ),
    Option(
        "DIRECTION",
        "--direction",
        "Direction",
        "choice",
        "a2b: from the kind of scenes of domain A to that of domain B; b2a: back. Left empty: a2b,"
        " or the one way that the model knows.",
        choices=("a2b", "b2a"),
        advanced=False,
    ),
    Option(
        "BANDS",
        "--bands",
        "Bands",
        "text",
        "Bands of the scene in the model's order, by number or description: 4,3,2 or VV,VH. Left"
        " empty: those that the model names.",
    ),
    Option(
        "NODATA",
        "--nodata",
        "Undeclared nodata",
        "text",
        "Number, such as 0 or -9999, that stands for no data though the scene does not say so:"
        " pixels are invalid where all bands have it. none: there is no such number. Left empty:"
        " that of the chips that the model was trained on.",
    ),
    Option(
        "NORM_STATS",
        "--norm-stats",
        "Normalisation statistics",
        "choice",
        "Those of the training set (frozen), of some crops of the scene (sample), of all of it"
        " (exact), of each pixel's surroundings (dense), or of each tile (with seams); auto: as the"
        " model was trained.",
        default="auto",
        choices=("auto", "frozen", "sample", "exact", "dense", "tile"),
    ),
    Option(
        "STATS_MEMORY",
        "--stats-memory",
        "Memory for statistics",
        "text",
        "For the passes of sample and exact, such as 512M or 4G.",
        default="2G",
    ),
    Option(
        "TILE",
        "--tile",
        "Tile",
        "integer",
        "Pixels per tile side, without its halo; smaller tiles need less memory. Left empty: by"
        " device and scene.",
        least=1,
    ),
    Option(
        "BATCH",
        "--batch",
        "Batch",
        "integer",
        "Tiles per forward pass. Left empty: by device.",
        least=1,
    ),
    DEVICE,
    *COMMON,
)


# -------------------- display.py

from collections.abc import Sequence
from typing import NamedTuple

# Names in red, green, blue; the first triple that a product has is shown.
_TRIPLES = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("b04", "b03", "b02"),  # Sentinel-2
    ("b4", "b3", "b2"),  # Sentinel-2 and Landsat 8 to 9, short
    ("sr_b4", "sr_b3", "sr_b2"),  # Landsat 8 to 9, Collection 2
    ("nir", "red", "green"),
    ("b08", "b04", "b03"),
    ("b8", "b4", "b3"),
)


class Display(NamedTuple):
    """How a raster is shown.

    Attributes:
        bands: three numbers for red, green and blue, or one for grey, counted from 1.
        stretch: False shows 8-bit colours as they are.
    """

    bands: tuple[int, ...]
    stretch: bool


def choose_display(names: Sequence[str], colors: Sequence[str], *, is_byte: bool) -> Display:
    """Choose what to show of a raster.

    Args:
        names: description of each band.
        colors: colour interpretation of each band: "red", "green", "blue" or something else.
        is_byte: the pixels are 8-bit.
    """
    low = [color.lower() for color in colors]
    if all(color in low for color in ("red", "green", "blue")):
        bands = (low.index("red") + 1, low.index("green") + 1, low.index("blue") + 1)
        return Display(bands, stretch=not is_byte)
    known = {name.strip().lower(): i for i, name in reversed(list(enumerate(names, start=1)))}
    for triple in _TRIPLES:
        if all(name in known for name in triple):
            return Display(tuple(known[name] for name in triple), stretch=True)
    return Display((1, 2, 3) if len(names) >= 3 else (1,), stretch=True)


# -------------------- style.py

from typing import Any, ClassVar

from qgis.core import (
    Qgis,
    QgsContrastEnhancement,
    QgsMultiBandColorRenderer,
    QgsProcessingLayerPostProcessorInterface,
    QgsRaster,
    QgsRasterLayer,
    QgsRasterMinMaxOrigin,
    QgsSingleBandGrayRenderer,
)


_COLORS = {
    QgsRaster.RedBand: "red",
    QgsRaster.GreenBand: "green",
    QgsRaster.BlueBand: "blue",
}


def apply_style(layer: QgsRasterLayer) -> None:
    """Show three bands, or one, stretched to the 2nd to 98th percentile unless 8-bit colours."""
    provider = layer.dataProvider()
    numbers = range(1, layer.bandCount() + 1)
    display = choose_display(
        # `Band 04: B04`, with the band's description after the colon.
        [provider.generateBandName(number).partition(": ")[2] for number in numbers],
        [_COLORS.get(provider.colorInterpretation(number), "") for number in numbers],
        is_byte=all(provider.sourceDataType(number) == Qgis.Byte for number in numbers),
    )
    if len(display.bands) == 3:
        layer.setRenderer(QgsMultiBandColorRenderer(provider, *display.bands))
    else:
        layer.setRenderer(QgsSingleBandGrayRenderer(provider, display.bands[0]))
    if display.stretch:
        layer.setContrastEnhancement(
            QgsContrastEnhancement.StretchToMinimumMaximum, QgsRasterMinMaxOrigin.CumulativeCut
        )
    else:
        layer.setContrastEnhancement(QgsContrastEnhancement.NoEnhancement)
    layer.triggerRepaint()


class StyleProduct(QgsProcessingLayerPostProcessorInterface):
    """Styles a product when QGIS has loaded it."""

    # QGIS does not own post-processors; this keeps them until they have been called.
    _alive: ClassVar[list[Any]] = []

    @classmethod
    def create(cls) -> StyleProduct:
        """Return a post-processor that lives until it is called."""
        found = cls()
        cls._alive.append(found)
        return found

    def postProcessLayer(self, layer: Any, context: Any, feedback: Any) -> None:
        """Style the layer."""
        if isinstance(layer, QgsRasterLayer) and layer.isValid():
            apply_style(layer)
        if self in self._alive:
            self._alive.remove(self)


# -------------------- translate.py

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingAlgorithm, QgsProcessingParameterRasterDestination



class TranslateScene(ToolkitMixin, QgsProcessingAlgorithm):
    """Translates a whole scene with a trained model."""

    NAME = "translatescene"
    TITLE = "Translate scene"
    GROUP = "GeoCycleGAN"
    ICON = "translate"
    SHORT = "Translate a whole scene to the other domain of a trained model, without seams"
    TAGS = ("geocyclegan", "cyclegan", "deep learning", "image translation", "inference", "SAR")
    OPTIONS = TRANSLATE
    HELP = """
<p>Translates a scene of any size to the other domain of a trained model, and writes a
Cloud-Optimised GeoTIFF on the scene's own grid, with the bands, units, nodata and pixel type of the
target domain.</p>
<p>The scene is read in windows, so memory grows little with it. Tiles do not show.</p>
<h3>Model</h3>
<p>The folder that "Train translation model" wrote, or a model folder that somebody gave you.
Nothing in it is executed.</p>
<h3>Translated scene</h3>
<p>It is loaded with three of its bands in natural colours where they are named so, else in false
colours, stretched to the 2nd to 98th percentile; 8-bit colours are shown as they are.</p>
<p>A translated scene is a plausible one, <b>not a measurement</b>: its tags say SYNTHETIC=YES.</p>
"""

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Declare the parameters."""
        self.add_parameters(advanced=False)
        product = QgsProcessingParameterRasterDestination("OUT", "Translated scene")
        product.setHelp("GeoTIFF to write, on the grid of the scene.")
        self.addParameter(product)
        self.add_parameters(advanced=True)

    def checkParameterValues(self, parameters: Any, context: Any) -> tuple[bool, str]:
        """Refuse what cannot be before anything runs."""
        fits, message = super().checkParameterValues(parameters, context)
        if not fits:
            return fits, message
        product = Path(self.parameterAsOutputLayer(parameters, "OUT", context))
        if product.suffix.lower() not in (".tif", ".tiff"):
            return False, f"Translated scene: products are GeoTIFFs; name it {product.stem}.tif."
        return True, ""

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:
        """Run `geocyclegan infer`."""
        values = self.values(parameters, context, feedback)
        product = self.parameterAsOutputLayer(parameters, "OUT", context)
        if not self.run_toolkit([translate_command(values, product)], values, feedback):
            return {}
        if context.willLoadLayerOnCompletion(product):
            context.layerToLoadOnCompletionDetails(product).setPostProcessor(StyleProduct.create())
        return {"OUT": product}


def translate_command(values: Mapping[str, Any], product: str) -> list[str]:
    """Return the command; QGIS has asked already whether a file may be replaced."""
    return [
        "infer",
        f"--out={product}",
        f"--model={values['MODEL']}",
        "--overwrite",
        *arguments(TRANSLATE, values),
        "--",
        values["SCENE"],
    ]
