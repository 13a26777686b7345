"""The released Helios on a card: every stage, every dtype, within what ComfyUI is told it takes."""

import comfy.ldm.flux.math
import comfy.ldm.wan.model
import pytest
import torch

from experiments.card.card import ADA, AMPERE, BLACKWELL, GB, TURING, FakeCard
from experiments.card.models import helios_weights, quantised, released_transformer
from experiments.card.steps import Calls, request, sampled, watched
from framepack_core.comfyui.loading.quantise import FORMATS
from framepack_core.helios.chunks import plan_of

pytestmark = pytest.mark.slow

BLOCKS = 2  # which have the activations of all forty
SIZE = (48, 80)  # latent height and width of 640x384


def helios(weights, variant: str = "Base", **options):
    return released_transformer(weights, f"Helios-{variant}", **options)


def stepped(card: FakeCard, model, batch: int = 1, cfg: float = 1.0) -> Calls:
    """One step of each stage of a section."""
    calls = watched(card, model)
    sampled(request(model, plan_of(1), SIZE, batch, cfg=cfg))
    return calls


def test_every_stage_runs_without_a_wait_and_within_the_estimate():
    with FakeCard(60 * GB) as card:
        calls = stepped(card, helios(helios_weights(blocks=BLOCKS), "Mid"))

    assert not calls.waits
    assert len(set(calls.live)) == 3
    assert all(live <= estimate for live, estimate in zip(calls.live, calls.estimates, strict=True))


def test_memory_does_not_grow_with_the_number_of_chunks():
    peaks = []
    for chunks in (2, 4):
        with FakeCard(60 * GB) as card:
            sampled(request(helios(helios_weights(blocks=1), "Base"), plan_of(chunks), SIZE))
        peaks.append(card.memory.peak)

    assert peaks[0] == peaks[1]


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize(
    ("dtype", "batch", "cfg"),
    [(torch.bfloat16, 1, 1.0), (torch.bfloat16, 1, 5.0), (torch.float16, 2, 1.0), (torch.float8_e4m3fn, 1, 5.0)],
    ids=str,
)
def test_a_call_takes_no_more_than_comfyui_is_told(monkeypatch, dtype, batch, cfg, fused):
    """Where no kernel turns queries and keys in one pass (below CUDA 13), the rotation takes more."""
    if not fused:
        monkeypatch.setattr(comfy.ldm.wan.model, "apply_rope1", comfy.ldm.flux.math._apply_rope1)
    with FakeCard(60 * GB) as card:
        calls = stepped(card, helios(helios_weights(dtype, BLOCKS)), batch=batch, cfg=cfg)

    assert not calls.waits
    assert max(calls.live) <= min(calls.estimates)
    assert max(calls.live) > 0.75 * max(calls.estimates)


@pytest.mark.parametrize("capability", [TURING, AMPERE, ADA, BLACKWELL], ids=["Turing", "Ampere", "Ada", "Blackwell"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_quantised_format_runs_on_every_kind_of_card(name, capability):
    with FakeCard(60 * GB, capability) as card:
        calls = stepped(card, helios(quantised(helios_weights(blocks=BLOCKS), name)))

    assert max(calls.live) <= min(calls.estimates) or name == "convrot_w4a4"
    assert not calls.waits or name == "convrot_w4a4"


@pytest.mark.parametrize(("capability", "dtype"), [(AMPERE, torch.bfloat16), (TURING, torch.float16)])
def test_the_released_float32_file_is_computed_in_16_bits(capability, dtype):
    with FakeCard(60 * GB, capability) as card:
        model = helios(helios_weights(torch.float32, BLOCKS))
        calls = stepped(card, model)

    assert model.model.get_dtype_inference() == dtype
    assert max(calls.live) <= min(calls.estimates)


@pytest.mark.parametrize("size", [8, 12, 24])
def test_the_released_model_runs_on_small_cards(size):
    """Weights that do not fit stay in the computer's memory."""
    with FakeCard(size * GB) as card:
        stepped(card, helios(helios_weights(torch.float8_e4m3fn)))

    assert card.memory.peak <= size * GB
