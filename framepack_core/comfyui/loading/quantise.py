"""Quantised weights in ComfyUI's own formats: which layers take them, how large they are, how they are made.

ComfyUI reads a quantised layer from `weight`, its scales and `comfy_quant`, a JSON that names the format of this one layer, so
a file can mix formats. Weights have ComfyUI's names.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from comfy_kitchen.tensor import QuantizedTensor
from torch import Tensor

Spec = tuple[torch.dtype, tuple[int, ...]]  # dtype and shape of a tensor in the file

BLOCK_MATRIX = re.compile(r"(double_|single_|)blocks\.\d+\.(.+)\.weight")
MODULATION = ("img_mod.lin", "txt_mod.lin", "modulation.lin")
ELEMENTS_AT_ONCE = 2**22  # quantising keeps a dozen float32 copies of this many elements, not of a whole matrix
TILE_ROWS = 128  # rows whose block scales are stored together
SMALLEST_SCALE = 1e-12  # for a matrix of zeros
E4M3_MAX, E2M1_MAX = 448.0, 6.0


@dataclass(frozen=True)
class Format:
    """One of ComfyUI's formats. It takes matrices whose number of columns is a multiple of `columns`."""

    name: str
    layout: str
    columns: int
    modulation: str  # the 8-bit format of modulation layers
    specs: Callable[[int, int], dict[str, Spec]]  # rows, columns -> tensors by suffix
    options: Callable[[Tensor], dict]
    full_precision_product: bool = False  # weights only: activations are not rounded, on any card


def _fp8_specs(rows: int, columns: int) -> dict[str, Spec]:
    return {"": (torch.float8_e4m3fn, (rows, columns)), "_scale": (torch.float32, ())}


def _int8_specs(rows: int, columns: int) -> dict[str, Spec]:
    return {"": (torch.int8, (rows, columns)), "_scale": (torch.float32, (rows, 1))}


def _mxfp8_specs(rows: int, columns: int) -> dict[str, Spec]:
    return {"": (torch.float8_e4m3fn, (_up(rows, 32), columns)), "_scale": (torch.uint8, _tiles(rows, columns // 32))}


def _nvfp4_specs(rows: int, columns: int) -> dict[str, Spec]:
    return {
        "": (torch.uint8, (_up(rows, 16), columns // 2)),
        "_scale": (torch.float8_e4m3fn, _tiles(rows, columns // 16)),
        "_scale_2": (torch.float32, ()),
    }


def _convrot_specs(rows: int, columns: int) -> dict[str, Spec]:
    return {"": (torch.int8, (rows, columns // 2)), "_scale": (torch.float32, (rows,))}


def _up(number: int, multiple: int) -> int:
    return math.ceil(number / multiple) * multiple


def _tiles(rows: int, scales: int) -> tuple[int, int]:
    """Scales of blocks come in tiles of rows and 4 columns, as tensor cores read them."""
    return _up(rows, TILE_ROWS), _up(scales, 4)


def _largest_over(limit: float) -> Callable[[Tensor], dict]:
    return lambda weight: {"scale": weight.abs().amax().clamp(min=SMALLEST_SCALE) / limit}


FORMATS = {
    format.name: format
    for format in (
        Format("float8_e4m3fn", "TensorCoreFP8Layout", 1, "float8_e4m3fn", _fp8_specs, _largest_over(E4M3_MAX), True),
        Format("int8_tensorwise", "TensorWiseINT8Layout", 1, "int8_tensorwise", _int8_specs, lambda _: {"per_channel": True}),
        Format("mxfp8", "TensorCoreMXFP8Layout", 32, "mxfp8", _mxfp8_specs, lambda _: {}),
        Format("nvfp4", "TensorCoreNVFP4Layout", 16, "int8_tensorwise", _nvfp4_specs, _largest_over(E4M3_MAX * E2M1_MAX)),
        Format("convrot_w4a4", "TensorCoreConvRotW4A4Layout", 256, "int8_tensorwise", _convrot_specs, lambda _: {}),
    )
}


def format_of(key: str, shape: tuple[int, ...], name: str) -> Format | None:
    """The format of a weight in a file of format `name`; None if it keeps its precision.

    The blocks' matrices are quantised. Norms, biases, embedders and the head are not, nor is a matrix that does not fit.
    """
    match = BLOCK_MATRIX.fullmatch(key)
    if not match or len(shape) != 2:
        return None
    format = FORMATS[FORMATS[name].modulation if match[2] in MODULATION else name]
    return format if shape[1] % format.columns == 0 else None


def specs(key: str, shape: tuple[int, ...], format: Format) -> dict[str, Spec]:
    """The tensors of a quantised weight, by their names in the file, before anything is computed."""
    tensors = {key + suffix: spec for suffix, spec in format.specs(*shape).items()}
    return {**tensors, mark_key(key): (torch.uint8, (len(mark(key, format)),))}


def quantise(key: str, weight: Tensor, format: Format) -> tuple[dict[str, Tensor], Tensor]:
    """(the tensors that `specs` announces, the float32 matrix that they stand for)."""
    options = format.options(weight.float())
    rows = max(1, ELEMENTS_AT_ONCE // (weight.shape[1] * TILE_ROWS)) * TILE_ROWS
    pieces = [QuantizedTensor.from_float(some.float(), format.layout, **options) for some in weight.split(rows)]
    announced = specs(key, tuple(weight.shape), format)
    parts = [piece.state_dict(key) for piece in pieces]
    tensors = {name: _stack([part[name] for part in parts]).view(announced[name][0]) for name in parts[0]}
    tensors[mark_key(key)] = torch.frombuffer(bytearray(mark(key, format)), dtype=torch.uint8)
    return tensors, torch.cat([piece.dequantize() for piece in pieces])


def _stack(pieces: list[Tensor]) -> Tensor:
    """Rows of all pieces; the one scale of a whole matrix is the same in each."""
    return torch.cat(pieces) if pieces[0].ndim else pieces[0]


def nbytes(tensors: Mapping[str, Spec]) -> int:
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in tensors.values())


def mark_key(key: str) -> str:
    """The name of the tensor beside a weight that tells ComfyUI its format."""
    return key.removesuffix("weight") + "comfy_quant"


def mark(key: str, format: Format) -> bytes:
    """The content of that tensor, a JSON."""
    entries: dict = {"format": format.name}
    matrix = BLOCK_MATRIX.fullmatch(key)
    if format.full_precision_product or (matrix and matrix[2] in MODULATION):
        entries["full_precision_matrix_mult"] = True  # modulation has one token: exact activations cost nothing
    text = json.dumps(entries).encode()
    return text + b" " * (-len(text) % 8)  # what follows it in the file stays aligned
