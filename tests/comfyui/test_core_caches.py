"""ComfyUI's EasyCache and LazyCache on a FramePack model, by value: against their rule, written out with nothing in place."""

from dataclasses import dataclass, field

import comfy.patcher_extension
import comfy_extras.nodes_easycache as caches
import pytest
import torch
from support import given
from support.ours import relative_error, sample
from torch import Tensor

from framepack_core.comfyui.loading.checkpoints import load_path

Wrappers = comfy.patcher_extension.WrappersMP
THRESHOLD, START, END = 0.5, 0.0, 0.95
STEPS = 10


@dataclass
class Rule:
    """While the output is expected to have changed by less than the threshold, it is the input plus the last difference.

    The condition that is called first decides for those that are called after it, which have differences of their own.
    """

    start: float
    end: float
    skipped: int = 0
    skips: bool = False
    seen: dict[str, Tensor] = field(default_factory=dict)
    differences: dict[object, Tensor] = field(default_factory=dict)

    def __call__(self, sigma: float, x: Tensor, evaluate, condition: object = None) -> Tensor:
        if sigma <= self.end:
            return evaluate()
        leads = condition == next(iter(self.differences), condition)
        out = self.leading(sigma, x, evaluate) if leads else None if self.skips else evaluate().clone()
        self.skips = out is None
        if out is None:
            return x + self.differences[condition]
        self.differences[condition] = out - x
        return out

    def leading(self, sigma: float, x: Tensor, evaluate) -> Tensor | None:
        """The first condition's output, or None where it is skipped."""
        change = None
        if sigma <= self.start and "x" in self.seen:
            change = (part(x) - self.seen["x"]).abs().mean()
            if "rate" in self.seen:
                self.seen["sum"] = self.seen.get("sum", 0) + self.seen["rate"] * change / self.seen["size"]
                if self.seen["sum"] < THRESHOLD:
                    self.skipped += 1
                    return None
                self.seen["sum"] = torch.tensor(0.0)
        out = evaluate().clone()
        if change is not None:
            self.seen["rate"] = (part(out) - self.seen["out"]).abs().mean() / change
        self.seen |= {"x": part(x).clone(), "out": part(out), "size": out.abs().mean()}
        return out


def part(latents: Tensor) -> Tensor:
    return latents[..., ::8, ::8]


def with_rule(model, where: str, rules: list[Rule]):
    """The model with the rule, anew in each section: on its velocity (EasyCache) or on the denoised latents (LazyCache)."""
    sampling = model.model.model_sampling

    def begin(executor, *args, **kwargs):
        rules.append(Rule(sampling.percent_to_sigma(START), sampling.percent_to_sigma(END)))
        return executor(*args, **kwargs)

    def velocity(executor, x, *args, **kwargs):
        (condition,), sigma = args[-1]["uuids"], args[-1]["sigmas"][0].item()
        return rules[-1](sigma, x.clone(), lambda: executor(x, *args, **kwargs), condition)

    def denoised(executor, x, sigma, *args, **kwargs):
        return rules[-1](sigma[0].item(), x.clone(), lambda: executor(x, sigma, *args, **kwargs))

    model = model.clone()
    model.add_wrapper_with_key(Wrappers.OUTER_SAMPLE, "rule", begin)
    model.add_wrapper_with_key(where, "rule", velocity if where == Wrappers.DIFFUSION_MODEL else denoised)
    return model


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize(
    ("node", "where"),
    [(caches.EasyCacheNode, Wrappers.DIFFUSION_MODEL), (caches.LazyCacheNode, Wrappers.PREDICT_NOISE)],
    ids=["EasyCache", "LazyCache"],
)
def test_a_cache_of_comfyui_s_gives_the_frames_that_its_rule_gives(checkpoint, node, where, cfg):
    """In float32 nothing is cast, so that what EasyCache adds to its input would reach the sampler's own latents. The first
    section is longer than the other: what is kept from it must not reach that one."""
    model, inputs, rules = load_path(str(checkpoint), {}), given.inputs(), []
    cached = node.execute(model, reuse_threshold=THRESHOLD, start_percent=START, end_percent=END, verbose=False).args[0]

    everything, found, expected = (
        sample(each, inputs, "endpoints", steps=STEPS, cfg=cfg) for each in (model, cached, with_rule(model, where, rules))
    )

    assert all(0 < rule.skipped < STEPS for rule in rules) and len(rules) == 2
    assert relative_error(found, expected) < 1e-5 < relative_error(found, everything)
