"""A step cache on a MODEL: some of the transformer's calls are replaced by what is expected of them.

MagCache's rule needs a table of the checkpoint. Those of the released ones are here; any other is measured once, during a video
that is made with all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import folder_paths
import torch
from torch import Tensor

from ...caching import Magnitudes, Measured, Rule, SectionCache, Skipping, Table, Tabulated
from ...solver import flow_sigmas
from ...store import magnitudes as tables
from .. import private
from ..model.conditions import CONTEXT_KEY
from ..model.framepack import FramePackModel
from ..model.transformer import WATCHED
from .checks import LEAST_GOOD_SIGMA, checkpoint_name, checkpoint_path, is_f1

METHODS = ("easycache", "magcache", "off", "measure")
FEWEST_STEPS = 10  # that are worth a table
KEY = "framepack_cache"  # of the wrappers, and of a section's cache among the transformer's options
CACHES = {KEY: "FramePack Cache", "easycache": "EasyCache", "lazycache": "LazyCache"}  # nodes by the key of their wrappers

# Ratios of the residuals' magnitudes, published with MagCache for the released checkpoints: at 25 steps of the official
# program, whose shift is 7 at its sizes.
LEVELS = tuple(flow_sigmas(25, 0, shift=7.0)[:-1].tolist())
I2V = Table(LEVELS, (
    *(1, 1.26562, 1.23438, 1.03125, 1.02344, 1.03906, 1.01562, 1.03906, 1.05469, 1.02344, 1.03906, 0.99609, 1.03125),
    *(1.02344, 1.01562, 1.02344, 1.00781, 1.04688, 0.98828, 1, 1.00781, 0.98828, 0.94141, 0.94141, 0.78906),
))  # fmt: skip
F1 = Table(LEVELS, (
    *(1, 1.25781, 1.08594, 1.02344, 1.00781, 1.02344, 1.00781, 1.02344, 1.05469, 0.99609, 1.03906, 1.00781, 1.01562),
    *(1.00781, 1.02344, 1.01562, 0.98047, 1.05469, 0.98047, 0.96875, 1.03125, 0.97266, 0.9375, 0.96484, 0.78516),
))  # fmt: skip
PUBLISHED = {"FramePackI2V": I2V, "FramePack F1": F1}

Say = Callable[[str], None]


def with_method(model, method: str, skipping: Skipping, say: Say):
    """A copy of the MODEL with what a method does to it, or the MODEL itself; after each section, `say` is told how it went.

    Raises ValueError if the model is none of FramePack's, has a cache already, or lacks what the method needs; and
    private.Missing.
    """
    if not isinstance(model.model, FramePackModel):
        raise ValueError(f"model is {type(model.model).__name__}, not FramePack; use EasyCache for other models")
    if method == "off":
        return model
    if others := [node for key, node in CACHES.items() if _wrapped(model, key)]:
        raise ValueError(f"the model has a cache already ({others[0]}); remove one of the two")
    if method == "measure":
        return with_measuring(model, say)
    note = published_note(model) if method == "magcache" else ""
    return with_cache(model, method, skipping, lambda cache: say(f"{cache}{note}"))


def with_cache(model, method: str, skipping: Skipping, done: Callable[[SectionCache], None]):
    """A copy of the MODEL that skips calls; after each section, `done` is given its cache. Raises ValueError as above."""
    if skipping.start > skipping.end:
        raise ValueError(f"start is {skipping.start:g}, after end {skipping.end:g}; lower it")
    table = magnitudes(model) if method == "magcache" else None

    def section(executor, *args, **kwargs):
        rule: Rule = Tabulated(table) if table else Measured()
        cache = SectionCache(skipping, rule, args[3].tolist())
        latents = _with_option(KEY, cache, executor, *args, **kwargs)
        done(cache)
        return latents

    cached = model.clone()
    cached.add_wrapper_with_key(private.WrappersMP.OUTER_SAMPLE, KEY, section)
    cached.add_wrapper_with_key(private.WrappersMP.DIFFUSION_MODEL, KEY, called_or_expected)
    return cached


def with_measuring(model, say: Say):
    """A MODEL that makes all calls and keeps its checkpoint's table for MagCache."""
    checkpoint = checkpoint_path(model)
    if checkpoint is None:
        raise ValueError("the model comes from no file that its table could be kept for; load it with FramePack_LoadModel")
    measuring = model.clone()
    measuring.add_wrapper_with_key(private.WrappersMP.OUTER_SAMPLE, KEY, Measuring(checkpoint, say))
    return measuring


def measuring_of(model) -> Measuring | None:
    """What measures a MODEL, if anything does."""
    wrappers = model.get_wrappers(private.WrappersMP.OUTER_SAMPLE, KEY)
    return next((wrapper for wrapper in wrappers if isinstance(wrapper, Measuring)), None)


class Measuring:
    """A wrapper around a section's sampling that keeps a checkpoint's table, a mean over the run's sections so far.

    ComfyUI keeps it with its MODEL, so FramePack's samplers say where a run begins.
    """

    def __init__(self, checkpoint: Path, say: Say) -> None:
        self.checkpoint = checkpoint
        self.say = say
        self.begin()

    def begin(self) -> None:
        """A new run."""
        self.measured: list[Table] = []

    def __call__(self, executor, *args, **kwargs):
        sigmas = args[3].tolist()
        require_measurable(sigmas)
        if not any(CONTEXT_KEY in cond for conds in executor.class_obj.conds.values() for cond in conds):
            self.begin()  # with one of ComfyUI's samplers, which makes nothing but this
        magnitudes = Magnitudes(sigmas)

        @torch.compiler.disable
        def watch(added: Tensor, options: dict) -> None:
            magnitudes.see(float(options["sigmas"][0]), added.chunk(len(options["uuids"]))[0])

        latents = _with_option(WATCHED, watch, executor, *args, **kwargs)
        self.say(self._kept(magnitudes.table(), len(sigmas) - 1))
        return latents

    def _kept(self, table: Table, steps: int) -> str:
        """Keep the mean with a section's table, and say so."""
        if len(table.levels) < steps:
            return (
                f"nothing measured: the sampler calls the model at {len(table.levels)} of the schedule's {steps} noise levels; "
                "measure with another one, such as auto or euler"
            )
        self.measured.append(table)
        alike = [one for one in self.measured if one.levels == table.levels]
        return f"{steps} steps of {len(alike)} sections measured; {kept(self.checkpoint, Table.mean(alike))}"


def require_measurable(sigmas: Sequence[float]) -> None:
    """Raises ValueError for a schedule that says too little of a checkpoint."""
    if len(sigmas) <= FEWEST_STEPS:
        raise ValueError(f"{len(sigmas) - 1} steps say too little of a checkpoint; measure with {FEWEST_STEPS} or more")
    if sigmas[0] < LEAST_GOOD_SIGMA:
        raise ValueError(f"sigmas begin at {sigmas[0]:.3g}, but a table is of the whole way from noise; measure with denoise 1")


def kept(checkpoint: Path, table: Table) -> str:
    """Keep a checkpoint's table, and say so. A full disk costs the table, but not the video."""
    try:
        tables.write(tables_folder(), checkpoint, table)
    except OSError as error:
        return f"but they cannot be kept: {error}"
    return f"magcache uses them for {checkpoint.name} from now on"


def magnitudes(model) -> Table:
    """MagCache's table for the checkpoint: measured here, or published. Raises ValueError if there is none."""
    checkpoint, name = checkpoint_path(model), checkpoint_name(model)
    if checkpoint is not None and checkpoint.exists() and (own := tables.read(tables_folder(), checkpoint)):
        return own
    if "framepack" not in name.lower():
        raise ValueError(f"there is no table of magnitudes for {name or 'this model'}, only for FramePack's; choose easycache, "
                         "or make a video with measure first")  # fmt: skip
    return F1 if is_f1(name) else I2V


def published_note(model) -> str:
    """What to say where the table is a released checkpoint's: whether the model is that one, only its name tells."""
    table = magnitudes(model)
    released = next((name for name, published in PUBLISHED.items() if table is published), None)
    if released is None:
        return ""
    return f", by the table of {released}, since {checkpoint_name(model)} is named so; for a fine-tune, measure its own"


def tables_folder() -> Path:
    """Where tables are kept that were measured."""
    return Path(folder_paths.get_system_user_directory("framepack")) / "magnitudes"


def tables_state(method: str) -> object:
    """What changes a method's result besides its inputs."""
    return tables.state(tables_folder()) if method == "magcache" else None


def _with_option(name: str, value: object, executor, *args, **kwargs):
    """Sample a section with one more option for the transformer."""
    guider = executor.class_obj
    options = guider.model_options
    guider.model_options = {**options, "transformer_options": {**options["transformer_options"], name: value}}
    try:
        return executor(*args, **kwargs)
    finally:
        guider.model_options = options


@torch.compiler.disable(recursive=False)
def called_or_expected(executor, x: Tensor, *args, **kwargs) -> Tensor:
    """The velocity of every condition in the batch `x`: from the transformer, or as the section's cache expects it."""
    options = _options(args, kwargs)
    cache: SectionCache | None = options.get(KEY)
    if cache is None:
        return executor(x, *args, **kwargs)
    sigma, conditions = float(options["sigmas"][0]), _conditions(options)
    if cache.skips(sigma, conditions):
        return torch.cat([cache.expected(condition, sigma) for condition in conditions])
    velocity = executor(x, *args, **kwargs)
    for condition, rows in zip(conditions, velocity.chunk(len(conditions)), strict=True):
        cache.learn(condition, sigma, rows)
    return velocity


def _conditions(options: dict[str, Any]) -> list[Hashable]:
    """What tells apart the outputs of a step.

    The uuid alone does not: ComfyUI copies an area with its uuid into the other prompt, and guidance that leaves out blocks
    asks for a condition twice.
    """
    replaced = frozenset(options.get("patches_replace", {}).get("dit", {}))
    return [(uuid, prompt, replaced) for uuid, prompt in zip(options["uuids"], options["cond_or_uncond"], strict=True)]


def _options(args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The transformer's options, where ComfyUI passes them."""
    return kwargs["transformer_options"] if "transformer_options" in kwargs else args[-1]


def _wrapped(model, key: str) -> bool:
    return any(key in wrappers for wrappers in model.wrappers.values())
