"""`geocyclegan verify`: whether chips, products and models still are what was written."""

from __future__ import annotations

from pathlib import Path

import click

from geocyclegan.cli.options import Settings

_SHOWN = 20


@click.command("verify")
@click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path)
)
@click.pass_obj
def command(settings: Settings | None, /, paths: tuple[Path, ...]) -> None:
    """Find damage in chip folders, products and models.

    PATH is a chip folder (every chip is compared with its SHA-256 in chips.parquet; virtual chips
    are read from their scenes again), a product of infer (its pixels are compared with the hash
    that it carries), a run (its model, its best model and its checkpoints), or a model folder or
    checkpoint. Exits with 1 if anything is damaged.

    \b
        geocyclegan verify chips translated.tif runs/spain
    """  # noqa: D301 - click reads the backspace character
    from geocyclegan.errors import ChipsError, NotFoundError

    quiet = settings is not None and settings.quiet
    damaged: list[tuple[Path, int]] = []
    for path in paths:
        if not path.exists():
            raise NotFoundError(f"{path}: no such file or folder")
        lines, faults = find_damage(path)
        if faults:
            damaged.append((path, faults))
        if faults or not quiet:
            click.echo("\n".join(lines))
    if damaged:
        path, faults = damaged[0]
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        remedy = "make them anew from their source"
        raise ChipsError(f"{path}{more}: {faults} damaged or missing; {remedy}")


def find_damage(path: Path) -> tuple[list[str], int]:
    """Return what to say about a path, and how many things are wrong."""
    if path.name == "model.json":
        path = path.parent
    if path.suffix == ".pt":
        line, wrong_state = _check_state(path)
        return [line], int(wrong_state)
    if path.is_file():
        from geocyclegan.raster.digest import check_product

        wrong = check_product(path)
        return [f"{path}: {wrong or 'sound'}"], int(wrong is not None)
    models, states = _parts_of_run(path)
    if models or states:
        told = [*map(_check_model, models), *map(_check_state, states)]
        return [line for line, _ in told], sum(wrong for _, wrong in told)
    from geocyclegan.chips.verify import verify_chips

    found = verify_chips(path)
    lines = [f"{path}/{name}: {wrong}" for name, wrong in found.damaged[:_SHOWN]]
    if len(found.damaged) > _SHOWN:
        lines.append(f"... and {len(found.damaged) - _SHOWN} more")
    if found.unlisted:
        lines.append(
            f"{path}/{found.unlisted[0]}: not listed, so not part of the set"
            + (f", nor {len(found.unlisted) - 1} others" if len(found.unlisted) > 1 else "")
        )
    if not found.damaged:
        lines.append(f"{path}: {found.checked} chips, all sound")
    return lines, len(found.damaged)


def _parts_of_run(path: Path) -> tuple[list[Path], list[Path]]:
    """Return the models and the checkpoints that lie in a folder; none if it is no run or model."""
    if _is_model(path):
        return [path], []
    states = sorted({*path.glob("step_*.pt"), *path.glob("checkpoints/step_*.pt")})
    return [path / name for name in ("model", "best") if _is_model(path / name)], states


def _is_model(path: Path) -> bool:
    from geocyclegan.bundle import other_name

    # Between the two renames of writing it anew it goes by its other name.
    names = [path / "model.json", other_name(path) / "model.json"]
    return any(name.is_file() for name in [*names, path / "model.safetensors"])


def _check_model(path: Path) -> tuple[str, bool]:
    from geocyclegan.bundle import load_bundle
    from geocyclegan.errors import BundleError

    try:
        bundle = load_bundle(path)
        bundle.check()
        for direction in bundle.generators:
            bundle.generator(direction)
        for domain in bundle.makers:
            bundle.maker(domain)
    except BundleError as error:
        return str(error), True
    description = (
        "description" if bundle.sealed else "no hash of the description in this old format"
    )
    return f"{path}: sound (weights, {description})", False


def _check_state(path: Path) -> tuple[str, bool]:
    from geocyclegan.training.checkpoint import damage

    wrong = damage(path)
    return f"{path}: {wrong or 'sound'}", wrong is not None
