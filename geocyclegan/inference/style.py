"""One style for a whole scene: drawn by a seed, or taken from another scene."""

from __future__ import annotations

import torch

from geocyclegan.bundle import Bundle, Direction
from geocyclegan.errors import OptionError, SceneError
from geocyclegan.inference.levels import SceneLevels, to_tensors
from geocyclegan.models.generator import Generator
from geocyclegan.models.style import StyledGenerator, seeded_style
from geocyclegan.raster.bands import bands_for
from geocyclegan.raster.opening import gdal_env
from geocyclegan.raster.scene import Scene
from geocyclegan.raster.windows import Window, round_up

_SEED = "seed:"
# A style is a mean over the scene; windows of this side are many enough, and small.
_SIDE = 512


def use_style(
    generator: Generator,
    bundle: Bundle,
    direction: Direction,
    style: str | None,
    device: torch.device,
) -> None:
    """Give a generator the style that all tiles of a scene share.

    Args:
        generator: in eval mode, on `device`.
        bundle: where it is from.
        direction: in which it translates.
        style: "seed:N", or a scene of the target domain; None: the mean of the training set.
        device: where the generator is.

    Raises:
        OptionError: the model has no styles, or `style` is neither a seed nor a scene.
        SceneError: the scene cannot be read, or has no valid pixel.
        NotFoundError: there is no such scene.
    """
    if not isinstance(generator, StyledGenerator):
        if style is not None:
            raise OptionError(
                f"--style {style}: a {bundle.method} model has no styles; leave the option out, or"
                " use a model of --method munit"
            )
        return
    with torch.inference_mode():
        if style is None:
            vector = generator.mean_style[None]
        elif is_seed(style):
            vector = seeded_style(_seed(style), generator.style_dims).to(device)
        else:
            vector = _style_of(generator, bundle, direction, style, device)
        generator.set_style(vector)


def is_seed(style: str) -> bool:
    """Say whether a style is drawn by a seed; else it is a scene."""
    return style.startswith(_SEED)


def _seed(style: str) -> int:
    number = style.removeprefix(_SEED)
    if not number.isdecimal() or int(number) >= 2**63:
        raise OptionError(
            f"--style {style}: expected a scene, or seed:N with a whole number such as seed:3"
        )
    return int(number)


def _style_of(
    generator: StyledGenerator,
    bundle: Bundle,
    direction: Direction,
    path: str,
    device: torch.device,
) -> torch.Tensor:
    """The style of a scene, window by window; its windows tile it, so each pixel counts once."""
    domain = bundle.target(direction)
    total = count = torch.zeros((), dtype=torch.float64)
    with gdal_env(), Scene(path, amplitude=domain.amplitude) as scene:
        bands = bands_for(domain, scene.all_bands, scene.path)
    with gdal_env(), Scene(path, bands, amplitude=domain.amplitude) as scene:
        scene.leave_out(domain.undeclared)
        height, width = scene.grid.shape
        levels = SceneLevels(scene, domain, height, width)
        side = min(_SIDE, round_up(max(height, width), 16))
        # Reflection needs some pixels at the coarsest scale.
        side = max(side, 32)
        for row in range(0, height, side):
            for col in range(0, width, side):
                read = levels.read(Window(row, col, side, side))
                if not read[1].any():
                    continue
                features, weight = generator.style_encoder.sums(*to_tensors([read], device))
                total = total + features.double().cpu()
                count = count + weight.double().cpu()
    if not float(count.sum()) > 0:
        raise SceneError(f"--style {path}: no valid pixel in it, so it has no style")
    mean = (total / count).float().to(device)
    style: torch.Tensor = generator.style_encoder.head(mean)
    return style
