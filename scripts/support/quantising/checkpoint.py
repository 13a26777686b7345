"""Reading a checkpoint lazily, tensor by tensor, in ComfyUI's names; writing a safetensors file as a stream."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from framepack_core.comfyui.loading.quantise import Spec, nbytes
from framepack_core.media.files import whole_file
from framepack_core.weights import names

INDEX = "*.safetensors.index.json"
FLOATING = (torch.float32, torch.bfloat16, torch.float16)
DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int8: "I8",
    torch.uint8: "U8",
}
MARK = "clean_x_embedder.proj.weight"
SIDECARS = (".comfy_quant", ".weight_scale", ".scale_weight")


@dataclass(frozen=True)
class Checkpoint:
    """A single file or a sharded folder, in official/diffusers or ComfyUI's names.

    Only the module being read is in memory, as pages of the file.
    """

    path: Path

    @cached_property
    def files(self) -> list[Path]:
        """Raises ValueError if there are none."""
        if self.path.suffix == ".gguf":
            raise ValueError(f"{self.path.name} is a GGUF, which is quantised already; convert the bf16 checkpoint")
        if self.path.is_file():
            return [self.path]
        index = next(self.path.glob(INDEX), None)
        if index is None:
            raise ValueError(f"{self.path} is neither a .safetensors file nor a folder with a *.safetensors.index.json")
        shards = sorted({self.path / shard for shard in json.loads(index.read_text())["weight_map"].values()})
        absent = [shard.name for shard in shards if not shard.is_file()]
        if absent:
            raise ValueError(f"{self.path.name} lacks {', '.join(absent)}; download them into that folder")
        return shards

    @property
    def nbytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    @cached_property
    def metadata(self) -> dict[str, str]:
        """What the header says about FramePack: layouts and orders."""
        entries: dict[str, str] = {}
        for file in self.files:
            with _opened(file) as tensors:
                entries |= tensors.metadata() or {}
        return {key: value for key, value in entries.items() if key.startswith("framepack.")}

    @cached_property
    def stored(self) -> dict[str, tuple[Path, str, Tensor]]:
        """Name without prefix -> its file, its name there, and a meta tensor with its shape and dtype."""
        places: dict[str, tuple[Path, str, Tensor]] = {}
        for file in self.files:
            with _opened(file) as tensors:
                for key in tensors.keys():  # noqa: SIM118 - not a dict
                    part = tensors.get_slice(key)
                    meta = torch.empty(part.get_shape(), dtype=_dtype(part.get_dtype()), device="meta")
                    places[key] = (file, key, meta)
        places = names.strip_prefix(places)
        self._require_full_precision(places)
        return places

    @cached_property
    def modules(self) -> dict[str, list[str]]:
        """ComfyUI's modules, and the stored tensors that each is made of."""
        made_of: dict[str, list[str]] = defaultdict(list)
        for key in self.stored:
            module = key.rpartition(".")[0]
            if names.is_diffusers(self.stored):
                renamed = names.rename_module(module)
                if renamed is None:
                    raise ValueError(f"{self.path.name}: {key} is not a weight of FramePack's transformer")
                module = renamed.name
            made_of[module].append(key)
        return dict(made_of)

    def weights(self, module: str, meta: bool = False) -> dict[str, Tensor]:
        """A module's tensors in ComfyUI's names; with `meta`, only their shapes and dtypes."""
        if meta:
            parts = {key: self.stored[key][2] for key in self.modules[module]}
        else:
            parts = {key: _read(*self.stored[key][:2]) for key in self.modules[module]}
        return names.to_comfy(parts) if names.is_diffusers(self.stored) else parts

    def _require_full_precision(self, places: Mapping[str, tuple[Path, str, Tensor]]) -> None:
        name = self.path.name
        if MARK not in places:
            raise ValueError(f"{name} is not a FramePack transformer: it has no {MARK}; choose another file")
        quantised = [key for key, (_, _, meta) in places.items() if key.endswith(SIDECARS) or meta.dtype not in FLOATING]
        if quantised:
            raise ValueError(f"{name} is quantised already ({quantised[0]}); convert the bf16 checkpoint")


def _opened(file: Path):
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file.name} cannot be read ({error}); download it again") from error


def _read(file: Path, key: str) -> Tensor:
    with _opened(file) as tensors:
        return tensors.get_tensor(key)


def _dtype(name: str) -> torch.dtype:
    known = {code: dtype for dtype, code in DTYPES.items()}
    return known.get(name, torch.uint8)  # anything else is quantised


class StreamedFile:
    """A safetensors file whose header is written first; the tensors follow in the order of the header.

    with StreamedFile(path, specs, metadata) as file:
        for name, tensor in ...:
            file.write(name, tensor)

    It appears under its name when the block ends, and not at all if the block fails.
    """

    def __init__(self, path: Path, specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> None:
        self.path = path
        self.specs, self.expected = specs, iter(specs)
        self.header = header(specs, metadata)

    @property
    def nbytes(self) -> int:
        return len(self.header) + nbytes(self.specs)

    def __enter__(self) -> StreamedFile:
        with ExitStack() as opened:
            self.file = opened.enter_context(opened.enter_context(whole_file(self.path)).open("wb"))
            self.file.write(self.header)
            self.opened = opened.pop_all()
        return self

    def write(self, name: str, tensor: Tensor) -> None:
        expected = next(self.expected)
        found = (tensor.dtype, tuple(tensor.shape))
        if (name, found) != (expected, self.specs[expected]):
            raise RuntimeError(f"{name} {found} was written where the header has {expected} {self.specs[expected]}")
        self.file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)

    def __exit__(self, *exception) -> None:
        self.opened.__exit__(*exception)


def header(specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> bytes:
    """The length and JSON header of a safetensors file, padded so that the tensors start at a multiple of 8."""
    entries: dict[str, dict] = {"__metadata__": dict(metadata)} if metadata else {}
    begin = 0
    for name, spec in specs.items():
        end = begin + nbytes({name: spec})
        entries[name] = {"dtype": DTYPES[spec[0]], "shape": list(spec[1]), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def of_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Spec]:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
