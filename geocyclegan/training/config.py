"""What to train, as one frozen value, and its YAML form. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar, get_type_hints

from geocyclegan.catalogue import method_fields, method_info
from geocyclegan.files import write_text
from geocyclegan.training.check import check_config
from geocyclegan.training.config_file import read_yaml, yaml_name

T = TypeVar("T")

MAY_CHANGE = frozenset(
    {
        *("chips", "pairs", "weak_pairs", "out", "name", "steps", "epochs", "device"),
        *(
            "devices",
            "nodes",
            "workers",
            "max_bad",
            "cache",
            "precision",
            "compile",
            "cuda_graphs",
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
        max_bad: how many chips that cannot be read the run may go without; others take their place.
        cache: folder for decoded chips, shared by the processes of a machine and removed after the
            run; None: each process keeps what fits in its memory.
        accumulate: passes of `batch` images on each device whose gradients make one step.
        memory_saving: compute activations again in the backward pass instead of keeping them.
        compile: compile the networks; None: on CUDA, for runs that are long enough to pay, and with
            `cuda_graphs`.
        cuda_graphs: run compiled networks from recordings of their kernels.
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
    max_bad: int = 0
    cache: Path | None = None
    accumulate: int = 1
    memory_saving: bool = False
    compile: bool | None = None
    cuda_graphs: bool = False
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
        check_config(self)

    @property
    def ranks(self) -> int:
        """How many processes train together."""
        return (self.devices or 1) * (self.nodes or 1)

    def to_dict(self) -> dict[str, Any]:
        """Return all options by the names of the command line, ready for YAML or JSON."""
        values = {yaml_name(field.name): getattr(self, field.name) for field in fields(self)}
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


def resolved(value: T | None) -> T:
    """Return an option that `resolve` has filled in.

    Raises:
        ValueError: it has not.
    """
    if value is None:
        raise ValueError("an option of a configuration that was not resolved")
    return value


def read_options(path: Path) -> dict[str, Any]:
    """Read the options that a YAML file gives, by the names of the fields.

    Raises:
        NotFoundError, OptionError: see `config_file.read_yaml`.
    """
    return read_yaml(path, get_type_hints(TrainConfig))
