"""What a section and the guider that samples it tell each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ...packing import Context


class Call(NamedTuple):
    """One call of a guider: it adds `noise` to what is `begun` with, both `B C T H W`, None for nothing, and denoises it along
    `sigmas`.

    `packed` is the context as the model's own condition, and `options(model_options)` are ComfyUI's options for this call.
    """

    noise: Tensor
    begun: Tensor | None
    sigmas: Tensor
    packed: Any
    options: Callable[[dict], dict]


class SampleSection(Protocol):
    """How a family makes a section, during one run: the calls of the guider that lead from its noise to its latents."""

    def __call__(
        self, call: Callable[[Call], Tensor], noise: Any, begun: Tensor | None, sigmas: Tensor, context: Context
    ) -> Tensor:
        """Latents `B C T H W`, unscaled. `noise` is as the family draws it."""
        ...
