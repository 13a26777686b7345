"""A whole video sampled on cards of every size, with ComfyUI's classic model patcher."""

import random

import comfy.model_management
import comfy.sd
import comfy.utils
import pytest
import torch
from comfy.model_management import InterruptProcessingException

from experiments.card.card import GB, FakeCard
from experiments.card.models import gguf_weights, quantised_weights, released_transformer, released_vae, released_weights
from experiments.card.steps import request, sampled, watched
from framepack_core.comfyui.decoding.stream import chunks
from framepack_core.comfyui.loading import loras
from framepack_core.comfyui.loading.quantise import FORMATS as QUANTISE_FORMATS
from framepack_core.comfyui.preview.clip import MEMORY
from framepack_core.plan import Plan

pytestmark = pytest.mark.slow

TWO_SECTIONS = Plan.of(2.4)
FP8, BF16 = torch.float8_e4m3fn, torch.bfloat16


@pytest.mark.parametrize(("size", "dtype"), [(4, BF16), (6, FP8), (8, BF16), (12, FP8), (24, BF16)], ids=str)
def test_the_released_model_samples_a_video(size, dtype):
    """What does not fit is fetched at every step, and nothing runs out of memory."""
    with FakeCard(size * GB) as card:
        model = released_transformer(released_weights(dtype))

        latents = sampled(request(model, TWO_SECTIONS))

    assert latents.shape == (1, 16, 19, 76, 80) and latents.device.type == "cpu"
    assert not card.memory.refused
    assert card.memory.peak <= size * GB


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize("order", ["inverted", "forward", "endpoints"])
def test_in_every_order_with_and_without_cfg_on_a_small_card(order, cfg):
    with FakeCard(6 * GB) as card:
        model = released_transformer(released_weights(FP8))
        sampled(request(model, Plan.of(3.6, order), cfg=cfg))

    assert not card.memory.refused


def small_model() -> object:
    return released_transformer(released_weights(blocks=1))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, InterruptProcessingException, KeyboardInterrupt])
def test_after_any_failure_the_same_prompt_runs_and_finished_sections_stay(error):
    """Five random operations of sampling; what was finished is handed on section by section, before the failure."""
    with FakeCard(8 * GB) as card:
        model = small_model()
        sampled(request(model, TWO_SECTIONS))
        begun = card.memory.operations
        sampled(request(model, TWO_SECTIONS))
        operations = card.memory.operations - begun
        for place in random.Random(0).sample(range(1, operations), 5):
            target, finished = card.memory.operations + place, []

            def fail(number: int, target: int = target) -> None:
                if number == target:
                    raise error

            card.memory.before = fail
            asked = request(model, TWO_SECTIONS)
            try:
                sampled(asked)
            except error:
                finished = sorted(asked.timeline.known)
            card.memory.before = None
            assert finished in ([], [0], [0, *range(10, 19)], list(range(19)))
            assert sampled(request(model, TWO_SECTIONS)).shape[2] == 19
        comfy.model_management.unload_all_models()
        assert card.memory.used == 0


def test_a_preview_leaves_the_model_on_the_card():
    """Between sections, with the whole of HunyuanVideo's VAE."""
    with FakeCard(12 * GB) as card:
        model = released_transformer(released_weights(torch.float8_e4m3fn))
        vae = released_vae(torch.bfloat16)
        sampled(request(model, Plan.of(1.2)))
        before = model.loaded_size()

        frames = sum(len(chunk) for chunk in chunks(vae, torch.zeros(1, 16, 10, 76, 80), most=MEMORY))

        assert frames == 37
        assert model.loaded_size() >= before > 8 * GB
        assert not card.memory.refused
        sampled(request(model, Plan.of(1.2)))
        assert model.loaded_size() >= before


QUANTISED = [name for name in QUANTISE_FORMATS if name != "convrot_w4a4"]  # which takes more than 4 GB without its kernels
FORMATS = {
    "bf16": lambda: released_transformer(released_weights(blocks=2)),
    "fp16": lambda: released_transformer(released_weights(torch.float16, blocks=2), dtype=torch.float16),
    "fp8": lambda: released_transformer(released_weights(torch.float8_e4m3fn, blocks=2)),
    **{name: lambda name=name: released_transformer(quantised_weights(name, blocks=2)) for name in QUANTISED},
    "GGUF Q8_0": lambda: released_transformer(gguf_weights("Q8_0", blocks=2)),
    "GGUF Q4_K": lambda: released_transformer(gguf_weights("Q4_K", blocks=2)),
}
SMALL_AND_LARGE = [*((name, 4) for name in FORMATS), ("bf16", 24), ("fp8", 24), ("GGUF Q4_K", 24)]  # GB


@pytest.mark.parametrize(("format", "size"), SMALL_AND_LARGE)
def test_a_lora_runs_on_every_format(format, size):
    """Patched once on a large card, at every use on one that fetches the weights."""
    with FakeCard(size * GB) as card:
        model = FORMATS[format]()
        model, _ = comfy.sd.load_lora_for_models(model, None, lora_of(model), 1.0, 0)
        assert len(model.patches) == 2

        sampled(request(model, Plan.of(1.2)))

    assert not card.memory.refused


@pytest.mark.parametrize(("format", "size"), SMALL_AND_LARGE)
def test_a_lora_in_official_names_runs_on_every_format(format, size, monkeypatch):
    """Slices of joined matrices, and the last modulation, whose halves change places."""
    monkeypatch.setattr(loras, "read", lambda name: (official_lora(), {}))
    with FakeCard(size * GB) as card:
        model, report = loras.load(FORMATS[format](), "some.safetensors", 0.5)
        assert "changes 10 weights" in report and "not used" not in report

        sampled(request(model, Plan.of(1.2)))

    assert not card.memory.refused


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_K", "Q6_K"])
def test_a_gguf_is_dequantised_on_the_card_without_a_wait_and_within_the_estimate(kind):
    with FakeCard(24 * GB) as card:
        model = released_transformer(gguf_weights(kind, blocks=2))
        calls = watched(card, model)

        sampled(request(model, Plan.of(1.2)))

    assert not calls.waits
    assert max(calls.live) <= min(calls.estimates)


def lora_of(model) -> dict[str, torch.Tensor]:
    names = ("double_blocks.0.img_attn.qkv", "single_blocks.1.linear1")
    lora = {}
    for name in names:
        rows, columns = comfy.utils.get_attr(model.model.diffusion_model, f"{name}.weight").shape
        lora[f"diffusion_model.{name}.lora_A.weight"] = torch.zeros(16, columns)
        lora[f"diffusion_model.{name}.lora_B.weight"] = torch.zeros(rows, 16)
    return lora


def official_lora() -> dict[str, torch.Tensor]:
    """As musubi and diffusers write it, for the released sizes."""
    attention = [f"attn_to_{part}" for part in "qkv"]
    shapes = {
        **{f"lora_unet_transformer_blocks_0_{part}": (3072, 3072) for part in attention},
        **{f"lora_unet_single_transformer_blocks_1_{part}": (3072, 3072) for part in attention},
        "lora_unet_single_transformer_blocks_1_proj_mlp": (12288, 3072),
        "transformer.single_transformer_blocks.1.proj_out": (3072, 15360),
        "transformer.transformer_blocks.0.norm1.linear": (18432, 3072),
        "transformer.norm_out.linear": (6144, 3072),
    }
    downs = {f"{name}.lora_A.weight": torch.zeros(16, columns) for name, (_, columns) in shapes.items()}
    return downs | {f"{name}.lora_B.weight": torch.zeros(rows, 16) for name, (rows, _) in shapes.items()}
