"""`geocyclegan --version`: the versions that a bug report needs."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata

import click

from geocyclegan import __version__

_PACKAGES = ("lightning", "numpy", "geopandas", "pyarrow", "safetensors", "click")


def show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the versions and leave; the first line is ours and comes at once."""
    if not value or ctx.resilient_parsing:
        return
    click.echo(f"geocyclegan {__version__}")
    sys.stdout.flush()
    for name, version in versions():
        click.echo(f"  {name:<12}{version}")
    ctx.exit()


def versions() -> Iterator[tuple[str, str]]:
    """Yield what the program runs on; what cannot be imported is said, not raised."""
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    yield "platform", platform.platform()
    for name, look in (("GDAL, PROJ", _raster), ("torch", _torch)):
        yield name, _or_why_not(look)
    for name in _PACKAGES:
        yield name, _or_why_not(partial(metadata.version, name))


def _or_why_not(look: Callable[[], str]) -> str:
    try:
        return look()
    except Exception as error:
        # A broken installation is what bug reports are about.
        return f"not there ({type(error).__name__}: {' '.join(str(error).split())})"


def _raster() -> str:
    import rasterio

    from geocyclegan.errors import SceneError
    from geocyclegan.raster.projdata import check_proj_data

    gdal, proj = rasterio.__gdal_version__, rasterio.__proj_version__
    told = f"{gdal}, {proj} (rasterio {rasterio.__version__})"
    try:
        check_proj_data()
    except SceneError as error:
        return f"{told}; {error}"
    return told


def _torch() -> str:
    import torch

    cuda = torch.version.cuda
    if cuda is None:
        return f"{torch.__version__}, built without CUDA"
    if not torch.cuda.is_available():
        return f"{torch.__version__}, CUDA {cuda}, no device"
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{torch.__version__}, CUDA {cuda}, {', '.join(devices)}"
