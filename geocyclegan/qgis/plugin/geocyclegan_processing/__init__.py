# SPDX-License-Identifier: GPL-2.0-or-later
"""GeoCycleGAN in QGIS: chip scenes, train a translation model, translate scenes."""

from __future__ import annotations

from typing import Any


def classFactory(iface: Any) -> Any:
    """Return the plugin; QGIS calls this."""
    from .plugin import GeoCycleGANPlugin

    return GeoCycleGANPlugin()
