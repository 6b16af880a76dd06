"""The model bundle: a folder that holds all that inference needs, and nothing that runs.

`model.json` says what the model is: method, networks and their arguments, bands and radiometry of
both domains, tile and halo, normalisation, provenance. `model.safetensors` holds the weights of the
generators, and of each norm layer the statistics of the training set. Nothing is unpickled, and
architectures come from the registry by name. `model.json` holds the SHA-256 of the weights, of the
STAC items that tell catalogs the same, and of itself: it is checked when it is read, the weights
before they are used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from geocyclegan import __version__
from geocyclegan.catalogue import Direction
from geocyclegan.document import DOCUMENT, OWN_HASH, check_file, read_document, write_document
from geocyclegan.errors import BundleError, NotFoundError, OptionError, OutputError
from geocyclegan.files import fsync_folder, make_folder, sha256, write_json
from geocyclegan.mlm import item_name, mlm_item
from geocyclegan.models.dcgan import SceneMaker
from geocyclegan.models.generator import Generator
from geocyclegan.models.moments import Moments
from geocyclegan.models.registry import build_generator
from geocyclegan.raster.domain import Domain

__all__ = ["Bundle", "Direction", "GeneratorSpec", "load_bundle", "newest_bundle", "save_bundle"]

DIRECTIONS: tuple[Direction, ...] = ("a2b", "b2a")

_WEIGHTS = "model.safetensors"
_MAKERS = "makers"
_STATISTICS, _MOMENTS = "statistics", ("count", "mean", "var")


@dataclass(frozen=True)
class GeneratorSpec:
    """A generator as a name and arguments, with the geometry that tiling needs.

    Attributes:
        name: its name in the registry.
        args: JSON arguments of its builder.
        stride: input sides must be multiples of it.
        halo: radius of the receptive field in px, a multiple of `stride`; None if unbounded.
    """

    name: str
    args: Mapping[str, Any]
    stride: int
    halo: int | None


@dataclass(frozen=True)
class Bundle:
    """A trained model, as read from its folder; weights are loaded by `generator`.

    Attributes:
        folder: where it is.
        method: what trained it.
        generators: by direction; a one-sided method has one only.
        domains: "a" and "b".
        normalization: regime of the norm layers: "kind"; "pool": what shared statistics in
            training, "crop" or "scene"; "statistics": how many crops those in the weights are of.
        tile: side in px of the windows that it was trained on.
        training: provenance: options, steps, source scenes.
        weights_sha256: hash of the weights file.
        created_by: version of the package that wrote it.
        makers: JSON arguments of what makes images of a domain from noise, by domain.
        document_sha256: hash of `model.json`.
        sealed: whether `model.json` holds that hash, as it does since format 2.
        items: hashes of the STAC items by file name; none in bundles of format 1.
    """

    folder: Path
    method: str
    generators: Mapping[Direction, GeneratorSpec]
    domains: Mapping[str, Domain]
    normalization: Mapping[str, Any]
    tile: int
    training: Mapping[str, Any]
    weights_sha256: str
    created_by: str
    makers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    document_sha256: str = ""
    sealed: bool = False
    items: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """What tells this model from any other: a hash over its weights and its document."""
        # The radiometry in the document makes as much of a product's pixels as the weights do.
        both = f"{self.weights_sha256} {self.document_sha256}"
        return hashlib.sha256(both.encode()).hexdigest()

    def way(self, asked: Direction | None = None) -> Direction:
        """Return the direction to translate in: the one asked for, or the first that there is.

        Raises:
            BundleError: there is none, or not the one asked for.
        """
        if not self.generators:
            raise BundleError(
                f"{self.folder}: a {self.method} model makes chips from noise and translates no"
                f" scene; use it with: geocyclegan sample --model {self.folder}"
            )
        if asked is not None and asked not in self.generators:
            known = ", ".join(self.generators)
            raise BundleError(
                f"{self.folder}: the model translates {known} only; choose that --direction"
            )
        return next(iter(self.generators)) if asked is None else asked

    def source(self, direction: Direction) -> Domain:
        """Domain of the scenes that a direction takes."""
        return self.domains[direction[0]]

    def target(self, direction: Direction) -> Domain:
        """Domain of the products that a direction makes."""
        return self.domains[direction[-1]]

    def generator(self, direction: Direction, device: torch.device | str = "cpu") -> Generator:
        """Build a generator and load its weights, ready for inference.

        Raises:
            BundleError: there is none for this direction, or the weights are damaged.
        """
        spec = self.generators[self.way(direction)]
        try:
            network = build_generator(spec.name, **spec.args)
            network.load_state_dict(self._tensors(f"{direction}."))
        except (OptionError, RuntimeError) as error:
            line = str(error).strip().splitlines()[0]
            raise BundleError(f"{self.folder}: the model cannot be loaded ({line})") from error
        return network.to(device).eval().requires_grad_(False)

    def maker(self, domain: str, device: torch.device | str = "cpu") -> SceneMaker:
        """Build what makes images of a domain from noise and load its weights.

        Raises:
            BundleError: there is none, or the weights are damaged.
        """
        if domain not in self.makers:
            raise BundleError(
                f"{self.folder}: a {self.method} model makes nothing from noise; train one with"
                " geocyclegan train --method dcgan"
            )
        try:
            network = SceneMaker(**self.makers[domain])
            network.load_state_dict(self._tensors(f"{_MAKERS}.{domain}."))
        except (OptionError, RuntimeError, TypeError) as error:
            line = str(error).strip().splitlines()[0]
            raise BundleError(f"{self.folder}: the model cannot be loaded ({line})") from error
        return network.to(device).eval().requires_grad_(False)

    @property
    def weights_bytes(self) -> int:
        """Size of the weights file."""
        return (self.folder / _WEIGHTS).stat().st_size

    @property
    def has_statistics(self) -> bool:
        """Whether it records statistics of the training set, for frozen norm layers."""
        return bool(self.normalization.get("statistics"))

    def statistics(self, direction: Direction) -> list[Moments] | None:
        """Statistics of the training set at each norm layer of a generator; None: not recorded.

        Raises:
            BundleError: the weights are damaged.
        """
        if not self.has_statistics:
            return None
        state = self._tensors(f"{_STATISTICS}.{direction}.")
        try:
            return [
                Moments.of_variance(*(state[f"{layer}.{name}"] for name in _MOMENTS))
                for layer in range(len(state) // len(_MOMENTS))
            ] or None
        except KeyError as error:
            raise BundleError(f"{self.folder}: statistics {error} are missing") from error

    def item(self, direction: Direction) -> dict[str, Any]:
        """Describe a direction as a STAC item of the MLM extension; see `mlm`.

        Raises:
            BundleError: there is no generator for this direction, or it cannot be loaded.
        """
        path = self.folder / DOCUMENT
        document = json.loads(path.read_text(encoding="utf-8"))
        when = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        count = sum(weight.numel() for weight in self.generator(direction).parameters())
        return mlm_item(document, direction, count, when)

    def check(self) -> None:
        """Compare all its files with their hashes; `model.json` was when it was read.

        Raises:
            BundleError: one is damaged or missing.
        """
        self._check_weights()
        for name, expected in self.items.items():
            check_file(self.folder / name, expected)

    def _check_weights(self) -> None:
        check_file(self.folder / _WEIGHTS, self.weights_sha256, "the weights are damaged")

    def _tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        """Tensors of the weights file whose names begin with a prefix, without it."""
        path = self.folder / _WEIGHTS
        self._check_weights()
        try:
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
                return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            line = str(error).strip().splitlines()[0]
            raise BundleError(f"{self.folder}: the model cannot be loaded ({line})") from error


@dataclass(frozen=True)
class Packed:
    """All of a bundle but its files.

    Attributes:
        tensors: by their names in the weights file; networks go on changing them.
        document: what `model.json` will hold beside hashes.
        counts: weights of the generators by direction.
    """

    tensors: Mapping[str, torch.Tensor]
    document: Mapping[str, Any]
    counts: Mapping[Direction, int]


def save_bundle(
    folder: Path,
    *,
    method: str,
    generators: Mapping[Direction, tuple[str, Generator]],
    domains: Mapping[str, Domain],
    tile: int,
    training: Mapping[str, Any],
    normalization: Mapping[str, Any] | None = None,
    statistics: Mapping[Direction, Sequence[Moments]] | None = None,
    makers: Mapping[str, nn.Module] | None = None,
) -> Path:
    """Write a bundle; an older one in its place is replaced only when the new one is whole.

    Args:
        folder: where it will be.
        method: see `pack_bundle`, as for all that follow.
        generators: registry name and network by direction.
        domains: "a" and "b".
        tile: side in px of the windows that it was trained on.
        training: JSON provenance.
        normalization: regime of the norm layers.
        statistics: of the training set at each norm layer, by direction.
        makers: what makes images of a domain from noise, by domain.

    Returns:
        The folder.

    Raises:
        OutputError: it cannot be written.
    """
    packed = pack_bundle(
        method=method,
        generators=generators,
        domains=domains,
        tile=tile,
        training=training,
        normalization=normalization,
        statistics=statistics,
        makers=makers,
    )
    return write_bundle(folder, packed)


def pack_bundle(
    *,
    method: str,
    generators: Mapping[Direction, tuple[str, Generator]],
    domains: Mapping[str, Domain],
    tile: int,
    training: Mapping[str, Any],
    normalization: Mapping[str, Any] | None = None,
    statistics: Mapping[Direction, Sequence[Moments]] | None = None,
    makers: Mapping[str, nn.Module] | None = None,
) -> Packed:
    """Put together what a bundle holds; nothing is copied.

    Args:
        method: what trained it.
        generators: registry name and network by direction.
        domains: "a" and "b".
        tile: side in px of the windows that it was trained on.
        training: JSON provenance: options, steps, source scenes.
        normalization: regime of the norm layers; the default is per-crop instance norm.
        statistics: of the training set at each norm layer, by direction.
        makers: what makes images of a domain from noise, by domain.
    """
    tensors = {
        f"{direction}.{name}": value.detach()
        for direction, (_, network) in generators.items()
        for name, value in network.state_dict().items()
    }
    made = {key: cast(SceneMaker, network) for key, network in (makers or {}).items()}
    for domain, maker in made.items():
        for name, value in maker.state_dict().items():
            tensors[f"{_MAKERS}.{domain}.{name}"] = value.detach()
    for direction, layers in (statistics or {}).items():
        for index, layer in enumerate(layers):
            values = (layer.count[0], layer.mean[0], layer.var[0])
            for name, value in zip(_MOMENTS, values, strict=True):
                tensors[f"{_STATISTICS}.{direction}.{index}.{name}"] = value.detach()
    document = {
        "geocyclegan": __version__,
        "method": method,
        "generators": {
            direction: {
                "name": name,
                "args": network.config(),
                "stride": network.stride,
                "halo": network.halo,
            }
            for direction, (name, network) in generators.items()
        },
        "makers": {key: maker.config() for key, maker in made.items()},
        "domains": {key: domain.to_json() for key, domain in domains.items()},
        "normalization": dict(normalization or {"kind": "instance", "pool": "crop"}),
        "tile": tile,
        "training": dict(training),
    }
    counts = {
        direction: sum(weight.numel() for weight in network.parameters())
        for direction, (_, network) in generators.items()
    }
    return Packed(tensors, document, counts)


def write_bundle(folder: Path, packed: Packed) -> Path:
    """Write what was put together; see `save_bundle`.

    Raises:
        OutputError: it cannot be written.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    old = other_name(folder)
    make_folder(folder.parent)
    shutil.rmtree(part, ignore_errors=True)
    make_folder(part)
    tensors = {name: value.cpu().contiguous() for name, value in packed.tensors.items()}
    try:
        save_file(tensors, part / _WEIGHTS)
        weights = {"file": _WEIGHTS, "sha256": sha256(part / _WEIGHTS)}
        document: dict[str, Any] = {**packed.document, "weights": weights}
        now, items = datetime.now(UTC), {}
        for direction, count in packed.counts.items():
            name = item_name(direction)
            write_json(part / name, mlm_item(document, direction, count, now))
            items[name] = sha256(part / name)
        write_document(part, document | {"items": items})
        with open(part / _WEIGHTS, "rb+") as handle:
            os.fsync(handle.fileno())
        fsync_folder(part)
        # Two renames: a reader that comes between them finds the old one by its other name.
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.rename(folder, old)
        os.rename(part, folder)
        fsync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{folder}: the model cannot be written ({error})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def load_bundle(path: Path) -> Bundle:
    """Read a bundle, or the bundle of a run.

    Args:
        path: a bundle folder, its `model.json`, or a run folder that holds `model/`.

    Raises:
        NotFoundError: there is no bundle.
        BundleError: it is not one, or of a newer format, or incomplete.
    """
    folder = (path.parent if path.name == DOCUMENT else path).absolute()
    for candidate in (folder, folder / "model"):
        if not (candidate / DOCUMENT).is_file() and (other_name(candidate) / DOCUMENT).is_file():
            candidate = other_name(candidate)
        if (candidate / DOCUMENT).is_file():
            return _read(candidate)
    if not path.exists():
        raise NotFoundError(f"{path}: no such model; name a run or bundle folder with --model")
    raise BundleError(f"{path}: no {DOCUMENT} in it or in its model/, so it is not a model bundle")


def newest_bundle(runs: Path) -> Bundle:
    """Return the bundle of the run that was written last.

    Raises:
        NotFoundError: there is none.
        BundleError: it is damaged, or of a newer format.
    """
    found = sorted(runs.glob(f"*/model/{DOCUMENT}"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise NotFoundError(
            f"{runs}: no trained model there; run geocyclegan train first, or name one with --model"
        )
    return _read(found[-1].parent)


def other_name(folder: Path) -> Path:
    """Return where a bundle lies for a moment while a new one takes its place."""
    # "." and ".." have no name to build a sibling's from, nor has the root of a disk.
    whole = Path(os.path.abspath(folder))
    return whole.with_name(f".{whole.name}.old") if whole.name else whole


def _read(folder: Path) -> Bundle:
    document, own = read_document(folder)
    if not (folder / _WEIGHTS).is_file():
        raise BundleError(f"{folder / _WEIGHTS}: the weights are missing; copy the bundle again")
    try:
        return Bundle(
            folder=folder,
            method=str(document["method"]),
            generators={
                cast(Direction, direction): GeneratorSpec(
                    name=str(spec["name"]),
                    args=dict(spec["args"]),
                    stride=int(spec["stride"]),
                    halo=None if spec["halo"] is None else int(spec["halo"]),
                )
                for direction, spec in document["generators"].items()
                if direction in DIRECTIONS
            },
            domains={key: Domain.from_json(document["domains"][key]) for key in ("a", "b")},
            normalization=dict(document["normalization"]),
            tile=int(document["tile"]),
            training=dict(document["training"]),
            weights_sha256=str(document["weights"]["sha256"]),
            created_by=str(document["geocyclegan"]),
            makers={key: dict(args) for key, args in document.get("makers", {}).items()},
            document_sha256=own,
            sealed=OWN_HASH in document,
            items={str(name): str(sha) for name, sha in document.get("items", {}).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{folder / DOCUMENT}: incomplete or damaged ({error!r})") from error
