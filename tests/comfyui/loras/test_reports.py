"""What is said of a file: where it changes the model, what does not match, what it is for."""

import logging
from pathlib import Path

import pytest
import torch
from support.checkpoints import Weights
from support.loras import NAMINGS, loha, make, stored

from framepack_core.comfyui.loading import loras
from framepack_core.weights.loras import spellings


def report(model, folder: Path, tensors: Weights, header: dict | None = None) -> str:
    return loras.load(model, stored(folder, tensors, header=header), 0.5)[1]


def test_it_is_said_where_the_model_changes(official, model, folder, caplog):
    caplog.set_level(logging.INFO, "framepack")
    file = make(official, NAMINGS["diffusers"].modules, loha)

    said = report(model, folder, file.tensors)

    assert said == (
        "some.safetensors at strength 0.5: changes 31 weights (14 in the double blocks, 6 in the single blocks, 5 in the "
        "text refiner, 6 in other layers)"
    )
    assert [(record.levelname, record.message) for record in caplog.records] == [("INFO", f"FramePack: {said}")]


def test_what_does_not_match_is_named_in_the_node_and_in_a_warning(official, model, folder, caplog):
    file = make(official, {"proj_out": "proj_out", "transformer_blocks.0.attn.to_q": "transformer_blocks.45.attn.to_q"}, loha)
    misfit = {f"single_transformer_blocks.0.proj_out.lora_{part}.weight": torch.zeros(4, 4) for part in "AB"}
    text = {f"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_{part}.weight": torch.zeros(4, 4) for part in ("up", "down")}
    kind = {"proj_out.some_new_kind": torch.zeros(4)}

    said = report(model, folder, file.tensors | misfit | text | kind, {"modelspec.architecture": "hunyuan-video/lora"})

    assert said.splitlines() == [
        "some.safetensors at strength 0.5: changes 1 weights (1 in other layers)",
        "not used: 2 tensors for text encoders, which FramePack's LoRAs leave as they are",
        "not used: 6 tensors that are not of this model, first transformer_blocks.45.attn.to_q.alpha",
        "not used: 1 weights of another size, first single_transformer_blocks.0.proj_out: 4x4, where the model has 256x1280",
        "made for hunyuan-video/lora, as its header says",
        "by its names it may be for HunyuanVideo 1.5",
    ]
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", f"FramePack: {said}".replace("\n", "; "))
    ]


ROWS = {"lora_up.weight": torch.zeros(8, 2), "lora_down.weight": torch.zeros(2, 8)}


def of(*modules: str) -> Weights:
    return {f"{module}.{name}": tensor for module in modules for name, tensor in ROWS.items()}


@pytest.mark.parametrize(
    ("tensors", "header", "said"),
    [
        (
            of("diffusion_model.blocks.0.self_attn.q"),
            {},
            "none of its 2 tensors, first diffusion_model.blocks.0.self_attn.q.lora_down.weight, is of FramePack or "
            "HunyuanVideo; it seems to be for Wan; load it on a Wan model, with ComfyUI's Load LoRA: Wan's names are left to "
            "the models that have them",
        ),
        (
            of("lora_unet_down_blocks_0_attentions_0_proj_in", "lora_te_text_model_encoder_layers_0_mlp_fc1"),
            {},
            "is of FramePack or HunyuanVideo; it seems to be for Stable Diffusion; choose a LoRA for FramePack or HunyuanVideo",
        ),
        (
            of("double_blocks.0.img_attn.proj", "double_blocks.53.img_attn.proj"),
            {},
            "all 1 of its weights that FramePack has too have another size, first double_blocks.0.img_attn.proj: 8x8, where "
            "the model has 256x256; it seems to be for HunyuanVideo 1.5; choose a LoRA",
        ),
        (
            of("layers.0.attention"),
            {"modelspec.architecture": "z-image/lora"},
            "it seems to be for z-image/lora; choose a LoRA",
        ),
        (of("layers.0.attention"), {"ss_base_model_version": "wan2.1"}, "for wan2.1; load it on a Wan model"),
        (of("layers.0.attention"), {}, "is of FramePack or HunyuanVideo; choose a LoRA for FramePack or HunyuanVideo"),
        (of("lora_te1_text_model_encoder_layers_0_mlp_fc1"), {}, "all its weights are for text encoders; choose a LoRA"),
    ],
    ids=["Wan", "Stable Diffusion", "HunyuanVideo 1.5", "header", "header of Wan", "unknown", "text encoders"],
)
def test_a_file_that_changes_nothing_is_an_error_that_says_what_it_is_for(model, folder, tensors, header, said):
    with pytest.raises(ValueError) as raised:
        report(model, folder, tensors, header)

    assert str(raised.value).startswith("some.safetensors changes nothing of the model: ") and said in str(raised.value)


def test_the_whole_of_another_model_s_names_is_never_taken_for_ours(model):
    """Wan's, and those of U-Nets, under every prefix."""
    wan = ["blocks.0.self_attn.q", "blocks.0.cross_attn.k_img", "blocks.0.ffn.0", "head.head", "text_embedding.0"]
    unet = ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "input_blocks.1.1.proj_in", "time_embed.0"]
    known = loras.targets(model.model)

    assert not [spelled for module in wan + unet for spelled in spellings(module) if spelled in known]
