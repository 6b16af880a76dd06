"""QGIS: a Processing plugin, the same as single scripts, and what puts them into a profile.

The folders `plugin/` and `scripts/` are data of this package: QGIS's own Python runs them. They are
under GPL-2.0-or-later, as plugins of QGIS have to be; `plugin/geocyclegan_processing/LICENSE`.
"""
