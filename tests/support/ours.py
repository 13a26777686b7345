"""A whole video from our sampler, in model space."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
import torch
from support.given import GUIDANCE, Inputs

from framepack_core.comfyui.sampling import sample as sampling
from framepack_core.comfyui.sampling.request import Given, Request, make_guider
from framepack_core.comfyui.sampling.samplers import sampler_named, section_sigmas
from framepack_core.plan import Plan

SCALE = 0.476986

Result = TypeVar("Result")


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
    hooks: tuple = (None, None),
    regions: Sequence[tuple] = (),
    told: list | None = None,
    origin: str | None = None,
) -> torch.Tensor:
    """`hooks` are those of the positive and the negative prompt; the positive one counts once for each of the `regions`.

    `told` is a positive prompt in the place of the inputs' own. With an `origin`, finished
    sections are kept, and used again.
    """
    prompts = zip((inputs.positive, inputs.negative), hooks, strict=True)
    positive, negative = (
        [[text, {"pooled_output": pooled} | ({"hooks": hook} if hook else {})]] for (text, pooled), hook in prompts
    )
    if regions:
        [[text, options]] = positive
        positive = [[text, {**options, "area": area}] for area in regions]
    plan = Plan.of(sections * 1.2, order, layout=layout)
    timeline = Given({"samples": inputs.start / SCALE}, {"samples": inputs.end / SCALE} if end else None).timeline(plan)
    planned = plan.bind(timeline)
    request = Request(
        guider=make_guider(model, told or positive, negative if cfg != 1 else None, cfg, GUIDANCE),
        sampler=sampler_named(sampler),
        plan=plan,
        timeline=timeline,
        sections=planned,
        sigmas=section_sigmas(planned, timeline, steps, 0.0),
        seed=seed,
        clip_vision_output={"last_hidden_state": inputs.image},
        origin=origin,
    )
    return sampling.sample(request, say=lambda text: None).latents * SCALE


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return ((found - expected).norm() / expected.norm()).item()


def begun_and_resumed(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Result]) -> tuple[Result, Result]:
    """What a run that samples gives, and what it gives if it goes on after its first section."""
    made, fill = [], sampling.fill

    def remembered(*args):
        for section, latents in fill(*args):
            made.append(latents.clone())
            yield section, latents

    monkeypatch.setattr(sampling, "fill", remembered)
    whole = run()
    monkeypatch.setattr(sampling, "fill", lambda *args: fill(*args[:-1], made[:1]))
    return whole, run()
