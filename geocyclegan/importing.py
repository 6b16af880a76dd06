"""Model bundles from weights that another program trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geocyclegan.bundle import Direction, save_bundle
from geocyclegan.errors import BundleError, NotFoundError, OptionError, OutputError
from geocyclegan.files import make_folder, output_lock, refuse_as_folder, sha256
from geocyclegan.models.published import Published, read_published
from geocyclegan.raster.domain import BandInfo, Domain
from geocyclegan.raster.inputs import Inputs
from geocyclegan.raster.radiometry import BandScaling

_RGB = ("red", "green", "blue")


@dataclass(frozen=True)
class ImportOptions:
    """How to make a bundle of foreign weights.

    Attributes:
        out: the run folder, which receives the bundle in `model/`.
        direction: which way the generator of a single file translates.
        domains: JSON files of domains "a" and "b", as `chip` writes them; 8-bit images otherwise.
        bands: names of the bands of the 8-bit domains "a" and "b".
        tile: side in px of the crops that the generator was trained on.
        overwrite: replace a model that is there.
    """

    out: Path
    direction: Direction = "a2b"
    domains: Mapping[str, Path] | None = None
    bands: Mapping[str, Sequence[str]] | None = None
    tile: int = 256
    overwrite: bool = False


def import_weights(files: Sequence[Path], options: ImportOptions) -> Path:
    """Make a bundle of one generator, or of two that translate there and back.

    Args:
        files: weights of the generator A to B and, if there is a second one, of B to A; of one file
            `options.direction` says which it is.
        options: how.

    Returns:
        The run folder.

    Raises:
        NotFoundError: a file is not there.
        BundleError: a file is not of a generator that is known, or a domain's file is damaged.
        OptionError: the bands do not fit.
        OutputError: the run exists, or cannot be written.
    """
    model = options.out / "model"
    _refuse_output(options, model)
    inputs = Inputs(files=(*files, *(options.domains or {}).values()))
    inputs.refuse_below("out", options.out, ("model",))
    given = {side: read_domain(file) for side, file in (options.domains or {}).items()}
    if len(files) == 1:
        read: dict[Direction, Published] = {options.direction: read_published(files[0])}
    elif len(files) == 2:
        read = {"a2b": read_published(files[0]), "b2a": read_published(files[1])}
    else:
        raise OptionError(f"{len(files)} files of weights: give one, or two for both directions")
    domains = _domains(read, options, given)
    for direction, published in read.items():
        if options.tile % published.network.stride or options.tile < published.network.min_size:
            raise OptionError(
                f"--tile {options.tile}: the generator {direction} takes multiples of"
                f" {published.network.stride} px, at least {published.network.min_size}"
            )
    make_folder(options.out)
    with output_lock(model):
        save_bundle(
            model,
            method="imported",
            generators={k: (each.name, each.network) for k, each in read.items()},
            domains=domains,
            tile=options.tile,
            training={
                "imported": [
                    {"file": path.name, "sha256": sha256(path), "direction": direction}
                    for path, direction in zip(files, read, strict=True)
                ]
            },
        )
    return options.out


def _refuse_output(options: ImportOptions, model: Path) -> None:
    if (options.out / "config.yaml").exists():
        raise OutputError(f"--out {options.out}: a trained run; choose another name")
    refuse_as_folder(options.out)
    if model.exists() and not options.overwrite:
        raise OutputError(f"--out {options.out}: it exists; give --overwrite or another name")


def _domains(
    read: Mapping[Direction, Published], options: ImportOptions, given: Mapping[str, Domain]
) -> dict[str, Domain]:
    counts: dict[str, int] = {}
    for direction, published in read.items():
        network = published.network
        for side, count in (
            (direction[0], network.in_channels),
            (direction[-1], network.out_channels),
        ):
            if counts.setdefault(side, count) != count:
                raise OptionError(
                    f"the two generators do not lead back to each other: domain {side.upper()} has"
                    f" {counts[side]} bands in one and {count} in the other"
                )
    return {side: _domain(side, counts[side], options, given.get(side)) for side in "ab"}


def _domain(side: str, count: int, options: ImportOptions, domain: Domain | None) -> Domain:
    names = (options.bands or {}).get(side)
    if domain is not None:
        if names is not None:
            raise OptionError(f"--bands-{side} and --domain-{side}: give one of them")
        if domain.count != count:
            raise OptionError(
                f"{(options.domains or {})[side]}: {domain.count} bands"
                f" ({', '.join(domain.labels)}), the generator has {count} on the side of domain"
                f" {side.upper()}"
            )
        return domain
    return eight_bit(side, count, names)


def eight_bit(side: str, count: int, names: Sequence[str] | None = None) -> Domain:
    """The domain of 8-bit images whose 0 … 255 went to −1 … 1.

    Args:
        side: "a" or "b", for messages.
        count: number of bands; without names, 3 are red, green and blue, and 1 is grey.
        names: of the bands.

    Raises:
        OptionError: the names are not as many as the bands, or the bands are not plain images'.
    """
    if names is not None and len(names) != count:
        raise OptionError(
            f"--bands-{side} {','.join(names)}: {len(names)} names, the generator has {count} bands"
        )
    if names is None and count not in (1, 3):
        raise OptionError(
            f"domain {side.upper()} has {count} bands, so it is no plain image: name them with"
            f" --bands-{side}, or give their radiometry with --domain-{side} or --chips"
        )
    plain: dict[int, tuple[tuple[str | None, ...], tuple[str, ...]]] = {
        1: ((None,), ("gray",)),
        3: (_RGB, _RGB),
    }
    labels, colors = plain[count] if names is None else (tuple(names), ("undefined",) * count)
    scaling = BandScaling("linear", (0.0, 255.0), (-1.0, 1.0))
    bands = [BandInfo(scaling, n, color=c) for n, c in zip(labels, colors, strict=True)]
    return Domain(tuple(bands), "uint8")


def read_domain(path: Path) -> Domain:
    """Read a domain's JSON, as `chip` writes it.

    Raises:
        NotFoundError: there is no such file.
        BundleError: it is not one.
    """
    try:
        return Domain.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise NotFoundError(
            f"{path}: no such file; expected a domain_a.json of a chip folder"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{path}: no domain in it ({type(error).__name__}: {error}); expected a domain_a.json"
            " of a chip folder"
        ) from error
