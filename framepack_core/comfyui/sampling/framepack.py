"""What FramePack on HunyuanVideo does in its own way: see `families.ModelFamily`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ...filling import Section
from ...packing import Context
from ...sections import Draw, drawing
from ...timeline import Timeline
from .. import private
from ..log import log_once
from ..model.conditions import CONTEXT_KEY, PackedContext
from ..model.modulation import Modulations, require_sharing
from .samplers import section_sigmas
from .section import Call

private.require_for(private.MODELS)  # without them, there is nothing to sample


def text_width(model: Any) -> int:
    return model.diffusion_model.params.context_in_dim


def image_width(model: Any) -> int | None:
    projection = model.diffusion_model.image_projection
    return None if projection is None else projection.up.in_features


def blocks(model: Any) -> Mapping[str, int]:
    transformer = model.diffusion_model
    return {"double_block": len(transformer.double_blocks), "single_block": len(transformer.single_blocks)}


def schedules(sections: Sequence[Section], timeline: Timeline, steps: int, shift: float, denoise: float) -> list[Tensor]:
    return section_sigmas(sections, timeline, steps, shift, denoise)


def begin(model: Any, timeline: Timeline, seed: int) -> Draw[Tensor]:
    return drawing(timeline, seed)


class FramePackSections:
    """A `SampleSection`: one call of the guider. All sections of a run share their modulations."""

    def __init__(self, patcher: Any) -> None:
        self.patcher = patcher
        self.modulations = Modulations()

    def __call__(
        self, call: Callable[[Call], Tensor], noise: Tensor, begun: Tensor | None, sigmas: Tensor, context: Context
    ) -> Tensor:
        params = self.patcher.model.diffusion_model.params
        height, width = noise.shape[3:]
        packed = PackedContext(context, height, width, params.axes_dim, params.theta).to(self.patcher.load_device)

        def options(model_options: dict) -> dict:
            """As they are, and logged, if ComfyUI has changed what sharing modulations needs."""
            try:
                require_sharing(self.patcher)
            except private.Missing as missing:
                log_once(str(missing))
                return model_options
            self.modulations.begin(sigmas[:-1])
            return self.modulations.added(model_options)

        return call(Call(noise, begun, sigmas, {CONTEXT_KEY: packed}, options))
