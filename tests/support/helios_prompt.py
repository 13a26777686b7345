"""A Helios video as an API prompt, on the stand-ins: two chunks from a text, an image or a clip."""

from typing import Any

from support.stand_ins.prompt import with_stand_ins

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


def beginning(start_image: str, mode: str, size: int = 64) -> tuple[Nodes, dict[str, Any]]:
    """The nodes that make what a video of a size in pixels begins with, and the sampler's input for it."""
    image: Nodes = {"image": ("LoadImage", {"image": start_image})}
    match mode:
        case "text":
            empty = {"width": size, "height": size, "length": 1, "batch_size": 1}
            return {"empty": ("EmptyHunyuanLatentVideo", empty)}, {"latent_image": ["empty", 0]}
        case "image":
            encoded = {"image": ["image", 0], "vae": ["vae", 0], "base_resolution": size}
            return {**image, "start": ("FramePack_EncodeImage", encoded)}, {"start_latent": ["start", 0]}
    clip = {"image": ["image", 0], "amount": 40}
    place = {"images": ["clip_of_40", 0], "vae": ["vae", 0], "at": "start", "seconds": 0.0, "use": "fixed"}
    place |= {"base_resolution": size, "fps": 24.0, "plan": ["plan", 0]}
    nodes: Nodes = {**image, "clip_of_40": ("RepeatImageBatch", clip), "placed": ("FramePack_Place", place)}
    return nodes, {"frames": ["placed", 0]}


def prompt(
    start_image: str, mode: str, plan: dict[str, Any] | None = None, others: Nodes | None = None, size: int = 64, **changes
) -> dict:
    before, given = beginning(start_image, mode, size)
    nodes: Nodes = {
        **LOADERS,
        **before,
        "plan": ("FramePack_Plan", {**PLAN, **(plan or {})}),
        "sampler": ("FramePack_Sampler", {**SAMPLER, **given, **changes}),
        "latent": ("SaveLatent", {"samples": ["sampler", 0], "filename_prefix": "helios/latent"}),
        **(others or {}),
    }
    return with_stand_ins({name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()})
