"""Names of Helios' weights: official/diffusers and ComfyUI's, both ways, and which variant a file is."""

from pathlib import Path

import pytest
import torch

from framepack_core.weights.helios import is_diffusers, is_helios, made_of, rename_module, to_comfy
from framepack_core.weights.variants import KEY, variant_of

NAMES = {  # official -> ComfyUI's, as ComfyUI's WanModel has them
    "condition_embedder.time_embedder.linear_1.weight": "time_embedding.0.weight",
    "condition_embedder.time_embedder.linear_2.bias": "time_embedding.2.bias",
    "condition_embedder.time_proj.weight": "time_projection.1.weight",
    "condition_embedder.text_embedder.linear_1.weight": "text_embedding.0.weight",
    "condition_embedder.text_embedder.linear_2.bias": "text_embedding.2.bias",
    "norm_out.scale_shift_table": "head.modulation",
    "proj_out.weight": "head.head.weight",
    "patch_embedding.weight": "patch_embedding.weight",
    "patch_short.weight": "patch_short.weight",
    "patch_mid.weight": "patch_mid.weight",
    "patch_long.weight": "patch_long.weight",
    "blocks.3.scale_shift_table": "blocks.3.modulation",
    "blocks.3.norm2.weight": "blocks.3.norm3.weight",
    "blocks.3.attn1.to_q.weight": "blocks.3.self_attn.q.weight",
    "blocks.3.attn1.to_out.0.bias": "blocks.3.self_attn.o.bias",
    "blocks.3.attn1.norm_k.weight": "blocks.3.self_attn.norm_k.weight",
    "blocks.3.attn1.history_key_scale": "blocks.3.self_attn.history_key_scale",
    "blocks.39.attn2.to_v.weight": "blocks.39.cross_attn.v.weight",
    "blocks.39.attn2.norm_q.weight": "blocks.39.cross_attn.norm_q.weight",
    "blocks.39.ffn.net.0.proj.weight": "blocks.39.ffn.0.weight",
    "blocks.39.ffn.net.2.bias": "blocks.39.ffn.2.bias",
}


def test_every_tensor_gets_its_name_and_stays_the_same():
    weights = {name: torch.zeros(1) for name in NAMES}

    renamed = to_comfy(dict(weights))

    assert renamed.keys() == set(NAMES.values())
    assert all(renamed[new] is weights[old] for old, new in NAMES.items())


@pytest.mark.parametrize("official", NAMES)
def test_names_go_back(official):
    for old, new in ((official, NAMES[official]), (official.rpartition(".")[0], NAMES[official].rpartition(".")[0])):
        if rename_module(old):
            assert rename_module(old) == new and made_of(new) == old


def test_sidecars_move_with_their_module():
    assert to_comfy({"proj_out.weight_scale": torch.ones(())}).keys() == {"head.head.weight_scale"}


@pytest.mark.parametrize(
    ("older", "name"),
    [
        ("scale_shift_table", "head.modulation"),
        ("multi_term_memory_patch.patch_mid.weight", "patch_mid.weight"),
        ("clean_patch_embedding.proj.bias", "patch_short.bias"),
        ("clean_patch_embedding.proj_4x.weight", "patch_long.weight"),
    ],
)
def test_older_spellings(older, name):
    assert to_comfy({older: torch.zeros(1)}).keys() == {name}


@pytest.mark.parametrize("name", ["gan_heads.2.weight", "gan_final_head.bias", "blocks.1.attn1.k_loras.0.down.weight"])
def test_what_training_left_is_dropped(name):
    assert not to_comfy({name: torch.zeros(1)})


@pytest.mark.parametrize("name", ["blocks.0.norm3.weight", "blocks.0.attn2.add_k_proj.weight", "img_emb.proj.0.weight"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name} is not a weight of Helios' transformer"):
        to_comfy({name: torch.zeros(1)})


def test_helios_is_told_from_wan_and_official_names_from_comfyui_s():
    assert is_helios(NAMES) and is_helios(set(NAMES.values()))
    assert is_helios({"multi_term_memory_patch.patch_short.weight"}) and is_helios({"clean_patch_embedding.proj.weight"})
    assert not is_helios({"patch_embedding.weight", "head.modulation"})
    assert is_diffusers(NAMES) and not is_diffusers(NAMES.values())


@pytest.mark.parametrize(
    ("path", "variant"),
    [
        ("Helios-Distilled.safetensors", "distilled"),
        ("helios_distill_fp8.gguf", "distilled"),
        ("HELIOS-MID-Q8_0.gguf", "mid"),
        ("helios-14b-base.safetensors", "base"),
        ("base-of-Helios-Mid.safetensors", "mid"),
        ("Helios-Distilled/transformer", "distilled"),
        ("Helios-Mid/transformer_init", "mid"),
        ("base/helios/model.safetensors", None),
        ("midnight.safetensors", None),
        ("database.safetensors", None),
        ("helios.safetensors", None),
    ],
)
def test_a_variant_is_a_word_of_the_file_s_name_or_of_helios_folder(path, variant):
    assert variant_of("auto", {}, Path("/models/diffusers") / path) == variant


def test_a_choice_comes_first_then_the_header_if_it_names_a_variant():
    path = Path("Helios-Mid.safetensors")

    assert variant_of("base", {KEY: "distilled"}, path) == "base"
    assert variant_of("auto", {KEY: "distilled"}, path) == "distilled"
    assert variant_of("auto", {KEY: "newest"}, path) == "mid"
    with pytest.raises(ValueError, match="variant is 'newest'"):
        variant_of("newest", {}, path)
