"""The blocks' modulations, which the sections of a video share: computed once, so that their weights can leave the card.

A quarter of the weights turns one vector a step (sigma, guidance, pooled text) into shifts, scales and gates, 2.2 MB in bf16.
Sections with the same schedule get the same ones. They are remembered where that saves something: where weights lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .. import private

MODULATIONS = "framepack_modulations"  # a run's Modulations in ComfyUI's `transformer_options`

# Bound once: they run at every step.
ModulationOut, functional_call = private.ModulationOut, torch.func.functional_call

Made = Mapping[nn.Module, tuple]  # what each layer returns for one vector


class Known:
    """The modulations that are known of the vector with which the transformer runs."""

    def __init__(self) -> None:
        self._vec: Tensor | None = None
        self._made: Made = {}

    @contextmanager
    def of(self, vec: Tensor, made: Made) -> Iterator[None]:
        self._vec, self._made = vec, made
        try:
            yield
        finally:
            self._vec, self._made = None, {}

    def get(self, layer: nn.Module, vec: Tensor) -> tuple | None:
        """None for any other tensor, such as one that a node has put in the vector's place."""
        return self._made.get(layer) if vec is self._vec else None


class Modulation(private.Modulation):
    """ComfyUI's layer, which does not compute what is known."""

    def __init__(self, known: Known, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.known = known

    def forward(self, vec: Tensor) -> tuple:
        if torch.compiler.is_compiling():
            return super().forward(vec)
        made = self.known.get(self, vec)
        return super().forward(vec) if made is None else made


class Modulations:
    """What the layers of one run's transformer make of each vector. Kept in the computer's memory, not on the card.

    A vector is known by its exact values, and counts only for the patches that the weights had. So whatever asks for another
    sigma, prompt or guidance has its modulations computed by the layers themselves, as without this.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._timesteps = torch.empty(0)
        self._kept: dict[tuple, Tensor] = {}
        self._used: set[tuple] = set()

    def begin(self, timesteps: Tensor) -> None:
        """A section begins. What the one before has not used is forgotten; `timesteps` `N` are computed together when one is
        asked for, which fetches each weight once for all of them."""
        self._kept = {key: made for key, made in self._kept.items() if key in self._used}
        self._used = set()
        self._timesteps = timesteps

    def of(self, vec: Tensor, timestep: Tensor, layers: Sequence[Modulation], vector: Callable[[Tensor], Tensor]) -> Made:
        """What each layer returns for `vec` `B D`, which is the `vector` of `timestep` `B`. Nothing if all layers are there."""
        if all_there(layers, vec.device):
            return {}
        [key] = self._keys([vec], layers)
        if key not in self._kept:
            planned = [vector(time.expand_as(timestep)) for time in self._timesteps.to(timestep)]
            self._make([vec, *planned], layers)
        self._used.add(key)
        return unpacked(self._kept[key].to(vec.device), layers)

    def _keys(self, vectors: Sequence[Tensor], layers: Sequence[Modulation]) -> list[tuple]:
        """Reads the values, and so waits for the card."""
        where = layers[0], self._model.current_weight_patches_uuid, vectors[0].device, vectors[0].dtype, vectors[0].shape
        return [(*where, vec.view(torch.uint8).numpy().tobytes()) for vec in torch.stack([*vectors]).cpu()]

    def _make(self, vectors: Sequence[Tensor], layers: Sequence[Modulation]) -> None:
        asked = dict(zip(self._keys(vectors, layers), vectors, strict=True))
        wanted = {key: vec for key, vec in asked.items() if key not in self._kept}
        parts: dict[tuple, list[Tensor]] = {key: [] for key in wanted}
        for layer in layers:
            weights = on_card(layer, vectors[0].device) if len(wanted) > 1 else {}
            for key, vec in wanted.items():
                parts[key] += tensors(functional_call(layer, weights, (vec,)))
        self._kept |= {key: torch.stack(made).cpu() for key, made in parts.items()}


def all_there(layers: Iterable[nn.Module], device: torch.device) -> bool:
    return all(weight.device == device for layer in layers for weight in layer.parameters())


def on_card(layer: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """A layer's weights on the card, for more than one use."""
    return {name: weight.to(device) for name, weight in layer.named_parameters()}


def tensors(made: Iterable[Any]) -> list[Tensor]:
    """The shift, scale and gate of each of a layer's modulations."""
    return [part for out in made if out is not None for part in (out.shift, out.scale, out.gate)]


def unpacked(made: Tensor, layers: Sequence[Modulation]) -> Made:
    """All layers' tensors, one after the other, as what the layers return."""
    rest = iter(made.unbind())
    return {layer: tuple(next_modulation(rest) if used else None for used in (True, layer.is_double)) for layer in layers}


def next_modulation(rest: Iterator[Tensor]) -> Any:
    return ModulationOut(shift=next(rest), scale=next(rest), gate=next(rest))
