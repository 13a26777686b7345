"""A name for data that is the same in every process and stays the same if the code around it moves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ..filling import ContextGroup, Section
from ..helios import solver as helios
from ..solver import sample_unipc

PACK = __name__.removesuffix(".store.digest")

# What things of this pack are called in digests, wherever they live: if a name changes, all users lose their kept sections.
NAMES: dict[object, str] = {
    ContextGroup: "plan.ContextGroup",
    Section: "plan.Section",
    sample_unipc: "solver.sample_unipc",
    helios.sample_unipc: "helios.solver.sample_unipc",
    helios.sample_dmd: "helios.solver.sample_dmd",
}


def digest(value: object) -> str:
    """SHA-256 of plain data: numbers, strings, tensors, and lists, mappings and dataclasses of them.

    A function counts by its name and any other object by its class; what tells two of them apart must be digested with them.
    Raises TypeError for something of this pack that is not in `NAMES`.
    """
    match value:
        case Tensor():
            return _sha256("tensor", str(value.dtype), str(tuple(value.shape)), _content(value))
        case None | bool() | int() | float() | str() | bytes():
            return _sha256(type(value).__name__, repr(value))
        case Mapping():
            return _sha256("mapping", *sorted(digest(key) + digest(item) for key, item in value.items()))
        case list() | tuple():
            return _sha256("sequence", *map(digest, value))
    if is_dataclass(value) and not isinstance(value, type):
        return _sha256(name(type(value)), *(digest((field.name, getattr(value, field.name))) for field in fields(value)))
    return _sha256("object", name(value if hasattr(value, "__qualname__") else type(value)))


def name(thing: Any) -> str:
    """The name of a class or function: from `NAMES` or, if it is not ours, its module's last part and its own name."""
    if thing in NAMES:
        return NAMES[thing]
    module = getattr(thing, "__module__", None) or ""
    if module.startswith(f"{PACK}."):
        raise TypeError(f"{module}.{thing.__qualname__} has no lasting name; add one to NAMES in store/digest.py")
    return f"{module.rpartition('.')[2]}.{thing.__qualname__}"


def _sha256(*parts: str | memoryview) -> str:
    sha = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        sha.update(f"{len(content)}:".encode())
        sha.update(content)
    return sha.hexdigest()


def _content(tensor: Tensor) -> memoryview:
    """Its bytes, where they are."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
