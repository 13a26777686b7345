"""Safetensors files, tensor by tensor, in no more memory than a tensor takes.

The format is a length of 8 bytes, a JSON header, and the tensors' bytes; https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
LONGEST_HEADER = 100 * 2**20  # what safetensors itself allows
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux's value; older Pythons do not name it


class Unreadable(ValueError):
    """The message says what is wrong with a file, without its name."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself: its tensors by name, each with its `dtype`, `shape` and `data_offsets`, and its text entries.
    The tensors' bytes begin at `begin`, and the file is `nbytes` long."""

    tensors: dict[str, dict[str, Any]]
    metadata: dict[str, str]
    begin: int
    nbytes: int


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: where its bytes begin, and what they are."""

    begin: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


def read_header(path: Path) -> Header:
    """Raises Unreadable, or an OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):
            raise Unreadable(f"has no whole header in its {size:,} bytes")
        try:
            entries = json.loads(file.read(length))
            metadata = entries.pop("__metadata__", {})
            end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise Unreadable("has a damaged header, or is not a safetensors file") from error
    return Header(entries, metadata, 8 + length, 8 + length + end)


def require_whole(path: Path, header: Header) -> None:
    """Raises Unreadable unless the file is exactly as long as its header says."""
    size = path.stat().st_size
    if size < header.nbytes:
        raise Unreadable(f"is cut off: {size:,} of {header.nbytes:,} bytes are there")
    if size > header.nbytes:
        raise Unreadable(f"is {size:,} bytes long, but its header says {header.nbytes:,}")


def read_tensors(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """The tensors of a file, and its text entries. Raises ValueError if it is damaged or has an unknown type, or an OSError."""
    try:
        header = read_header(path)
        require_whole(path, header)
        tensors = {name: _stored(name, entry, header.begin) for name, entry in header.tensors.items()}
    except Unreadable as error:
        raise ValueError(f"{path.name} cannot be read: it {error}; download it again") from error
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    return tensors, header.metadata


def _stored(name: str, entry: dict[str, Any], begin: int) -> Stored:
    """Raises Unreadable, and ValueError for an unknown type."""
    try:
        code, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable("has a damaged header, or is not a safetensors file") from error
    if code not in DTYPES:
        raise ValueError(f"{name} is in {code}; the types that can be read are {', '.join(DTYPES)}")
    stored = Stored(begin + first, DTYPES[code], shape)
    if stored.nbytes != last - first:
        raise Unreadable(f"is damaged: {name} is {last - first} bytes long, expected {stored.nbytes}")
    return stored


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
    tensors, metadata = read_tensors(path)
    with path.open("rb") as file:
        flags, access = mmap.MAP_PRIVATE | NO_RESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        pages = mmap.mmap(file.fileno(), 0, flags=flags, prot=access)
    return {name: _tensor(pages, stored.begin, stored) for name, stored in tensors.items()}, metadata


def _tensor(data: bytearray | mmap.mmap, begin: int, stored: Stored) -> Tensor:
    if not stored.nbytes:
        return torch.empty(stored.shape, dtype=stored.dtype)
    return torch.frombuffer(data, dtype=stored.dtype, count=math.prod(stored.shape), offset=begin).view(stored.shape)
