"""Sampling on a fake card, and what each call of the transformer takes there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from experiments.card.card import FakeCard
from experiments.card.operations import with_values
from framepack_core.comfyui.families import AUTO, family_of
from framepack_core.comfyui.loading.patcher import ModulationsLast
from framepack_core.comfyui.model import modulation
from framepack_core.comfyui.sampling.request import Given, Request, make_guider
from framepack_core.comfyui.sampling.sample import sample
from framepack_core.plan import Plan

TEXT, IMAGE = 512, 729  # tokens
SIZE = (76, 80)  # latent height and width of 640x608


@dataclass
class Calls:
    """The transformer's calls: bytes alive at most besides the weights, what ComfyUI was told before, bytes fetched, waits."""

    live: list[int] = field(default_factory=list)
    estimates: list[float] = field(default_factory=list)
    moved: list[int] = field(default_factory=list)
    waits: Counter[str] = field(default_factory=Counter)


def request(
    model: ModelPatcher, plan: Plan, size: tuple[int, int] = SIZE, batch: int = 1, steps: int = 1, cfg: float = 1.0, **options
) -> Request:
    """What a sampler node asks for, with a start image, an end image where the order takes one, and all that the model's family
    looks at. `steps` are those of each stage."""
    own = family_of(model)
    pooled = own.family.pooled
    prompt = [[torch.zeros(1, TEXT, own.text_width(model.model)), {"pooled_output": torch.zeros(1, pooled)} if pooled else {}]]
    width = own.image_width(model.model)
    image = {"samples": torch.zeros(batch, 16, 1, *size)}
    plan = own.family.fit(plan)
    timeline = Given(image, image if plan.order.end else None).timeline(plan)
    sections = plan.bind(timeline)
    with with_values():
        sigmas = own.sigmas(sections, timeline, steps * own.stages, 0.0)
    return Request(
        guider=make_guider(model, prompt, prompt if cfg != 1 else None, cfg, 10.0),
        sampler=own.sampler(AUTO),
        plan=plan,
        timeline=timeline,
        sections=sections,
        sigmas=sigmas,
        seed=1,
        clip_vision_output={"last_hidden_state": torch.zeros(1, IMAGE, width)} if width else None,
        **options,
    )


def sampled(request: Request) -> Tensor:
    return sample(request, lambda text: None).latents


@contextmanager
def unshared() -> Iterator[None]:
    """Without what is done about modulation layers: ComfyUI places them as it likes, and they compute at every step."""
    with (
        patch.object(modulation, "computes_the_same", lambda *args: False),
        patch.object(ModulationsLast, "_load_list", ModelPatcher._load_list),
    ):
        yield


def watched(card: FakeCard, model: ModelPatcher) -> Calls:
    """Watch all calls of this model from now on."""
    calls, told = Calls(), [0.0]
    required, applied = model.model.memory_required, model.model.apply_model

    def memory_required(*args: Any, **kwargs: Any) -> float:
        told.append(required(*args, **kwargs))
        return told[-1]

    def apply_model(*args: Any, **kwargs: Any) -> Tensor:
        before, moved, waits = card.memory.used, card.memory.moved, card.counted.copy()
        card.memory.watch_peak()
        out = applied(*args, **kwargs)
        calls.live.append(card.memory.peak - before)
        calls.estimates.append(told[-1])
        calls.moved.append(card.memory.moved - moved)
        calls.waits += card.counted - waits
        return out

    model.model.memory_required, model.model.apply_model = memory_required, apply_model
    return calls
