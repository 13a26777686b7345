"""Helios through the nodes of a real ComfyUI, on stand-ins: text, image and video to video, resumed, made again and saved."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.stand_ins.prompt import with_stand_ins

from scripts.support.server import RunFailed, Server

Nodes = dict[str, tuple[str, dict[str, Any]]]

LOADERS: Nodes = {
    "model": ("FramePack_LoadModel", {"model_name": "Helios-Distilled-bf16.safetensors", "weight_dtype": "default"}),
    "clip": ("CLIPLoader", {"clip_name": "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "type": "wan"}),
    "vae": ("VAELoader", {"vae_name": "wan_2.1_vae.safetensors"}),
    "text": ("CLIPTextEncode", {"clip": ["clip", 0], "text": "A cat walks"}),
}
PLAN = {"seconds": 3.0, "order": "forward", "window": 9, "layout": "auto", "fps": 24.0}  # two chunks
SAMPLER = {
    "model": ["model", 0],
    "positive": ["text", 0],
    "plan": ["plan", 0],
    "seed": 7,
    "steps": 3,
    "cfg": 1.0,
    "guidance": 10.0,
    "shift": 0.0,
    "sampler": "auto",
}


def beginning(start_image: str, mode: str) -> tuple[Nodes, dict[str, Any]]:
    """The nodes that make what a video begins with, and the sampler's input for it."""
    image: Nodes = {"image": ("LoadImage", {"image": start_image})}
    match mode:
        case "text":
            empty = {"width": 64, "height": 64, "length": 1, "batch_size": 1}
            return {"empty": ("EmptyHunyuanLatentVideo", empty)}, {"latent_image": ["empty", 0]}
        case "image":
            encoded = {"image": ["image", 0], "vae": ["vae", 0], "base_resolution": 64}
            return {**image, "start": ("FramePack_EncodeImage", encoded)}, {"start_latent": ["start", 0]}
    clip = {"image": ["image", 0], "amount": 40}
    place = {"images": ["clip_of_40", 0], "vae": ["vae", 0], "at": "start", "seconds": 0.0, "use": "fixed"}
    place |= {"base_resolution": 64, "fps": 24.0, "plan": ["plan", 0]}
    nodes: Nodes = {**image, "clip_of_40": ("RepeatImageBatch", clip), "placed": ("FramePack_Place", place)}
    return nodes, {"frames": ["placed", 0]}


def prompt(start_image: str, mode: str, plan: dict[str, Any] | None = None, others: Nodes | None = None, **changes) -> dict:
    before, given = beginning(start_image, mode)
    nodes: Nodes = {
        **LOADERS,
        **before,
        "plan": ("FramePack_Plan", {**PLAN, **(plan or {})}),
        "sampler": ("FramePack_Sampler", {**SAMPLER, **given, **changes}),
        "latent": ("SaveLatent", {"samples": ["sampler", 0], "filename_prefix": "helios/latent"}),
        **(others or {}),
    }
    return with_stand_ins({name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()})


def latents(server: Server, entry: dict) -> torch.Tensor:
    (saved,) = (file for file in server.output_files(entry) if Path(file).suffix == ".latent")
    return load_file(saved)["latent_tensor"]


@pytest.mark.parametrize("mode", ["text", "image", "clip"])
def test_a_video_is_sampled_and_decoded_chunk_by_chunk(server: Server, start_image, mode):
    decoded: Nodes = {
        "images": ("FramePack_Decode", {"latent": ["sampler", 0], "vae": ["vae", 0]}),
        "shown": ("PreviewImage", {"images": ["images", 0]}),
    }

    entry = server.run(prompt(start_image, mode, others=decoded))

    found = latents(server, entry)
    assert found.shape == (1, 16, 18, 8, 8) and found.isfinite().all()
    assert len(entry["outputs"]["shown"]["images"]) == 66


def test_a_section_is_made_again_after_its_image(server: Server, start_image):
    again: Nodes = {
        "redo": ("FramePack_Redo", {"latent": ["sampler", 0], "plan": ["plan", 0], "sections": "2"}),
        "second": ("FramePack_Sampler", {**SAMPLER, "plan": ["redo", 0], "frames": ["redo", 1], "seed": 8}),
        "kept": ("SaveLatent", {"samples": ["second", 0], "filename_prefix": "helios/again"}),
    }

    entry = server.run(prompt(start_image, "image", others=again))

    first, second = sorted(file for file in server.output_files(entry) if Path(file).suffix == ".latent")
    again_latents, made = (load_file(file)["latent_tensor"] for file in (first, second))
    assert torch.equal(again_latents[:, :, :9], made[:, :, :9])
    assert not torch.equal(again_latents[:, :, 9:], made[:, :, 9:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan": {"order": "inverted"}}, "FramePack_Sampler: the plan's order is inverted, but Helios Distilled makes videos"),
        ({"denoise": 0.5}, "FramePack_Sampler: denoise is below 1, but Helios"),
        ({"steps": 4}, "FramePack_Sampler: steps is 4, but Helios Distilled shares a section's steps evenly among 3 stages"),
        ({"end_latent": ["empty", 0]}, "FramePack_Sampler: end_latent is connected, but Helios never looks ahead"),
    ],
)
def test_what_it_cannot_do_is_refused(server: Server, start_image, changes, message):
    with pytest.raises(RunFailed, match=message):
        server.run(prompt(start_image, "text", **changes))
