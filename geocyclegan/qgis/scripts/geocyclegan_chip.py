# SPDX-License-Identifier: GPL-2.0-or-later
"""The algorithm "Chip scenes" as a single file: copy it to processing/scripts of a profile."""

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


# -------------------- table_chip.py

def _domain_options(name: str) -> tuple[Option, ...]:
    return (
        Option(
            f"BANDS_{name}",
            "--bands",
            f"Bands of domain {name}",
            "text",
            "Bands by number or description, such as 1-3 or B04,B03,B02. Left empty: all but"
            " transparency.",
        ),
        Option(
            f"SCALE_{name}",
            "--scale",
            f"Scaling of domain {name}",
            "text",
            "How pixel values become network levels: auto, linear:LO,HI, percentile:LO,HI, db,"
            " log1p or zscore.",
            default="auto",
        ),
        Option(
            f"NODATA_{name}",
            "--nodata",
            f"Undeclared nodata of domain {name}",
            "text",
            "Number, such as 0 or -9999, that stands for no data though the files do not say so:"
            " pixels are invalid where all chosen bands have it.",
        ),
        Option(
            f"UNIT_{name}",
            "--unit",
            f"Unit of domain {name}",
            "text",
            "Unit of the pixel values, such as dB, where the files do not state it.",
        ),
        Option(
            f"MASK_{name}",
            "--mask",
            f"Masks of domain {name}",
            "rasters",
            "Class rasters that make pixels invalid, such as cloud masks, on any grid: one for all"
            " scenes, or one for each in the same order.",
        ),
        Option(
            f"LABELS_{name}",
            "--labels",
            f"Labels of domain {name}",
            "rasters",
            "Class rasters to cut alongside: one for all scenes, or one for each in the same"
            " order.",
        ),
    )


CHIP = (
    Option(
        "SCENES_A",
        "",
        "Scenes of domain A",
        "rasters",
        "Scenes to translate from, such as radar. Left empty: domain A of the chip folder stays as"
        " it is.",
        advanced=False,
    ),
    Option(
        "SCENES_B",
        "",
        "Scenes of domain B",
        "rasters",
        "Scenes of the kind to translate to, such as optical. They need not show the same place or"
        " day.",
        advanced=False,
    ),
    Option(
        "SIZE",
        "--size",
        "Chip size",
        "text",
        "Side of a chip: pixels, or metres on the ground such as 1280m.",
        default="256",
        advanced=False,
    ),
    Option(
        "AOI",
        "--aoi",
        "Area of interest",
        "vector",
        "Polygons; only chips that they cover are kept.",
        advanced=False,
    ),
    Option(
        "PAIR",
        "",
        "The scenes of A and B are pairs",
        "switch",
        "Each scene of B shows the ground of the scene of A at the same place of the list: chips of"
        " the same windows of both are cut, on the grid of A, valid where both are.",
        default=False,
        advanced=False,
    ),
    Option(
        "STRIDE",
        "--stride",
        "Stride",
        "text",
        "From one chip to the next, in the units of the size. Left empty: the size, so that chips"
        " do not overlap.",
    ),
    Option(
        "EDGE",
        "--edge",
        "At a scene's edge",
        "choice",
        "Where a scene ends within a chip: shift the chip back, pad and mask it, or drop it.",
        default="shift",
        choices=("shift", "pad", "drop"),
    ),
    Option(
        "RANDOM",
        "--random",
        "Random chips per scene",
        "integer",
        "So many chips at random places of each scene, instead of a grid of chips.",
        least=1,
    ),
    *_domain_options("A"),
    *_domain_options("B"),
    Option(
        "MASK_VALUES",
        "--mask-values",
        "Invalid classes of the masks",
        "text",
        "Such as 3,8-10. Left empty: all but 0.",
    ),
    Option("LIKE", "--like", "Grid of", "raster", "Put all scenes on the grid of this raster."),
    Option("CRS", "--crs", "Reference system", "crs", "Put all scenes into this system."),
    Option(
        "RES",
        "--res",
        "Pixel size",
        "text",
        "Put all scenes to this pixel size, in units of the reference system: 10 or 10,20.",
    ),
    Option(
        "RESAMPLING",
        "--resampling",
        "Resampling",
        "choice",
        "How, where pixels do not coincide; auto: nearest for classes, bilinear for the rest.",
        default="auto",
        choices=(
            *("auto", "nearest", "bilinear", "cubic", "cubic_spline"),
            *("lanczos", "average", "mode", "med"),
        ),
    ),
    Option(
        "MIN_COVER",
        "--min-cover",
        "Least share within the area of interest",
        "number",
        "Share of a chip that the polygons must cover.",
        default=0.5,
        least=0,
        most=1,
    ),
    Option(
        "EXCLUDE",
        "--exclude",
        "Areas to leave out",
        "vector",
        "Polygons; chips that they touch are left out.",
    ),
    Option(
        "MIN_VALID",
        "--min-valid",
        "Least share of valid pixels",
        "number",
        "Of a chip; nodata, masked and transparent pixels are not valid.",
        default=0.9,
        least=0,
        most=1,
    ),
    Option(
        "MIN_STD",
        "--min-std",
        "Least standard deviation",
        "number",
        "In stored units; some band of a chip must vary that much.",
        default=0.0,
        least=0,
    ),
    Option(
        "DROP_DUPLICATES",
        "--drop-duplicates",
        "Leave out duplicates",
        "switch",
        "Leave out chips with the same pixels as an earlier chip of the domain.",
        default=False,
    ),
    Option(
        "VAL",
        "--val",
        "Share for validation",
        "number",
        "Share of the chips set aside, in blocks apart from those of training.",
        default=0.1,
        least=0,
        most=1,
    ),
    Option(
        "VIRTUAL",
        "--virtual",
        "Write no chips",
        "switch",
        "Write only the list of chips; training then reads them from the scenes.",
        default=False,
    ),
    Option(
        "WORKERS",
        "--workers",
        "Processes",
        "integer",
        "Left empty: by the size of the job.",
        least=1,
    ),
    SEED,
    Option(
        "OVERWRITE",
        "--overwrite",
        "Replace what the folder holds",
        "switch",
        "Remove the earlier chips of each domain that is given. Otherwise scenes chipped before are"
        " refreshed, and others added.",
        default=False,
    ),
    *COMMON,
)


# -------------------- chip.py

from collections.abc import Mapping
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterFolderDestination,
)



class ChipScenes(ToolkitMixin, QgsProcessingAlgorithm):
    """Cuts scenes of both domains into chips for training."""

    NAME = "chipscenes"
    TITLE = "Chip scenes"
    GROUP = "GeoCycleGAN"
    ICON = "chip"
    SHORT = "Cut scenes of two kinds into chips that a translation model is trained on"
    TAGS = ("geocyclegan", "cyclegan", "tiles", "patches", "deep learning", "training data")
    OPTIONS = CHIP
    HELP = """
<p>Cuts scenes of two kinds, domain A and domain B, into small GeoTIFFs that a translation model is
trained on: radar and optical, before and after, image and map. The scenes of A and B need not show
the same place or day.</p>
<p>Each chip keeps its reference system, its band names and its valid pixels. How pixel values
become network levels is fitted on all scenes of a domain and stored with the chips. Validation
chips come from blocks of ground apart from those of training.</p>
<h3>Scenes of domain A and B</h3>
<p>Any rasters that GDAL reads, with any bands. A folder that holds chips already may be given again
with further scenes, or with scenes of one domain only.</p>
<h3>Chip size</h3>
<p>256 pixels suit most generators. Take 128 where scenes are small.</p>
<h3>Chip folder</h3>
<p>Give it to "Train translation model". The file chips.parquet in it lists each chip with its
footprint.</p>
"""

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Declare the parameters."""
        self.add_parameters(advanced=False)
        folder = QgsProcessingParameterFolderDestination("OUT", "Chip folder")
        folder.setHelp("Folder of the chips of both domains.")
        self.addParameter(folder)
        self.add_parameters(advanced=True)

    def checkParameterValues(self, parameters: Any, context: Any) -> tuple[bool, str]:
        """Refuse what cannot be before anything runs."""
        fits, message = super().checkParameterValues(parameters, context)
        if not fits:
            return fits, message
        counts = [
            len(self.parameterAsLayerList(parameters, f"SCENES_{domain}", context))
            for domain in "AB"
        ]
        if not any(counts):
            return False, "Choose scenes of domain A, of domain B, or of both."
        if self.parameterAsBool(parameters, "PAIR", context) and counts[0] != counts[1]:
            return False, (
                f"Pairs need as many scenes of domain A as of domain B, not {counts[0]} and"
                f" {counts[1]}."
            )
        return True, ""

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:
        """Run `geocyclegan chip` for each domain."""
        values = self.values(parameters, context, feedback)
        folder = self.parameterAsString(parameters, "OUT", context)
        warn_if_temporary(folder, feedback)
        try:
            commands = chip_commands(values, folder)
        except ValueError as error:
            raise QgsProcessingException(str(error)) from None
        if not self.run_toolkit(commands, values, feedback):
            return {}
        return {"OUT": folder}


def chip_commands(values: Mapping[str, Any], folder: str) -> list[list[str]]:
    """Return the commands: one for each domain with scenes, or one for pairs.

    Raises:
        ValueError: masks or labels of B are given for pairs, whose masks and labels are those of A.
    """
    common = tuple(option for option in CHIP if option.name[-2:] not in ("_A", "_B"))
    shared = [f"--out={folder}", *arguments(common, values)]
    if values.get("PAIR"):
        for name, what in (("MASK_B", "Masks"), ("LABELS_B", "Labels")):
            if values.get(name):
                raise ValueError(f"{what} of domain B: pairs have those of A; leave this empty")
        other = [
            *(f"--pair={scene}" for scene in values["SCENES_B"]),
            *(f"--pair-bands={values['BANDS_B']}" for _ in [0] if values.get("BANDS_B")),
            *(f"--pair-scale={values['SCALE_B']}" for _ in [0] if values.get("SCALE_B")),
            *(f"--pair-nodata={values['NODATA_B']}" for _ in [0] if values.get("NODATA_B")),
            *(f"--pair-unit={values['UNIT_B']}" for _ in [0] if values.get("UNIT_B")),
        ]
        mine = _domain_arguments("A", values)
        return [["chip", "--domain=a", *shared, *mine, *other, "--", *values["SCENES_A"]]]
    return [
        ["chip", f"--domain={d.lower()}", *shared, *_domain_arguments(d, values), "--", *scenes]
        for d in "AB"
        if (scenes := values.get(f"SCENES_{d}"))
    ]


def _domain_arguments(domain: str, values: Mapping[str, Any]) -> list[str]:
    chosen: tuple[Option, ...] = tuple(o for o in CHIP if o.name.endswith(f"_{domain}"))
    return arguments(chosen, values)
