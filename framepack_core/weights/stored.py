"""Safetensors files, tensor by tensor, in no more memory than a tensor takes.

The format is a length of 8 bytes, a JSON header, and the tensors' bytes; https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux's value; older Pythons do not name it


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: where its bytes begin, and what they are."""

    begin: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


def read_header(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """The tensors of a file, and its text entries. Raises ValueError if it is damaged or has an unknown type, or an OSError."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entries = json.loads(file.read(length)) if length <= path.stat().st_size else {}
        metadata = entries.pop("__metadata__", {})
        spans = {name: (entry["data_offsets"], entry["dtype"], entry["shape"]) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error
    tensors = {}
    for name, ((begin, end), code, shape) in spans.items():
        if code not in DTYPES:
            raise ValueError(f"{path.name}: {name} is in {code}; the types that can be read are {', '.join(DTYPES)}")
        tensors[name] = Stored(8 + length + begin, DTYPES[code], tuple(shape))
        if tensors[name].nbytes != end - begin:
            raise damaged(path, f"{name} is {end - begin} bytes long")
    if not tensors or max(tensor.begin + tensor.nbytes for tensor in tensors.values()) > path.stat().st_size:
        raise damaged(path, "it ends too early")
    return tensors, metadata


def read_tensor(path: Path, stored: Stored) -> Tensor:
    """One tensor, in memory of its own."""
    with path.open("rb") as file:
        file.seek(stored.begin)
        return _tensor(bytearray(file.read(stored.nbytes)), 0, stored)


def map_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file, as pages of it, and its text entries. What is written to them does not reach the file. Linux only.

    torch's own mapping, which safetensors uses, reserves memory for such writes, and Linux refuses it for a file that is larger
    than memory and swap.
    """
    tensors, metadata = read_header(path)
    with path.open("rb") as file:
        flags, access = mmap.MAP_PRIVATE | NO_RESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        pages = mmap.mmap(file.fileno(), 0, flags=flags, prot=access)
    return {name: _tensor(pages, stored.begin, stored) for name, stored in tensors.items()}, metadata


def _tensor(data: bytearray | mmap.mmap, begin: int, stored: Stored) -> Tensor:
    if not stored.nbytes:
        return torch.empty(stored.shape, dtype=stored.dtype)
    return torch.frombuffer(data, dtype=stored.dtype, count=math.prod(stored.shape), offset=begin).view(stored.shape)


def damaged(path: Path, why: object) -> ValueError:
    return ValueError(f"{path.name} cannot be read: it is damaged or not fully downloaded ({why}); download it again")
