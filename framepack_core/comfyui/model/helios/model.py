"""Helios as one of ComfyUI's models: its config, its conditions, its memory estimate."""

from __future__ import annotations

import torch
from torch import Tensor

from ....trained import Trained
from ....weights.helios import MARK
from ... import private
from ...log import log_once
from ...sampling.timed import TIME
from ..conditions import ContextLatents, Packed
from ..framepack import UNTIMED
from ..memory import token_cells
from ..weights import Loaded
from .conditions import STAGE_KEY, PackedStage
from .transformer import HeliosTransformer

# Activations of one call at the released width, as tests/card/test_helios.py counts (the feed-forward is their peak), and a few
# percent more.
MEMORY_FACTOR, RELEASED_DIM = 1.35, 5120
OF_WAN = ("clip_vision_output", "time_dim_concat", "reference_latents", "context_latents")  # conditions that Helios ignores


class HeliosModel(Loaded, private.Wan21Model):
    """Wan with Helios' transformer: latents, flow sampling, text encoder and LoRA names stay the same."""

    family, blocks = "Helios", ("blocks.",)
    trained: Trained | None = None
    variant: str = "base"  # base, mid or distilled: which of the released checkpoints, or what it was made from

    def __init__(self, config, device=None) -> None:
        flow = private.ModelType.FLOW  # Wan's own __init__ would build its own transformer
        private.BaseModel.__init__(self, config, flow, device=device, unet_model=HeliosTransformer)
        self.image_to_video = False
        self.memory_usage_factor = MEMORY_FACTOR * self.diffusion_model.dim / RELEASED_DIM
        self.memory_usage_factor_conds = ("history_latents", "c_crossattn")
        self.memory_usage_shape_process = {"c_crossattn": token_cells}

    def extra_conds(self, **kwargs) -> dict:
        if TIME in kwargs:
            log_once(UNTIMED)
        out = super().extra_conds(**{name: value for name, value in kwargs.items() if name not in OF_WAN})
        packed = kwargs.get(STAGE_KEY)
        if packed is None:
            frames, height, width = kwargs["noise"].shape[2:]
            packed = PackedStage.without_history(frames, height, width, self.diffusion_model.axes)
        out["packed"] = Packed(packed.to(kwargs["device"]))
        if packed.latents:
            latents = [latent.to(kwargs["device"]) for latent in packed.latents]
            out["history_latents"] = ContextLatents(latents, packed.cells)
        return out

    def extra_conds_shapes(self, **kwargs) -> dict:
        shapes = {}
        if STAGE_KEY in kwargs:
            shapes["history_latents"] = [1, 1, kwargs[STAGE_KEY].cells]
        if kwargs.get("cross_attn") is not None:
            shapes["c_crossattn"] = list(kwargs["cross_attn"].shape)
        return shapes

    def process_timestep(self, timestep: Tensor, packed: PackedStage | None = None, **kwargs) -> Tensor:
        """What the model is told: the stage's timestep at the nearest of its sigmas, if it has a table of them."""
        table = None if packed is None else packed.timesteps
        if table is None:
            return timestep
        sigmas = self.model_sampling.timestep(table.sigmas).to(timestep)
        nearest = (sigmas - timestep[:, None]).abs().argmin(dim=1)
        return table.timesteps.to(timestep)[nearest]


class Helios(private.Wan21Config):
    """Comes before Wan in ComfyUI's list: a Wan with convolutions for packed history is Helios."""

    required_keys = {f"{{}}{MARK}"}
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]

    def get_model(self, state_dict, prefix: str = "", device=None) -> HeliosModel:
        self.unet_config["text_dim"] = state_dict[f"{prefix}text_embedding.0.weight"].shape[1]
        scales = state_dict.get(f"{prefix}blocks.0.self_attn.history_key_scale")
        self.unet_config["history_scales"] = 0 if scales is None else scales.numel()
        return HeliosModel(self, device=device)
