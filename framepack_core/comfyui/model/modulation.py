"""The blocks' modulations, which the sections of a video share: computed once, so that their weights can leave the card.

A quarter of the weights turns one vector a step (sigma, guidance, pooled text) into shifts, scales and gates, 2.2 MB in bf16.
Sections with the same schedule get the same ones. They are remembered where that saves something: where weights lie elsewhere.

    memory = Modulations()
    memory.begin(sigmas)  # a section
    guider.model_options = memory.added(guider.model_options)

What a call needs is read before it begins, and what it has made is fetched after it has ended, so it never waits for the card.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from comfy.model_management import cast_to_device
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.weak import WeakTensorKeyDictionary

from .. import private

SHARED = "shared"  # the condition, and the transformer's parameter, that a Shared comes in
VECTOR = ("y", "guidance")  # the conditions that the vector depends on: the pooled text, and the distilled guidance

ModulationOut = private.ModulationOut  # looked up once: it is used at every step

Made = Mapping[nn.Module, tuple]  # what each layer returns for one vector
Vector = Callable[[Tensor], Tensor]  # of timesteps `B`: `B D`
Inputs = tuple[Tensor | None, ...]  # what a call's vector is made of: timestep, pooled text, guidance
Conds = Sequence[list[dict[str, Any]] | None]  # of each prompt, as a guider has them


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


@dataclass(frozen=True)
class Shared:
    """What decides the modulations of one call: exact values, read before it begins.

    `patches` names those of the weights, `sampling` turns sigmas into timesteps, `schedule` has those sigmas by their values
    that are made in one go, and `sigmas` are those of one prompt's videos. `prompts` has what the vector depends on besides,
    for each prompt of the batch, and `given` is what ComfyUI gives the transformer.
    """

    memory: Modulations
    patches: Hashable
    sampling: Any
    schedule: Mapping[bytes, Tensor]
    sigmas: bytes
    prompts: tuple[tuple[bytes, ...], ...] = ()
    given: Inputs = ()

    def fits(self, inputs: Inputs, layers: Iterable[nn.Module], device: torch.device) -> bool:
        """Not if all layers are there, or if a node has exchanged an input, whose values nobody has read."""
        exchanged = any(found is not given for found, given in zip(inputs, self.given, strict=True))
        return not (exchanged or all_there(layers, device))


@dataclass(frozen=True)
class Call:
    """One call of the transformer: `vec` `B D` is the `vector` of its timesteps `B`."""

    shared: Shared
    vec: Tensor
    vector: Vector
    layers: Sequence[Modulation]

    @property
    def videos(self) -> int:
        """Those of one prompt."""
        return len(self.vec) // len(self.shared.prompts)

    def key(self, sigmas: bytes) -> tuple:
        """All that decides what the layers make of the same prompts at these sigmas, to the last bit."""
        shared, vec = self.shared, self.vec
        weights = self.layers[0], shared.patches
        return weights, shared.sampling, sigmas, shared.prompts, vec.device, vec.dtype, vec.shape

    def vector_of(self, sigma: Tensor) -> Tensor:
        """Computed as ComfyUI does it, with a sigma for each video."""
        sigmas = cast_to_device(sigma, self.vec.device, None).expand(len(self.vec))
        return self.vector(self.shared.sampling.timestep(sigmas).float())


class SharedCondition(private.CONDConstant):
    """A Shared as a condition. In a batch, which is of one call, it names all prompts."""

    def can_concat(self, other: SharedCondition) -> bool:
        return True

    def concat(self, others: Iterable[SharedCondition]) -> Shared:
        return replace(self.cond, prompts=sum((other.cond.prompts for other in others), self.cond.prompts))


class Modulations:
    """What the layers make of each vector of a run. Kept in the computer's memory, not on the card."""

    def __init__(self) -> None:
        self._schedule: dict[bytes, Tensor] = {}
        self._kept: dict[tuple, Tensor] = {}
        self._used: set[tuple] = set()
        self._read: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def begin(self, sigmas: Tensor) -> None:
        """A section of these `sigmas` `N` begins. What the one before has not used is forgotten."""
        self._kept = {key: made for key, made in self._kept.items() if key in self._used}
        self._used = set()
        self._schedule = {values(sigma): sigma for sigma in sigmas}

    def added(self, model_options: dict) -> dict:
        """ComfyUI's options for a section's guider, with this. Those given stay as they are."""
        return wrapped(model_options, private.WrappersMP.SAMPLER_SAMPLE, self._sample)

    def _sample(self, sample: Callable, guider: Any, sigmas: Tensor, extra: dict, *args: Any) -> Any:
        """Added here, after the model's own nodes, `_ask` gets the prompts and sigmas that they make."""
        options = wrapped(extra["model_options"], private.WrappersMP.CALC_COND_BATCH, self._ask)
        return sample(guider, sigmas, {**extra, "model_options": options}, *args)

    def _ask(self, calculate: Callable, model: Any, conds: Conds, x: Tensor, sigmas: Tensor, options: dict) -> Any:
        """Waits for the card, to read the sigmas, if layers are off it."""
        layers = getattr(model.diffusion_model, "modulations", ())
        if not all_there(layers, x.device) and computes_the_same(model, conds, options):
            self._kept = {key: made.cpu() for key, made in self._kept.items()}
            # Dynamic VRAM has no place where weights stay while they are used for a whole schedule.
            schedule = {} if model.current_patcher.is_dynamic() else self._schedule
            shared = Shared(self, model.current_weight_patches_uuid, model.model_sampling, schedule, values(sigmas))
            conds = [entries and [self._with(cond, shared) for cond in entries] for entries in conds]
        return calculate(model, conds, x, sigmas, options)

    def _with(self, cond: dict[str, Any], shared: Shared) -> dict[str, Any]:
        given = cond["model_conds"]
        prompt = tuple(self._values(given[name].cond) for name in VECTOR if name in given)
        return {**cond, "model_conds": {**given, SHARED: SharedCondition(replace(shared, prompts=(prompt,)))}}

    def _values(self, tensor: Tensor) -> bytes:
        """Read once for all steps of a section, which have the same tensor."""
        if tensor not in self._read:
            self._read[tensor] = values(tensor)
        return self._read[tensor]

    def of(self, call: Call) -> Made:
        """What each layer returns for the call's vector. Waits for nothing: what it makes stays on the card until the next."""
        key = call.key(call.shared.sigmas)
        if key not in self._kept:
            self._kept[key] = torch.stack([part for layer in call.layers for part in tensors(layer(call.vec))])
        self._used.add(key)
        return unpacked(cast_to_device(self._kept[key], call.vec.device, None), call.layers)

    def foresee(self, call: Call) -> None:
        """Make what such calls will ask for in the rest of the section, which fetches each weight once for all of them."""
        sigmas = {call.key(name * call.videos): sigma for name, sigma in call.shared.schedule.items()}
        self._used |= sigmas.keys()  # a step may have been left out this time
        vectors = {key: call.vector_of(sigma) for key, sigma in sigmas.items() if key not in self._kept}
        parts: dict[tuple, list[Tensor]] = {key: [] for key in vectors}
        for layer in call.layers if vectors else ():
            weights = fetched(layer, call.vec.device)
            for key, vec in vectors.items():
                parts[key] += tensors(functional_call(layer, weights, (vec,)))
        self._kept |= {key: torch.stack(made) for key, made in parts.items()}


def require_sharing(patcher: Any) -> None:
    """Raises private.Missing if this ComfyUI lacks what tells which calls may share."""
    private.require_for(private.SHARING)
    private.require_attributes(patcher, "weight_wrapper_patches", "injections", "is_dynamic", serves=private.SHARING)
    private.require_attributes(patcher.model, "current_patcher", "current_weight_patches_uuid", serves=private.SHARING)


def computes_the_same(model: Any, conds: Conds, options: dict) -> bool:
    """Whether layers make the same of the same in all calls: hooks and other nodes may change weights or inputs at any step."""
    patcher = model.current_patcher
    hooked = any(cond.get("hooks") for entries in conds for cond in entries or ())
    wrappers = private.get_all_wrappers(private.WrappersMP.APPLY_MODEL, options, is_model_options=True)
    return not (
        hooked or wrappers or "model_function_wrapper" in options or patcher.weight_wrapper_patches or patcher.injections
    )


def wrapped(model_options: dict, kind: str, wrapper: Callable) -> dict:
    options = private.create_model_options_clone(model_options)
    private.add_wrapper_with_key(kind, SHARED, wrapper, options, is_model_options=True)
    return options


def values(tensor: Tensor) -> bytes:
    """Exact ones, which compare as bytes. Waits for the card if they are there."""
    flat = tensor.reshape(-1).clone(memory_format=torch.contiguous_format)  # in which torch reads numbers as bytes
    return flat.cpu().view(torch.uint8).numpy().tobytes()


def all_there(layers: Iterable[nn.Module], device: torch.device) -> bool:
    return all(weight.device == device for layer in layers for weight in layer.parameters())


def fetched(layer: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """A layer's weights on the card, for more than one use."""
    return {name: cast_to_device(weight, device, None) for name, weight in layer.named_parameters()}


def tensors(made: Iterable[Any]) -> list[Tensor]:
    """The shift, scale and gate of each of a layer's modulations."""
    return [part for out in made if out is not None for part in (out.shift, out.scale, out.gate)]


def unpacked(made: Tensor, layers: Sequence[Modulation]) -> Made:
    """All layers' tensors, one after the other, as what the layers return."""
    rest = iter(made.unbind())
    return {layer: tuple(next_modulation(rest) if used else None for used in (True, layer.is_double)) for layer in layers}


def next_modulation(rest: Iterator[Tensor]) -> Any:
    return ModulationOut(shift=next(rest), scale=next(rest), gate=next(rest))
