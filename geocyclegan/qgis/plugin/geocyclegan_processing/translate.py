# SPDX-License-Identifier: GPL-2.0-or-later
"""The algorithm "Translate scene"."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingAlgorithm, QgsProcessingParameterRasterDestination

from .options import arguments
from .style import StyleProduct
from .table_translate import TRANSLATE
from .toolkit import ToolkitMixin


class TranslateScene(ToolkitMixin, QgsProcessingAlgorithm):
    """Translates a whole scene with a trained model."""

    NAME = "translatescene"
    TITLE = "Translate scene"
    GROUP = "Translation"
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
