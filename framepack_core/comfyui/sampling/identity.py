"""A name for everything that decides a result, the same in every process.

Data counts by its content: conditioning, start image, image embedding, seed. Things without plain content (models, guiders,
samplers, hooks) count by their origin: the part of the prompt that leads to them, and the files named there.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import comfy.model_management
import comfyui_version
import folder_paths
import torch
from comfy.cli_args import args
from torch import Tensor

from ...filling import guides_shown
from ...store.digest import digest
from ...store.identity import Identity
from .. import private
from ..families import family_of
from ..version import pack_version
from .timed import VideoTime, is_timed

if TYPE_CHECKING:
    import comfy.clip_vision
    from comfy_execution.graph import DynamicPrompt

    from ...filling import Section
    from .request import Request
    from .timed import Conds, Told

ORIGINATED = ("model", "positive", "negative", "guider", "sampler")  # inputs of the sampler nodes that count by their origin
WORKING = ("model_patcher", "model_options", "conds", "inner_model", "loaded_models")  # a guider's, during and after sampling
NOT_MODELS = ("custom_nodes", "configs", "datasets")
LONGEST_NAME = 1000
NO_PATH = (
    OSError,
    ValueError,
    RuntimeError,
)  # what systems raise for a text that is no path: too long, null bytes, loops of links

Stat = tuple[int, int]  # size, and time of change in ns


def identity(request: Request) -> Identity:
    """Everything that decides the whole video, except the plan and its sigmas. The request has an origin, from `origin()`.

    What decides single sections is no part of it (`section_parts`), so that a longer video may be the same run.
    """
    guider, sampler, timeline = request.guider, request.sampler, request.timeline
    patcher = guider.model_patcher
    return Identity.of(
        {
            "origin": request.origin,
            "versions": versions(),
            "machine": machine(patcher.load_device),
            "model": model(patcher),
            "guider": (guider, without_prompts(attributes(guider))),
            "sampler": (sampler, attributes(sampler)),
            "image": seen(request.clip_vision_output),
            "known": {frame: timeline.latents[:, :, frame : frame + 1] for frame in timeline.known},
            "end": timeline.end,
            "seed": request.seed,
            **optional(request),
        }
    )


def optional(request: Request) -> dict[str, Any]:
    """What is part of few runs; left out of the others, so that they are named as in earlier versions."""
    parts = {
        "shown": request.timeline.shown,
        "colour_anchor": request.colour_anchor,
        "variant": family_of(request.guider.model_patcher).variant,
    }
    return {name: value for name, value in parts.items() if value}


def without_prompts(guider: dict[str, Any]) -> dict[str, Any]:
    """A guider's attributes without prompts that are timed: these decide single sections (`section_prompts`)."""
    timed = is_timed(guider["original_conds"])
    return {name: value for name, value in guider.items() if not timed or name != "original_conds"}


def section_parts(request: Request, told: Told) -> dict[int, tuple[str, ...]]:
    """Digests of what decides a section and, through it, those after it, by its number: what it is told, its own image
    embedding, the guide that it sees, and what noise is added to. Those that it does not have are left out."""
    timeline, prompts = request.timeline, section_prompts(told)
    named = cache(digest)  # of tensors, which sections share

    def parts(section: Section) -> Iterator[str]:
        if section.number in prompts:
            yield prompts[section.number]
        if section.number in request.embeddings:
            yield digest(("embedding", named(seen(request.embeddings[section.number]))))
        for number in sorted(guides_shown([section], timeline.frames)):
            yield digest(("guide", named(timeline.guides[number].latent)))
        if request.initial is not None:
            yield digest(("initial", request.initial[:, :, list(section.target)]))

    return {section.number: tuple(parts(section)) for section in request.sections}


def section_prompts(told: Told) -> dict[int, str]:
    """A digest of what each section is told, by its number. Empty for prompts that are not timed."""
    known: dict[int, str] = {}

    def named(conds: list[dict[str, Any]]) -> str:
        if id(conds) not in known:  # sections that are told the same have the same list
            known[id(conds)] = digest(conds)
        return known[id(conds)]

    return {
        number: digest({name: named(conds) for name, conds in sorted(by_name.items())})
        for number, by_name in told.conditions.items()
    }


def by_content(guider) -> bool:
    """Whether a guider's prompts are timed and hold nothing, such as hooks, that counts by its origin."""
    conds: Conds = getattr(guider, "original_conds", {})  # without them it is refused later
    return is_timed(conds) and all(
        _is_plain(value) for entries in conds.values() for cond in entries for value in cond.values()
    )


def seen(output: comfy.clip_vision.Output | None) -> Tensor | None:
    """What a model sees of an image embedding."""
    return None if output is None else output["last_hidden_state"]


def origin(prompt: DynamicPrompt, node_id: str, conditioning: bool = True) -> str:
    """A digest of the part of the prompt that leads to a sampler node's model, conditioning, guider and sampler.

    Node ids, titles and unrelated nodes do not count, nor does what leads to CONDITIONING if that counts by its content alone.
    """
    private.require("DynamicPrompt")
    part = _Part(prompt)
    inputs = prompt.get_node(node_id)["inputs"]
    links = {name: inputs[name] for name in ORIGINATED if private.is_link(inputs.get(name))}
    sources = {name: part.source(link, conditioning) for name, link in links.items()}
    context = private.get_executing_context()
    return digest((sources, context and context.list_index))  # a node that is given lists runs once for each item


def versions() -> dict[str, str]:
    return {"framepack": pack_version(), "comfyui": comfyui_version.__version__, "torch": torch.__version__}


def machine(device: torch.device) -> dict[str, Any]:
    """What else the last bit of a result depends on."""
    upcast = comfy.model_management.force_upcast_attention_dtype()
    return {
        "device": comfy.model_management.get_torch_device_name(device),
        "cpu": (platform.machine(), platform.processor(), torch.get_num_threads()) if device.type == "cpu" else None,
        "attention": private.optimized_attention.__name__,
        "fast": sorted(feature.value for feature in args.fast),
        "deterministic": args.deterministic,
        **({"upcast": str(upcast)} if upcast else {}),  # left out if there is none, as in earlier versions
    }


def model(patcher) -> dict[str, Any]:
    """Class, precision, file, and the strengths of patches; the patches' weights come from files that the prompt names."""
    loading = patcher.cached_patcher_init
    return {
        "class": type(patcher.model).__name__,
        "dtypes": [str(dtype) for dtype in (patcher.model.get_dtype(), patcher.model.manual_cast_dtype)],
        "files": [] if loading is None else stats(Path(str(loading[1][0]))),
        "patches": {key: [(patch[0], patch[2]) for patch in patches] for key, patches in patcher.patches.items()},
    }


def attributes(thing: object) -> dict[str, Any]:
    """A guider's conditioning and cfg, a sampler's function and options."""
    return {name: value for name, value in vars(thing).items() if name not in WORKING}


def named_files(value: object) -> list[Stat]:
    """Stats of the files that an input's value, or any text in it, names: models, folders of shards, input images."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [stat for item in value for stat in named_files(item)]
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        return []
    return [stat for root in _folders() for stat in _named_from(root, value)]


def stats(path: Path) -> list[Stat]:
    """The stats of a file, or of the files in a folder; empty if there are none."""
    with suppress(*NO_PATH):
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        return [(stat.st_size, stat.st_mtime_ns) for stat in map(Path.stat, filter(Path.is_file, files))]
    return []


def _named_from(root: Path, text: str) -> list[Stat]:
    """Stats of what a text names as a path from `root`: anything within it, or a file elsewhere."""
    with suppress(*NO_PATH):
        path = Path(os.path.normpath(root / text))
        if root in path.parents or path.is_file():
            return stats(path)
    return []


class _Part:
    """The part of a prompt that leads to a node."""

    def __init__(self, prompt: DynamicPrompt) -> None:
        self.prompt = prompt
        self.known: dict[tuple[str, bool], str] = {}

    def source(self, link: Sequence, conditioning: bool = True) -> tuple[str, int] | None:
        """The output that a link leads to: a digest of all that decides its node, and the slot.

        Without `conditioning`, None for prompts, those of a guider included. A model's count: it may be patched with them.
        """
        node_id, slot = link
        node = self.prompt.get_node(node_id)
        if not conditioning:
            kind = _output_type(node["class_type"], slot)
            if kind == "CONDITIONING":
                return None
            conditioning = kind != "GUIDER"
        if (node_id, conditioning) not in self.known:
            self.known[node_id, conditioning] = digest(self._node(node, conditioning))
        return self.known[node_id, conditioning], slot

    def _node(self, node: Mapping[str, Any], conditioning: bool) -> tuple:
        """The node's class, its inputs with the files they name, and what it tells ComfyUI about whether it has changed."""
        inputs = {
            name: self.source(value, conditioning) if private.is_link(value) else (value, named_files(value))
            for name, value in node["inputs"].items()
        }
        return node["class_type"], inputs, repr(node.get("is_changed"))


def _output_type(kind: str, slot: int) -> str | None:
    types = getattr(private.NODE_CLASS_MAPPINGS.get(kind), "RETURN_TYPES", ())
    return types[slot] if slot < len(types) else None


def _is_plain(value: object) -> bool:
    """Whether it is data that is digested by its content."""
    match value:
        case None | bool() | int() | float() | str() | Tensor() | UUID() | VideoTime():
            return True
        case Mapping():
            return all(map(_is_plain, value.values()))
        case list() | tuple():
            return all(map(_is_plain, value))
    return False


def _folders() -> list[Path]:
    kinds = (kind for kind in folder_paths.folder_names_and_paths if kind not in NOT_MODELS)
    models = {Path(root) for kind in kinds for root in folder_paths.get_folder_paths(kind)}
    return [Path(folder_paths.get_input_directory()), *sorted(models)]
