"""LoRAs that change nothing or too little, of which ComfyUI only logs the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import comfy.utils
import folder_paths
from torch import nn

from ...weights.loras import OF_TEXT_ENCODERS
from .. import private
from ..loading.loras import PatchKey, matched, room, size_of

if TYPE_CHECKING:
    from comfy_execution.graph import DynamicPrompt

INPUTS = ("model", "guider", "positive", "negative")  # of the sampler nodes; LoRA hooks come with the conditioning
STRENGTHS = ("strength", "strength_model")
OWN_LOADER = "FramePack_LoadLora"  # refuses such files itself


def unused(prompt: DynamicPrompt, node_id: str, patcher) -> list[str]:
    """A line for each LoRA that leads to a sampler node and is not used, or not all of it. Raises private.Missing."""
    names = dict.fromkeys(_leading_to(prompt, node_id))
    if not names:
        return []
    keys = private.model_lora_keys_unet(patcher.model, {})
    paths = {name: path for name in names if (path := folder_paths.get_full_path("loras", name))}
    problems = {name: _problem(path, keys, patcher.model) for name, path in paths.items()}
    return [f"LoRA {name} {problem}" for name, problem in problems.items() if problem]


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
        node = prompt.get_node(number)
        inputs = node["inputs"]
        waiting += [value[0] for value in inputs.values() if private.is_link(value)]
        if node["class_type"] != OWN_LOADER:
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


def _problem(path: str, keys: Mapping[str, Any], model: nn.Module) -> str | None:
    """What ComfyUI's own loaders leave out of a LoRA. None if that is nothing, or if all of it is for a text encoder, which
    cannot be told here."""
    weights = comfy.utils.load_torch_file(path, safe_load=True)
    if weights and all(name.startswith(OF_TEXT_ENCODERS) for name in weights):
        return None
    patches = private.load_lora(private.convert_lora(weights), keys, log_missing=False)
    used = sum(_fits(model, key, patch) for key, patch in patches.items())
    usable = _usable(weights, model)
    if used and usable <= used:
        return None
    if usable <= used:
        return "changes nothing of the model: it is for another one, or its weights have names that nothing here knows"
    some = f"only {used} of {usable} weights" if used else "nothing of the model"
    return f"changes {some}: ComfyUI's loaders do not know all names of its trainer; load it with Load FramePack LoRA"


def _fits(model: nn.Module, key: PatchKey, patch: Any) -> bool:
    with suppress(LookupError, RuntimeError):
        return size_of(patch) in (None, room(model, key))
    return False


def _usable(weights: Mapping[str, Any], model: nn.Module) -> int:
    """How many weights our own loader changes."""
    with suppress(ValueError):
        return len(matched(model, weights, "").modules)
    return 0
