"""An API prompt that asks for the real models, turned into one that runs on the stand-ins, or on the demo's models."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

INVERTED = "FramePackI2V_stand_in.safetensors"
FORWARD = "FramePack_F1_stand_in.safetensors"
PLAIN = "HunyuanVideo_stand_in.safetensors"
VAE = "taehv_stand_in.safetensors"
LORA = "stand_in_lora.safetensors"
TEMPLATE_LORA = "framepack_lora.safetensors"  # of the template, for the user to replace
SHARDED = "FramePackI2V_sharded"

REPLACED_NODES = {"DualCLIPLoader": "StandIn_TextEncoders", "CLIPVisionLoader": "StandIn_ClipVision"}
MODEL_INPUTS = {"FramePack_LoadModel": "model_name", "UNETLoader": "unet_name"}
SAME_FILE = {"VAELoader": ("vae_name", VAE), "FramePack_LoadLora": ("lora_name", LORA)}

SECTION = 1.2  # seconds
DEMO_OUTPUTS = {"FramePack_LoadModel": 0, "DualCLIPLoader": 1, "VAELoader": 2, "CLIPVisionLoader": 3}


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
        elif kind in SAME_FILE:
            name, file = SAME_FILE[kind]
            node["inputs"][name] = file
    return prompt


def with_demo(prompt: dict[str, Any], pictures: Iterable[int], text: str) -> dict[str, Any]:
    """A copy on the demo's models, in which Load Image gives scenes of these seeds, by node, and every prompt is this text."""
    kinds = {name: node["class_type"] for name, node in prompt.items()}
    images = dict(zip(sorted((name for name, kind in kinds.items() if kind == "LoadImage"), key=int), pictures, strict=True))
    changed: dict[str, Any] = {"demo": {"class_type": "FramePack_LoadDemo", "inputs": {}}}
    for name, node in copy.deepcopy(prompt).items():
        if name in images:
            node.update(class_type="FramePack_DemoImage", inputs={"seed": images[name]})
        elif kinds[name] in ("CLIPTextEncode", "FramePack_PromptTimeline"):
            node["inputs"]["text"] = text
        for key, value in node["inputs"].items():
            if isinstance(value, list) and kinds[value[0]] in DEMO_OUTPUTS:
                node["inputs"][key] = ["demo", DEMO_OUTPUTS[kinds[value[0]]]]
        if kinds[name] not in DEMO_OUTPUTS:
            changed[name] = node
    return changed


def shortened(prompt: dict[str, Any], sections: int) -> dict[str, Any]:
    """A copy whose plan has so many sections, and whose pictures have moved with it."""
    prompt = copy.deepcopy(prompt)
    (plan,) = of_kind(prompt, "FramePack_Plan").values()
    share = sections * SECTION / plan["inputs"]["seconds"]
    for node in (plan, *of_kind(prompt, "FramePack_Place").values()):
        node["inputs"]["seconds"] *= share
    return prompt


def of_kind(prompt: dict[str, Any], kind: str) -> dict[str, Any]:
    """The nodes of this type."""
    return {name: node for name, node in prompt.items() if node["class_type"] == kind}
