"""Helios through the nodes of a real ComfyUI, on stand-ins: text, image and video to video, resumed, made again and saved."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.helios_prompt import SAMPLER, Nodes, prompt

from scripts.support.server import RunFailed, Server


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


def test_comfyui_s_easycache_changes_a_video_only_with_a_threshold(server: Server, start_image):
    base = {"model_name": "Helios-Base.safetensors", "weight_dtype": "default"}
    cache = {"model": ["model", 0], "start_percent": 0.1, "end_percent": 0.9, "verbose": False}
    nodes: Nodes = {
        "model": ("FramePack_LoadModel", base),
        "generous": ("EasyCache", {**cache, "reuse_threshold": 1.0}),
        "strict": ("EasyCache", {**cache, "reuse_threshold": 0.0}),
    }
    asked = {"plan": {"seconds": 1.0}, "steps": 20, "resume": False}

    exact, generous, strict = (
        latents(server, server.run(prompt(start_image, "text", others=nodes, model=[model, 0], **asked)))
        for model in ("model", "generous", "strict")
    )

    assert torch.equal(strict, exact)
    assert generous.isfinite().all() and not torch.equal(generous, exact)


def test_a_plan_with_its_model_counts_chunks_wherever_it_goes(server: Server, start_image):
    """2.75 s are two chunks of 33 frames; as FramePack's sections they would be 72."""
    told = {"clip": ["clip", 0], "plan": ["plan", 0], "text": "a cat [1.4s: it jumps]"}
    nodes: Nodes = {
        "drawn": ("FramePack_DrawPlan", {"plan": ["plan", 0], "width": 640, "height": 384, "start_image": False}),
        "told": ("FramePack_PromptTimeline", told),
        **{f"{name} text": ("PreviewAny", {"source": [name, 1]}) for name in ("plan", "drawn", "told")},
    }
    model = {"plan": {"seconds": 2.75, "model": ["model", 0]}}

    entry = server.run(prompt(start_image, "text", others=nodes, **model))

    planned, drawn, told = (entry["outputs"][f"{name} text"]["text"][0] for name in ("plan", "drawn", "told"))
    assert all("= 66 frames = 2.75 s at 24 fps" in table for table in (planned, drawn))
    assert re.search(r"^1 +0.00-1.38 +a cat\n2 +1.38-2.75 +it jumps$", told, re.MULTILINE)
    assert latents(server, entry).shape[2] == 18


def test_a_plan_refuses_what_its_model_cannot_do(server: Server, start_image):
    with pytest.raises(RunFailed, match="FramePack_Plan: the plan's order is inverted, but Helios Distilled makes videos"):
        server.run(prompt(start_image, "text", plan={"order": "inverted", "model": ["model", 0]}))


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
