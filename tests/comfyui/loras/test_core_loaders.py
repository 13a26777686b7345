"""The sampler's warning about LoRAs that ComfyUI's own loaders do not know."""

import pytest
import torch
from comfy_execution.graph import DynamicPrompt
from support.loras import IN_BLOCKS, KINDS, NAMINGS, loha, make, stored

from framepack_core.comfyui.sampling.loras import unused


def prompt(loader: str, name: str) -> DynamicPrompt:
    nodes = {
        "1": {"class_type": loader, "inputs": {"lora_name": name, "strength": 1.0}},
        "2": {"class_type": "FramePack_Sampler", "inputs": {"model": ["1", 0]}},
    }
    return DynamicPrompt(nodes)


OURS = "ComfyUI's loaders do not know all names of its trainer; load it with Load FramePack LoRA"


def test_the_sampler_says_which_node_loads_a_lora_that_comfyui_s_does_not_know(official, model, folder):
    name = stored(folder, make(official, IN_BLOCKS, loha).tensors)

    said = unused(prompt("LoraLoaderModelOnly", name), "2", model)

    assert said == [f"LoRA some.safetensors changes nothing of the model: {OURS}"]
    assert unused(prompt("FramePack_LoadLora", name), "2", model) == []


def test_the_sampler_says_how_much_comfyui_s_loaders_leave_out_of_a_lora(native, model, folder):
    """Of musubi's for HunyuanVideo, the layers of which ComfyUI lacks the underscored original names."""
    name = stored(folder, make(native, NAMINGS["musubi, HunyuanVideo"].modules, loha).tensors)

    said = unused(prompt("LoraLoaderModelOnly", name), "2", model)

    assert said == [f"LoRA some.safetensors changes only 9 of 15 weights: {OURS}"]


@pytest.mark.parametrize(
    "tensors",
    [
        {f"diffusion_model.double_blocks.0.img_attn.proj.lora_{part}.weight": torch.ones(4, 256) for part in "AB"},
        {"diffusion_model.double_blocks.0.img_attn.proj.lokr_w1": torch.ones(4, 256)},
        {"diffusion_model.double_blocks.0.img_attn.norm.query_norm.diff_b": torch.ones(128)},
    ],
    ids=["ranks", "a factor", "no bias"],
)
def test_a_damaged_lora_does_not_end_the_sampler(model, folder, tensors):
    """ComfyUI's loaders take it, and log what they cannot apply."""
    said = unused(prompt("LoraLoaderModelOnly", stored(folder, tensors)), "2", model)

    assert len(said) == 1 and said[0].startswith("LoRA some.safetensors changes nothing of the model")


@pytest.mark.parametrize("naming", ["diffusion-pipe", "ComfyUI"])
def test_the_sampler_says_nothing_of_a_lora_that_comfyui_s_loaders_know(native, model, folder, naming):
    file = make(native, NAMINGS[naming].modules, KINDS["LoRA of diffusers"], biases=True)

    assert unused(prompt("LoraLoaderModelOnly", stored(folder, file.tensors)), "2", model) == []
