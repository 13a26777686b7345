"""What a model file says about itself in its first bytes; the tensors are never read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framepack_core.weights import helios, names
from framepack_core.weights.stored import Header, Unreadable

SIDECARS = (".scale_weight", ".weight_scale", ".comfy_quant", "_scale", "scaled_fp8")
FAMILIES = {"FramePack": names, "Helios": helios}  # and the module that knows the names of their weights


def family(tensors: Mapping[str, Any]) -> str | None:
    """Which of FAMILIES a transformer is of; None for any other file."""
    plain = _plain(tensors)
    return next((name for name, known in FAMILIES.items() if any(mark in plain for mark in known.MARKS)), None)


def naming(tensors: Mapping[str, Any]) -> str:
    """Which names a transformer of a family uses."""
    known = FAMILIES[family(tensors) or "FramePack"]
    return "official names" if known.is_diffusers(_plain(tensors)) else "ComfyUI's names"


def _plain(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Without the prefix of a whole checkpoint."""
    return names.strip_prefix(dict(tensors), [mark for known in FAMILIES.values() for mark in known.MARKS])


def formats(path: Path, header: Header) -> list[str]:
    """ComfyUI's quantised formats, or else the dtypes that take most of the file."""
    quantised = named_formats(path, header)
    if quantised:
        return quantised
    bytes_of: Counter[str] = Counter()
    for key, entry in header.tensors.items():
        if not key.endswith(SIDECARS):
            first, last = entry["data_offsets"]
            bytes_of[entry["dtype"]] += last - first
    total = bytes_of.total()
    scaled = " with scales" if any(key.endswith(("scale_weight", "scaled_fp8")) for key in header.tensors) else ""
    return [
        f"{dtype}{scaled if dtype.startswith('F8') else ''}" for dtype, count in bytes_of.most_common() if count > total / 50
    ]


def named_formats(path: Path, header: Header) -> list[str]:
    """The formats of the layers, most frequent first: in the header's metadata, or in a small tensor beside each weight."""
    found: Counter[str] = Counter()
    layers = json.loads(header.metadata.get("_quantization_metadata", "{}")).get("layers", {})
    found.update(layer["format"] for layer in layers.values())
    marks = [entry["data_offsets"] for key, entry in header.tensors.items() if key.endswith(".comfy_quant")]
    with path.open("rb") as file:
        for first, last in marks:
            file.seek(header.begin + first)
            found[json.loads(file.read(last - first))["format"]] += 1
    return [name for name, _ in found.most_common()]


def gguf_types(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The tensors of a GGUF by name, and the types of its matrices, most frequent first.

    Raises ImportError without the gguf package, and Unreadable if tensors lie beyond the file's end.
    """
    import gguf

    try:
        tensors = gguf.GGUFReader(path).tensors  # maps the file into memory, without reading the tensors
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise Unreadable(f"is cut off or damaged ({error})") from error
    kinds = Counter(tensor.tensor_type.name for tensor in tensors if len(tensor.shape) > 1)
    return {tensor.name: tensor for tensor in tensors}, [kind for kind, _ in kinds.most_common()]
