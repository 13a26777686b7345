"""FramePack as one of ComfyUI's models: its config, its conditions, its memory estimate."""

from __future__ import annotations

import logging
import re

import comfy.model_management
import torch

from ...layout import Kernel
from ...trained import Trained
from ...weights.names import MARK
from .. import private
from ..log import log_once
from ..sampling.timed import TIME
from .conditions import CONTEXT_KEY, ContextLatents, Packed, PackedContext
from .memory import memory_factor, token_cells
from .transformer import FramePackTransformer
from .weights import Loaded

log = logging.getLogger("framepack")

UNTIMED = (
    "the prompt is timed, but this sampler knows no seconds: it uses only what counts at the beginning; use FramePack Sampler"
)
GUIDANCE = 10.0  # the distilled guidance the released checkpoints were made for


class FramePackModel(Loaded, private.HunyuanVideoModel):
    """HunyuanVideo with FramePack's transformer: latents, flow sampling and LoRA names stay the same."""

    family, blocks = "FramePack", ("double_blocks.", "single_blocks.")
    trained: Trained | None = None  # what the checkpoint says about itself

    def __init__(self, config, device=None) -> None:
        flow = private.ModelType.FLOW  # HunyuanVideo's own __init__ would build its own transformer
        private.BaseModel.__init__(self, config, flow, device=device, unet_model=FramePackTransformer)
        self.memory_usage_factor = memory_factor(self.diffusion_model.hidden_size)
        self.memory_usage_factor_conds = ("context_latents", "c_crossattn", "clip_fea")
        self.memory_usage_shape_process = {"c_crossattn": token_cells, "clip_fea": token_cells}

    def extra_conds(self, **kwargs) -> dict:
        if TIME in kwargs:
            log_once(UNTIMED)
        out = super().extra_conds(**{"guidance": GUIDANCE, **kwargs})
        if kwargs.get("clip_vision_output") is not None:
            out["clip_fea"] = private.CONDRegular(kwargs["clip_vision_output"]["last_hidden_state"])
        params = self.diffusion_model.params
        packed = kwargs.get(CONTEXT_KEY)
        if packed is None:
            frames, height, width = kwargs["noise"].shape[2:]
            packed = PackedContext.none(frames, height, width, params.axes_dim, params.theta)
        out["packed"] = Packed(packed.to(kwargs["device"]))
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


class FramePack(private.HunyuanVideoConfig):
    """Comes before HunyuanVideo in ComfyUI's list: a HunyuanVideo with embedders for packed context is FramePack."""

    required_keys = {f"{{}}{MARK}"}

    def set_inference_dtype(self, dtype: torch.dtype, manual_cast_dtype: torch.dtype | None, device=None) -> None:
        super().set_inference_dtype(dtype, manual_cast_dtype, device=device)
        say_precision(manual_cast_dtype or dtype, device or comfy.model_management.get_torch_device())

    def get_model(self, state_dict, prefix: str = "", device=None) -> FramePackModel:
        self.unet_config["kernels"] = context_kernels(state_dict, prefix)
        projection = state_dict.get(f"{prefix}image_projection.up.weight")
        self.unet_config["image_dim"] = None if projection is None else projection.shape[1]
        return FramePackModel(self, device=device)


def say_precision(dtype: torch.dtype, device: torch.device) -> None:
    """Log what the model computes in, if that is not what it is made for."""
    if dtype == torch.float16:
        log.warning(
            "FramePack: the model computes in float16, in which its activations can overflow: frames may be black. Start "
            "ComfyUI without --fp16-unet, so that it computes in bfloat16, or in float32 on a card that lacks it"
        )
    elif dtype == torch.float64:
        log.warning(
            "FramePack: the model computes in float64, in which it takes four times the memory and far longer, and looks the "
            "same. Start ComfyUI without --fp64-unet"
        )
    elif dtype == torch.float32 and device.type != "cpu" and not comfy.model_management.should_use_bf16(device):
        log.info(
            "FramePack: the card (%s) has no fast bfloat16, so the model computes in float32, which is slower. In float16, "
            "frames may be black",
            device,
        )


def register() -> None:
    """Let ComfyUI's own loaders recognise FramePack and Helios: the only global change this pack makes.

    Other models are unaffected. If ComfyUI has changed what Helios needs, that is logged, and FramePack works without it.
    """
    recognise(FramePack)
    try:
        from .helios.model import Helios
    except private.Missing as missing:
        log.error("FramePack: %s", missing)
    else:
        recognise(Helios)


def recognise(config: type) -> None:
    """Put a model's config before ComfyUI's own, once."""
    if not any(issubclass(model, config) for model in private.supported_models):
        private.supported_models.insert(0, config)


def context_kernels(keys, prefix: str = "") -> dict[str, Kernel]:
    """The context convolutions in a state dict: `proj`, `proj_2x`, ..., or `proj_k1h4w2` for kernels of other shapes."""
    names = re.compile(re.escape(prefix) + r"clean_x_embedder\.(proj\w*)\.weight")
    found = {match[1]: keys[key].shape[2:] for key in keys if (match := names.fullmatch(key))}
    return {name: Kernel(*shape) for name, shape in sorted(found.items())}
