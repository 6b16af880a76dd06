"""Options and fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings

# Machines that run tests are shared; a deadline would measure them, not the code.
# The same examples in every run: a suite that fails must fail again. HYPOTHESIS_PROFILE=explore
# looks for new ones.
settings.register_profile("geocyclegan", deadline=None, max_examples=60, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "geocyclegan"))

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run side by side: threads of each would only wait for each other's cores. Child
    # processes see it, too.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C, and so would the programs that tests send it to.
    signal.signal(signal.SIGINT, signal.default_int_handler)

MakeRaster = Callable[..., Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: give --slow to run it"))


FileLimit = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def file_limit() -> FileLimit:
    """Let every write beyond so many bytes of a file fail, as on a disk that is full."""
    resource = pytest.importorskip("resource", reason="needs POSIX limits")

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The developers' imagery beside the checkout; tests that need it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data, which is not part of the project")
    return folder


@pytest.fixture
def make_raster(tmp_path: Path) -> MakeRaster:
    """Write a small GeoTIFF; keywords go to rasterio, `pixels` are (bands, height, width)."""
    # Here, so that tests of networks run where there is no rasterio, as on a borrowed GPU.
    import rasterio
    from affine import Affine

    def make(
        name: str,
        pixels: npt.NDArray[Any],
        *,
        names: tuple[str, ...] = (),
        mask: npt.NDArray[np.bool_] | None = None,
        colors: tuple[Any, ...] = (),
        tags: dict[str, str] | None = None,
        **profile: Any,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {
            "driver": "GTiff",
            "crs": "EPSG:32630",
            "transform": Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 4_200_000.0),
            "count": pixels.shape[0],
            "height": pixels.shape[1],
            "width": pixels.shape[2],
            "dtype": pixels.dtype.name,
        }
        settings |= profile
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", **settings) as dataset,
        ):
            dataset.write(pixels)
            for index, text in enumerate(names, start=1):
                dataset.set_band_description(index, text)
            if colors:
                dataset.colorinterp = colors
            if mask is not None:
                dataset.write_mask(mask)
            if tags:
                dataset.update_tags(**tags)
        return path

    return make
