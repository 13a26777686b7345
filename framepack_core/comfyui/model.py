"""FramePack as one of ComfyUI's models: its config, its conditions, its memory estimate."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import comfy.conds
import comfy.model_base
import comfy.model_management
import comfy.supported_models
import torch
from torch import Tensor, nn

from ..fp8 import FP8_DTYPES
from ..layout import BASE_KERNEL, Kernel
from ..packing import Context, rotary_phases
from ..plan import Section
from ..trained import Trained
from .transformer import FramePackTransformer

GUIDANCE = 10.0  # the distilled guidance the released checkpoints were made for

# Activations of one call, in the unit of ComfyUI's estimate, for the released width: 87 KB a token in bf16, which
# tests/parity/test_memory.py measures, and a sixth more for buffers.
MEMORY_FACTOR, RELEASED_HIDDEN = 1.2, 3072

CONTEXT_KEY = "framepack"  # a section's PackedContext in a conditioning dict


class PackedContext:
    """One section's context on its way through a guider: latents, and the rotary phases, computed once here.

    `rotary` `1 1 L head/2 2 2`, float32, turns the context tokens and then the generated ones. `axes` and `theta` are the
    transformer's.
    """

    def __init__(self, context: Context, height: int, width: int, axes: Sequence[int], theta: float) -> None:
        cos, sin = rotary_phases(context.section, height, width, axes, theta)
        self.latents = context.latents
        self.kernels = tuple(group.kernel for group in context.section.context)
        self.rotary = torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))[None, None]
        self.tokens = context.section.context_tokens(height, width)

    @classmethod
    def none(cls, frames: int, height: int, width: int, axes: Sequence[int], theta: float) -> PackedContext:
        """No context: what a sampler that knows nothing of sections runs on."""
        return cls(Context(Section(0, tuple(range(frames)), tuple(range(frames)), ()), ()), height, width, axes, theta)

    def to(self, device: torch.device) -> PackedContext:
        """With the phases on a device; itself when they are there, since both calls of a guider with CFG share it."""
        rotary = self.rotary.to(device)
        if rotary is self.rotary:
            return self
        moved = copy.copy(self)
        moved.rotary = rotary
        return moved

    @property
    def cells(self) -> int:
        """Latent pixels that cost as much as the context does."""
        return token_cells((1, self.tokens))[-1]


class ContextLatents(comfy.conds.CONDList):
    """Context latents that count in the memory estimate as their tokens do, not as their latent pixels."""

    def __init__(self, cond: Sequence[Tensor], cells: int = 0) -> None:
        super().__init__(list(cond))
        self.cells = cells

    def _copy_with(self, cond):
        return self.__class__(cond, self.cells)

    def size(self) -> list[int]:
        return [self.cond[0].shape[0], 1, self.cells]


class FramePackModel(comfy.model_base.HunyuanVideo):
    """HunyuanVideo with the packed transformer: its latents, flow sampling and LoRA names are the same."""

    trained: Trained | None = None  # what the checkpoint says of itself

    def __init__(self, config, device=None) -> None:
        flow = comfy.model_base.ModelType.FLOW  # HunyuanVideo's own __init__ would build its own transformer
        comfy.model_base.BaseModel.__init__(self, config, flow, device=device, unet_model=FramePackTransformer)
        self.memory_usage_factor = MEMORY_FACTOR * self.diffusion_model.hidden_size / RELEASED_HIDDEN
        self.memory_usage_factor_conds = ("context_latents", "c_crossattn", "clip_fea")
        self.memory_usage_shape_process = {"c_crossattn": token_cells, "clip_fea": token_cells}

    def extra_conds(self, **kwargs) -> dict:
        out = super().extra_conds(**{"guidance": GUIDANCE, **kwargs})
        if kwargs.get("clip_vision_output") is not None:
            out["clip_fea"] = comfy.conds.CONDRegular(kwargs["clip_vision_output"]["last_hidden_state"])
        params = self.diffusion_model.params
        packed = kwargs.get(CONTEXT_KEY)
        if packed is None:
            packed = PackedContext.none(*kwargs["noise"].shape[2:], params.axes_dim, params.theta)
        out["packed"] = comfy.conds.CONDConstant(packed.to(kwargs["device"]))
        if packed.latents:
            latents = [self.process_latent_in(latent.to(kwargs["device"])) for latent in packed.latents]
            out["context_latents"] = ContextLatents(latents, packed.cells)
        return out

    def extra_conds_shapes(self, **kwargs) -> dict:
        shapes = {}
        if CONTEXT_KEY in kwargs:
            shapes["context_latents"] = [1, 1, kwargs[CONTEXT_KEY].cells]
        if kwargs.get("cross_attn") is not None:
            shapes["c_crossattn"] = list(kwargs["cross_attn"].shape)
        if kwargs.get("clip_vision_output") is not None:
            shapes["clip_fea"] = list(kwargs["clip_vision_output"]["last_hidden_state"].shape)
        return shapes

    def load_model_weights(self, sd: dict[str, Tensor], unet_prefix: str = "", assign: bool = False) -> FramePackModel:
        """As ComfyUI's, but a file that lacks weights is refused: it would run on noise.

        In fp8 only the blocks' matrices are cast, and none in a file that has chosen its fp8 weights itself.
        """
        found = self.model_config.process_unet_state_dict({key.removeprefix(unet_prefix): sd[key] for key in sd})
        missing = sorted(weight_names(self.diffusion_model) - found.keys())
        if missing:
            raise ValueError(
                f"the checkpoint lacks {len(missing)} of FramePack's weights, first {missing[0]}; the file is incomplete, "
                "download it again"
            )
        if self.get_dtype() not in FP8_DTYPES:
            return super().load_model_weights(sd, unet_prefix, assign=assign)
        matrices = [key for key in sd if is_block_matrix(key.removeprefix(unet_prefix), sd[key])]
        if not any(sd[key].dtype in FP8_DTYPES for key in matrices):
            for key in matrices:
                sd[key] = sd[key].to(self.get_dtype())
        super().load_model_weights(sd, unet_prefix, assign=True)
        comfy.model_management.archive_model_dtypes(self.diffusion_model)
        return self


class FramePack(comfy.supported_models.HunyuanVideo):
    """Stands before HunyuanVideo in ComfyUI's list: a HunyuanVideo with packed context embedders is FramePack."""

    required_keys = {"{}clean_x_embedder.proj.weight"}

    def get_model(self, state_dict, prefix: str = "", device=None) -> FramePackModel:
        self.unet_config["kernels"] = context_kernels(state_dict, prefix)
        projection = state_dict.get(f"{prefix}image_projection.up.weight")
        self.unet_config["image_dim"] = None if projection is None else projection.shape[1]
        return FramePackModel(self, device=device)


def weight_names(model: nn.Module) -> set[str]:
    """What a file must hold. A linear layer that may be packed has no weight before it is loaded."""
    empty = {name for name, module in model.named_modules() if hasattr(module, "in_features") and not has_weight(module)}
    return {name for name, _ in model.named_parameters()} | {f"{name}.weight" for name in empty}


def has_weight(module: nn.Module) -> bool:
    return getattr(module, "weight", None) is not None


def is_block_matrix(key: str, weight: Tensor) -> bool:
    """The weights that fp8 is for. Norms, biases, embedders and the output head keep the file's precision."""
    return key.startswith(("double_blocks.", "single_blocks.")) and weight.ndim == 2


def token_cells(shape: Sequence[int]) -> list[int]:
    """Tokens `B L D` as the latent pixels that cost as much: a generated token stands for 2x2 of them."""
    return [shape[0], 1, shape[1] * BASE_KERNEL.h * BASE_KERNEL.w]


def register() -> None:
    """Let ComfyUI's own loaders recognise FramePack. The one global change this pack makes; other models see none."""
    if not any(issubclass(model, FramePack) for model in comfy.supported_models.models):
        comfy.supported_models.models.insert(0, FramePack)


def context_kernels(keys, prefix: str = "") -> dict[str, Kernel]:
    """The context convolutions of a state dict: `proj`, `proj_2x`, ..., or `proj_k1h4w2` for kernels of other shapes."""
    names = re.compile(re.escape(prefix) + r"clean_x_embedder\.(proj\w*)\.weight")
    found = {match[1]: keys[key].shape[2:] for key in keys if (match := names.fullmatch(key))}
    return {name: Kernel(*shape) for name, shape in sorted(found.items())}
