# SPDX-License-Identifier: GPL-2.0-or-later
"""The provider: three algorithms, an icon, and the setting of where the toolkit is."""

from __future__ import annotations

from pathlib import Path

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .chip import ChipScenes
from .runner import EXECUTABLE_SETTING
from .train import TrainTranslationModel
from .translate import TranslateScene

ICONS = Path(__file__).with_name("icons")


class GeoCycleGANProvider(QgsProcessingProvider):
    """GeoCycleGAN in the Processing toolbox."""

    def id(self) -> str:
        """Return the identifier, the first part of `geocyclegan:chipscenes`."""
        return "geocyclegan"

    def name(self) -> str:
        """Return the name in the toolbox."""
        return "GeoCycleGAN"

    def longName(self) -> str:
        """Return the name in full."""
        return "GeoCycleGAN: translation between kinds of imagery"

    def icon(self) -> QIcon:
        """Return the icon."""
        return QIcon(self.svgIconPath())

    def svgIconPath(self) -> str:
        """Return the path of the icon."""
        return str(ICONS / "geocyclegan.svg")

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        """Return the suffixes of products, whatever the user's default for rasters is."""
        return ["tif", "tiff"]

    def load(self) -> bool:
        """Add the setting and the algorithms."""
        ProcessingConfig.settingIcons[self.name()] = self.icon()
        ProcessingConfig.addSetting(
            Setting(
                self.name(), EXECUTABLE_SETTING, "geocyclegan command", "", valuetype=Setting.FILE
            )
        )
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self) -> None:
        """Take the setting out of the dialog; its value stays."""
        ProcessingConfig.removeSetting(EXECUTABLE_SETTING)

    def loadAlgorithms(self) -> None:
        """Add the algorithms."""
        for algorithm in (ChipScenes, TrainTranslationModel, TranslateScene):
            self.addAlgorithm(algorithm())
