"""FramePack Cache on a MODEL: what it skips and what the sampler gets instead, with one condition and with several."""

import gc
import re
import weakref

import comfy_extras.nodes_easycache as caches
import comfy_extras.nodes_torch_compile as compiling
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from support import given
from support.ours import relative_error, sample

from framepack_core.caching import DAMPING, SectionCache, Skipping
from framepack_core.comfyui.loading.checkpoints import load_path
from framepack_core.comfyui.sampling import cache as caching
from framepack_core.comfyui.sampling.cache import F1, I2V, magnitudes, with_cache

EAGER = Skipping(threshold=1.0, start=0.0, max_skips=2)
STEPS = 8


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_path(str(checkpoint), {})


def said(model, skipping: Skipping = EAGER, method: str = "easycache", **sampled) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """A video, and (skipped, calls) of each of its sections."""
    lines: list[str] = []
    latents = sample(with_cache(model, method, skipping, lines.append), given.inputs(), steps=STEPS, **sampled)
    found = [re.fullmatch(r"(\d+) of (\d+) calls skipped in the last section", line) for line in lines]
    return latents, [(int(match[1]), int(match[2])) for match in found if match]


def test_without_a_threshold_every_call_is_made_and_the_video_is_the_same(model):
    latents, sections = said(model, Skipping(threshold=0.0), sections=2)

    assert torch.equal(latents, sample(model, given.inputs(), steps=STEPS, sections=2))
    assert sections == [(0, STEPS)] * 2


def test_every_section_begins_anew_and_the_same_run_gives_the_same_video(model):
    latents, sections = said(model, order="endpoints")

    assert len(sections) == 2 and all(0 < skipped < calls == STEPS for skipped, calls in sections)
    again, _ = said(model, order="endpoints")
    assert torch.equal(latents, again)
    assert relative_error(latents, sample(model, given.inputs(), steps=STEPS, order="endpoints")) > 1e-4


def test_what_is_skipped_lies_on_the_line_through_the_last_two_velocities(model):
    """Seen from outside, by a wrapper around the cache's, and from inside, by one within it."""
    inside: list[tuple[float, torch.Tensor]] = []
    outside: list[tuple[float, torch.Tensor]] = []

    def watch(seen: list):
        def record(executor, *args, **kwargs):
            out = executor(*args, **kwargs)
            seen.append((args[-1]["sigmas"][0].item(), out.double()))
            return out

        return record

    outer = model.clone()
    outer.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "outside", watch(outside))
    cached = with_cache(outer, "easycache", EAGER, lambda line: None)
    cached.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "within", watch(inside))
    sample(cached, given.inputs(), steps=STEPS, sections=1)

    computed = dict(inside)
    assert 2 < len(inside) < len(outside) == STEPS
    for sigma, out in outside:
        if sigma in computed:
            assert torch.equal(out, computed[sigma])
            continue
        (before, first), (last, second) = [pair for pair in inside if pair[0] > sigma][-2:]
        expected = second + DAMPING * (sigma - last) / (last - before) * (second - first)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sampler", ["euler", "heun", "unipc_bh1", "dpmpp_2m", "res_multistep", "er_sde", "euler_ancestral"])
def test_it_works_with_two_conditions_and_every_kind_of_sampler(model, sampler):
    latents, sections = said(model, sampler=sampler, sections=1, cfg=2.0)

    ((skipped, calls),) = sections
    assert latents.isfinite().all() and 0 < skipped < calls
    assert calls >= STEPS


def test_conditions_with_areas_hooks_or_other_lengths_keep_their_own_outputs(model):
    inputs = given.inputs()
    _, _, height, width = inputs.start.shape[-4:]
    halves = [(9, height, width // 2, 0, 0, 0), (9, height, width // 2, 0, 0, width // 2)]

    latents, ((skipped, calls),) = said(model, sections=1, regions=halves)

    assert latents.isfinite().all() and 0 < skipped < calls


def test_nothing_is_kept_after_a_section(model, monkeypatch):
    made: list[weakref.ref] = []

    class Watched(SectionCache):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(weakref.ref(self))

    monkeypatch.setattr(caching, "SectionCache", Watched)
    said(model, sections=2)
    gc.collect()

    assert len(made) == 2 and all(reference() is None for reference in made)


@pytest.mark.slow
def test_a_compiled_model_skips_as_well(model):
    compiled = compiling.TorchCompileModel.execute(model, "inductor").args[0]

    latents, sections = said(compiled, sections=1)
    plain, expected = said(model, sections=1)

    assert sections == expected
    assert relative_error(latents, plain) < 1e-3


def test_tables_are_chosen_by_the_checkpoint(model, monkeypatch):
    for name, table in (("FramePackI2V_HY_fp8.safetensors", I2V), ("FramePack_F1_I2V_HY_bf16.safetensors", F1)):
        monkeypatch.setattr(caching, "checkpoint_name", lambda _, name=name: name)
        assert magnitudes(model) == table and len(table) == 25
        latents, ((skipped, calls),) = said(model, method="magcache", sections=1)
        assert latents.isfinite().all() and 0 < skipped < calls
    monkeypatch.setattr(caching, "checkpoint_name", lambda _: "mine.safetensors")
    with pytest.raises(ValueError, match=r"no table of magnitudes for mine\.safetensors.* choose easycache"):
        with_cache(model, "magcache", EAGER, print)


def test_off_gives_the_model_as_it_is(model):
    assert with_cache(model, "off", EAGER, print) is model


def test_what_does_not_go_together_is_refused(model):
    cached = with_cache(model, "easycache", EAGER, print)
    core = caches.EasyCacheNode.execute(model, 0.2, 0.1, 0.9, False).args[0]

    for other, name in ((cached, "FramePack Cache"), (core, "EasyCache")):
        with pytest.raises(ValueError, match=rf"has a cache already \({name}\); remove one of the two"):
            with_cache(other, "easycache", EAGER, print)
    with pytest.raises(ValueError, match=r"start is 0\.5, after end 0\.2; lower it"):
        with_cache(model, "easycache", Skipping(start=0.5, end=0.2), print)
