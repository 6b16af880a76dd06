# SPDX-License-Identifier: GPL-2.0-or-later
"""The algorithm "Chip scenes"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterFolderDestination,
)

from .options import Option, arguments
from .table_chip import CHIP
from .toolkit import ToolkitMixin, warn_if_temporary


class ChipScenes(ToolkitMixin, QgsProcessingAlgorithm):
    """Cuts scenes of both domains into chips for training."""

    NAME = "chipscenes"
    TITLE = "Chip scenes"
    GROUP = "Training"
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
