"""Writes a small GGUF for measurements and tests; for large ones there are llama.cpp's tools."""

from __future__ import annotations

import re
from pathlib import Path

import gguf
import numpy
from torch import Tensor

SHAPE_KEY = "comfy.gguf.orig_shape."
BLOCK = re.compile(r"(^|_)blocks\.")


def write_gguf(path: Path, weights: dict[str, Tensor], kind: str, metadata: dict[str, str] | None = None) -> Path:
    """Write blocks' matrices in `kind`, the rest in F32; convolutions are flattened, their shapes noted as converters do."""
    writer = gguf.GGUFWriter(path, "hyvid")
    for key, value in (metadata or {}).items():
        writer.add_string(key, value)
    for name, weight in weights.items():
        array = weight.float().contiguous().numpy()
        if array.ndim > 2:
            writer.add_array(SHAPE_KEY + name, list(array.shape))
            array = array.reshape(len(array), -1)
        type = gguf.GGMLQuantizationType[kind if is_quantised(name, array) else "F32"]
        data = gguf.quants.quantize(array, type)
        writer.add_tensor(name, data, raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def is_quantised(name: str, array: numpy.ndarray) -> bool:
    return BLOCK.search(name) is not None and array.ndim == 2 and name.endswith(".weight")
