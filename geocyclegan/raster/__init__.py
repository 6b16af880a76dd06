"""Georeferenced pixels: grids, windows, scenes, radiometry and products. Nothing here needs torch.

Arrays are `(bands, height, width)`; masks are `(height, width)`, True where a pixel is valid.
"""
