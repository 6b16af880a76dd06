"""Whole scenes through a generator: tiles, statistics, blending and products."""
