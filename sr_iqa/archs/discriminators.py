"""The U-Net discriminator with spectral norm of Real-ESRGAN (arXiv 2107.10833), and what a training loop needs to know of spectral norm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm
from torch.nn.utils.spectral_norm import SpectralNorm

from .layers import for_convolutions

SLOPE = 0.2


class UNetDiscriminatorSN(nn.Module):
    """(b, num_in_ch, h, w) -> (b, 1, h, w): a realness logit for every pixel; any size from 8 pixels.

    State dicts are BasicSR's: spectral norm in its old form, with weight_orig, weight_u and weight_v.

    Args:
        num_in_ch: image channels.
        num_feat: channels at full resolution.
        skip_connection: add encoder features to the decoder's.
    """

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64, skip_connection: bool = True) -> None:
        super().__init__()
        self.skip_connection = skip_connection
        self.conv0 = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.conv1 = spectral_norm(nn.Conv2d(num_feat, num_feat * 2, 4, 2, 1, bias=False))
        self.conv2 = spectral_norm(nn.Conv2d(num_feat * 2, num_feat * 4, 4, 2, 1, bias=False))
        self.conv3 = spectral_norm(nn.Conv2d(num_feat * 4, num_feat * 8, 4, 2, 1, bias=False))
        self.conv4 = spectral_norm(nn.Conv2d(num_feat * 8, num_feat * 4, 3, 1, 1, bias=False))
        self.conv5 = spectral_norm(nn.Conv2d(num_feat * 4, num_feat * 2, 3, 1, 1, bias=False))
        self.conv6 = spectral_norm(nn.Conv2d(num_feat * 2, num_feat, 3, 1, 1, bias=False))
        self.conv7 = spectral_norm(nn.Conv2d(num_feat, num_feat, 3, 1, 1, bias=False))
        self.conv8 = spectral_norm(nn.Conv2d(num_feat, num_feat, 3, 1, 1, bias=False))
        self.conv9 = nn.Conv2d(num_feat, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, num_in_ch, h, w) -> (b, 1, h, w) logits."""
        x0 = _leaky(self.conv0(for_convolutions(x)))
        x1 = _leaky(self.conv1(x0))
        x2 = _leaky(self.conv2(x1))
        x3 = _leaky(self.conv3(x2))
        x4 = self._decode(self.conv4, x3, x2)
        x5 = self._decode(self.conv5, x4, x1)
        x6 = self._decode(self.conv6, x5, x0)
        return self.conv9(_leaky(self.conv8(_leaky(self.conv7(x6)))))

    def _decode(self, conv: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
        """Enlarges to the size of the encoder's features there (twice, but for odd sizes) and adds them."""
        x = _leaky(conv(F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)))
        return x + skip if self.skip_connection else x


def _leaky(x: Tensor) -> Tensor:
    """In place: nothing else needs the output of a convolution."""
    return F.leaky_relu(x, SLOPE, inplace=True)


@torch.no_grad()
def advance_spectral_norm(net: nn.Module) -> None:
    """One power iteration of every spectral norm (old form) in a network.

    Left alone, spectral norm iterates at every forward pass in training mode, so that gradient accumulation, which splits a step into
    several passes, changes the weights. Call this once per optimizer step and run the passes inside `held_spectral_norm`.
    """
    for module, norm in _spectral_norms(net):
        norm.compute_weight(module, do_power_iteration=True)


@contextmanager
def held_spectral_norm(net: nn.Module) -> Iterator[None]:
    """Inside, forward passes use the spectral norm as it is and do not iterate; the rest of the network keeps its mode."""
    held = [(module, module.training) for module, _ in _spectral_norms(net)]
    for module, _ in held:
        module.training = False
    try:
        yield
    finally:
        for module, training in held:
            module.training = training


def _spectral_norms(net: nn.Module) -> list[tuple[nn.Module, SpectralNorm]]:
    return [(module, hook) for module in net.modules() for hook in module._forward_pre_hooks.values() if isinstance(hook, SpectralNorm)]
