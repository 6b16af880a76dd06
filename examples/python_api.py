# %% [markdown]
# # From scenes to a product, in Python
#
# The same chain as `geocyclegan demo`, as functions: chip, train, infer, and a model on arrays. The
# scenes come with the package. The training is a few steps long, enough to see the parts work; what
# it translates is noise. Run it as a script, or cell by cell in an editor that knows `# %%`.
#
# Needs `pip install "geocyclegan[xarray]"`.

# %%
from pathlib import Path

import numpy as np
import rioxarray
import xarray as xr

import geocyclegan as gcg
from geocyclegan import samples

radar, optical = samples.path("spain_sentinel1"), samples.path("spain_sentinel2")
work = Path("walkthrough")

# %% [markdown]
# ## Chips
#
# Scenes are cut into chips of domain A and B. Options are those of the command line; big jobs start
# processes, which is why the chain stands below `if __name__ == "__main__":` at the end.


# %%
def chips_of_both() -> None:
    """Cut the two sample scenes."""
    for domain, scene in (("a", radar), ("b", optical)):
        report = gcg.chip(
            scene,
            domain="a" if domain == "a" else "b",
            out=work / "chips",
            size=128,
            stride=64,
            overwrite=True,
        )
        print(f"domain {domain}: {report.train} training chips of {report.record.domain.labels}")


# %% [markdown]
# ## Training
#
# `norm="scene"` gives a model whose statistics can be frozen: it translates blocks of a large array
# each by itself, and can be exported.


# %%
def trained(steps: int = 4) -> gcg.TrainResult:
    """Train a small model for a few steps."""
    run = gcg.train(
        work / "chips",
        out=work / "runs",
        name="walkthrough",
        generator="resnet6",
        width=8,
        norm="scene",
        scene_crops=2,
        crop=64,
        steps=steps,
        panel_every=0,
        val_every=0,
        overwrite=True,
    )
    print(f"{run.steps} steps: {run.losses}")
    return run


# %% [markdown]
# ## A product
#
# Scenes of any size become Cloud-Optimised GeoTIFFs on their own grid.


# %%
def product_of(run: gcg.TrainResult) -> Path:
    """Translate the radar scene."""
    (product,) = gcg.infer(radar, out=work / "translated.tif", model=run.run, overwrite=True)
    print(f"product: {product}")
    return product


# %% [markdown]
# ## Arrays
#
# A model translates NumPy arrays in the stored units of its source domain, and `xarray.DataArray`s,
# which keep their place. On dask nothing is computed before it is asked for.


# %%
def arrays(run: gcg.TrainResult, product: Path) -> xr.DataArray:
    """Translate the scene as an array, as a DataArray, and lazily."""
    model = gcg.load(run.run)
    print(f"takes {model.source().labels}, gives {model.target().labels}")
    scene = rioxarray.open_rasterio(radar)
    assert isinstance(scene, xr.DataArray)
    translated = model.translate(scene)
    assert translated.rio.crs == scene.rio.crs
    plain = model.translate(scene.values)
    assert np.array_equal(plain, translated.values)
    # The file holds the same pixels.
    assert np.array_equal(rioxarray.open_rasterio(product), translated)  # type: ignore[arg-type]

    lazy = model.translate(scene.chunk(y=128, x=128))
    corner = lazy[:, :64, :64].compute()
    difference = np.abs(corner.astype(float) - translated[:, :64, :64]).max()
    print(f"a corner of the lazy one differs by {float(difference):g} of {corner.dtype}")
    return translated


# %%
if __name__ == "__main__":
    chips_of_both()
    run = trained()
    translated = arrays(run, product_of(run))
    print(f"translated: {translated.dims} {translated.shape}, {translated.attrs['SYNTHETIC']=}")
