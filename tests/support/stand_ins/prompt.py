"""An API prompt that asks for the real models, turned into one that runs on the stand-ins."""

from __future__ import annotations

import copy
from typing import Any

INVERTED = "FramePackI2V_stand_in.safetensors"
FORWARD = "FramePack_F1_stand_in.safetensors"
PLAIN = "HunyuanVideo_stand_in.safetensors"
VAE = "taehv_stand_in.safetensors"
LORA = "stand_in_lora.safetensors"
SHARDED = "FramePackI2V_sharded"

REPLACED_NODES = {"DualCLIPLoader": "StandIn_TextEncoders", "CLIPVisionLoader": "StandIn_ClipVision"}
MODEL_INPUTS = {"FramePack_LoadModel": "model_name", "UNETLoader": "unet_name"}


def with_stand_ins(prompt: dict[str, Any]) -> dict[str, Any]:
    """A copy in which loaders give the stand-ins: F1 stays F1, all else is unchanged."""
    prompt = copy.deepcopy(prompt)
    for node in prompt.values():
        kind = node["class_type"]
        if kind in REPLACED_NODES:
            node.update(class_type=REPLACED_NODES[kind], inputs={})
        elif kind in MODEL_INPUTS:
            name = MODEL_INPUTS[kind]
            node["inputs"][name] = FORWARD if "F1" in node["inputs"][name] else INVERTED
        elif kind == "VAELoader":
            node["inputs"]["vae_name"] = VAE
    return prompt
