"""Group norms whose statistics are taken over more than is in memory at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Moments:
    """Mean and mean square of each group of channels, over all parts `1 C t h w` that have been added."""

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.count, self.sums = 0, torch.zeros(2, groups, dtype=torch.float64)

    def of(self, part: Tensor) -> Tensor:
        """Those of one part `2 groups`, on the CPU."""
        variance, mean = torch.var_mean(part.float().reshape(self.groups, -1), dim=1, correction=0)
        return torch.stack([mean, variance + mean**2]).cpu()

    def add(self, moments: Tensor, count: int) -> None:
        """Add those of a part with `count` values."""
        self.sums += count * moments
        self.count += count


class MeasuredNorm:
    """A group norm with statistics that were measured before. Computed in float32, whatever the input's dtype."""

    def __init__(self, norm: nn.GroupNorm, moments: Moments) -> None:
        mean, square = moments.sums / moments.count
        deviation = (square - mean**2 + norm.eps).sqrt()
        mean, deviation = (value.repeat_interleave(norm.num_channels // norm.num_groups) for value in (mean, deviation))
        weight, bias = (parameter.cpu().double() for parameter in (norm.weight, norm.bias))  # not every device has float64
        self.scale = (weight / deviation).float().view(-1, 1, 1, 1)
        self.shift = (bias - mean * weight / deviation).float().view(-1, 1, 1, 1)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift.to(x.device), x.float(), self.scale.to(x.device)).to(x.dtype)
