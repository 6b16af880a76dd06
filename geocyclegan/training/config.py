"""What to train, as one frozen value, and its YAML form. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, Self, TypeVar, get_args, get_type_hints

from geocyclegan.catalogue import method_fields, method_info, own_generators
from geocyclegan.errors import NotFoundError, OptionError
from geocyclegan.files import write_text

T = TypeVar("T")

MAY_CHANGE = frozenset(
    {
        *("chips", "pairs", "weak_pairs", "out", "name", "steps", "epochs", "device"),
        *(
            "devices",
            "nodes",
            "workers",
            "cache",
            "precision",
            "compile",
            "memory_saving",
            "deterministic",
        ),
        *("save_every", "panel_every", "val_every", "log_every", "patience"),
        "encoder_weights",
    }
)
"""What a resumed run may be given anew: where and how long it goes on, and what it reports.

As many processes as before are needed all the same: see `state`."""


@dataclass(frozen=True)
class TrainConfig:
    """All options of a run; the defaults are the canonical CycleGAN.

    The options that some methods take and others do not are None for the method's own default (see
    `catalogue`); `with_defaults` fills them in, and they stay None where the method has no use for
    them.

    Attributes:
        chips: the chip folder.
        out: the folder of runs.
        name: name of the run; None: the method's name and the next free number.
        method: a name of the registry of methods.
        generator: a name of the registry of generators.
        width: channels of the generators' first layer.
        antialias: blur in the generators before every second pixel is dropped.
        upsample: how the generators double the resolution: "transpose", "nearest" or "bilinear";
            None: "bilinear" with `antialias`, else "transpose".
        encoder: of a generator of segmentation-models-pytorch; None: resnet34.
        encoder_weights: file with weights that this encoder starts from; None: random ones. A run
            that is resumed does not need it.
        discriminator: a name of the registry of discriminators.
        d_layers: halvings of the discriminators "patch" and "multiscale"; None: 3.
        d_scales: scales of the discriminator "multiscale"; None: 3.
        spectral_norm: normalise the discriminators' weights by their largest singular value.
        d_width: channels of the discriminators' first layer; None: as `width`.
        norm: what shares the generators' statistics: "instance", each crop by itself, or "scene",
            several crops of one scene. Discriminators normalise each crop by itself.
        scene_crops: crops of one scene in a step of norm "scene"; None: 4.
        steps: how many steps in total; None: by `epochs`.
        epochs: how many epochs in total, each max(|A|, |B|) samples; None: by `steps`, or as many
            as the method's paper has.
        batch: images of each domain per step.
        crop: side of the crops in pixels; None: 256 or what the chips and the generator allow.
        gan_loss: "lsgan", "vanilla", "hinge" or "wgan-gp".
        gradient_penalty: weight of the gradient penalty of "wgan-gp"; None: 10.
        lr: learning rate.
        lambda_a: weight of the cycle A → B → A.
        lambda_b: weight of the cycle B → A → B.
        identity: weight of the identity loss relative to the cycle's; 0: off.
        lambda_l1: weight of the mean absolute error against the truth.
        lambda_nce: weight of the contrastive loss.
        nce_identity: ask the contrastive loss of images of the target domain, too.
        flip_equivariance: ask that a mirrored image gives the mirrored translation.
        lambda_image: weight of an image's return from its own content and style.
        lambda_style: weight of the return of a style.
        lambda_content: weight of the return of a content.
        lambda_cycle: weight of an image's return from its translation.
        style_dims: length of a style.
        lambda_semantic: weight of the cross-entropy of segmentation networks on translations.
        segmenter: safetensors file of a frozen segmentation network of domain A.
        noise: numbers that an image from noise is made of.
        direction: which way to translate, of methods that learn one: "a2b" or "b2a".
        band_map: bands of A and B that mean the same, as "B04=red,B08=nir", for the identity loss;
            None: those of one name.
        cycle_critic: weight of two critics that judge what comes back from two translations.
        cycle_features: share of the cycle that compares features, growing to this at the end.
        cycle_end: share of the cycle's weight left at the end, to which it falls linearly.
        gradient_loss: weight of the gradient difference of cycles and pairs, relative to theirs.
        angle_loss: weight of the spectral angle of cycles and pairs, relative to theirs.
        pool: images kept for each discriminator.
        pairs: a chip folder with pairs that are mixed into unpaired training.
        pair_weight: weight of the mean absolute difference to their truth; None: 10.
        pair_every: steps from one batch of pairs to the next; None: 1.
        weak_pairs: a chip folder with pairs of one place that agree roughly.
        weak_weight: weight of their coarse, robust difference; None: 5.
        decay: share of the steps, the last ones, in which the learning rate falls to zero.
        flip: mirror and turn crops at random.
        zoom: largest factor by which crops are enlarged or shrunk; 1: never.
        rotate: largest angle in degrees by which crops are turned, both ways.
        jitter_db: largest change of bands in decibel.
        jitter_gain: largest relative change of the other bands.
        jitter_offset: largest shift of the other bands, as a share of their range.
        speckle: looks of the speckle that multiplies radar bands; None: none.
        band_dropout: chance of each band to be lost.
        seed: of weights, order, crops and pools.
        device: "auto", "cpu" or "cuda".
        precision: "32", "tf32", "bf16" or "fp16"; "auto": what the device runs fast.
        devices: processes on each machine, one for each device; None: 1, or as torchrun has it.
        nodes: machines; None: 1, or as torchrun has it.
        workers: threads that read chips ahead; None: 4 beside CUDA, 1 where training is on the CPU.
        cache: folder for decoded chips, shared by the processes of a machine and removed after the
            run; None: each process keeps what fits in its memory.
        accumulate: passes of `batch` images on each device whose gradients make one step.
        memory_saving: compute activations again in the backward pass instead of keeping them.
        compile: compile the networks; None: on CUDA, for runs that are long enough to pay.
        deterministic: use only algorithms that give the same bits every time.
        ema: share of the old weights in the running mean that the bundle holds; 0: no mean, the
            bundle holds the weights of the last step.
        schedule: course of the learning rate: "linear", "cosine", "one-cycle", "plateau" or
            "constant".
        features: ONNX file of a network whose features validation compares images by; None: by
            patches alone.
        patience: validations without a better score after which the run ends; None: never.
        save_every: steps between checkpoints.
        panel_every: steps between panels; 0: none.
        val_every: steps between validations; 0: none.
        log_every: steps in one line of the log.

    Raises:
        OptionError: an option is out of range, or two contradict each other.
    """

    chips: Path = Path("chips")
    out: Path = Path("runs")
    name: str | None = None
    method: str = "cyclegan"
    generator: str | None = None
    width: int = 64
    antialias: bool = False
    upsample: str | None = None
    encoder: str | None = None
    encoder_weights: Path | None = None
    discriminator: str | None = None
    d_layers: int | None = None
    d_scales: int | None = None
    spectral_norm: bool = False
    d_width: int | None = None
    norm: str = "instance"
    scene_crops: int | None = None
    steps: int | None = None
    epochs: int | None = None
    batch: int | None = None
    crop: int | None = None
    gan_loss: str | None = None
    lr: float | None = None
    lambda_a: float | None = None
    lambda_b: float | None = None
    identity: float | None = None
    lambda_l1: float | None = None
    lambda_nce: float | None = None
    nce_identity: bool | None = None
    flip_equivariance: bool | None = None
    lambda_image: float | None = None
    lambda_style: float | None = None
    lambda_content: float | None = None
    lambda_cycle: float | None = None
    style_dims: int | None = None
    lambda_semantic: float | None = None
    segmenter: Path | None = None
    noise: int | None = None
    direction: str | None = None
    pool: int | None = None
    gradient_penalty: float | None = None
    band_map: str | None = None
    cycle_critic: float | None = None
    cycle_features: float | None = None
    cycle_end: float | None = None
    gradient_loss: float | None = None
    angle_loss: float | None = None
    pairs: Path | None = None
    pair_weight: float | None = None
    pair_every: int | None = None
    weak_pairs: Path | None = None
    weak_weight: float | None = None
    decay: float | None = None
    flip: bool = True
    zoom: float = 1.0
    rotate: float = 0.0
    jitter_db: float = 0.0
    jitter_gain: float = 0.0
    jitter_offset: float = 0.0
    speckle: float | None = None
    band_dropout: float = 0.0
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    devices: int | None = None
    nodes: int | None = None
    workers: int | None = None
    cache: Path | None = None
    accumulate: int = 1
    memory_saving: bool = False
    compile: bool | None = None
    deterministic: bool = False
    ema: float = 0.0
    schedule: str = "linear"
    features: Path | None = None
    patience: int | None = None
    save_every: int = 500
    panel_every: int = 500
    val_every: int = 500
    log_every: int = 20

    def __post_init__(self) -> None:
        self._check_name()
        if self.steps is not None and self.epochs is not None:
            raise OptionError(f"--steps {self.steps} and --epochs {self.epochs}: give one of them")
        for name in (*_COUNTS, *_INTERVALS):
            value = getattr(self, name)
            least = 0 if name in ("panel_every", "val_every") else 1
            if value is not None and value < least:
                raise OptionError(f"{option(name)} {value}: expected {least} or more")
        for name in _WEIGHTS:
            value = getattr(self, name)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise OptionError(f"{option(name)} {value}: expected 0 or more")
        if self.lr is not None and not (self.lr > 0 and math.isfinite(self.lr)):
            raise OptionError(f"--lr {self.lr}: expected more than 0")
        if self.decay is not None and not 0 <= self.decay <= 1:
            raise OptionError(f"--decay {self.decay}: expected a share from 0 to 1")
        for name, (low, high, what) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise OptionError(
                    f"{option(name)} {value}: expected {what} from {low:g} to {high:g}"
                )
        if not 0 <= self.seed < 2**63:
            raise OptionError(f"--seed {self.seed}: expected 0 or more, below 2^63")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in (*known, None):
                raise OptionError(
                    f"{option(name)} {getattr(self, name)}: choose one of: {', '.join(known)}"
                )
        if not 0 <= self.ema < 1:
            raise OptionError(
                f"--ema {self.ema}: expected a share from 0 to below 1, such as 0.999"
            )
        if self.patience is not None and self.val_every == 0:
            raise OptionError(f"--patience {self.patience}: it needs validations; give --val-every")
        if self.schedule == "plateau" and self.val_every == 0:
            raise OptionError("--schedule plateau: it needs validations; give --val-every")
        if self.features is not None and self.val_every == 0:
            raise OptionError(f"--features {self.features}: it needs validations; give --val-every")
        self._check_method()
        self._check_norm()
        self._check_pairs()

    @property
    def ranks(self) -> int:
        """How many processes train together."""
        return (self.devices or 1) * (self.nodes or 1)

    def _check_method(self) -> None:
        info = method_info(self.method)
        for name in method_fields():
            value = getattr(self, name)
            if value is not None and name not in info.options:
                taken = ", ".join(option(each) for each in info.options)
                raise OptionError(
                    f"{option(name)} {value}: --method {self.method} does not take it; beside the"
                    f" options of all methods it takes: {taken}"
                )
        generator = self.generator
        if generator and info.generators and generator not in info.generators:
            raise OptionError(
                f"--generator {generator}: --method {self.method} has its own,"
                f" {', '.join(info.generators)}; leave the option out"
            )
        if not info.generators and generator in own_generators():
            raise OptionError(
                f"--generator {generator}: it is part of another method; give --method {generator}"
            )

        if self.gan_loss == "wgan-gp" and "gradient_penalty" not in info.options:
            raise OptionError(
                f"--gan-loss wgan-gp: its penalty is of each image by itself, and the judge of"
                f" --method {self.method} normalises over the batch; choose one of: lsgan, vanilla,"
                " hinge"
            )

        if self.gradient_penalty is not None and self.gan_loss != "wgan-gp":
            raise OptionError(
                f"--gradient-penalty {self.gradient_penalty}: it goes with --gan-loss wgan-gp"
            )
        if self.band_map is not None and self.identity == 0:
            raise OptionError(
                f"--band-map {self.band_map}: it is for the identity loss, which --identity 0 puts"
                " off; leave one of them out"
            )

    def _check_pairs(self) -> None:
        for name, folder in (
            ("pair_weight", "pairs"),
            ("pair_every", "pairs"),
            ("weak_weight", "weak_pairs"),
        ):
            value = getattr(self, name)
            if value is not None and getattr(self, folder) is None:
                raise OptionError(
                    f"{option(name)} {value}: it goes with {option(folder)} PAIRED_CHIPS, which is"
                    " not given"
                )

    def _check_norm(self) -> None:
        if self.norm == "scene" and method_info(self.method).doubling:
            raise OptionError(
                f"--norm scene: --method {self.method} has batch norm; leave the option out"
            )
        if self.norm != "scene" and self.scene_crops is not None:
            raise OptionError(f"--scene-crops {self.scene_crops}: it goes with --norm scene")
        if self.norm == "scene" and self.batch not in (None, 1):
            raise OptionError(
                f"--batch {self.batch}: with --norm scene, a step sees --scene-crops crops of one"
                " scene of each domain; leave --batch out"
            )

    def _check_name(self) -> None:
        name = self.name
        if name is not None and (
            not name or name.startswith((".", "-")) or set(name) & set('/\\:*?"<>|')
        ):
            raise OptionError(
                f"--name {name}: expected a plain folder name; the folder it lies in is --out"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return all options by the names of the command line, ready for YAML or JSON."""
        values = {_yaml_name(field.name): getattr(self, field.name) for field in fields(self)}
        return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}

    def save(self, path: Path) -> None:
        """Write a YAML file that `read_options` reads back.

        Raises:
            OutputError: it cannot be written.
        """
        import yaml

        # A line for each option, however long its paths are.
        text = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=2**31)
        write_text(path, text)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a YAML file; what it does not name has its default.

        Raises:
            NotFoundError: there is no such file.
            OptionError: it cannot be read, or an option is not known or out of range.
        """
        return cls(**read_options(path))

    def updated(self, given: Mapping[str, Any]) -> Self:
        """Return the same with other options; of `steps` and `epochs` the given one stays.

        Another method starts from its own defaults, not from the numbers of the former one.

        Args:
            given: options by the names of the fields.
        """
        changes = dict(given)
        if changes.get("method", self.method) != self.method:
            changes = dict.fromkeys(method_fields()) | changes
        if changes.get("steps") is not None:
            changes.setdefault("epochs", None)
        elif changes.get("epochs") is not None:
            changes.setdefault("steps", None)
        return replace(self, **changes)

    def with_defaults(self) -> Self:
        """Return the same with the method's own defaults for what it takes and was not given."""
        defaults = method_info(self.method).options
        missing = {k: v for k, v in defaults.items() if getattr(self, k) is None}
        return replace(self, **missing)


_COUNTS = (
    *("width", "d_width", "d_layers", "d_scales", "style_dims", "noise"),
    *("steps", "epochs", "batch", "crop", "scene_crops", "pair_every"),
    *("devices", "nodes", "workers", "accumulate", "patience"),
)
_INTERVALS = ("save_every", "panel_every", "val_every", "log_every")
_WEIGHTS = (
    *("lambda_a", "lambda_b", "identity", "pool", "gradient_penalty", "cycle_critic"),
    *("gradient_loss", "angle_loss", "pair_weight", "weak_weight", "lambda_l1", "lambda_nce"),
    *("lambda_image", "lambda_style", "lambda_content", "lambda_cycle", "lambda_semantic"),
)
_RANGES = {
    "cycle_features": (0.0, 1.0, "a share"),
    "cycle_end": (0.0, 1.0, "a share"),
    "zoom": (1.0, 2.0, "a factor"),
    "rotate": (0.0, 180.0, "degrees"),
    "jitter_db": (0.0, 20.0, "decibel"),
    "jitter_gain": (0.0, 0.99, "a share"),
    "jitter_offset": (0.0, 0.99, "a share"),
    "speckle": (0.1, 1000.0, "looks"),
    "band_dropout": (0.0, 0.99, "a share"),
}
_CHOICES = {
    "norm": ("instance", "scene"),
    "upsample": ("transpose", "nearest", "bilinear"),
    "direction": ("a2b", "b2a"),
    "gan_loss": ("lsgan", "vanilla", "hinge", "wgan-gp"),
    "device": ("auto", "cpu", "cuda"),
    "precision": ("auto", "32", "tf32", "bf16", "fp16"),
    "schedule": ("linear", "cosine", "one-cycle", "plateau", "constant"),
}


def resolved(value: T | None) -> T:
    """Return an option that `resolve` has filled in.

    Raises:
        ValueError: it has not.
    """
    if value is None:
        raise ValueError("an option of a configuration that was not resolved")
    return value


def option(field: str) -> str:
    """Return the command line's name of a field."""
    return "--" + _yaml_name(field)


def read_options(path: Path) -> dict[str, Any]:
    """Read the options that a YAML file gives, by the names of the fields.

    Raises:
        NotFoundError: there is no such file.
        OptionError: it is not a YAML mapping, or names what is no option, or a value is of the
            wrong kind.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"--config {path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise OptionError(f"--config {path}: cannot be read as YAML ({line})") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise OptionError(f"--config {path}: expected lines such as `width: 32`")
    kinds = get_type_hints(TrainConfig)
    options: dict[str, Any] = {}
    for key, value in document.items():
        field = str(key).replace("-", "_")
        if field not in kinds:
            known = ", ".join(_yaml_name(name) for name in kinds)
            raise OptionError(f"--config {path}: {key} is no option of train; it has: {known}")
        if field in options:
            raise OptionError(f"--config {path}: {key} is given twice")
        options[field] = _typed(path, str(key), value, kinds[field])
    return options


_KINDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
}


def _typed(path: Path, key: str, value: Any, kind: Any) -> Any:
    """Check a value from YAML against the type of its field."""
    kinds = get_args(kind) or (kind,)
    if value is None and NoneType in kinds:
        return None
    wanted: type = next(k for k in kinds if k is not NoneType)
    if wanted is bool and isinstance(value, bool):
        return value
    if wanted is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if wanted is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            # YAML 1.1 reads 2e-4 as text.
            return float(value)
        except ValueError:
            pass
    if wanted is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise OptionError(f"--config {path}: {key} is {value!r}; expected {_KINDS[wanted]}")


def _yaml_name(field: str) -> str:
    return field.replace("_", "-")
