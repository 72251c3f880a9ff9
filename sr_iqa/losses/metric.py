"""Full-reference metrics of the door as losses."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ..errors import UsageError


class MetricLoss(nn.Module):
    """loss_weight * mean of a metric over the batch, negated where higher is better. Its parameters are frozen and not this module's.

    Args:
        metric: name of a differentiable full-reference metric (`sr-iqa iqa list`).
        loss_weight: factor on the metric's native values.

    Raises:
        UserError: unknown, not differentiable, no-reference, or weights missing.
    """

    def __init__(self, metric: str, loss_weight: float = 1.0) -> None:
        super().__init__()
        from ..iqa.metrics import create_metric, list_metrics, metric_info

        info = metric_info(metric)
        if info.mode != "FR" or not info.differentiable:
            fitting = ", ".join(other.name for other in list_metrics() if other.mode == "FR" and other.differentiable)
            raise UsageError(f"{metric} cannot be a loss: it is not a differentiable full-reference metric. Choose from {fitting}.")
        self.metric = create_metric(metric)
        self.loss_weight = loss_weight

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        """Scalar. The metric sees sr clamped to [0, 1] and computes in float32."""
        if self.metric.device != sr.device:
            self.metric.to(sr.device)
        return -self.loss_weight * self.metric.signed(sr.clamp(0, 1), gt).mean()


class LPIPSLoss(MetricLoss):
    """LPIPS (Zhang et al. 2018, arXiv 1801.03924) on AlexNet or VGG16 features."""

    def __init__(self, loss_weight: float = 1.0, net: Literal["alex", "vgg"] = "alex") -> None:
        if net not in ("alex", "vgg"):
            raise UsageError(f"LPIPSLoss: net '{net}' is neither alex nor vgg.")
        super().__init__("lpips" if net == "alex" else "lpips-vgg", loss_weight)
