"""ComfyUI is told what a call takes: not less, and not so much more that it offloads weights for nothing."""

import comfy.model_management
import comfy.ops
import pytest
import torch
from framepack.framepack_core.comfyui.model import CONTEXT_KEY, FramePack, FramePackModel, PackedContext
from framepack.framepack_core.layout import Kernel
from framepack.framepack_core.packing import Context
from framepack.framepack_core.plan import Plan

from scripts.benchmarks.live import LiveBytes

KERNELS = {"proj": Kernel(1, 2, 2), "proj_2x": Kernel(2, 4, 4), "proj_4x": Kernel(4, 8, 8)}
TEXT, IMAGE = 512, 729
AXES, THETA = [16, 56, 56], 256


def model_without_weights(hidden: int) -> FramePackModel:
    """The released architecture with 2+2 blocks on the meta device: shapes and lifetimes are real, nothing is computed."""
    config = FramePack(
        {
            "image_model": "hunyuan_video",
            "in_channels": 16,
            "out_channels": 16,
            "vec_in_dim": 768,
            "context_in_dim": 4096,
            "hidden_size": hidden,
            "mlp_ratio": 4.0,
            "num_heads": hidden // 128,
            "depth": 2,
            "depth_single_blocks": 2,
            "axes_dim": AXES,
            "theta": THETA,
            "patch_size": [1, 2, 2],
            "qkv_bias": True,
            "guidance_embed": True,
            "byt5": False,
            "meanflow": False,
            "use_cond_type_embedding": False,
            "vision_in_dim": None,
            "meanflow_sum": False,
            "kernels": KERNELS,
            "image_dim": 1152,
        }
    )
    config.set_inference_dtype(torch.bfloat16, None)
    config.custom_operations = comfy.ops.disable_weight_init
    return FramePackModel(config, device="meta")


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=torch.bfloat16)


def flash_attention(default, q, k, v, heads, **kwargs) -> torch.Tensor:
    """What a GPU's attention keeps: its output."""
    return q.new_empty(q.shape[0], q.shape[2], heads * q.shape[3])


@pytest.mark.parametrize("hidden", [3072, 512])
@pytest.mark.parametrize("window", [9, 18])
@pytest.mark.parametrize("size", [(76, 80), (48, 48)])
def test_the_estimate_covers_a_call(monkeypatch, hidden, window, size):
    monkeypatch.setattr(comfy.model_management, "pytorch_attention_flash_attention", lambda: True)
    model = model_without_weights(hidden)
    plan = Plan.of(5, window=window)
    section = plan.fill(1 + plan.generated)[1]
    latents = [meta(1, 16, len(group.frames), *size) for group in section.context]
    packed = PackedContext(Context(section, tuple(latents)), *size, AXES, THETA).to("meta")
    text, vision = meta(1, TEXT, 4096), {"last_hidden_state": meta(1, IMAGE, 1152)}

    shapes = model.extra_conds_shapes(**{CONTEXT_KEY: packed, "cross_attn": text, "clip_vision_output": vision})
    estimate = model.memory_required([1, 16, window, *size], {name: [shape] for name, shape in shapes.items()})
    with torch.inference_mode(), LiveBytes() as live:
        model.diffusion_model(
            meta(1, 16, window, *size),
            torch.zeros(1, device="meta"),
            text,
            y=meta(1, 768),
            clip_fea=vision["last_hidden_state"],
            guidance=torch.zeros(1, device="meta"),
            packed=packed,
            context_latents=latents,
            transformer_options={"optimized_attention_override": flash_attention},
        )

    assert 1.0 < estimate / live.peak < 1.35


def test_the_estimate_before_sampling_equals_the_one_while_sampling():
    """ComfyUI asks twice: from the conditioning, to free memory, and from what extra_conds gives, to batch."""
    model = model_without_weights(512)
    plan = Plan.of(5)
    section = plan.fill(1 + plan.generated)[1]
    latents = tuple(torch.zeros(1, 16, len(group.frames), 8, 8) for group in section.context)
    cond = {
        CONTEXT_KEY: PackedContext(Context(section, latents), 8, 8, AXES, THETA),
        "cross_attn": torch.zeros(1, 7, 4096),
        "pooled_output": torch.zeros(1, 768),
        "clip_vision_output": {"last_hidden_state": torch.zeros(1, 5, 1152)},
    }

    before = model.extra_conds_shapes(**cond)
    during = model.extra_conds(**cond, noise=torch.zeros(1, 16, 9, 8, 8), device="cpu")

    shapes = [{name: [shape] for name, shape in before.items()}, {name: [c.size()] for name, c in during.items()}]
    first, second = (model.memory_required([1, 16, 9, 8, 8], given) for given in shapes)
    assert first == second > model.memory_required([1, 16, 9, 8, 8], {})
