"""ComfyUI's patchers, which decide what of a model is on the card, with an order that suits FramePack."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from .. import private
from ..log import log_once
from ..model.modulation import Modulation

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher as _Patcher
else:
    _Patcher = object


class ModulationsLast(_Patcher):
    """Gives modulation layers the room on the card that all other weights leave, and takes it back from them first.

    Sections share what they compute (`model/modulation.py`), so the others are needed at every step and these are not.
    """

    def _load_list(self, for_dynamic: bool = False, default_device: torch.device | None = None) -> list[tuple]:
        """ComfyUI's list of layers. It is sorted by how much memory it costs to fetch a layer: the most first."""
        layers = {module.lin for module in self.model.modules() if isinstance(module, Modulation)}
        costless = (True, 0) if for_dynamic else (0,)
        found: list[Any] = super()._load_list(for_dynamic=for_dynamic, default_device=default_device)  # pyright: ignore
        return [(*costless, *entry[len(costless) :]) if entry[-2] in layers else entry for entry in found]


def with_modulations_last(patcher: _Patcher) -> _Patcher:
    """A model that has just been loaded, in such a patcher. As it is, and logged, if ComfyUI orders layers in another way."""
    try:
        private.require_for(private.PLACING)
    except private.Missing as missing:
        log_once(str(missing))
        return patcher
    return _ordered(type(patcher))(patcher.model, load_device=patcher.load_device, offload_device=patcher.offload_device)


@cache
def _ordered(base: type[_Patcher]) -> type[_Patcher]:
    return type(f"FramePack{base.__name__}", (ModulationsLast, base), {})
