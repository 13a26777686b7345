"""The released transformer on a card: every preset in every order, every dtype, within what ComfyUI is told it takes."""

import comfy.ldm.flux.math
import pytest
import torch

from experiments.card.card import ADA, AMPERE, BLACKWELL, GB, TURING, FakeCard
from experiments.card.models import quantised_weights, released_transformer, released_weights
from experiments.card.steps import request, sampled, watched
from framepack_core.comfyui.loading.quantise import FORMATS
from framepack_core.layout import PRESETS
from framepack_core.orders import ORDERS
from framepack_core.plan import Plan

BLOCKS = 2  # of each kind, which have the activations of all sixty
SECTIONS = 2.4  # seconds


def fitting() -> list[tuple[str, str]]:
    pairs = []
    for order in ORDERS:
        for preset in PRESETS:
            try:
                Plan.of(SECTIONS, order, layout=preset)
            except ValueError:
                continue
            pairs.append((order, preset))
    return pairs


@pytest.mark.parametrize(("order", "preset"), fitting())
def test_every_preset_runs_in_every_order(order, preset):
    """Without a wait for the card inside a call, and within the estimate."""
    with FakeCard(60 * GB) as card:
        model = released_transformer(released_weights(blocks=BLOCKS))
        calls = watched(card, model)

        latents = sampled(request(model, Plan.of(SECTIONS, order, layout=preset)))

    assert latents.shape[2] >= 19 and latents.device.type == "cpu"
    assert not calls.waits
    assert max(calls.live) <= min(calls.estimates)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize(
    ("dtype", "batch", "cfg"),
    [(torch.bfloat16, 1, 1.0), (torch.bfloat16, 1, 2.0), (torch.float16, 2, 1.0), (torch.float8_e4m3fn, 1, 2.0)],
    ids=str,
)
def test_a_call_takes_no_more_than_comfyui_is_told(monkeypatch, dtype, batch, cfg, fused):
    """Where no kernel turns queries and keys in one pass (below CUDA 13), the rotation takes more."""
    if not fused:
        for name in ("apply_rope", "apply_rope1"):
            monkeypatch.setattr(comfy.ldm.flux.math, name, getattr(comfy.ldm.flux.math, f"_{name}"))
    with FakeCard(60 * GB) as card:
        options = {"dtype": dtype} if dtype == torch.float16 else {}
        model = released_transformer(released_weights(dtype, BLOCKS), **options)
        calls = watched(card, model)

        sampled(request(model, Plan.of(SECTIONS), batch=batch, cfg=cfg))

    assert not calls.waits
    assert max(calls.live) <= min(calls.estimates)
    assert max(calls.live) > 0.8 * max(calls.estimates)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [TURING, AMPERE, ADA, BLACKWELL], ids=["Turing", "Ampere", "Ada", "Blackwell"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_quantised_format_runs_on_every_kind_of_card(name, capability):
    """Whether the card multiplies in that format or not. Here PyTorch multiplies, and no kernel that saves memory does:
    `convrot_w4a4` keeps whole matrices of rotated activations."""
    with FakeCard(60 * GB, capability) as card:
        model = released_transformer(quantised_weights(name, BLOCKS))
        calls = watched(card, model)

        sampled(request(model, Plan.of(1.2)))

    assert max(calls.live) <= min(calls.estimates) or name == "convrot_w4a4"
    assert not calls.waits or name == "convrot_w4a4"


def test_on_a_card_without_bf16_the_released_file_is_computed_in_float32():
    with FakeCard(60 * GB, TURING) as card:
        model = released_transformer(released_weights(blocks=BLOCKS))
        calls = watched(card, model)

        sampled(request(model, Plan.of(SECTIONS)))

        assert torch.float32 in (model.model.manual_cast_dtype, model.model.get_dtype())
    assert not calls.waits
    assert max(calls.live) <= min(calls.estimates)
