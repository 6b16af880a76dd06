# SPDX-License-Identifier: GPL-2.0-or-later
"""How a product looks when it is loaded into the project."""

from __future__ import annotations

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

from .display import choose_display

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
