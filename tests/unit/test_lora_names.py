"""Names in LoRA files: which module and which part of it a tensor is for, and which models a file is for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framepack_core.weights.loras import DOTTED, FRAMEPACK, HELIOS, UNDERSCORED, family, spellings, split

MODULES = ("single_transformer_blocks.12.proj_mlp", "double_blocks.0.img_attn.qkv", "norm_out.linear", "x_embedder.proj")
SUFFIXES = {  # in a file: what it is of the module
    "lora_down.weight": "weight.lora_down.weight",
    "lora_A.weight": "weight.lora_A.weight",
    "lora_A.default.weight": "weight.lora_A.default.weight",
    "alpha": "weight.alpha",
    "dora_scale": "weight.dora_scale",
    "lora_magnitude_vector": "weight.dora_scale",
    "hada_w1_a": "weight.hada_w1_a",
    "lokr_w2": "weight.lokr_w2",
    "diff": "weight.diff",
    "diff_b": "bias.diff",
    "bias.diff": "bias.diff",
    "w_norm": "weight.w_norm",
    "b_norm": "bias.diff",
}


@given(st.sampled_from(MODULES), st.integers(0, len(DOTTED + UNDERSCORED) - 1), st.sampled_from(sorted(SUFFIXES)))
def test_a_tensor_is_told_from_its_module_however_that_is_spelled(module, spelling, suffix):
    spelled = list(spellings(module))[spelling]
    known = {name for module in MODULES for name in spellings(module)}

    assert split(f"{spelled}.{suffix}", known) == (spelled, SUFFIXES[suffix])


def test_the_longest_name_of_a_module_is_taken():
    assert split("a.b.lora_A.weight", {"a", "a.b"}) == ("a.b", "weight.lora_A.weight")


@pytest.mark.parametrize("key", ["", ".", "double_blocks", "double_blocks.9.linear1.alpha", "x_embedder.projection.alpha"])
def test_a_tensor_of_no_module_is_none_of_them(key):
    assert split(key, {name for module in MODULES for name in spellings(module)}) is None


@given(st.text(st.sampled_from("ab._"), max_size=12), st.sets(st.text(st.sampled_from("ab._"), max_size=6)))
def test_whatever_is_split_begins_with_a_module_that_exists(key, modules):
    found = split(key, modules)

    assert found is None or (found[0] in modules and key.startswith(f"{found[0]}."))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("diffusion_model.blocks.0.self_attn.q.lora_A.weight", "Wan"),
        ("lora_unet_blocks_12_cross_attn_k.lora_down.weight", "Wan"),
        ("lora_unet__blocks_0_cross_attn_k.lora_down.weight", "Wan"),
        ("blocks.3.ffn.0.lora_B.weight", "Wan"),
        ("transformer.blocks.0.attn1.to_q.lora_A.weight", "Wan"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.alpha", "Stable Diffusion"),
        ("unet.up_blocks.1.attentions.0.proj_in.lora_A.weight", "Stable Diffusion"),
        ("lora_unet_input_blocks_4_1_proj_in.alpha", "Stable Diffusion"),
        ("transformer.transformer_blocks.0.attn1.to_q.lora_A.weight", "LTX-Video or CogVideoX"),
        ("transformer_blocks.0.img_mlp.net.0.proj.lora_A.weight", "Qwen-Image"),
        ("diffusion_model.double_blocks.53.img_attn.qkv.lora_A.weight", "HunyuanVideo 1.5"),
        ("transformer.transformer_blocks.45.attn.to_q.lora_A.weight", "HunyuanVideo 1.5"),
        ("lora_unet_transformer_blocks_19_attn_to_q.lora_down.weight", None),
        ("single_transformer_blocks.39.attn.to_q.lora_A.weight", None),
        ("lora_unet_single_blocks_39_linear1.alpha", None),
        ("diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight", None),
        ("context_embedder.token_refiner.refiner_blocks.0.attn.to_q.lora_A.weight", None),
    ],
)
def test_names_tell_models_of_another_family(name, expected):
    assert family([name], FRAMEPACK) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight", "HunyuanVideo"),
        ("lora_unet_single_transformer_blocks_19_attn_to_q.lora_down.weight", "HunyuanVideo"),
        ("context_embedder.token_refiner.refiner_blocks.0.attn.to_q.lora_A.weight", "HunyuanVideo"),
        ("transformer.transformer_blocks.0.attn1.to_q.lora_A.weight", "LTX-Video or CogVideoX"),
        ("diffusion_model.blocks.0.self_attn.q.lora_A.weight", None),
    ],
)
def test_on_helios_wan_s_names_are_its_own(name, expected):
    assert family([name], HELIOS) == expected
