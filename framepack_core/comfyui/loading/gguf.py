"""GGUF checkpoints: weights stay quantised in memory and become a matrix when a layer is used.

A quantised weight is one of ComfyUI's QuantizedTensors with a layout of its own, so that ComfyUI can move it, offload it and
count its bytes. The block formats are those of ggml, https://github.com/ggml-org/ggml, `ggml-common.h`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_patcher
import comfy.utils
import torch
from torch import Tensor, nn

from .. import private
from .patcher import with_modulations_last

private.require_for(private.GGUF)

# Bound once: layers use them at every step.
QuantizedTensor = private.QuantizedTensor
cast_bias_weight, uncast_bias_weight = private.cast_bias_weight, private.uncast_bias_weight
calculate_weight = private.calculate_weight

REMEDY = "pip install gguf (in ComfyUI's Python), then start ComfyUI again"
LAYOUT = "FramePackGGUFLayout"
SHAPE_KEY = "comfy.gguf.orig_shape."  # where converters note the original shape of what they reshaped
ELEMENTS_AT_ONCE = 2**22  # 16 MB per float32 intermediate, where a whole layer would take 264
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors, quantised matrices as QuantizedTensors, and the text entries that say what the checkpoint is.

    Raises ValueError if the gguf package is missing, the file is damaged, or a block type is unknown.
    """
    try:
        import gguf
    except ImportError as error:
        raise ValueError(f"{path.name} needs the gguf package: {REMEDY}") from error
    try:
        reader = gguf.GGUFReader(path, "c")  # copy on write: torch wants writable memory
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise ValueError(f"{path.name} cannot be read: it is damaged or not fully downloaded ({error}); "
                         "download it again") from error  # fmt: skip
    shapes = {name.removeprefix(SHAPE_KEY): field.contents() for name, field in reader.fields.items() if SHAPE_KEY in name}
    weights = {}
    for tensor in reader.tensors:
        shape = shapes.get(tensor.name) or tensor.shape.tolist()[::-1]
        weights[tensor.name] = _tensor(tensor.name, tensor.tensor_type.name, torch.from_numpy(tensor.data), shape)
    metadata = {name: field.contents() for name, field in reader.fields.items() if name.startswith(("framepack.", "helios."))}
    return weights, metadata


def _tensor(name: str, kind: str, data: Tensor, shape: list[int]) -> Tensor:
    data = data.contiguous().view(torch.uint8).flatten()
    if kind in PLAIN:
        return data.view(PLAIN[kind]).reshape(shape)
    if kind not in BLOCKS:
        raise ValueError(f"{name} is in {kind}; the types that can be read are {', '.join([*PLAIN, *BLOCKS])}")
    quantised = quantised_tensor(((kind, data.numel()),), data, tuple(shape))
    return quantised if len(shape) == 2 else quantised.dequantize()


# Blocks. Each function turns `n bytes` into `n elements` in float32.


def _q4_0(blocks: Tensor) -> Tensor:
    d, quants = blocks.split([2, 16], dim=1)
    return _half(d) * (_nibbles(quants, 16) - 8.0)


def _q4_1(blocks: Tensor) -> Tensor:
    d, m, quants = blocks.split([2, 2, 16], dim=1)
    return _half(d) * _nibbles(quants, 16) + _half(m)


def _q5_0(blocks: Tensor) -> Tensor:
    d, high, quants = blocks.split([2, 4, 16], dim=1)
    return _half(d) * ((_nibbles(quants, 16) | _bits(high) << 4) - 16.0)


def _q5_1(blocks: Tensor) -> Tensor:
    d, m, high, quants = blocks.split([2, 2, 4, 16], dim=1)
    return _half(d) * (_nibbles(quants, 16) | _bits(high) << 4) + _half(m)


def _q8_0(blocks: Tensor) -> Tensor:
    d, quants = blocks.split([2, 32], dim=1)
    return _half(d) * quants.view(torch.int8)


def _q2_k(blocks: Tensor) -> Tensor:
    scales, quants, d, m = blocks.split([16, 64, 2, 2], dim=1)
    quants = _shifted(quants, 32, 2, 3).unflatten(1, (16, 16))
    return ((_half(d) * (scales & 15))[..., None] * quants - (_half(m) * (scales >> 4))[..., None]).flatten(1)


def _q3_k(blocks: Tensor) -> Tensor:
    high, quants, scales, d = blocks.split([32, 64, 12, 2], dim=1)
    low4 = _shifted(scales[:, :8], 8, 4, 15)
    high2 = _shifted(scales[:, 8:], 4, 2, 3)
    scales = _half(d) * ((low4 | high2 << 4) - 32.0)
    quants = _shifted(quants, 32, 2, 3) - 4.0 * (1 - _shifted(high, 32, 1, 1).float())
    return (scales[..., None] * quants.unflatten(1, (16, 16))).flatten(1)


def _q4_k(blocks: Tensor) -> Tensor:
    d, m, scales, quants = blocks.split([2, 2, 12, 128], dim=1)
    return _with_minima(d, m, scales, _nibbles(quants, 32))


def _q5_k(blocks: Tensor) -> Tensor:
    d, m, scales, high, quants = blocks.split([2, 2, 12, 32, 128], dim=1)
    return _with_minima(d, m, scales, _nibbles(quants, 32) | _shifted(high, 32, 1, 1) << 4)


def _q6_k(blocks: Tensor) -> Tensor:
    low, high, scales, d = blocks.split([128, 64, 16, 2], dim=1)
    quants = (_nibbles(low, 64) | _shifted(high, 32, 2, 3) << 4) - 32.0
    return ((_half(d) * scales.view(torch.int8))[..., None] * quants.unflatten(1, (16, 16))).flatten(1)


def _with_minima(d: Tensor, m: Tensor, scales: Tensor, quants: Tensor) -> Tensor:
    """Eight runs of 32 quants, each with a scale and a minimum of 6 bits, together in 12 bytes."""
    low, middle, high = scales.split(4, dim=1)
    scale = torch.cat([low & 63, (high & 15) | (low >> 2 & 48)], dim=1)
    minimum = torch.cat([middle & 63, (high >> 4) | (middle >> 2 & 48)], dim=1)
    return ((_half(d) * scale)[..., None] * quants.unflatten(1, (8, 32)) - (_half(m) * minimum)[..., None]).flatten(1)


def _half(two_bytes: Tensor) -> Tensor:
    return two_bytes.contiguous().view(torch.float16).float()


def _nibbles(quants: Tensor, run: int) -> Tensor:
    return _shifted(quants, run, 4, 15)


def _bits(four_bytes: Tensor) -> Tensor:
    return (four_bytes[..., None] >> _places(1, four_bytes.device) & 1).flatten(1)


def _shifted(bits: Tensor, run: int, width: int, mask: int) -> Tensor:
    """Each run of bytes once per field of `width` bits, lowest field first."""
    return (bits.unflatten(1, (-1, 1, run)) >> _places(width, bits.device)[:, None] & mask).flatten(1)


def _places(width: int, device: torch.device) -> Tensor:
    """Where the fields of a byte begin. A range is computed on the device; a list would be copied to it, which waits for it."""
    return torch.arange(0, 8, width, dtype=torch.uint8, device=device)


BLOCKS: dict[str, tuple[int, int, Callable[[Tensor], Tensor]]] = {  # elements and bytes of a block
    "Q4_0": (32, 18, _q4_0),
    "Q4_1": (32, 20, _q4_1),
    "Q5_0": (32, 22, _q5_0),
    "Q5_1": (32, 24, _q5_1),
    "Q8_0": (32, 34, _q8_0),
    "Q2_K": (256, 84, _q2_k),
    "Q3_K": (256, 110, _q3_k),
    "Q4_K": (256, 144, _q4_k),
    "Q5_K": (256, 176, _q5_k),
    "Q6_K": (256, 210, _q6_k),
}


# Tensors

Parts = tuple[tuple[str, int], ...]  # type and bytes of consecutive pieces: q, k and v of one matrix may differ in type


@dataclass(frozen=True)
class Params:
    """What ComfyUI's layouts keep besides the bytes; it holds no tensors."""

    orig_dtype: torch.dtype
    orig_shape: tuple[int, ...]
    parts: Parts

    def to_device(self, device: torch.device) -> Params:
        return self

    def clone(self) -> Params:
        return self

    def copy_from(self, source: Params, non_blocking: bool = False) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, getattr(source, field.name))


class Layout(private.QuantizedLayout):
    """Bytes of blocks, row by row, as in the file."""

    Params = Params

    @classmethod
    def quantize(cls, tensor: Tensor, **kwargs) -> tuple[Tensor, Params]:
        """Never called, as in comfy_kitchen's own layouts for weights that were quantised offline."""
        raise TypeError("GGUF weights are read, not made")

    @classmethod
    def dequantize(cls, qdata: Tensor, params: Params) -> Tensor:
        full = torch.empty(params.orig_shape, dtype=params.orig_dtype, device=qdata.device)
        rest = full.flatten()
        for piece, (kind, size) in zip(qdata.split([size for _, size in params.parts]), params.parts, strict=True):
            elements, bytes_of_block, _ = BLOCKS[kind]
            part, rest = rest.tensor_split([size // bytes_of_block * elements])
            _dequantise(piece, kind, part)
        return full

    @classmethod
    def get_plain_tensors(cls, tensor: Any) -> tuple[Tensor]:
        return (tensor._qdata,)

    @classmethod
    def state_dict_tensors(cls, qdata: Tensor, params: Params) -> dict[str, Tensor]:
        return {"": qdata}


def _dequantise(data: Tensor, kind: str, full: Tensor) -> None:
    """Fill `full`, which is flat."""
    elements, size, dequantise = BLOCKS[kind]
    blocks, targets = data.unflatten(0, (-1, size)), full.unflatten(0, (-1, elements))
    some = ELEMENTS_AT_ONCE // elements
    for target, source in zip(targets.split(some), blocks.split(some), strict=True):
        target.copy_(dequantise(source))


def _joined(first, args: tuple, kwargs: dict) -> Tensor:
    """torch.cat: quantised matrices stacked by rows stay quantised, everything else is dequantised."""
    tensors, dim = args[0], args[1] if len(args) > 1 else kwargs.get("dim", 0)
    if dim != 0 or not all(map(is_quantised, tensors)):
        return torch.cat([tensor.dequantize() if is_quantised(tensor) else tensor for tensor in tensors], dim)
    parts = tuple(part for tensor in tensors for part in tensor._params.parts)
    rows = sum(tensor.shape[0] for tensor in tensors)
    return quantised_tensor(parts, torch.cat([tensor._qdata for tensor in tensors]), (rows, *tensors[0].shape[1:]))


private.register_layout_class(LAYOUT, Layout)
private.register_layout_op(torch.ops.aten.cat.default, Layout)(_joined)


def quantised_tensor(parts: Parts, data: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor that looks like a bfloat16 matrix, which is what the released weights were."""
    quantised = QuantizedTensor(data, LAYOUT, Params(torch.bfloat16, shape, parts))
    private.require_attributes(quantised, "_qdata", "_params", "_layout_cls", serves=private.GGUF)
    return quantised


def is_quantised(tensor: Any) -> bool:
    return isinstance(tensor, QuantizedTensor) and tensor._layout_cls == LAYOUT


# Layers


class Operations(private.manual_cast):
    """ComfyUI's layers, with linear ones whose weight may be quantised."""

    class Linear(private.manual_cast.Linear):
        def __init__(self, in_features: int, out_features: int, bias: bool = True, device=None, dtype=None) -> None:
            """On the meta device: a 13B model would otherwise take its full size before it is loaded."""
            nn.Linear.__init__(self, in_features, out_features, bias, "meta", dtype)

        def _load_from_state_dict(self, weights, prefix, metadata, strict, missing, unexpected, errors) -> None:
            for name, empty in list(self._parameters.items()):
                if empty is None:
                    continue
                tensor = weights.get(prefix + name)
                if tensor is None:
                    missing.append(prefix + name)
                else:
                    tensor = tensor if is_quantised(tensor) else tensor.to(empty.dtype)
                    setattr(self, name, nn.Parameter(tensor, requires_grad=False))

        def _apply(self, fn, recurse: bool = True):
            for name, tensor in self._parameters.items():
                if tensor is not None and not tensor.is_meta:
                    self._parameters[name] = nn.Parameter(fn(tensor), requires_grad=False)
            return self

        def forward_comfy_cast_weights(self, input: Tensor) -> Tensor:
            weight, bias, stream = cast_bias_weight(self, input, offloadable=True)
            result = nn.functional.linear(input, weight.dequantize() if is_quantised(weight) else weight, bias)
            uncast_bias_weight(self, weight, bias, stream)
            return result

        def convert_weight(self, weight: Tensor, inplace: bool = False, **kwargs) -> Tensor:
            return weight.dequantize() if is_quantised(weight) else weight

        def set_weight(self, weight: Tensor, inplace_update=False, seed=None, return_weight=False, **kwargs) -> Tensor | None:
            """A patched weight is not quantised again."""
            if return_weight:
                return weight
            self.weight = nn.Parameter(weight.to(self.weight.dtype), requires_grad=False)
            return None


@dataclass(eq=False)
class HookPatch:
    """Adds what LoRA hooks change to a layer's dequantised weight, each time it is used."""

    key: str
    patches: list[tuple]
    layer: Any  # an Operations.Linear

    def __call__(self, weight: Tensor) -> Tensor:
        original = {self.key: [(self.layer.weight,)]}  # for a whole model as a LoRA
        return calculate_weight(self.patches, weight, self.key, weight.dtype, original)


class QuantisedPatcher(private.ModelPatcher):
    """Applies patches to the dequantised weight each time it is used, so that a LoRA makes no quantised layer grow."""

    def load(self, *args, **kwargs) -> None:
        super().load(*args, **kwargs)
        self._place_patches()

    def partially_unload(self, *args, **kwargs) -> int:
        freed = super().partially_unload(*args, **kwargs)
        self._place_patches()
        return freed

    def patch_weight_to_device(self, key: str, device_to=None, inplace_update=False, return_weight=False, force_cast=False):
        if self._is_quantised(key) and not return_weight:
            return None
        return super().patch_weight_to_device(key, device_to, inplace_update, return_weight, force_cast)

    def unpatch_model(self, device_to=None, unpatch_weights: bool = True) -> None:
        if unpatch_weights:
            for _, layer in self._patched_layers():
                layer.weight_function = []
        super().unpatch_model(device_to, unpatch_weights)

    def patch_hooks(self, hooks) -> None:
        """The hooks' patches instead of those before; none if one of them fails."""
        try:
            super().patch_hooks(hooks)
            for key, patches in self.get_combined_hook_patches(hooks).items():
                if self._is_quantised(key):
                    layer = self._layer(key)
                    layer.weight_function = [*layer.weight_function, HookPatch(key, patches, layer)]
        except BaseException:
            self.unpatch_hooks()
            raise

    def patch_hook_weight_to_device(self, hooks, combined_patches, key: str, original_weights, memory_counter) -> None:
        if not self._is_quantised(key):
            super().patch_hook_weight_to_device(hooks, combined_patches, key, original_weights, memory_counter)

    def unpatch_hooks(self, whitelist_keys_set: set[str] | None = None) -> None:
        layers: Iterable[Any] = self.model.modules()
        for layer in layers:
            functions = getattr(layer, "weight_function", [])
            if any(isinstance(function, HookPatch) for function in functions):
                layer.weight_function = [function for function in functions if not isinstance(function, HookPatch)]
        super().unpatch_hooks(whitelist_keys_set)

    def _place_patches(self) -> None:
        """Each patched layer's patches once, and first. ComfyUI adds those of layers that it offloads."""
        for key, layer in self._patched_layers():
            others = [function for function in layer.weight_function if not getattr(function, "is_lowvram_patch", False)]
            patch = private.LowVramPatch(key, self.patches, layer.convert_weight, layer.set_weight)
            layer.weight_function = [patch, *others]

    def _patched_layers(self) -> Iterator[tuple[str, Any]]:
        return ((key, self._layer(key)) for key in self.patches if self._is_quantised(key))

    def _is_quantised(self, key: str) -> bool:
        return key.endswith(".weight") and is_quantised(comfy.utils.get_attr(self.model, key))

    def _layer(self, key: str) -> Any:
        return comfy.utils.get_attr(self.model, key.removesuffix(".weight"))


def load(weights: dict[str, Tensor], model_options: dict) -> comfy.model_patcher.ModelPatcher:
    """The model of weights in ComfyUI's names. Not loaded dynamically: ComfyUI would quantise patched weights again."""
    options = model_options | {"custom_operations": Operations}
    patcher = private.load_diffusion_model_state_dict(weights, options, disable_dynamic=True)
    quantised = QuantisedPatcher(patcher.model, load_device=patcher.load_device, offload_device=patcher.offload_device)
    return with_modulations_last(quantised)
