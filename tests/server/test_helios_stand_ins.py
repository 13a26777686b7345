"""The stand-ins for Helios' models load in a real ComfyUI through the nodes of its workflows."""

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.stand_ins.prompt import HELIOS, WAN_VAE, with_stand_ins

from scripts.support.server import RunFailed, Server

REAL = {
    "model": ("FramePack_LoadModel", {"model_name": "Helios-Distilled-bf16.safetensors", "weight_dtype": "default"}),
    "clip": ("CLIPLoader", {"clip_name": "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "type": "wan"}),
    "vae": ("VAELoader", {"vae_name": "wan_2.1_vae.safetensors"}),
}


def loading(**others: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """A prompt of the loaders that a Helios workflow has, on the stand-ins, and of other nodes."""
    nodes = {**REAL, **others}
    return with_stand_ins({name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()})


def test_each_helios_is_replaced_by_its_own_stand_in():
    prompt = loading(preview=("VAELoader", {"vae_name": "lighttaew2_1.safetensors"}))

    assert prompt["model"]["inputs"]["model_name"] == HELIOS["Distilled"]
    assert prompt["clip"] == {"class_type": "StandIn_WanTextEncoder", "inputs": {}}
    assert prompt["vae"]["inputs"]["vae_name"] == prompt["preview"]["inputs"]["vae_name"] == WAN_VAE


def test_a_chunk_of_a_clip_goes_through_wan_s_stand_in_and_back(server: Server, start_image):
    prompt = loading(
        image=("LoadImage", {"image": start_image}),
        size=("ImageScale", {"image": ["image", 0], "upscale_method": "area", "width": 64, "height": 64, "crop": "center"}),
        clip_of_33=("RepeatImageBatch", {"image": ["size", 0], "amount": 33}),
        latent=("VAEEncode", {"pixels": ["clip_of_33", 0], "vae": ["vae", 0]}),
        save=("SaveLatent", {"samples": ["latent", 0], "filename_prefix": "latent"}),
        images=("FramePack_Decode", {"latent": ["latent", 0], "vae": ["vae", 0]}),
        shown=("PreviewImage", {"images": ["images", 0]}),
    )

    entry = server.run(prompt)

    (saved,) = (file for file in server.output_files(entry) if file.suffix == ".latent")
    latents = load_file(saved)["latent_tensor"]
    assert latents.shape == (1, 16, 9, 8, 8) and latents.isfinite().all()
    assert len(entry["outputs"]["shown"]["images"]) == 33


@pytest.mark.parametrize("variant", HELIOS)
def test_its_model_and_text_load(server: Server, variant):
    """The sampler, asked for a plan in FramePack's order, gets as far as having both."""
    prompt = loading(
        text=("CLIPTextEncode", {"clip": ["clip", 0], "text": "A cat walks"}),
        guider=("BasicGuider", {"model": ["model", 0], "conditioning": ["text", 0]}),
        kept=("ModelSave", {"model": ["model", 0], "filename_prefix": "stand_in"}),
    )
    prompt["model"]["inputs"]["model_name"] = HELIOS[variant]

    entry = server.run(prompt)

    assert entry["status"]["status_str"] == "success"
