"""Loading a model's weights as ComfyUI does it, but strictly."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

from ...weights.fp8 import FP8_DTYPES
from .. import private
from .residence import cast, settle

if TYPE_CHECKING:
    from comfy.model_base import BaseModel as _Model
else:
    _Model = object

log = logging.getLogger("framepack")


class Loaded(_Model):
    """One of ComfyUI's models, of a `family` of ours; the names of its blocks' weights begin with one of `blocks`."""

    family: str
    blocks: tuple[str, ...]

    def load_model_weights(self, sd: dict[str, Tensor], unet_prefix: str = "", assign: bool = False) -> Self:
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
        require_all({*missing, *never_made(transformer)}, self.family)
        if unexpected:
            log.warning(
                "FramePack: the file has %d weights that the model does not use, first %s. They may be another model's; if the "
                "video looks wrong, download the file again",
                len(unexpected),
                unexpected[0],
            )
        if self.get_dtype() in FP8_DTYPES:
            private.archive_model_dtypes(transformer)
            for layer in fp8_layers(transformer, self.blocks):
                layer.weight_comfy_model_dtype = self.get_dtype()
        if not assign:
            settle(transformer, device)
        elif self.model_config.optimizations.get("fp8"):
            cast(transformer)  # ComfyUI's fast product looks at the dtype before it casts on the card
        return self


def require_all(missing: Collection[str], family: str) -> None:
    """Raises a ValueError that names the first of a file's missing weights."""
    if missing:
        raise ValueError(
            f"the checkpoint is incomplete: it lacks {len(missing)} of {family}'s weights, first {min(missing)}; "
            "download it again"
        )


def never_made(transformer: nn.Module) -> set[str]:
    """The weights of linear layers that were to be made from those of the file. Some of ComfyUI's layers do not report them."""
    layers = {name: module for name, module in transformer.named_modules() if hasattr(module, "in_features")}
    return {f"{name}.weight" for name, layer in layers.items() if getattr(layer, "weight", None) is None}


def fp8_layers(transformer: nn.Module, blocks: tuple[str, ...]) -> list[Any]:
    """The layers whose weight fp8 applies to: those of the blocks, unless the file already has fp8 weights among them.

    Norms, biases, embedders and the output head keep the file's precision.
    """
    inner = (module for name, module in transformer.named_modules() if name.startswith(blocks))
    layers = [module for module in inner if isinstance(getattr(module, "weight", None), Tensor) and module.weight.ndim == 2]
    return [] if any(layer.weight.dtype in FP8_DTYPES for layer in layers) else layers
