"""The released Helios on a card: every stage, every dtype, within what ComfyUI is told it takes."""

import comfy.ldm.flux.math
import comfy.ldm.wan.model
import comfy.samplers
import pytest
import torch

from experiments.card.card import ADA, AMPERE, BLACKWELL, GB, TURING, FakeCard
from experiments.card.models import helios_weights, quantised, released_transformer
from experiments.card.steps import Calls, watched
from framepack_core.comfyui.loading.quantise import FORMATS
from framepack_core.comfyui.model.helios.conditions import STAGE_KEY, PackedStage, Timesteps
from framepack_core.packing import gather
from framepack_core.plan import Plan
from framepack_core.timeline import Timeline

BLOCKS = 2  # which have the activations of all forty
SIZE = (48, 80)  # latent height and width of 640x384
TEXT = 512  # tokens
STAGES = [(12, 20), (24, 40), SIZE]


def helios(weights, **options):
    return released_transformer(weights, "Helios-Base", **options)


def stepped(card: FakeCard, model, target: tuple[int, int] = SIZE, batch: int = 1, cfg: float = 1.0) -> Calls:
    """One step of a stage of a section that sees frames of the whole history."""
    calls = watched(card, model)
    plan = Plan.of(1.2, "forward")
    timeline = Timeline(torch.zeros(batch, 16, 28, *SIZE), set(range(19)))
    context = gather(plan.bind(timeline)[0], timeline)
    table = Timesteps(torch.tensor([0.999, 0.0]), torch.tensor([998.0, 742.0]))
    packed = PackedStage(context, SIZE, target, model.model.diffusion_model.axes, table).to(model.load_device)
    guider = comfy.samplers.CFGGuider(model)
    prompt = [[torch.zeros(1, TEXT, 4096), {STAGE_KEY: packed}]]
    guider.set_conds(prompt, prompt)
    guider.set_cfg(cfg)
    noise = torch.zeros(batch, 16, 9, *target)
    sampler = comfy.samplers.KSAMPLER(one_step)
    guider.sample(noise, torch.zeros_like(noise), sampler, torch.tensor([0.999, 0.0]), disable_pbar=True, seed=1)
    return calls


def one_step(model, x, sigmas, **kwargs):
    return model(x, sigmas[:1].expand(len(x)), **kwargs["extra_args"])


@pytest.mark.parametrize("target", STAGES)
def test_every_stage_runs_without_a_wait_and_within_the_estimate(target):
    with FakeCard(60 * GB) as card:
        calls = stepped(card, helios(helios_weights(blocks=BLOCKS)), target)

    assert not calls.waits
    assert max(calls.live) <= min(calls.estimates)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize(("batch", "cfg"), [(1, 1.0), (2, 1.0), (1, 5.0)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
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
