# SPDX-License-Identifier: GPL-2.0-or-later
"""The algorithm "Train translation model"."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingAlgorithm, QgsProcessingParameterFolderDestination

from .options import arguments
from .table_train import TRAIN
from .toolkit import ToolkitMixin, warn_if_temporary


class TrainTranslationModel(ToolkitMixin, QgsProcessingAlgorithm):
    """Trains a model that translates between the two domains of a chip folder."""

    NAME = "traintranslationmodel"
    TITLE = "Train translation model"
    GROUP = "Training"
    ICON = "train"
    SHORT = "Train a model that translates between the two kinds of scenes, without pixel pairs"
    TAGS = ("geocyclegan", "cyclegan", "deep learning", "neural network", "machine learning")
    OPTIONS = TRAIN
    HELP = """
<p>Trains a model that translates scenes of domain A to domain B and back, from the chips of "Chip
scenes". No pixel pairs are needed.</p>
<p>With the defaults this takes hours on a graphics card and is not for a processor alone. For a
first look choose resnet6, width 16 and a few hundred steps.</p>
<p><b>Cancel</b> ends after the running step and saves. To go on, run it again with the same output
folder and "Go on with the run in the output folder".</p>
<h3>Run folder</h3>
<p>Receives the model, checkpoints, losses (log.csv and TensorBoard) and panels of translated
samples (panels/). Give it to "Translate scene".</p>
<p>Falling losses do not tell that a translation is right. Look at the panels, and compare with
truth where you have some.</p>
"""

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Declare the parameters."""
        self.add_parameters(advanced=False)
        folder = QgsProcessingParameterFolderDestination("OUT", "Run folder")
        folder.setHelp("A new folder for the model, its checkpoints, logs and sample panels.")
        self.addParameter(folder)
        self.add_parameters(advanced=True)

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:
        """Run `geocyclegan train`."""
        values = self.values(parameters, context, feedback)
        folder = self.parameterAsString(parameters, "OUT", context)
        warn_if_temporary(folder, feedback)
        if not self.run_toolkit([train_command(values, folder)], values, feedback):
            return {}
        return {"OUT": folder}


def train_command(values: Mapping[str, Any], folder: str) -> list[str]:
    """Return the command; the run has the name of its folder."""
    run = Path(folder)
    return [
        "train",
        f"--out={run.parent}",
        f"--name={run.name}",
        *arguments(TRAIN, values),
        "--",
        values["CHIPS"],
    ]
