"""An API prompt that asks for the real models, turned into one that runs on the stand-ins, or on the demo's models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

INVERTED = "FramePackI2V_stand_in.safetensors"
FORWARD = "FramePack_F1_stand_in.safetensors"
PLAIN = "HunyuanVideo_stand_in.safetensors"
HELIOS = {variant: f"Helios-{variant}_stand_in.safetensors" for variant in ("Base", "Mid", "Distilled")}
VAE = "taehv_stand_in.safetensors"
WAN_VAE = "taew2_1_stand_in.safetensors"
LORA = "stand_in_lora.safetensors"
TEMPLATE_LORA = "framepack_lora.safetensors"  # of the template, for the user to replace
SHARDED = "FramePackI2V_sharded"

REPLACED_NODES = {
    "DualCLIPLoader": "StandIn_TextEncoders",
    "CLIPLoader": "StandIn_WanTextEncoder",
    "CLIPVisionLoader": "StandIn_ClipVision",
}

SECTION = 1.2  # seconds
DEMO_OUTPUTS = {"FramePack_LoadModel": 0, "DualCLIPLoader": 1, "VAELoader": 2, "CLIPVisionLoader": 3}


def with_stand_ins(prompt: dict[str, Any]) -> dict[str, Any]:
    """A copy in which loaders give the stand-ins: F1 stays F1, each Helios stays itself, and all else is unchanged."""
    prompt = copy.deepcopy(prompt)
    for node in prompt.values():
        kind = node["class_type"]
        if kind in REPLACED_NODES:
            node.update(class_type=REPLACED_NODES[kind], inputs={})
        elif kind in STAND_INS:
            name, stand_in = STAND_INS[kind]
            node["inputs"][name] = stand_in(node["inputs"][name])
    return prompt


def model_for(name: str) -> str:
    if "Helios" in name:
        return HELIOS[next((variant for variant in HELIOS if variant in name), "Base")]
    return FORWARD if "F1" in name else INVERTED


def vae_for(name: str) -> str:
    return WAN_VAE if "wan" in name or "taew" in name else VAE


STAND_INS: dict[str, tuple[str, Callable[[str], str]]] = {
    "FramePack_LoadModel": ("model_name", model_for),
    "UNETLoader": ("unet_name", model_for),
    "VAELoader": ("vae_name", vae_for),
    "FramePack_LoadLora": ("lora_name", lambda name: LORA),
}


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
