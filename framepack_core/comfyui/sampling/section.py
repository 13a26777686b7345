"""What a section and the guider that samples it tell each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ...packing import Context

PRE_CFG = "sampler_pre_cfg_function"  # ComfyUI calls these with all predictions before it combines them


class Call(NamedTuple):
    """One call of a guider: it adds `noise` to what is `begun` with, both `B C T H W`, None for nothing, and denoises it along
    `sigmas`.

    `conditions` are the model's own, with the section's context, and `options(model_options)` are ComfyUI's options for this
    call. Of the section's steps, so many are `done` before it, and its height and width are `scale` times the video's.
    """

    noise: Tensor
    begun: Tensor | None
    sigmas: Tensor
    conditions: Mapping[str, Any]
    options: Callable[[dict], dict]
    done: int = 0
    scale: float = 1.0


class SampleSection(Protocol):
    """How a family makes a section, during one run: the calls of the guider that lead from its noise to its latents."""

    def __call__(
        self, call: Callable[[Call], Tensor], noise: Any, begun: Tensor | None, sigmas: Tensor, context: Context
    ) -> Tensor:
        """Latents `B C T H W`, unscaled. `noise` is as the family draws it, and `sigmas` are those of all its calls."""
        ...
