"""LoRA files of every trainer, on a FramePack or Helios model. ComfyUI reads and applies them; we find what they are for."""

from __future__ import annotations

import logging
import math
import pickle
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.utils
import folder_paths
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ...weights import loras
from ...weights.loras import LoraNames
from ...weights.names import Module, swap_halves
from .. import private
from ..families import family_of
from ..log import log
from .kinds import Kind, kind_of_model

# What a damaged file raises, or a pickle of something else than weights.
UNREADABLE = (SafetensorError, pickle.UnpicklingError, EOFError, OSError, ValueError, RuntimeError, TypeError, AttributeError,
              LookupError)  # fmt: skip
ORIGINAL = "transformer."  # before HunyuanVideo's original names, in ComfyUI's list
KEY = "diffusion_model.{}.{}"
HEADER = ("modelspec.architecture", "ss_base_model_version")  # where trainers say what they trained
SCALES = "weight.dora_scale"
BY_ROW = (SCALES, "weight.set_weight")  # ordered like the rows of the weight itself
OTHERS = "other layers"

Size = tuple[int, int]  # rows and columns
PatchKey = str | tuple[str, Any] | tuple[str, Any, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Match:
    """What of a file is for a model, and what is left of it."""

    patches: list[tuple[PatchKey, Any]] = field(default_factory=list)  # as ComfyUI adds them
    modules: list[Module] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)  # modules of another size, with both sizes
    unknown: list[str] = field(default_factory=list)  # tensors of no module, or of a kind that ComfyUI does not know


def lora_names() -> list[str]:
    return folder_paths.get_filename_list("loras")


def load(patcher, name: str, strength: float) -> tuple[Any, str]:
    """The model with a LoRA, and what it takes of the file. At strength 0, the model itself.

    Raises ValueError for a file that is damaged or changes nothing of the model.
    """
    family_of(patcher)
    if strength == 0:
        return patcher, f"{name}: the strength is 0, so the model stays as it is"
    weights, header = read(name)
    kind, match = kind_of_model(patcher.model), matched(patcher.model, weights, name)
    trained = next((header[entry] for entry in HEADER if header.get(entry)), None)
    if not match.modules:
        raise ValueError(nothing_matched(kind, match, weights, trained, name))
    report = described(kind, match, weights, trained, f"{name} at strength {strength:g}")
    log.log(logging.WARNING if match.misfits or match.unknown else logging.INFO, "FramePack: %s", report.replace("\n", "; "))
    patched = patcher.clone()
    for patches in apart(match.patches):
        patched.add_patches(patches, strength)
    return patched, report


def read(name: str) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """The tensors and the header of a listed file, by ComfyUI's own rules for files. Raises ValueError."""
    path = folder_paths.get_full_path("loras", name)
    if path is None:
        raise ValueError(f"{name} is no longer under models/loras; refresh the browser and choose again")
    try:
        found, header = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
        weights = {str(key): torch.as_tensor(value) for key, value in found.items()}
    except UNREADABLE as error:
        raise ValueError(f"{name} cannot be read: it is damaged, not fully downloaded, or holds something else than weights "
                         f"({_first_line(error)}); download it again, as .safetensors if there is one") from error  # fmt: skip
    if not weights:
        raise ValueError(f"{name} holds no weights; download it again")
    return weights, header or {}


def targets(model: nn.Module) -> dict[str, Module]:
    """The part of a model that a LoRA's module changes, by every name that trainers give the module."""
    core = private.model_lora_keys_unet(model, {})
    originals = {key: name.removeprefix(ORIGINAL) for name, key in core.items() if name.startswith(ORIGINAL)}
    modules_for = kind_of_model(model).loras.modules_for
    found: dict[str, Module] = {}
    for key in dict.fromkeys(key for key in core.values() if key.endswith(".weight")):
        native = key.removeprefix("diffusion_model.").removesuffix(".weight")
        own = {originals.get(key, native): Module(native), native: Module(native)}
        for old, module in (own | dict(modules_for(native))).items():
            found |= dict.fromkeys(loras.spellings(old), module)
    return found


def matched(model: nn.Module, weights: Mapping[str, Tensor], name: str) -> Match:
    """Raises ValueError for a module whose tensors are not complete."""
    known, match = targets(model), Match()
    for spelled, tensors in sorted_out(weights, known, match.unknown).items():
        try:
            _match_module(model, known[spelled], spelled, tensors, match)
        except (LookupError, RuntimeError) as error:
            raise ValueError(f"{name} is damaged: {spelled} lacks a tensor or has one of a wrong shape "
                             f"({_first_line(error)}); download it again") from error  # fmt: skip
    return match


def _match_module(model: nn.Module, module: Module, spelled: str, tensors: Mapping[str, Tensor], match: Match) -> None:
    """Add what a file holds of one module. Raises LookupError, RuntimeError."""
    patches = patches_of(tensors, module)
    used = {tensor for leaf, patch in patches.items() for tensor in _read_by(leaf, patch)}
    match.unknown.extend(f"{spelled} ({tensor})" for tensor in tensors if tensor not in used)
    for leaf, patch in patches.items():
        key = key_of(model, module, leaf)
        if misfit := _misfit(patch, room(model, key), tensors.get(f"{leaf}.dora_scale")):
            match.misfits.append(f"{spelled}: {misfit}")
        else:
            match.patches.append((key, patch))
            match.modules.append(module)


def sorted_out(weights: Mapping[str, Tensor], known: Mapping[str, Module], unknown: list[str]) -> dict[str, dict[str, Tensor]]:
    """The tensors of each module by what they are of it; the names of the others are added to `unknown`."""
    modules: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in weights.items():
        if parts := loras.split(key, known):
            modules[parts[0]][parts[1]] = tensor
        else:
            unknown.append(key)
    return modules


def patches_of(tensors: Mapping[str, Tensor], module: Module) -> dict[str, Any]:
    """ComfyUI's patch of a module's `weight` and of its `bias`, as far as there are any. Raises KeyError, RuntimeError."""
    given = dict(tensors)
    if SCALES in given and given[SCALES].ndim == 1:  # peft's
        given[SCALES] = given[SCALES].unsqueeze(1)
    if module.swapped:
        given |= {name: swap_halves(given[name]) for name in BY_ROW if name in given and given[name].shape[:1] > (1,)}
    return private.load_lora(given, {"weight": "weight", "bias": "bias"}, log_missing=False)


def key_of(model: nn.Module, module: Module, leaf: str) -> PatchKey:
    """What ComfyUI adds a patch to: a weight, some of its rows, or, if its halves change places, what puts them there."""
    key = KEY.format(module.name, leaf)
    if module.swapped:
        return key, None, swap_halves
    if module.part is None:
        return key
    first, rows = module.rows(*_size(model, KEY.format(module.name, "weight")))
    return key, (0, first, rows)


def room(model: nn.Module, key: PatchKey) -> Size:
    """The size of what a patch is added to; a vector has one column."""
    if isinstance(key, str):
        return _size(model, key)
    rows, columns = _size(model, key[0])
    return (key[1][2] if key[1] else rows), columns


def _size(model: nn.Module, key: str) -> Size:
    """0x0 for the bias of a layer that has none."""
    layer, _, leaf = key.rpartition(".")
    weight = getattr(comfy.utils.get_attr(model, layer), leaf, None)
    return (0, 0) if weight is None else _flat(weight.shape)


def size_of(patch: Any) -> Size | None:
    """The size of what a patch adds; None if only ComfyUI can tell. Raises LookupError or RuntimeError if its tensors do not
    go together."""
    if isinstance(patch, tuple):
        return _flat(patch[1][0].shape)
    match getattr(patch, "name", None), patch.weights:
        case "lora", (up, down, _, None, _, None):
            return _flat(_product(up, down).shape)
        case "loha", (one_a, one_b, _, two_a, two_b, None, None, _):
            return _flat((_product(one_a, one_b) * _product(two_a, two_b)).shape)
        case "lokr", (one, two, _, one_a, one_b, two_a, two_b, None, _):
            pair = _product(one_a, one_b, one), _product(two_a, two_b, two)
            return _flat(torch.kron(*pair).shape)
    return None


def _product(left: Tensor | None, right: Tensor | None, whole: Tensor | None = None) -> Tensor:
    """The product of two matrices, or the whole in its place, without numbers. Raises LookupError, RuntimeError."""
    if whole is not None:
        return whole.to("meta").flatten(1)
    if left is None or right is None:
        raise LookupError("one of two factors")
    return left.to("meta").flatten(1) @ right.to("meta").flatten(1)


def _flat(shape: Sequence[int]) -> Size:
    return (shape[0] if shape else 1), math.prod(shape[1:])


def _misfit(patch: Any, expected: Size, scales: Tensor | None) -> str | None:
    """What is wrong with a patch's size, if something is. ComfyUI would leave the patch out and only log it."""
    found = size_of(patch)
    if found not in (None, expected):
        return "{}x{}, where the model has {}x{}".format(*found, *expected)
    if scales is not None and scales.ndim <= 2 and scales.numel() not in expected:  # those of a convolution have its dimensions
        return "{} scales for {}x{}".format(scales.numel(), *expected)
    return None


def _read_by(leaf: str, patch: Any) -> Iterable[str]:
    return [f"{leaf}.{kind}" for kind in ("diff", "set_weight", "w_norm")] if isinstance(patch, tuple) else patch.loaded_keys


def apart(patches: Iterable[tuple[PatchKey, Any]]) -> list[dict[PatchKey, Any]]:
    """The patches in as few dicts as hold them: two of a file may be for the same weight, under two names."""
    dicts: list[dict[PatchKey, Any]] = []
    for key, patch in patches:
        free = next((entries for entries in dicts if key not in entries), None)
        if free is None:
            dicts.append(free := {})
        free[key] = patch
    return dicts


# What is said of a file


def described(kind: Kind, match: Match, weights: Mapping[str, Tensor], trained: str | None, title: str) -> str:
    """What matches and what does not, a line each."""
    groups = kind.loras.groups
    counts = Counter(_group(module.name, groups) for module in match.modules)
    where = ", ".join(f"{counts[group]} in {group}" for group in (*groups.values(), OTHERS) if counts[group])
    of_text, others = _unknown(match)
    lines = [
        f"{title}: changes {len(match.modules)} weights ({where})",
        of_text and f"not used: {len(of_text)} tensors for text encoders, which {kind.name}'s LoRAs leave as they are",
        others and f"not used: {len(others)} tensors that are not of this model, first {others[0]}",
        match.misfits and f"not used: {len(match.misfits)} weights of another size, first {match.misfits[0]}",
        trained and f"made for {trained}, as its header says",
    ]
    if (others or match.misfits) and (family := loras.family(weights, kind.loras)):
        lines.append(f"by its names it may be for {family}")
    return "\n".join(line for line in lines if line)


def nothing_matched(kind: Kind, match: Match, weights: Mapping[str, Tensor], trained: str | None, name: str) -> str:
    family = trained or loras.family(weights, kind.loras)
    of_text, others = _unknown(match)
    if match.misfits:
        why = f"all {len(match.misfits)} of its weights that {kind.name} has too have another size, first {match.misfits[0]}"
    elif of_text and not others:
        why = "all its weights are for text encoders"
    else:
        why = f"none of its {len(weights)} tensors, first {next(iter(weights))}, is of {kind.loras.made_for}"
    seems = f"; it seems to be for {family}" if family else ""
    return f"{name} changes nothing of the model: {why}{seems}; {_remedy(kind.loras, family or '')}"


def _remedy(names: LoraNames, family: str) -> str:
    elsewhere = (remedy for part, remedy in names.elsewhere.items() if part in family.lower())
    return next(elsewhere, f"choose a LoRA for {names.made_for}")


def _unknown(match: Match) -> tuple[list[str], list[str]]:
    """Unknown tensors: those of text encoders, and others."""
    of_text = [key for key in match.unknown if key.startswith(loras.OF_TEXT_ENCODERS)]
    return of_text, [key for key in match.unknown if not key.startswith(loras.OF_TEXT_ENCODERS)]


def _group(module: str, groups: Mapping[str, str]) -> str:
    return next((group for start, group in groups.items() if module.startswith(start)), OTHERS)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
