"""The moving average of the trained weights, which is exported and used for samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """The moving average of the trained weights, in float32."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.parameters = parameters
        self.weights = {name: parameter.detach().float().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update after `step` steps; a young average follows faster."""
        decay = min(self.decay, step / (step + 9))
        live = [parameter.detach().float() for parameter in self.parameters.values()]
        torch._foreach_lerp_(list(self.weights.values()), live, 1 - decay)

    def load(self, weights: dict[str, Tensor]) -> None:
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with the average as its weights."""
        kept = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        try:
            assign(self.parameters, self.weights)
            yield
        finally:
            assign(self.parameters, kept)


@torch.no_grad()
def assign(parameters: dict[str, nn.Parameter], weights: dict[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])
