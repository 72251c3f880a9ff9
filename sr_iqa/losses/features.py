"""Losses between features of a frozen network: VGG as in BasicSR and HGGT, and nano, which ships with the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoints import load_weights
from ..errors import UsageError, UserError
from ..iqa.nano import load_nano
from ..iqa.weights import MissingWeights, WeightFile
from ..names import unknown

VGG_CONFIGS = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PerceptualLoss(nn.Module):
    """Distance of VGG features, and of their Gram matrices (style): names, arguments and values are BasicSR's, but for the sum returned.

    Args:
        layer_weights: layer -> weight; conv3_4 is before the activation, relu3_4 after it.
        vgg_type: vgg11, vgg13, vgg16, vgg19, or one of these with batch norm (vgg19_bn).
        use_input_norm: normalise images by ImageNet's mean and deviation.
        range_norm: images are in [-1, 1] and are brought to [0, 1] first.
        perceptual_weight, style_weight: factors on the two parts; 0 leaves a part out.
        criterion: l1, l2 (means over elements) or fro (Frobenius norm).

    Raises:
        UserError: unknown layer or type, or weights that are not on this machine.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layer_weights: Mapping[str, float],
        vgg_type: str = "vgg19",
        use_input_norm: bool = True,
        range_norm: bool = False,
        perceptual_weight: float = 1.0,
        style_weight: float = 0.0,
        criterion: Literal["l1", "l2", "fro"] = "l1",
    ) -> None:
        super().__init__()
        if criterion not in ("l1", "l2", "fro"):
            raise UsageError(f"PerceptualLoss: criterion '{criterion}' is none of l1, l2, fro.")
        self.layer_weights = dict(layer_weights)
        self.range_norm, self.criterion = range_norm, criterion
        self.perceptual_weight, self.style_weight = perceptual_weight, style_weight
        self.names, self.vgg = vgg_features(vgg_type, self.layer_weights)
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if use_input_norm else ((0.0,), (1.0,))
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        """Scalar: perceptual_weight * content + style_weight * style."""
        ours = self._features(sr)
        with torch.no_grad():
            theirs = self._features(gt)
        total = sr.new_zeros(())
        for layer, weight in self.layer_weights.items():
            if self.perceptual_weight > 0:
                total = total + self.perceptual_weight * weight * self._distance(ours[layer], theirs[layer])
            if self.style_weight > 0:
                total = total + self.style_weight * weight * self._distance(gram_matrix(ours[layer]), gram_matrix(theirs[layer]))
        return total

    def train(self, mode: bool = True) -> PerceptualLoss:
        """Always in eval mode: batch norm must not follow the images."""
        return super().train(False)

    def _features(self, x: Tensor) -> dict[str, Tensor]:
        if self.range_norm:
            x = (x + 1) / 2
        x = (x - self.mean) / self.std
        found = {}
        for name, layer in zip(self.names, self.vgg, strict=True):
            x = layer(x)
            if name in self.layer_weights:
                found[name] = x
        return found

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        if self.criterion == "fro":
            return torch.linalg.vector_norm(a - b)
        return F.l1_loss(a, b) if self.criterion == "l1" else F.mse_loss(a, b)


def gram_matrix(features: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, C): products of channels, averaged over pixels and channels."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()


def vgg_file(vgg_type: str) -> WeightFile:
    """Torchvision's ImageNet weights of a VGG."""
    from torchvision.models import get_model_weights

    return WeightFile(get_model_weights(vgg_type)["IMAGENET1K_V1"].url, "checkpoints")


def vgg_features(vgg_type: str, wanted: Mapping[str, float]) -> tuple[list[str], nn.Sequential]:
    """The first layers of a pretrained VGG, as far as they are wanted, frozen and in eval mode; and their names.

    Raises:
        UsageError: unknown type or layer.
        MissingWeights: torchvision's weight file is not in the local cache; nothing is downloaded.
    """
    from torchvision.models.vgg import cfgs, make_layers

    plain = vgg_type.removesuffix("_bn")
    if plain not in VGG_CONFIGS:
        raise UsageError(f"PerceptualLoss: {unknown('vgg_type', vgg_type, [n + end for n in VGG_CONFIGS for end in ('', '_bn')])}")
    with torch.device("meta"):
        layers = make_layers(cfgs[VGG_CONFIGS[plain]], batch_norm=vgg_type != plain)
    names = _layer_names(layers)
    for layer in wanted:
        if layer not in names:
            raise UsageError(f"PerceptualLoss: {unknown('layer of ' + vgg_type, layer, names)}")
    if not wanted:
        raise UsageError("PerceptualLoss: layer_weights names no layer.")
    count = 1 + max(names.index(layer) for layer in wanted)
    file = vgg_file(vgg_type)
    if not file.here:
        raise MissingWeights(f"PerceptualLoss needs the weights {file.name}.\n  Get {file.url}\n  and put it at {file.path}")
    state = {name.removeprefix("features."): value for name, value in load_weights(file.path).items() if name.startswith("features.")}
    try:
        layers = layers[:count]
        layers.load_state_dict({name: value for name, value in state.items() if int(name.split(".")[0]) < count}, assign=True)
    except RuntimeError as error:
        raise UserError(f"{file.path} does not hold the weights of {vgg_type}: {error}") from error
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # in place it would overwrite the features before it
    return names[:count], layers.eval().requires_grad_(False)


def _layer_names(layers: nn.Sequential) -> list[str]:
    """conv1_1, relu1_1, ..., pool1, conv2_1, ...: the usual names, block by block."""
    kinds = {nn.Conv2d: "conv", nn.BatchNorm2d: "bn", nn.ReLU: "relu"}
    names, block, index = [], 1, 0
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            names.append(f"pool{block}")
            block, index = block + 1, 0
        else:
            index += isinstance(layer, nn.Conv2d)
            names.append(f"{kinds[type(layer)]}{block}_{index}")
    return names


class NanoFeatureLoss(nn.Module):
    """loss_weight * mean over nano's layers of the L1 distance of features: a perceptual loss where nothing is downloaded.

    Not to be read as LPIPS: nano is small and was trained to judge quality, not similarity.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.nano = load_nano()
        self.loss_weight = loss_weight

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        """Scalar."""
        with torch.no_grad():
            wanted = self.nano.features(gt)
        distances = [F.l1_loss(ours, theirs) for ours, theirs in zip(self.nano.features(sr), wanted, strict=True)]
        return self.loss_weight * torch.stack(distances).mean()
