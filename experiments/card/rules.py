"""What a real card refuses and fake tensors let pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
COPIES = (aten._to_copy, aten.copy_, aten.copy, aten._copy_from)
PRODUCTS = (
    aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.addmv, aten.mv, aten.dot, aten.linear, aten.matmul, aten.convolution,
    aten.scaled_dot_product_attention, aten._scaled_dot_product_efficient_attention, aten._scaled_dot_product_flash_attention,
)  # fmt: skip


class Broken(RuntimeError):
    """An operation that a real card would refuse."""


def check(function: Any, tensors: Sequence[Tensor]) -> None:
    """All tensors of an operation are on one device, and all floating ones of a product have one dtype; no product takes fp8.

    Copies may change both. A scalar (a tensor without dimensions) on the CPU may meet tensors on the card, as in torch.
    """
    operation = getattr(function, "overloadpacket", function)
    if operation in COPIES:
        return
    _require_one_device(function, tensors)
    if operation in PRODUCTS:
        _require_one_dtype(function, tensors)


def _require_one_device(function: Any, tensors: Sequence[Tensor]) -> None:
    devices = {tensor.device for tensor in tensors if tensor.ndim}
    devices |= {tensor.device for tensor in tensors if tensor.device.type != "cpu"}
    if len(devices) > 1:
        raise Broken(f"{function} got tensors on {', '.join(sorted(map(str, devices)))}")


def _require_one_dtype(function: Any, tensors: Sequence[Tensor]) -> None:
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    if len(dtypes) > 1 or any(dtype.itemsize == 1 for dtype in dtypes):
        raise Broken(f"{function} got {', '.join(sorted(map(str, dtypes)))}")
