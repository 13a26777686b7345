"""A step cache on a MODEL: some of the transformer's calls are replaced by what is expected of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...caching import Measured, Rule, SectionCache, Skipping, Tabulated
from .. import private
from ..model.framepack import FramePackModel
from .checks import checkpoint_name, is_f1

METHODS = ("easycache", "magcache", "off")
KEY = "framepack_cache"  # of the wrappers, and of a section's cache among the transformer's options
CACHES = {KEY: "FramePack Cache", "easycache": "EasyCache", "lazycache": "LazyCache"}  # nodes by the key of their wrappers

# Ratios of the residuals' magnitudes at 25 steps, published with MagCache for the released checkpoints.
I2V = (
    *(1, 1.26562, 1.23438, 1.03125, 1.02344, 1.03906, 1.01562, 1.03906, 1.05469, 1.02344, 1.03906, 0.99609, 1.03125),
    *(1.02344, 1.01562, 1.02344, 1.00781, 1.04688, 0.98828, 1, 1.00781, 0.98828, 0.94141, 0.94141, 0.78906),
)
F1 = (
    *(1, 1.25781, 1.08594, 1.02344, 1.00781, 1.02344, 1.00781, 1.02344, 1.05469, 0.99609, 1.03906, 1.00781, 1.01562),
    *(1.00781, 1.02344, 1.01562, 0.98047, 1.05469, 0.98047, 0.96875, 1.03125, 0.97266, 0.9375, 0.96484, 0.78516),
)

Say = Callable[[str], None]


def with_cache(model, method: str, skipping: Skipping, say: Say):
    """A copy of the MODEL that skips calls; after each section, `say` is told how many.

    Raises ValueError if the model is none of FramePack's, has a cache already, or has no table for the method; and
    private.Missing.
    """
    if not isinstance(model.model, FramePackModel):
        raise ValueError(f"model is {type(model.model).__name__}, not FramePack; use EasyCache for other models")
    if method == "off":
        return model
    if skipping.start > skipping.end:
        raise ValueError(f"start is {skipping.start:g}, after end {skipping.end:g}; lower it")
    if others := [node for key, node in CACHES.items() if _wrapped(model, key)]:
        raise ValueError(f"the model has a cache already ({others[0]}); remove one of the two")
    table = magnitudes(model) if method == "magcache" else ()

    def section(executor, *args, **kwargs):
        guider, sigmas = executor.class_obj, args[3].tolist()
        rule: Rule = Tabulated(table, sigmas) if table else Measured()
        cache = SectionCache(skipping, rule, sigmas)
        options = guider.model_options
        guider.model_options = {**options, "transformer_options": {**options["transformer_options"], KEY: cache}}
        try:
            return executor(*args, **kwargs)
        finally:
            guider.model_options = options
            say(f"{cache.skipped} of {cache.calls} calls skipped in the last section")

    cached = model.clone()
    cached.add_wrapper_with_key(private.WrappersMP.OUTER_SAMPLE, KEY, section)
    cached.add_wrapper_with_key(private.WrappersMP.DIFFUSION_MODEL, KEY, called_or_expected)
    return cached


def magnitudes(model) -> tuple[float, ...]:
    """MagCache's table for the checkpoint. Raises ValueError if there is none."""
    name = checkpoint_name(model)
    if "framepack" not in name.lower():
        raise ValueError(f"there is no table of magnitudes for {name or 'this model'}, only for FramePack's; choose easycache")
    return F1 if is_f1(name) else I2V


@torch.compiler.disable(recursive=False)
def called_or_expected(executor, x: Tensor, *args, **kwargs) -> Tensor:
    """The velocity of every condition in the batch `x`: from the transformer, or as the section's cache expects it."""
    options = _options(args, kwargs)
    cache: SectionCache | None = options.get(KEY)
    if cache is None:
        return executor(x, *args, **kwargs)
    sigma, conditions = float(options["sigmas"][0]), options["uuids"]
    if cache.skips(sigma, conditions):
        return torch.cat([cache.expected(condition, sigma) for condition in conditions])
    velocity = executor(x, *args, **kwargs)
    for condition, rows in zip(conditions, velocity.chunk(len(conditions)), strict=True):
        cache.learn(condition, sigma, rows)
    return velocity


def _options(args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The transformer's options, where ComfyUI passes them."""
    return kwargs["transformer_options"] if "transformer_options" in kwargs else args[-1]


def _wrapped(model, key: str) -> bool:
    return any(key in wrappers for wrappers in model.wrappers.values())
