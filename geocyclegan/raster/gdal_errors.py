"""What GDAL raises through rasterio."""

from __future__ import annotations

# Rasterio has no public name for what GDAL says that rasterio does not translate.
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)
"""What opening, reading, describing or warping a raster can raise."""
