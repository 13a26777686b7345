"""A whole video from our sampler, in model space."""

from functools import partial

import torch
from framepack.framepack_core.comfyui.sampling import make_guider, sample_video, sampler_named, schedule
from framepack.framepack_core.plan import Plan
from given import GUIDANCE, Inputs

SCALE = 0.476986


def sample(
    model,
    inputs: Inputs,
    order: str = "inverted",
    sections: int = 3,
    cfg: float = 1.0,
    sampler: str = "euler",
    steps: int = 4,
    end: bool = False,
    layout: str = "auto",
    seed: int = 11,
) -> torch.Tensor:
    positive, negative = ([[text, {"pooled_output": pooled}]] for text, pooled in (inputs.positive, inputs.negative))
    video = sample_video(
        make_guider(model, positive, negative if cfg != 1 else None, cfg, GUIDANCE),
        sampler_named(sampler),
        partial(schedule, steps, 0.0),
        Plan.of(sections * 1.2, order, layout=layout),
        {"samples": inputs.start / SCALE},
        {"samples": inputs.end / SCALE} if end else None,
        {"last_hidden_state": inputs.image},
        seed,
        lambda text: None,
    )
    return video.latents * SCALE


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return ((found - expected).norm() / expected.norm()).item()
