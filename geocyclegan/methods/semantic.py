"""CycleGAN that keeps labels where they are: the pixel part of CyCADA.

Source: Hoffman et al., "CyCADA: Cycle-Consistent Adversarial Domain Adaptation", ICML 2018. A
segmentation network of the source domain A says what is where, and a translation must say the same:
its cross-entropy on a translated image, against the labels of the image (its own verdict where
there are none), is added to CycleGAN's losses, in both directions.

The network comes frozen from a file, or is trained here beside the generators, on chips of A with
labels. Where A and B have as many bands, it reads both domains, as in the paper. Where they do not,
another one for B is trained here, on translated images of A with A's labels (CyCADA's task
network). A network that is still being trained is believed as far as its loss lies below that of
guessing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from geocyclegan.errors import OptionError
from geocyclegan.methods.adversary import descend, frozen, sum_of
from geocyclegan.methods.base import Assessed, Batch
from geocyclegan.methods.cyclegan import CycleGAN, Translated
from geocyclegan.methods.cyclegan_config import CycleGANConfig
from geocyclegan.methods.networks import NetworkSpec, config_of
from geocyclegan.models.segmenter import SmallSegmenter, load_segmenter

_UNKNOWN = -1


@dataclass(frozen=True)
class SemanticConfig(CycleGANConfig):
    """Numbers of the method: those of CycleGAN, and its own.

    Args:
        lambda_semantic: weight of the cross-entropy, in each direction.
        segmenter: file of a frozen segmentation network of domain A; None: it is trained here.

    Raises:
        OptionError: a number is out of range.
    """

    lambda_semantic: float = 1.0
    segmenter: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lambda_semantic < math.inf:
            raise OptionError(
                f"lambda_semantic is {self.lambda_semantic}; expected a finite number, 0 or more"
            )


class Semantic(CycleGAN):
    """CycleGAN with segmentation networks.

    Args:
        base: a CycleGAN, whose networks and numbers are taken over.
        segmenter_a: images of A to logits (samples, classes, height, width).
        segmenter_b: the same for B; None: that of A reads both.
        learns: whether `segmenter_a` is trained here, on labels.
        weight: of the cross-entropy.
    """

    def __init__(
        self,
        base: CycleGAN,
        segmenter_a: nn.Module,
        segmenter_b: nn.Module | None,
        *,
        learns: bool,
        weight: float,
    ) -> None:
        super().__init__(
            base.generator_ab,
            base.generator_ba,
            base.discriminator_a,
            base.discriminator_b,
            base.config,
            base.shared_bands,
            critics=(base.critic_a, base.critic_b) if base.config.cycle_critic > 0 else None,
        )
        self.pool_a, self.pool_b = base.pool_a, base.pool_b
        self.segmenter_a = segmenter_a
        self.segmenter_b = segmenter_b
        self.learns, self.weight = learns, weight
        # Translations and labels of the step that is under way.
        self._seen: tuple[Tensor, Tensor] | None = None

    @classmethod
    def build(cls, networks: NetworkSpec, options: Mapping[str, Any]) -> Semantic:
        """Make it with fresh networks.

        Raises:
            OptionError: there are neither labels nor a segmenter, or an option is not known or out
                of range.
            NotFoundError: the file of the segmenter is not there.
            BundleError: the file of the segmenter does not fit.
        """
        config = config_of(SemanticConfig, "semantic", options)
        a, b = networks.bands_a, networks.bands_b
        if config.segmenter is None:
            if not networks.classes:
                raise OptionError(
                    "--method semantic: nothing says what is where; chip A with labels (geocyclegan"
                    " chip SCENE --labels CLASSES), or give --segmenter FILE"
                )
            segmenter: nn.Module = SmallSegmenter(a, networks.classes)
            classes = networks.classes
        else:
            segmenter, classes = load_segmenter(config.segmenter, a)
            if networks.classes > classes:
                raise OptionError(
                    f"--segmenter {config.segmenter}: it knows {classes} classes, the label chips"
                    f" have {networks.classes}"
                )
        plain = {f.name: getattr(config, f.name) for f in fields(CycleGANConfig)}
        base = CycleGAN.build(networks, plain)
        return cls(
            base,
            segmenter,
            None if a == b else SmallSegmenter(b, classes),
            learns=config.segmenter is None,
            weight=config.lambda_semantic,
        )

    def train(self, mode: bool = True) -> Semantic:
        """Set training mode, which a frozen segmenter does not take part in."""
        super().train(mode)
        if not self.learns:
            self.segmenter_a.eval()
        return self

    def optimizers(self) -> dict[str, Optimizer]:
        """Those of CycleGAN and, where segmenters are trained here, Adam for them."""
        found = super().optimizers()
        weights = [weight for network in self._learners() for weight in network.parameters()]
        if weights:
            found["segmenters"] = Adam(weights, lr=self.config.lr)
        return found

    def step(
        self,
        batch: Batch,
        optimizers: Mapping[str, Optimizer],
        backward: Callable[[Tensor], None],
    ) -> dict[str, Tensor]:
        """Update as CycleGAN does, then the segmenters that are trained here.

        Args:
            batch: what to learn from; `labels_a` where there are labels.
            optimizers: those of `optimizers()`, wrapped or not.
            backward: computes gradients of a scalar.

        Returns:
            What CycleGAN returns with semantic_a and semantic_b; segment_a, segment_b (where
            trained) and their sum `segmenters`.
        """
        losses = super().step(batch, optimizers, backward)
        seen, self._seen = self._seen, None
        if "segmenters" not in optimizers or seen is None:
            return losses
        fake_b, labels = seen
        own: dict[str, Tensor] = {}
        if self.learns:
            own["segment_a"] = _cross_entropy(self.segmenter_a(batch.a), labels)
        if self.segmenter_b is not None:
            own["segment_b"] = _cross_entropy(self.segmenter_b(fake_b), labels)
        total = sum_of(own)
        descend(optimizers["segmenters"], total, backward)
        own["segmenters"] = total
        return losses | {name: loss.detach() for name, loss in own.items()}

    def validate(self, batch: Batch) -> dict[str, Tensor]:
        """CycleGAN's errors, and how much of the image is of another class after translation.

        Returns:
            Those of CycleGAN, and label_a: the share of valid pixels of A whose class changes, a
            scalar.
        """
        return self.assess(batch, apart=False).errors[0]

    def assess(self, batch: Batch, *, apart: bool) -> Assessed:
        """Errors and translations in one go, see `Method.assess`."""
        found = super().assess(batch, apart=apart)
        with self.evaluating():
            before = self.segmenter_a(batch.a).argmax(dim=1)
            fake_b = self.generator_ab(batch.a, batch.valid_a)
            after = self._of_b()(fake_b).argmax(dim=1)
        changed, valid = (before != after).float()[:, None], batch.valid_a
        for i, errors in zip(batch.parts(apart), found.errors, strict=True):
            if valid is None:
                errors["label_a"] = changed[i].mean()
            else:
                mask = valid[i].float()
                errors["label_a"] = (changed[i] * mask).sum() / mask.sum().clamp_min(1.0)
        return found

    def _generator_losses(self, batch: Batch) -> tuple[dict[str, Tensor], Translated]:
        losses, images = super()._generator_losses(batch)
        losses |= self._semantic_losses(batch, images.fake_a, images.fake_b)
        return losses, images

    def _semantic_losses(self, batch: Batch, fake_a: Tensor, fake_b: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of translations against what their sources say, as far as it is known."""
        with frozen(*self._learners()):
            with torch.no_grad():
                verdict = self.segmenter_a(batch.a)
                labels = self._labels(batch, verdict)
                guess_b = _where(self._of_b()(batch.b).argmax(dim=1), batch.valid_b)
                trust_a = self._trust(verdict, labels, self.learns)
            self._seen = fake_b.detach(), labels
            on_a = self._of_b()(fake_b)
            on_b = self.segmenter_a(fake_a)
        trust_b = trust_a
        if self.segmenter_b is not None:
            trust_b = self._trust(on_a.detach(), labels, True)
        return {
            "semantic_a": _cross_entropy(on_a, labels) * (self.weight * trust_b),
            # Both networks have their say in it: one gives the labels, the other reads the image.
            "semantic_b": _cross_entropy(on_b, guess_b) * (self.weight * trust_a * trust_b),
        }

    def _trust(self, logits: Tensor, labels: Tensor, learns: bool) -> Tensor:
        """How far a network may be believed, from 0 (it guesses) to 1."""
        if not learns:
            return logits.new_ones(())
        guessing = math.log(logits.shape[1])
        return (1.0 - _cross_entropy(logits, labels) / guessing).clamp(0.0, 1.0)

    def _labels(self, batch: Batch, verdict: Tensor) -> Tensor:
        """Classes of the images of A (samples, height, width), by label or by verdict.

        Args:
            batch: with labels, or without.
            verdict: what `segmenter_a` says of its images.
        """
        classes = verdict.argmax(dim=1)
        if batch.labels_a is not None:
            # Chosen where the labels are, so that nobody waits for the answer.
            known = (batch.labels_a >= 0).any() | self.learns
            classes = torch.where(known, batch.labels_a, classes)
        return _where(classes, batch.valid_a)

    def _learners(self) -> list[nn.Module]:
        """The segmenters that are trained here."""
        learners = [self.segmenter_a] if self.learns else []
        return learners + ([] if self.segmenter_b is None else [self.segmenter_b])

    def _of_b(self) -> nn.Module:
        return self.segmenter_a if self.segmenter_b is None else self.segmenter_b


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over pixels whose class is known; 0 where none is."""
    known = (labels != _UNKNOWN).sum().clamp_min(1)
    # Summed apart: CUDA has no repeatable form of the loss that sums.
    each = F.cross_entropy(logits.float(), labels, ignore_index=_UNKNOWN, reduction="none")
    return each.sum() / known


def _where(classes: Tensor, valid: Tensor | None) -> Tensor:
    """Classes with `_UNKNOWN` where not valid."""
    return classes if valid is None else classes.masked_fill(~valid[:, 0].bool(), _UNKNOWN)
