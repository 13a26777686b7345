"""What a run is named after, part by part, and why the sections of another run that is nearly the same are not used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..media.files import whole_file
from .digest import digest

FILE = "identity.json"
STRETCHES = 64  # of a tensor, whose means are kept
NEAR = 0.05  # difference of these means, relative to their norm; other pictures and texts differ by far more

COMPUTED = {  # parts that a model computes, so that the same inputs may give other bits
    "known": "the latents of the start or end image differ slightly",
    "end": "the latents of the end image differ slightly",
    "image": "the image embedding differs slightly",
    "guider": "the text embeddings differ slightly",
}
SURROUNDINGS = ("versions", "machine")  # parts that no input of a node decides
NAMES = {
    "framepack": "this pack",
    "comfyui": "ComfyUI",
    "device": "the device",
    "cpu": "the CPU with its threads",
    "attention": "the attention function",
    "upcast": "the upcasting of attention",
    "fast": "--fast",
    "deterministic": "--deterministic",
}


@dataclass(frozen=True)
class Part:
    """One part of an identity: a digest of it, a digest of it without the values of its tensors, the means of each tensor's
    stretches, and the part itself if it is one of the `SURROUNDINGS`."""

    exact: str
    form: str
    means: list[list[float]]
    plain: Any = None

    @classmethod
    def of(cls, name: str, value: object) -> Part:
        plain = json.loads(json.dumps(value)) if name in SURROUNDINGS else None
        return cls(digest(value), digest(_form(value)), [_means(tensor) for tensor in _tensors(value)], plain)

    def is_near(self, other: Part) -> bool:
        """Whether only the values of tensors differ, and little."""
        return self.form == other.form and all(map(_are_near, self.means, other.means))


@dataclass(frozen=True)
class Identity:
    """`name`, a digest of everything that decides a result except the plan, and the parts that it was made of."""

    name: str
    parts: dict[str, Part]

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Identity:
        return cls(digest(values), {name: Part.of(name, value) for name, value in values.items()})

    def write(self, folder: Path) -> None:
        """Write it into its run's folder, unless it is there already. Raises OSError."""
        if not (folder / FILE).exists():
            with whole_file(folder / FILE) as unfinished:
                unfinished.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Identity:
        """The identity of a run. Raises OSError, and ValueError, KeyError or TypeError for a damaged file."""
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return cls(content["name"], {name: Part(**part) for name, part in content["parts"].items()})

    def differences(self, before: Identity) -> list[str]:
        """What differs from a run of nearly the same, as the user would say it; empty if it is the same or quite another."""
        found: list[str] = []
        for name, part in self.parts.items():
            other = before.parts[name]
            if part.exact == other.exact:
                continue
            if name in SURROUNDINGS:
                found += changes(other.plain, part.plain)
            elif name in COMPUTED and part.is_near(other):
                found.append(COMPUTED[name])
            else:
                return []
        return found


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{NAMES.get(name, name)} was {_spelled(before.get(name))} and is {_spelled(value)}"
        for name, value in now.items()
        if value != before.get(name)
    ]


def _spelled(value: object) -> str:
    return (", ".join(map(str, value)) if isinstance(value, list) else str(value)) or "none"


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _form(value: object) -> object:
    """The value with the shape and precision of each tensor in its place."""
    if isinstance(value, Tensor):
        return "tensor", str(value.dtype), list(value.shape)
    if isinstance(value, Mapping):
        return {name: _form(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_form(item) for item in value]
    return value


def _means(tensor: Tensor) -> list[float]:
    """The means of consecutive stretches of a tensor."""
    stretches = tensor.detach().cpu().flatten().tensor_split(max(1, min(STRETCHES, tensor.numel())))
    return [stretch.float().mean().item() for stretch in stretches]


def _are_near(one: list[float], other: list[float]) -> bool:
    a, b = torch.tensor(one), torch.tensor(other)
    return bool((a - b).norm() <= NEAR * a.norm())
