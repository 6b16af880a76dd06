"""The numbers of CycleGAN, checked before any network is built."""

from __future__ import annotations

from dataclasses import dataclass

from geocyclegan.methods.adversary import Adversary
from geocyclegan.methods.cycle import CycleTerms
from geocyclegan.methods.hints import PairHints
from geocyclegan.methods.losses import GanKind
from geocyclegan.methods.networks import check_numbers


@dataclass(frozen=True)
class CycleGANConfig:
    """Numbers of the method; the defaults are those of the paper.

    Args:
        gan_loss: "lsgan", "vanilla", "hinge" or "wgan-gp".
        gradient_penalty: weight of the penalty of "wgan-gp"; None: 10, as in its paper.
        lambda_a: weight of the cycle A → B → A.
        lambda_b: weight of the cycle B → A → B.
        identity: weight of the identity loss relative to the cycle of the same domain; 0: off.
        cycle_critic: weight of the judgement of two critics, which tell images from what two
            translations make of them; 0: there are none.
        cycle_features: share of the cycle, at the end, that compares discriminator features.
        cycle_end: share of the cycle's weight that is left at the end of training.
        gradient_loss: weight of the gradient difference of cycles and pairs, relative to theirs.
        angle_loss: weight of the spectral angle of cycles and pairs, relative to theirs.
        pair_weight: weight of pair hints.
        weak_weight: weight of weak pairs.
        pool_size: images kept for each discriminator; 0: none.
        lr: learning rate of Adam.
        beta1: first moment of Adam.
        beta2: second moment of Adam.

    Raises:
        OptionError: a number is out of range.
    """

    gan_loss: GanKind = "lsgan"
    gradient_penalty: float | None = None
    lambda_a: float = 10.0
    lambda_b: float = 10.0
    identity: float = 0.5
    cycle_critic: float = 0.0
    cycle_features: float = 0.0
    cycle_end: float = 1.0
    gradient_loss: float = 0.0
    angle_loss: float = 0.0
    pair_weight: float | None = None
    weak_weight: float | None = None
    pool_size: int = 50
    lr: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999

    def __post_init__(self) -> None:
        check_numbers(self, ("lambda_a", "lambda_b", "identity", "cycle_critic", "pool_size"))
        # What they have to say about their numbers, before any network is built.
        self.adversary(), self.cycle_terms(), self.pair_hints()

    def adversary(self) -> Adversary:
        """The adversarial loss."""
        return Adversary(self.gan_loss, self.gradient_penalty)

    def cycle_terms(self) -> CycleTerms:
        """What a cycle is measured by."""
        return CycleTerms(self.cycle_features, self.cycle_end, self.gradient_loss, self.angle_loss)

    def pair_hints(self) -> PairHints:
        """How much pairs count."""
        return PairHints(
            self.pair_weight or 0.0, self.gradient_loss, self.angle_loss, self.weak_weight or 0.0
        )
