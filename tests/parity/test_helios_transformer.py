"""One call of our Helios equals diffusers' on the same weights and inputs, in float32 on a CPU."""

from dataclasses import replace

import comfy.ops
import pytest
import torch
from support.helios import call, run_oracle, run_ours, seen, small_helios
from support.ours import relative_error
from torch import nn

from framepack_core import packing
from framepack_core.comfyui.model.helios import transformer
from framepack_core.comfyui.model.helios.block import HeliosBlock
from framepack_core.comfyui.model.helios.transformer import HeliosTransformer
from framepack_core.weights import helios

# The size of the history, and that of the generated frames.
SIZES = {
    "full": ((16, 24), (16, 24)),
    "padded": ((10, 14), (10, 14)),
    "half": ((16, 24), (8, 12)),
    "quarter": ((16, 24), (4, 6)),
    "odd half": ((20, 12), (10, 6)),
}
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def oracle():
    return small_helios()


@pytest.fixture(scope="module")
def ours(oracle) -> HeliosTransformer:
    return ours_of(oracle)


def ours_of(oracle, **config) -> HeliosTransformer:
    sizes = oracle.config
    model = HeliosTransformer(
        dim=sizes.num_attention_heads * sizes.attention_head_dim,
        num_heads=sizes.num_attention_heads,
        ffn_dim=sizes.ffn_dim,
        num_layers=sizes.num_layers,
        text_dim=sizes.text_dim,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
        **config,
    )
    model.load_state_dict(helios.to_comfy(dict(oracle.state_dict())))
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_one_call_equals_diffusers(oracle, ours, size, batch):
    history, target = SIZES[size]
    context, given = seen(*history, batch), call(*target, batch)

    expected = run_oracle(oracle, given, context)
    found = run_ours(ours, given, context)

    assert relative_error(found, expected) < TOLERANCE


@pytest.mark.parametrize("mode", ["per_head", "scalar"])
def test_amplified_history_equals_diffusers(mode):
    amplified = small_helios(is_amplify_history=True, history_scale_mode=mode)
    scales = amplified.blocks[0].attn1.history_key_scale.numel()
    context, given = seen(10, 14, batch=2), call(10, 14, batch=2)

    expected = run_oracle(amplified, given, context)
    found = run_ours(ours_of(amplified, history_scales=scales), given, context)

    assert relative_error(found, expected) < TOLERANCE


def test_heads_of_another_size_equal_diffusers():
    tiny = small_helios(attention_head_dim=12, rope_dim=(4, 4, 4), text_dim=32, ffn_dim=32)
    context, given = seen(10, 14), call(10, 14, text_dim=32)

    expected = run_oracle(tiny, given, context)
    found = run_ours(ours_of(tiny), given, context)

    assert relative_error(found, expected) < TOLERANCE


def test_in_bf16_it_is_as_near_to_float32_as_diffusers_is(oracle, ours):
    """diffusers keeps the norms, the modulation and the timestep's embedder in float32 when it loads a file as bf16."""
    context, given = seen(10, 14), call(10, 14)
    exact = run_oracle(oracle, given, context)
    halved = {name: value.bfloat16() if value.is_floating_point() else value for name, value in given.items()}
    past = replace(context, latents=tuple(latents.bfloat16() for latents in context.latents))
    theirs = in_bf16(small_helios(), ("time_embedder", "scale_shift_table", "norm2"))
    mine = in_bf16(ours_of(oracle), ("time_embedding", "modulation", "norm3", "patch_"))

    error = relative_error(run_ours(mine, halved, past).float(), exact)

    assert error < 1.1 * relative_error(run_oracle(theirs, halved, past).float(), exact)


def in_bf16(model: nn.Module, kept: tuple[str, ...]) -> nn.Module:
    for name, weight in model.named_parameters():
        if not any(part in name for part in kept):
            weight.data = weight.data.bfloat16()
    return model


# Deliberate faults


def fault(oracle, ours, history=(16, 24), target=(8, 12)) -> float:
    context, given = seen(*history), call(*target)
    return relative_error(run_ours(ours, given, context), run_oracle(oracle, given, context))


def test_parity_notices_phases_of_the_history_s_grid_in_a_coarse_stage(oracle, ours, monkeypatch):
    def scaled(group, height, width, *rest):
        """The mistake one is likely to make: the coarse grid's cells at their places in the full one."""
        full = phases(group, 16, 24, *rest)
        return full if (height, width) == (16, 24) else full.unflatten(0, (9, 8, 12))[:, ::2, ::2].flatten(0, 2)

    phases = packing._group_phases
    monkeypatch.setattr(packing, "_group_phases", scaled)

    assert fault(oracle, ours) > 10 * TOLERANCE


def test_parity_notices_a_history_at_the_stage_s_size(oracle, ours):
    context, given = seen(16, 24), call(8, 12)
    shrunk = replace(context, latents=tuple(nn.functional.avg_pool3d(group, (1, 2, 2)) for group in context.latents))

    assert relative_error(run_ours(ours, given, shrunk), run_oracle(oracle, given, context)) > 10 * TOLERANCE


def test_parity_notices_a_history_at_the_timestep_of_the_generated_frames(oracle, ours, monkeypatch):
    monkeypatch.setattr(torch, "zeros_like", lambda tensor: tensor.clone())

    assert fault(oracle, ours) > 10 * TOLERANCE


def test_parity_notices_a_history_that_sees_the_prompt(oracle, ours, monkeypatch):
    def everything_sees(block, x, e, freqs, context, history=0, transformer_options={}):  # noqa: B006
        x = forward(block, x, e, freqs, context, history, transformer_options)
        x[:, :history] += block.cross_attn(block.norm3(x[:, :history]), context, transformer_options=transformer_options)
        return x

    forward = HeliosBlock.forward
    monkeypatch.setattr(HeliosBlock, "forward", everything_sees)

    assert fault(oracle, ours) > 10 * TOLERANCE


@pytest.mark.parametrize("name", transformer.HISTORY_KERNELS)
def test_parity_notices_a_history_patchified_by_others_weights(oracle, ours, monkeypatch, name):
    """The newest frames by those of the generated ones, the others by the base kernel's."""
    kernels = dict(transformer.HISTORY_KERNELS)
    replaced = kernels.pop(name)
    if name == "patch_short":
        kernels["patch_embedding"] = replaced
    monkeypatch.setattr(transformer, "HISTORY_KERNELS", kernels)

    assert fault(oracle, ours) > 10 * TOLERANCE
