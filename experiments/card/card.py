"""The card under ComfyUI: whatever ComfyUI asks about a card, this one answers."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import comfy.model_management as management
import comfy.utils
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.card.memory import CardMemory
from experiments.card.operations import Operations
from experiments.card.waits import Waits
from framepack_core.weights.stored import read_tensors

GB = 10**9
DEVICE = torch.device("cuda", 0)
# Compute capabilities: without bf16, with it, with products in fp8, and with those in mxfp8 and nvfp4.
TURING, AMPERE, ADA, BLACKWELL = (7, 5), (8, 6), (8, 9), (12, 0)


class FakeCard:
    """An NVIDIA card of `size` bytes, all free, on which ComfyUI runs with its classic model patcher.

        with FakeCard(8 * GB) as card:
            vae = released_vae(torch.bfloat16)
            list(stream_frames(vae, torch.zeros(1, 16, 10, 80, 76)))
            print(card.memory.peak)

    Within the block all tensors are fake but those made `with_values`, and torch is in inference mode, as when ComfyUI runs
    nodes. `watching` are more modes that see each operation of the card.
    """

    def __init__(self, size: float, capability: tuple[int, int] = AMPERE, watching: Sequence[TorchDispatchMode] = ()) -> None:
        self.memory, self.waits = CardMemory(size), Waits()
        self.capability = capability
        self.watching = watching

    def __enter__(self) -> FakeCard:
        with ExitStack() as entered:
            for target, name, value in [*self._of_torch(), *self._of_comfyui()]:
                entered.enter_context(patch.object(target, name, value))
            entered.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # as all are 0, nothing is shared
            entered.enter_context(torch.inference_mode())
            entered.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            for mode in (*self.watching, Operations(self.memory, self.waits)):  # the last one sees an operation first
                entered.enter_context(mode)
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._entered.close()

    @property
    def counted(self) -> Counter[str]:
        """Waits of the computer for the card, by kind."""
        return self.waits.counted

    def _of_torch(self) -> list[tuple[Any, str, Any]]:
        major, minor = self.capability
        properties = SimpleNamespace(
            name="fake card", major=major, minor=minor, total_memory=int(self.memory.size), multi_processor_count=28
        )
        return [
            (nn.Module, "_apply", _apply),
            (Tensor, "numpy", _numpy),
            (torch, "Generator", _Generator),
            (torch.cuda, "current_device", lambda: DEVICE.index),
            (torch.cuda, "device_count", lambda: 1),
            (torch.cuda, "set_device", lambda device: None),
            (torch.cuda, "get_device_properties", lambda device=None: properties),
            (torch.cuda, "get_device_name", lambda device=None: properties.name),
            (torch.cuda, "get_device_capability", lambda device=None: self.capability),
            (torch.cuda, "is_bf16_supported", lambda *args, **kwargs: major >= 8),
            (torch.cuda, "mem_get_info", lambda device=None: (self.memory.free, int(self.memory.size))),
            (torch.cuda, "memory_stats", lambda device=None: Counter()),
            (torch.cuda, "memory_allocated", lambda device=None: self.memory.used),
            (torch.cuda, "synchronize", lambda device=None: self.counted.update(["synchronize"])),
            (torch.cuda, "empty_cache", lambda: None),
        ]

    def _of_comfyui(self) -> list[tuple[Any, str, Any]]:
        return [
            (management, "cpu_state", management.CPUState.GPU),
            (management, "vram_state", management.VRAMState.NORMAL_VRAM),
            (management, "MIN_WEIGHT_MEMORY_RATIO", 0.0),
            (management, "ENABLE_PYTORCH_ATTENTION", True),
            (management, "NUM_STREAMS", 0),
            (management, "current_loaded_models", []),
            (management, "total_vram", self.memory.size / 2**20),
            (management, "LORA_COMPUTE_DTYPES", {}),
            (comfy.utils, "load_torch_file", _load_torch_file),
            *((module, "optimized_attention", attention_pytorch) for module in _users_of_attention()),
        ]


def _apply(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """torch's own, but with new parameters: fake tensors cannot change their device in place."""
    for child in module.children() if recurse else ():
        child._apply(function)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(function(parameter), requires_grad=False)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = function(buffer)
    return module


def _load_torch_file(path: str, *args: Any, return_metadata: bool = False, **kwargs: Any) -> Any:
    """The tensors of a safetensors file without their values."""
    tensors, metadata = read_tensors(Path(path))
    weights = {name: torch.empty(stored.shape, dtype=stored.dtype) for name, stored in tensors.items()}
    return (weights, metadata) if return_metadata else weights


_numpy_of_real = Tensor.numpy


def _numpy(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Of a tensor that is not fake, like the name of a quantised layer's format, its values; of a fake one, zeros."""
    if isinstance(tensor, FakeTensor) and tensor.device.type != "cpu":
        raise TypeError(f"can't convert {tensor.device} device type tensor to numpy")
    with unset_fake_temporarily():
        real = torch.zeros(tensor.shape, dtype=tensor.dtype) if isinstance(tensor, FakeTensor) else tensor
        return _numpy_of_real(real, *args, **kwargs)


class _Generator(torch.Generator):
    """One for the card, which cannot be made without one, is on the CPU: nothing is drawn."""

    def __new__(cls, device: Any = None) -> _Generator:
        return super().__new__(cls, "cpu")  # pyright: ignore[reportCallIssue] - torch's stubs lack it


def _users_of_attention() -> list[Any]:
    """ComfyUI chooses its attention when it is imported; in a process without a card that is another one."""
    modules = [module for name, module in sys.modules.items() if name.startswith("comfy.")]
    return [module for module in modules if "optimized_attention" in vars(module)]
