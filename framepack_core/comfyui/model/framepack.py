"""FramePack as one of ComfyUI's models: its config, its conditions, its memory estimate."""

from __future__ import annotations

import re

from torch import Tensor, nn

from ...layout import Kernel
from ...trained import Trained
from ...weights.fp8 import FP8_DTYPES
from .. import private
from .conditions import CONTEXT_KEY, ContextLatents, PackedContext
from .memory import memory_factor, token_cells
from .transformer import FramePackTransformer

GUIDANCE = 10.0  # the distilled guidance the released checkpoints were made for


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
        out = super().extra_conds(**{"guidance": GUIDANCE, **kwargs})
        if kwargs.get("clip_vision_output") is not None:
            out["clip_fea"] = private.CONDRegular(kwargs["clip_vision_output"]["last_hidden_state"])
        params = self.diffusion_model.params
        packed = kwargs.get(CONTEXT_KEY)
        if packed is None:
            frames, height, width = kwargs["noise"].shape[2:]
            packed = PackedContext.none(frames, height, width, params.axes_dim, params.theta)
        out["packed"] = private.CONDConstant(packed.to(kwargs["device"]))
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

        For fp8, only the blocks' matrices are cast, and none in a file that already has fp8 weights among them.
        """
        found = self.model_config.process_unet_state_dict({key.removeprefix(unet_prefix): sd[key] for key in sd})
        missing = sorted(weight_names(self.diffusion_model) - found.keys())
        if missing:
            raise ValueError(
                f"the checkpoint is incomplete: it lacks {len(missing)} of FramePack's weights, first {missing[0]}; "
                "download it again"
            )
        if self.get_dtype() not in FP8_DTYPES:
            return super().load_model_weights(sd, unet_prefix, assign=assign)
        matrices = [key for key in sd if is_block_matrix(key.removeprefix(unet_prefix), sd[key])]
        if not any(sd[key].dtype in FP8_DTYPES for key in matrices):
            for key in matrices:
                sd[key] = sd[key].to(self.get_dtype())
        super().load_model_weights(sd, unet_prefix, assign=True)
        private.archive_model_dtypes(self.diffusion_model)
        return self


class FramePack(private.HunyuanVideoConfig):
    """Comes before HunyuanVideo in ComfyUI's list: a HunyuanVideo with embedders for packed context is FramePack."""

    required_keys = {"{}clean_x_embedder.proj.weight"}

    def get_model(self, state_dict, prefix: str = "", device=None) -> FramePackModel:
        self.unet_config["kernels"] = context_kernels(state_dict, prefix)
        projection = state_dict.get(f"{prefix}image_projection.up.weight")
        self.unet_config["image_dim"] = None if projection is None else projection.shape[1]
        return FramePackModel(self, device=device)


def weight_names(model: nn.Module) -> set[str]:
    """The weights that a file must hold. A linear layer that may be quantised has no weight before it is loaded."""
    empty = {name for name, module in model.named_modules() if hasattr(module, "in_features") and not has_weight(module)}
    return {name for name, _ in model.named_parameters()} | {f"{name}.weight" for name in empty}


def has_weight(module: nn.Module) -> bool:
    return getattr(module, "weight", None) is not None


def is_block_matrix(key: str, weight: Tensor) -> bool:
    """Whether fp8 applies to this weight. Norms, biases, embedders and the output head keep the file's precision."""
    return key.startswith(("double_blocks.", "single_blocks.")) and weight.ndim == 2


def register() -> None:
    """Let ComfyUI's own loaders recognise FramePack: the only global change this pack makes. Other models are unaffected."""
    if not any(issubclass(model, FramePack) for model in private.supported_models):
        private.supported_models.insert(0, FramePack)


def context_kernels(keys, prefix: str = "") -> dict[str, Kernel]:
    """The context convolutions in a state dict: `proj`, `proj_2x`, ..., or `proj_k1h4w2` for kernels of other shapes."""
    names = re.compile(re.escape(prefix) + r"clean_x_embedder\.(proj\w*)\.weight")
    found = {match[1]: keys[key].shape[2:] for key in keys if (match := names.fullmatch(key))}
    return {name: Kernel(*shape) for name, shape in sorted(found.items())}
