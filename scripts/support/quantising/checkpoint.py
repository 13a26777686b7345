"""Reading a checkpoint lazily, tensor by tensor, in ComfyUI's names; writing a safetensors file as a stream."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from framepack_core.comfyui.loading.kinds import Kind, kind_of
from framepack_core.comfyui.loading.quantise import Spec, nbytes
from framepack_core.media.files import whole_file
from framepack_core.weights import fp8, names
from framepack_core.weights.stored import CODES, Stored, read_tensor, read_tensors

INDEX = "*.safetensors.index.json"
FLOATING = (torch.float32, torch.bfloat16, torch.float16)
SIDECARS = (".comfy_quant", ".weight_scale", ".scale_weight")
FP8_MARK = "scaled_fp8"  # an empty tensor, or two elements if products are to be computed in full precision
FORMATS_KEY = "_quantization_metadata"  # where a header may keep the formats of layers


@dataclass(frozen=True)
class Checkpoint:
    """A single file or a sharded folder, in official/diffusers or ComfyUI's names.

    Only the module being read is in memory.
    """

    path: Path

    @cached_property
    def files(self) -> list[Path]:
        """Raises ValueError if there are none."""
        if self.path.suffix.lower() == ".gguf":
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
    def headers(self) -> dict[Path, tuple[dict[str, Stored], dict[str, str]]]:
        """By file, its tensors and its text entries."""
        return {file: read_tensors(file) for file in self.files}

    @cached_property
    def header(self) -> dict[str, str]:
        """The text entries of all files."""
        return {key: value for _, entries in self.headers.values() for key, value in entries.items()}

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of its model, and about formats of layers that keep their names."""
        entries = self.kind.said(self.header, self.path)
        return entries | ({FORMATS_KEY: self.header[FORMATS_KEY]} if self._names_formats and not self.is_official else {})

    @cached_property
    def kind(self) -> Kind:
        """Raises ValueError for a file that is neither FramePack nor Helios."""
        return kind_of({key for tensors, _ in self.headers.values() for key in tensors}, self.path.name)

    @cached_property
    def stored(self) -> dict[str, tuple[Path, Stored]]:
        """Name without prefix -> its file and its place there. Raises ValueError for a file that is neither."""
        places = {key: (file, stored) for file, (tensors, _) in self.headers.items() for key, stored in tensors.items()}
        return names.strip_prefix(places, self.kind.marks)

    @cached_property
    def is_official(self) -> bool:
        """Whether it has official/diffusers names."""
        return self.kind.is_diffusers(self.stored)

    def require_full_precision(self) -> None:
        """Raises ValueError for a quantised file."""
        quantised = [key for key, (_, part) in self.stored.items() if key.endswith(SIDECARS) or part.dtype not in FLOATING]
        if quantised:
            raise ValueError(f"{self.path.name} is quantised already ({quantised[0]}); convert the bf16 checkpoint")

    @cached_property
    def modules(self) -> dict[str, list[str]]:
        """ComfyUI's modules, and the stored tensors that each is made of."""
        made_of: dict[str, list[str]] = defaultdict(list)
        for key in self.stored:
            module = self._module_of(key) if self.is_official else key.rpartition(".")[0]
            if module is not None:
                made_of[module].append(key)
        return dict(made_of)

    def _module_of(self, key: str) -> str | None:
        try:
            return None if key == FP8_MARK else self.kind.module_of(key)
        except ValueError as error:
            raise ValueError(f"{self.path.name}: {error}") from error

    def weights(self, module: str, meta: bool = False) -> dict[str, Tensor]:
        """A module's tensors in ComfyUI's names, as the loader reads them; with `meta`, only their shapes and dtypes."""
        places = {key: self.stored[key] for key in self.modules[module]}
        if meta:
            parts = {key: torch.empty(part.shape, dtype=part.dtype, device="meta") for key, (_, part) in places.items()}
        else:
            parts = {key: read_tensor(file, part) for key, (file, part) in places.items()}
        fp8.one_scale(parts)
        return self.kind.to_comfy(self._with_formats(parts)) if self.is_official else parts

    def _with_formats(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scales under the names that ComfyUI gives them when it reads a file, and beside them the formats of the layers."""
        result: dict[str, Tensor] = {}
        for key, tensor in parts.items():
            layer, _, leaf = key.rpartition(".")
            if leaf == "weight" and layer in self._formats:
                result[f"{layer}.comfy_quant"] = self._formats[layer]
            if leaf in ("scale_weight", "scale_input") and not self._names_formats:
                key = f"{layer}.{'weight_scale' if leaf == 'scale_weight' else 'input_scale'}"
                if leaf == "scale_input" and read_tensor(*self.stored[f"{layer}.{leaf}"]).item() == 1:
                    continue
            result[key] = tensor
        return result

    @property
    def _names_formats(self) -> bool:
        """Whether the header says how layers are quantised. ComfyUI's loader and ours do not ask the headers of shards."""
        return FORMATS_KEY in self.header and self.path.is_file()

    @cached_property
    def _formats(self) -> dict[str, Tensor]:
        """By layer of a file in official names, the JSON that says how it is quantised, as bytes."""
        if self._names_formats:
            layers = json.loads(self.header[FORMATS_KEY])["layers"]
        else:
            scaled = [key.removesuffix(".scale_weight") for key in self.stored if key.endswith(".scale_weight")]
            full = FP8_MARK not in self.stored or math.prod(self.stored[FP8_MARK][1].shape) == 2
            product = {"full_precision_matrix_mult": True} if full else {}
            layers = {layer: {"format": "float8_e4m3fn", **product} for layer in scaled}
        return {layer: torch.tensor(list(json.dumps(format).encode()), dtype=torch.uint8) for layer, format in layers.items()}


class StreamedFile:
    """A safetensors file whose header is written first; the tensors follow in the order of the header.

    with StreamedFile(path, specs, metadata) as file:
        for name, tensor in ...:
            file.write(name, tensor)

    It appears under its name when the block ends, and not at all if the block fails. Without `replace` a file of that name
    stays, and FileExistsError is raised.
    """

    def __init__(self, path: Path, specs: Mapping[str, Spec], metadata: Mapping[str, str], replace: bool = True) -> None:
        self.path, self.replace = path, replace
        self.specs, self.expected = specs, iter(specs)
        self.header = header(specs, metadata)

    @property
    def nbytes(self) -> int:
        return len(self.header) + nbytes(self.specs)

    def __enter__(self) -> StreamedFile:
        with ExitStack() as opened:
            self.file = opened.enter_context(opened.enter_context(whole_file(self.path, self.replace)).open("wb"))
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
        entries[name] = {"dtype": CODES[spec[0]], "shape": list(spec[1]), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def of_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Spec]:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
