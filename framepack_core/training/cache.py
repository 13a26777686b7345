"""Encoded clips on disk: one safetensors file per clip, read back memory-mapped.

write_clip(folder, "cat-000000", Clip(latents, text, pooled, image, "a cat jumps"))
clips = ClipCache(folder)
clips.shapes[0], clips[0].latents
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..frames import runs
from ..media.files import whole_file
from ..media.remedies import remedy

SUFFIX = ".safetensors"
EMPTY, CODEBOOK = "empty", "codebook"
RESERVED = (EMPTY, CODEBOOK)  # files of a cache that are not clips

_DIMENSIONS = {"latents": "C T H W", "text": "L D", "pooled": "D", "image": "N D"}
_OPTIONAL = ("image",)


@dataclass(frozen=True)
class Clip:
    """One encoded clip.

    `latents` `C T H W` are in model space (VAE latents times the scaling factor), the first frame an image latent; `text` `L D`
    is unpadded; `pooled` is `D`, and `image` `N D` is of the first frame, or None. `later` has the text and the pooled text of
    captions that count from a latent frame on. A cache holds all in bfloat16.
    """

    latents: Tensor
    text: Tensor
    pooled: Tensor
    image: Tensor | None
    caption: str
    later: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By the names that they have in a file: `text.19` counts from latent frame 19 on."""
        named = {name: getattr(self, name) for name in _DIMENSIONS}
        for frame, texts in self.later.items():
            named[f"text.{frame}"], named[f"pooled.{frame}"] = texts
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def told(self, frames: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The text and the pooled text for a section that makes these latent frames.

        What counts for most of them, as at inference; of a section that makes both ends, for most of the beginning.
        """
        start, stop = runs(frames)[0]
        begun = [frame for frame in self.later if frame <= (start + stop) // 2]
        return self.later[max(begun)] if begun else (self.text, self.pooled)


def write_clip(folder: Path, name: str, clip: Clip) -> Path:
    """Write `<name>.safetensors`, whole or not at all.

    Raises ValueError for a name that is reserved or not a plain file name, for tensors of the wrong dimensions and for values
    that are not finite, and an OSError that names the file if it cannot be written.
    """
    if name in RESERVED or name.startswith(".") or Path(name).name != name or not name:
        raise ValueError(f"a clip cannot be called {name!r}; choose a plain file name other than {', '.join(RESERVED)}")
    _check(name, clip.tensors)
    return save_whole(Path(folder) / f"{name}{SUFFIX}", _bfloat16(clip.tensors), {"caption": clip.caption})


def write_empty(folder: Path, text: Tensor, pooled: Tensor) -> Path:
    """Write `empty.safetensors`: the embedding of the empty prompt, `L D` and `D`, for dropped captions."""
    tensors = {"text": text, "pooled": pooled}
    _check(EMPTY, tensors)
    return save_whole(Path(folder) / f"{EMPTY}{SUFFIX}", _bfloat16(tensors), {"caption": ""})


class ClipCache:
    """The clips of a folder, sorted by name. Opening reads only the headers; a clip's tensors are mapped when asked for.

    Raises FileNotFoundError if the folder holds no clips, and a ValueError that names a file that is not one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        paths = sorted(self.folder.glob(f"*{SUFFIX}"))
        self.names = tuple(path.stem for path in paths if path.stem not in RESERVED)
        if not self.names:
            raise FileNotFoundError(f"{self.folder} holds no clips; write them with python -m framepack_core.training cache")
        outlines = [_outline(self.path(name)) for name in self.names]
        self.shapes: tuple[tuple[int, int, int], ...] = tuple(shape for shape, _ in outlines)
        self.changes: tuple[tuple[int, ...], ...] = tuple(changes for _, changes in outlines)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Clip:
        tensors, metadata = _read(self.path(self.names[index]), tuple(_DIMENSIONS))
        later = {frame: (tensors.pop(f"text.{frame}"), tensors.pop(f"pooled.{frame}")) for frame in sorted(_begins(tensors))}
        return Clip(image=tensors.pop("image", None), caption=metadata.get("caption", ""), later=later, **tensors)

    def __iter__(self) -> Iterator[Clip]:
        return (self[index] for index in range(len(self)))

    def path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    @cached_property
    def empty(self) -> tuple[Tensor, Tensor]:
        """(text `L D`, pooled `D`) of the empty prompt. Raises FileNotFoundError if the cache has none."""
        path = self.path(EMPTY)
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing but caption dropout needs it; cache again, or set --caption-dropout 0")
        tensors, _ = _read(path, ("text", "pooled"))
        return tensors["text"], tensors["pooled"]


def save_whole(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write a safetensors file under a temporary name, then put it in place, so that a reader never sees half of one.

    Raises an OSError that names the file if the disk is full or cannot be written to; an older file then stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished, dict(metadata))
    except (SafetensorError, OSError) as error:
        raise OSError(f"{path} was not written ({error}); {remedy(error)}, then rerun") from error
    return path


def _bfloat16(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", torch.bfloat16) for name, tensor in tensors.items()}


def _check(name: str, tensors: Mapping[str, Tensor]) -> None:
    for part, tensor in tensors.items():
        dimensions = _DIMENSIONS[part.partition(".")[0]]
        if tensor.dim() != len(dimensions.split()) or 0 in tensor.shape:
            raise ValueError(f"{name}: {part} is {tuple(tensor.shape)}, but a clip's is {dimensions}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name}: {part} has values that are not finite; encode in bf16 or fp32")


def _outline(path: Path) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """`T H W` of a clip, and the latent frames from which other captions count, from the file's header."""
    with _opened(path, tuple(_DIMENSIONS)) as file:
        _, T, H, W = file.get_slice("latents").get_shape()
        return (T, H, W), tuple(sorted(_begins(file.keys())))


def _begins(names: Iterable[str]) -> list[int]:
    """The latent frames from which captions count, from the names of a clip's tensors."""
    return [int(name.partition(".")[2]) for name in names if name.startswith("text.")]


def _read(path: Path, parts: tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, str]]:
    with _opened(path, parts) as file:
        present = [name for name in file.keys() if name.partition(".")[0] in parts]  # noqa: SIM118 (it is not a mapping)
        return {part: file.get_tensor(part) for part in present}, file.metadata() or {}


def _opened(path: Path, parts: tuple[str, ...]):
    """The open file, after a check of its tensors' headers."""
    remedy = "delete it and cache its video again"
    try:
        file = safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}); {remedy}") from error
    present = set(file.keys())
    missing = [part for part in parts if part not in present and part not in _OPTIONAL]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it is not a clip of a cache; move it elsewhere, or {remedy}")
    for part in present.intersection(parts):
        shape = file.get_slice(part).get_shape()
        if len(shape) != len(_DIMENSIONS[part].split()):
            raise ValueError(f"{path}: {part} is {tuple(shape)}, but a clip's is {_DIMENSIONS[part]}; {remedy}")
    return file
