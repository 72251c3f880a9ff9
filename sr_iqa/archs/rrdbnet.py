"""RRDBNet of ESRGAN and Real-ESRGAN (arXiv 1809.00219, 2107.10833) and HGGT's variant with a pixel-shuffle upsampler.

State dicts are BasicSR's and HGGT's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError
from .layers import for_convolutions, pad_to_multiple, pixel_shuffle_upsampler

SLOPE = 0.2


class RRDBNet(nn.Module):
    """(b, num_in_ch, h, w) in [0, 1] -> (b, num_out_ch, scale * h, scale * w), not clamped.

    The trunk always enlarges by 4; at x2 and x1 its input is the image unshuffled by 2 and 4. Odd sizes are reflected to a multiple of
    that and cropped afterwards.

    Args:
        num_in_ch, num_out_ch: image channels.
        scale: 1, 2 or 4.
        num_feat: channels of the trunk.
        num_block: RRDB blocks.
        num_grow_ch: channels that each dense convolution adds.
    """

    def __init__(
        self, num_in_ch: int = 3, num_out_ch: int = 3, scale: int = 4, num_feat: int = 64, num_block: int = 23, num_grow_ch: int = 32
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 4):
            raise UsageError(f"RRDBNet: scale must be 1, 2 or 4, got {scale}.")
        self.scale = scale
        self.unshuffle = 4 // scale
        self.conv_first = nn.Conv2d(num_in_ch * self.unshuffle**2, num_feat, 3, 1, 1)
        self.body = nn.Sequential(*(RRDB(num_feat, num_grow_ch) for _ in range(num_block)))
        self.conv_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_up1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_up2 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, num_in_ch, h, w) -> (b, num_out_ch, scale * h, scale * w)."""
        height, width = x.shape[2] * self.scale, x.shape[3] * self.scale
        x = F.pixel_unshuffle(pad_to_multiple(x, self.unshuffle), self.unshuffle)
        feat = self.conv_first(for_convolutions(x))
        feat = feat + self.conv_body(self.body(feat))
        feat = _leaky(self.conv_up1(F.interpolate(feat, scale_factor=2.0, mode="nearest")))
        feat = _leaky(self.conv_up2(F.interpolate(feat, scale_factor=2.0, mode="nearest")))
        return self.conv_last(_leaky(self.conv_hr(feat)))[..., :height, :width]


class RRDBPSNet(nn.Module):
    """The network of HGGT's RRDB runs: RRDBNet's trunk, then pixel shuffle instead of nearest-neighbour interpolation.

    Arguments as RRDBNet. `scale` is 3, 4 or 8: at x1 and x2 HGGT's code unshuffles its input and so does not reach its scale.
    """

    def __init__(
        self, num_in_ch: int = 3, num_out_ch: int = 3, scale: int = 4, num_feat: int = 64, num_block: int = 23, num_grow_ch: int = 32
    ) -> None:
        super().__init__()
        if scale not in (3, 4, 8):
            raise UsageError(f"RRDBPSNet: scale must be 3, 4 or 8, got {scale}. RRDBNet has x1 and x2.")
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.body = nn.Sequential(*(RRDB(num_feat, num_grow_ch) for _ in range(num_block)))
        self.conv_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.upsample = pixel_shuffle_upsampler(scale, num_feat)
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, num_in_ch, h, w) -> (b, num_out_ch, scale * h, scale * w)."""
        feat = self.conv_first(for_convolutions(x))
        feat = feat + self.conv_body(self.body(feat))
        feat = _leaky(self.upsample(feat))
        return self.conv_last(_leaky(self.conv_hr(feat)))


class RRDB(nn.Module):
    """Three dense blocks around a skip: (b, c, h, w) -> (b, c, h, w)."""

    def __init__(self, num_feat: int, num_grow_ch: int) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb2 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb3 = ResidualDenseBlock(num_feat, num_grow_ch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=0.2)


class ResidualDenseBlock(nn.Module):
    """Five convolutions, each of which sees the outputs of all before it: (b, c, h, w) -> (b, c, h, w)."""

    def __init__(self, num_feat: int, num_grow_ch: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_grow_ch, 3, 1, 1)
        self.conv2 = nn.Conv2d(num_feat + num_grow_ch, num_grow_ch, 3, 1, 1)
        self.conv3 = nn.Conv2d(num_feat + 2 * num_grow_ch, num_grow_ch, 3, 1, 1)
        self.conv4 = nn.Conv2d(num_feat + 3 * num_grow_ch, num_grow_ch, 3, 1, 1)
        self.conv5 = nn.Conv2d(num_feat + 4 * num_grow_ch, num_feat, 3, 1, 1)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            # ESRGAN's small initialisation: deep residual stacks start near the identity.
            nn.init.kaiming_normal_(conv.weight)
            conv.weight.data *= 0.1
            nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        feat = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            feat = torch.cat((feat, _leaky(conv(feat))), 1)
        return torch.add(x, self.conv5(feat), alpha=0.2)


def _leaky(x: Tensor) -> Tensor:
    """In place: nothing else needs the output of a convolution."""
    return F.leaky_relu(x, SLOPE, inplace=True)
