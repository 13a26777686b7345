"""FramePack as one of ComfyUI's models: its config, its conditions, its memory estimate."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection

import comfy.model_management
import torch
from torch import Tensor, nn

from ...family import FRAMEPACK
from ...layout import Kernel
from ...trained import Trained
from ...weights.fp8 import FP8_DTYPES
from ...weights.names import MARK
from .. import private
from ..log import log_once
from ..sampling.timed import TIME
from .conditions import CONTEXT_KEY, ContextLatents, Packed, PackedContext
from .memory import memory_factor, token_cells
from .residence import cast, settle
from .transformer import FramePackTransformer

log = logging.getLogger("framepack")

UNTIMED = (
    "the prompt is timed, but this sampler knows no seconds: it uses only what counts at the beginning; use FramePack Sampler"
)


class FramePackModel(private.HunyuanVideoModel):
    """HunyuanVideo with FramePack's transformer: latents, flow sampling and LoRA names stay the same."""

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
        out = super().extra_conds(**{"guidance": FRAMEPACK.guidance, **kwargs})
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

    def load_model_weights(self, sd: dict[str, Tensor], unet_prefix: str = "", assign: bool = False) -> FramePackModel:
        """Like ComfyUI's, but refuses a file that lacks weights, which would run on uninitialised ones.

        For fp8, only the blocks' matrices are cast, and none in a file that already has fp8 weights among them. With `assign`,
        which dynamic VRAM asks for, weights stay in the file, and ComfyUI casts them on the card.
        """
        transformer = self.diffusion_model
        device = next(parameter.device for parameter in transformer.parameters() if not parameter.is_meta)
        own = {key.removeprefix(unet_prefix): sd.pop(key) for key in list(sd) if key.startswith(unet_prefix)}
        weights = self.model_config.process_unet_state_dict(own)
        missing, unexpected = transformer.load_state_dict(weights, strict=False, assign=True)
        own.clear()
        weights.clear()
        require_all({*missing, *never_made(transformer)})
        if unexpected:
            log.warning(
                "FramePack: the file has %d weights that the model does not use, first %s. They may be another model's; if the "
                "video looks wrong, download the file again",
                len(unexpected),
                unexpected[0],
            )
        if self.get_dtype() in FP8_DTYPES:
            private.archive_model_dtypes(transformer)
            for layer in fp8_layers(transformer):
                layer.weight_comfy_model_dtype = self.get_dtype()
        if not assign:
            settle(transformer, device)
        elif self.model_config.optimizations.get("fp8"):
            cast(transformer)  # ComfyUI's fast product looks at the dtype before it casts on the card
        return self


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


def require_all(missing: Collection[str]) -> None:
    """Raises a ValueError that names the first of a file's missing weights."""
    if missing:
        raise ValueError(
            f"the checkpoint is incomplete: it lacks {len(missing)} of FramePack's weights, first {min(missing)}; "
            "download it again"
        )


def never_made(transformer: nn.Module) -> set[str]:
    """The weights of linear layers that were to be made from those of the file. Some of ComfyUI's layers do not report them."""
    layers = {name: module for name, module in transformer.named_modules() if hasattr(module, "in_features")}
    return {f"{name}.weight" for name, layer in layers.items() if getattr(layer, "weight", None) is None}


def fp8_layers(transformer: nn.Module) -> list[nn.Module]:
    """The layers whose weight fp8 applies to: those of the blocks, unless the file already has fp8 weights among them.

    Norms, biases, embedders and the output head keep the file's precision.
    """
    blocks = (module for name, module in transformer.named_modules() if name.startswith(("double_blocks.", "single_blocks.")))
    layers = [module for module in blocks if isinstance(getattr(module, "weight", None), Tensor) and module.weight.ndim == 2]
    return [] if any(layer.weight.dtype in FP8_DTYPES for layer in layers) else layers


def register() -> None:
    """Let ComfyUI's own loaders recognise FramePack: the only global change this pack makes. Other models are unaffected."""
    if not any(issubclass(model, FramePack) for model in private.supported_models):
        private.supported_models.insert(0, FramePack)


def context_kernels(keys, prefix: str = "") -> dict[str, Kernel]:
    """The context convolutions in a state dict: `proj`, `proj_2x`, ..., or `proj_k1h4w2` for kernels of other shapes."""
    names = re.compile(re.escape(prefix) + r"clean_x_embedder\.(proj\w*)\.weight")
    found = {match[1]: keys[key].shape[2:] for key in keys if (match := names.fullmatch(key))}
    return {name: Kernel(*shape) for name, shape in sorted(found.items())}
