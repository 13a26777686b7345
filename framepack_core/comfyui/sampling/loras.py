"""LoRAs that change nothing, of which ComfyUI only logs the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import comfy.utils
import folder_paths
from torch import nn

from .. import private

if TYPE_CHECKING:
    from comfy_execution.graph import DynamicPrompt

INPUTS = ("model", "guider", "positive", "negative")  # of the sampler nodes; LoRA hooks come with the conditioning
STRENGTHS = ("strength", "strength_model")
OF_TEXT_ENCODERS = ("lora_te", "text_encoder", "te1", "te2")  # how the names of their weights begin


def unused(prompt: DynamicPrompt, node_id: str, patcher) -> list[str]:
    """A line for each LoRA that leads to a sampler node and has no weight of this model. Raises private.Missing."""
    names = dict.fromkeys(_leading_to(prompt, node_id))
    if not names:
        return []
    keys = private.model_lora_keys_unet(patcher.model, {})
    return [
        f"LoRA {name} changes nothing of the model: it is for another one, or its weights have names that ComfyUI does not know"
        for name, path in ((name, folder_paths.get_full_path("loras", name)) for name in names)
        if path and not _fits(path, keys, patcher.model)
    ]


def _leading_to(prompt: DynamicPrompt, node_id: str) -> Iterator[str]:
    """The LoRA files that the nodes name from which a sampler node's inputs come."""
    files = set(folder_paths.get_filename_list("loras"))
    sampler = prompt.get_node(node_id)["inputs"]
    waiting = [sampler[name][0] for name in INPUTS if private.is_link(sampler.get(name))]
    seen: set[str] = set()
    while waiting:
        number = waiting.pop()
        if number in seen:
            continue
        seen.add(number)
        inputs = prompt.get_node(number)["inputs"]
        waiting += [value[0] for value in inputs.values() if private.is_link(value)]
        yield from (name for name in _texts(inputs) if name in files)


def _texts(inputs: Mapping[str, Any]) -> Iterator[str]:
    """Texts among the inputs of a node, or of a part of it such as a LoRA stack's rows, unless these are switched off."""
    if inputs.get("on") is False or any(inputs.get(name) == 0 for name in STRENGTHS):
        return
    for value in inputs.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _texts(value)


def _fits(path: str, keys: Mapping[str, Any], model: nn.Module) -> bool:
    """Whether one of the LoRA's weights is for the model, or all are for a text encoder, which cannot be told here."""
    weights = comfy.utils.load_torch_file(path, safe_load=True)
    if weights and all(name.startswith(OF_TEXT_ENCODERS) for name in weights):
        return True
    patches = private.load_lora(private.convert_lora(weights), keys, log_missing=False)
    return any(_has_room(model, key, patch) for key, patch in patches.items())


def _has_room(model: nn.Module, key: Any, patch: Any) -> bool:
    """Whether a patch has as many values as the rows of the layer that it is for; ComfyUI only logs it otherwise."""
    name, (_, _, rows) = key if isinstance(key, tuple) else (key, (0, 0, None))
    layer = comfy.utils.get_attr(model, name.rpartition(".")[0])
    if not name.endswith(".weight") or not hasattr(layer, "in_features"):
        return True
    values = (rows or layer.out_features) * layer.in_features
    if getattr(patch, "name", None) == "lora":
        up, down, *_ = patch.weights
        return up.shape[0] * down[0].numel() == values
    return not isinstance(patch, tuple) or patch[0] != "diff" or patch[1][0].numel() == values
