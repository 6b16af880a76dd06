# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin: it has nothing but a provider."""

from __future__ import annotations

from qgis.core import QgsApplication

from .provider import GeoCycleGANProvider


class GeoCycleGANPlugin:
    """Adds the provider to Processing, and takes it out again."""

    def __init__(self) -> None:
        self._provider: GeoCycleGANProvider | None = None

    def initProcessing(self) -> None:
        """Add the provider; qgis_process calls this alone."""
        self._provider = GeoCycleGANProvider()
        QgsApplication.processingRegistry().addProvider(self._provider)

    def initGui(self) -> None:
        """Add the provider."""
        self.initProcessing()

    def unload(self) -> None:
        """Take the provider out."""
        if self._provider is not None:
            QgsApplication.processingRegistry().removeProvider(self._provider)
            self._provider = None
