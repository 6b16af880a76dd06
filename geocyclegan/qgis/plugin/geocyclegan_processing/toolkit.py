# SPDX-License-Identifier: GPL-2.0-or-later
"""What the three algorithms share: parameters from a table, and the toolkit as a child process."""

from __future__ import annotations

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

from .options import Option, split_extra
from .runner import (
    EXECUTABLE_SETTING,
    Finished,
    ProgressLine,
    ToolkitError,
    find_executable,
    run_child,
)

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
