"""Adversarial losses; names, arguments and values are BasicSR's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError

GAN_TYPES = ("vanilla", "lsgan", "hinge", "wgan_softplus")


class GANLoss(nn.Module):
    """The loss of a discriminator's output (logits of any shape) for a wanted answer.

    vanilla: binary cross-entropy; lsgan: squared distance to the label; hinge: max(0, 1 -+ p) for the discriminator, -p for the generator;
    wgan_softplus: softplus(-+p), the non-saturating loss of StyleGAN2.

    Args:
        gan_type: one of the above.
        real_label_val, fake_label_val: the labels of vanilla and lsgan.
        loss_weight: for the generator; the discriminator's loss always has weight 1.
    """

    def __init__(
        self,
        gan_type: Literal["vanilla", "lsgan", "hinge", "wgan_softplus"],
        real_label_val: float = 1.0,
        fake_label_val: float = 0.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if gan_type not in GAN_TYPES:
            raise UsageError(f"GANLoss: gan_type '{gan_type}' is none of {', '.join(GAN_TYPES)}.")
        self.gan_type, self.loss_weight = gan_type, loss_weight
        self.real_label_val, self.fake_label_val = real_label_val, fake_label_val

    def forward(self, prediction: Tensor, target_is_real: bool, is_disc: bool = False) -> Tensor:
        """Scalar: how far `prediction` is from the answer `target_is_real`; `is_disc` where the discriminator is what learns."""
        loss = self._loss(prediction.float(), target_is_real, is_disc)
        return loss if is_disc else loss * self.loss_weight

    def _loss(self, prediction: Tensor, target_is_real: bool, is_disc: bool) -> Tensor:
        towards = -prediction if target_is_real else prediction
        if self.gan_type == "wgan_softplus":
            return F.softplus(towards).mean()
        if self.gan_type == "hinge":
            return F.relu(1 + towards).mean() if is_disc else -prediction.mean()
        label = torch.full_like(prediction, self.real_label_val if target_is_real else self.fake_label_val)
        return F.binary_cross_entropy_with_logits(prediction, label) if self.gan_type == "vanilla" else F.mse_loss(prediction, label)
