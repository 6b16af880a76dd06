"""Translate whole georeferenced scenes between imaging domains."""

__version__ = "0.1.0"
