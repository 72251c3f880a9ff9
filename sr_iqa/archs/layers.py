"""Parts that several networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import UsageError

AVX512 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def for_convolutions(x: Tensor) -> Tensor:
    """(b, c, h, w) in the memory format in which a network of convolutions is fastest; the layers after it keep to it.

    Channels last, but for training on CPUs without AVX-512, where oneDNN has only a slow gradient of the weights for it. Measured against
    the plain format, one core: AVX2 inference RRDBNet 1.1x, training RRDBNet 0.82x, U-Net discriminator 0.87x; AVX-512 training 1.08x and
    1.21x.
    """
    plain = x.device.type == "cpu" and not AVX512 and torch.is_grad_enabled()
    return x.contiguous(memory_format=torch.contiguous_format if plain else torch.channels_last)


def to_device(net: nn.Module, device: torch.device) -> nn.Module:
    """A network on its device. On a GPU the weights of convolutions lie as `for_convolutions` wants them, or each pass would copy them."""
    net = net.to(device)
    return net.to(memory_format=torch.channels_last) if device.type == "cuda" else net  # pyright: ignore[reportCallIssue]


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Grows (B, C, h, w) at the right and bottom to multiples of `multiple` by reflection (as often as a tiny image needs it)."""
    height, width = x.shape[2:]
    return pad_to(x, height + -height % multiple, width + -width % multiple)


def pad_to(x: Tensor, height: int, width: int) -> Tensor:
    """Grows (B, C, h, w) at the right and bottom to (B, C, height, width) by reflection (as often as a tiny image needs it)."""
    for dim, wanted in ((2, height), (3, width)):
        size = x.shape[dim]
        if wanted > size:
            period = max(2 * (size - 1), 1)
            steps = torch.arange(wanted, device=x.device) % period
            x = x.index_select(dim, torch.minimum(steps, period - steps))
    return x


def pixel_shuffle_upsampler(scale: int, num_feat: int) -> nn.Sequential:
    """Convolution and pixel shuffle, x3 in one step or x2 as often as needed; keys 0.*, 2.*, ... as BasicSR's Upsample."""
    if scale == 3:
        steps = [3]
    elif scale >= 1 and scale & (scale - 1) == 0:
        steps = [2] * (scale.bit_length() - 1)
    else:
        raise UsageError(f"Pixel-shuffle upsampling by {scale} is not possible: choose 1, 2, 3, 4 or 8.")
    layers: list[nn.Module] = []
    for step in steps:
        layers += [nn.Conv2d(num_feat, step * step * num_feat, 3, 1, 1), nn.PixelShuffle(step)]
    return nn.Sequential(*layers)


class ExactConv2d(nn.Conv2d):
    """A convolution that stays in float32 under mixed precision."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def keep_last_convolution_exact(net: nn.Module) -> None:
    """Takes the network's last convolution (an adapter's do not count), and so its output, out of mixed precision.

    bfloat16 has 256 steps between 0.5 and 1: an output rounded to it is no picture, and Q's gradient would be quantised with it.
    """
    plain = [module for name, module in net.named_modules() if type(module) is nn.Conv2d and ".lora_" not in name]
    for module in plain[-1:]:
        # The class is changed in place, so that names, weights and copies of the network stay what they are.
        module.__class__ = ExactConv2d
