"""FramePack Cache on a MODEL: what it skips and what the sampler gets instead, with one condition and with several."""

import gc
import re
import weakref
from itertools import pairwise

import comfy.sample
import comfy_extras.nodes_easycache as caches
import comfy_extras.nodes_slg as guidance
import comfy_extras.nodes_torch_compile as compiling
import folder_paths
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from comfy.patcher_extension import WrappersMP
from support import given
from support.ours import begun_and_resumed, relative_error, sample

from experiments.study.run import quiet_comfyui
from experiments.study.studio import Studio
from experiments.study.videos import Video
from framepack_core.caching import DAMPING, SectionCache, Skipping, Table, Tabulated
from framepack_core.comfyui.loading.checkpoints import load_path
from framepack_core.comfyui.sampling import cache as caching
from framepack_core.comfyui.sampling.cache import F1, I2V, magnitudes, tables_state, with_method
from framepack_core.comfyui.sampling.checks import checkpoint_path
from framepack_core.comfyui.sampling.samplers import window_sigmas
from framepack_core.store import magnitudes as tables

Calls = dict[float, list[torch.Tensor]]  # by noise level

EAGER = Skipping(threshold=1.0, start=0.0, max_skips=2)
STEPS = 8
HALVES = [(9, given.HEIGHT, given.WIDTH // 2, 0, 0, left) for left in (0, given.WIDTH // 2)]
GENERATED = 9 * (given.HEIGHT // 2) * (given.WIDTH // 2)  # tokens of a section


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_path(str(checkpoint), {})


def said(model, skipping: Skipping = EAGER, method: str = "easycache", **sampled) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """A video, and (skipped, calls) of each of its sections."""
    lines: list[str] = []
    latents = sample(with_method(model, method, skipping, lines.append), given.inputs(), steps=STEPS, **sampled)
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


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize("case", ["plain", "areas", "left out blocks"])
def test_what_is_skipped_lies_on_the_line_through_the_same_condition_s_last_two_velocities(model, case, cfg):
    """Seen from outside, by a wrapper around the cache's, and from inside, by one within it: the calls of a step, in order."""
    inside: Calls = {}
    outside: Calls = {}

    def watch(seen: Calls):
        def record(executor, *args, **kwargs):
            out = executor(*args, **kwargs)
            seen.setdefault(args[-1]["sigmas"][0].item(), []).append(out.double())
            return out

        return record

    outer = model.clone()
    if case == "left out blocks":
        outer = guidance.SkipLayerGuidanceDiT.execute(outer, 3.0, 0.0, 1.0, single_layers="0").args[0]
    outer.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "outside", watch(outside))
    cached = with_method(outer, "easycache", EAGER, lambda line: None)
    cached.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "within", watch(inside))
    sample(cached, given.inputs(), steps=STEPS, sections=1, cfg=cfg, regions=HALVES if case == "areas" else ())

    assert 2 < len(inside) < len(outside) == STEPS
    for sigma, outs in outside.items():
        if sigma in inside:
            expected = inside[sigma]
        else:
            (before, first), (last, second) = [pair for pair in inside.items() if pair[0] > sigma][-2:]
            slope = DAMPING * (sigma - last) / (last - before)
            expected = [now + slope * (now - then) for then, now in zip(first, second, strict=True)]
        torch.testing.assert_close(outs, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sampler", ["euler", "heun", "unipc_bh1", "dpmpp_2m", "res_multistep", "er_sde", "euler_ancestral"])
def test_it_works_with_two_conditions_and_every_kind_of_sampler(model, sampler):
    latents, sections = said(model, sampler=sampler, sections=1, cfg=2.0)

    ((skipped, calls),) = sections
    assert latents.isfinite().all() and 0 < skipped < calls
    assert calls >= STEPS


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


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_it_keeps_two_velocities_of_each_condition(model, monkeypatch, cfg):
    """Each as large as a section's latents in float32: 7.0 MB for two at 640x608, as docs/speed.md says."""
    kept: list[int] = []

    class Counted(SectionCache):
        def learn(self, *args):
            super().learn(*args)
            outputs = (output for outputs in self._outputs.values() for _, output in outputs)
            kept.append(sum(storage.nbytes() for storage in {output.untyped_storage() for output in outputs}))

    monkeypatch.setattr(caching, "SectionCache", Counted)
    latents, _ = said(model, sections=1, cfg=cfg)

    velocity = 4 * latents[:1, :, 1:].numel()
    assert max(kept) == (2 if cfg == 1.0 else 4) * velocity


def with_lora(model, strength: float):
    """The model with one more patch of a weight."""
    changed = model.clone()
    name = "diffusion_model.double_blocks.0.img_attn.proj.weight"
    weight = changed.model.state_dict()[name]
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(7))
    assert changed.add_patches({name: (noise,)}, strength)
    return changed


def cancelled(model) -> None:
    """In the middle of the second section."""
    calls: list[int] = []

    def cancel(executor, *args, **kwargs):
        calls.append(1)
        if len(calls) == STEPS + 5:
            raise InterruptProcessingException
        return executor(*args, **kwargs)

    stopped = model.clone()
    stopped.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "test", cancel)
    with pytest.raises(InterruptProcessingException):
        sample(stopped, given.inputs(), steps=STEPS, sections=2)


@pytest.mark.parametrize("method", ["easycache", "magcache"])
@pytest.mark.parametrize(
    "first",
    [
        cancelled,
        lambda model: sample(with_lora(model, 1.0), given.inputs(), steps=STEPS, sections=1),
        lambda model: sample(model, given.inputs(), steps=STEPS, order="endpoints", seed=12),
        lambda model: sample(model, given.inputs(), steps=STEPS, sections=1, cfg=2.0),
        lambda model: sample(model, given.inputs(8, 8), steps=STEPS + 2, sections=1, sampler="heun"),
    ],
    ids=["a cancelled run", "another strength of a LoRA", "another plan", "another cfg", "another size and sampler"],
)
def test_a_wrapped_model_takes_nothing_from_one_run_into_the_next(model, monkeypatch, method, first):
    """ComfyUI keeps the MODEL between runs, with the wrappers on it."""
    monkeypatch.setattr(caching, "checkpoint_name", lambda _: "FramePackI2V")
    lines: list[str] = []

    def last(wrapped) -> tuple[torch.Tensor, list[str]]:
        lines.clear()
        return sample(with_lora(wrapped, 0.2), given.inputs(), steps=STEPS, sections=2), [*lines]

    expected, said_then = last(with_method(model, method, EAGER, lines.append))
    wrapped = with_method(model, method, EAGER, lines.append)
    first(wrapped)
    found, said_now = last(wrapped)

    assert torch.equal(found, expected) and said_now == said_then
    assert all(re.match(r"[1-6] of 8 calls skipped", line) for line in said_now)


def test_a_run_that_goes_on_after_its_first_section_ends_in_the_same_video(model, monkeypatch):
    (expected, sections), (found, others) = begun_and_resumed(monkeypatch, lambda: said(model, sections=2))

    assert others == sections[1:] and torch.equal(found, expected)


@pytest.mark.slow
def test_a_compiled_model_skips_as_well(model):
    compiled = compiling.TorchCompileModel.execute(model, "inductor").args[0]

    latents, sections = said(compiled, sections=1)
    plain, expected = said(model, sections=1)

    assert sections == expected
    assert relative_error(latents, plain) < 1e-3


@pytest.mark.parametrize(
    ("name", "released", "table"),
    [("FramePackI2V_HY_fp8.safetensors", "FramePackI2V", I2V), ("FramePack_F1_mine.safetensors", "FramePack F1", F1)],
)
def test_a_released_checkpoint_s_table_is_chosen_by_the_name_which_is_said(model, monkeypatch, name, released, table):
    monkeypatch.setattr(caching, "checkpoint_name", lambda _: name)
    lines: list[str] = []

    latents = sample(with_method(model, "magcache", EAGER, lines.append), given.inputs(), steps=STEPS, sections=1)

    assert magnitudes(model) == table and len(table.levels) == len(table.ratios) == 25
    assert latents.isfinite().all()
    (line,) = lines
    assert re.match(r"[1-6] of 8 calls skipped in the last section, ", line)
    assert line.endswith(f"by the table of {released}, since {name} is named so; for a fine-tune, measure its own")


def test_a_checkpoint_that_is_named_otherwise_has_no_table(model, monkeypatch):
    monkeypatch.setattr(caching, "checkpoint_name", lambda _: "mine.safetensors")
    with pytest.raises(
        ValueError, match=r"no table of magnitudes for mine\.safetensors.* choose easycache, or make a video with measure first"
    ):
        with_method(model, "magcache", EAGER, print)


def test_released_tables_are_of_the_official_program_s_schedule():
    """25 steps at 640x608: 9 latent frames of 76x80."""
    official = window_sigmas(torch.empty(1, 16, 1, 76, 80), 9, 25, 0.0)

    assert I2V.levels == F1.levels == tuple(official[:-1].tolist())


@pytest.mark.parametrize(("table", "computed"), [(I2V, [18, 13, 10]), (F1, [17, 12, 10])], ids=["I2V", "F1"])
def test_released_tables_skip_what_the_help_page_says(table, computed):
    def calls(threshold: float) -> int:
        cache = SectionCache(Skipping(threshold), Tabulated(table), [*table.levels, 0.0])
        for sigma in table.levels:
            if not cache.skips(sigma, ["a"]):
                cache.learn("a", sigma, torch.ones(1))
        return cache.calls - cache.skipped

    assert [calls(threshold) for threshold in (0.02, 0.05, 0.1)] == computed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where tables are kept, empty."""
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    return tmp_path / "__framepack" / "magnitudes"


def measured(model, steps: int = 10, **sampled) -> tuple[torch.Tensor, list[str]]:
    lines: list[str] = []
    return sample(with_method(model, "measure", EAGER, lines.append), given.inputs(), steps=steps, **sampled), lines


@pytest.mark.slow
def test_a_checkpoint_s_own_table_is_measured_while_a_video_is_made_with_all_steps(model, folder):
    before = tables_state("magcache")
    latents, lines = measured(model, sections=2, cfg=2.0)

    assert torch.equal(latents, sample(model, given.inputs(), steps=10, sections=2, cfg=2.0))
    assert [line.partition(";")[0] for line in lines] == ["10 steps of 1 sections measured", "10 steps of 2 sections measured"]
    table = magnitudes(model)
    assert len(table.levels) == 10 and table.ratios[0] == 1 and len(set(table.ratios)) > 5
    assert tables_state("magcache") != before, "so that ComfyUI runs the node again"
    assert tables_state("easycache") is None


def test_a_table_is_of_one_run_even_if_comfyui_keeps_the_model_that_measures(model, folder):
    def measured_once(wrapped) -> Table:
        lines.clear()
        sample(wrapped, given.inputs(), steps=10, sections=1, seed=12)
        assert [line.partition(";")[0] for line in lines] == ["10 steps of 1 sections measured"]
        return magnitudes(model)

    lines: list[str] = []
    expected = measured_once(with_method(model, "measure", EAGER, lines.append))
    wrapped = with_method(model, "measure", EAGER, lines.append)
    sample(wrapped, given.inputs(), steps=10, sections=2)

    assert magnitudes(model) != expected
    assert measured_once(wrapped) == expected


def test_measuring_samples_sections_that_an_earlier_run_has_finished(model, folder):
    before, after = (measured(model, sections=2, origin="here") for _ in range(2))

    assert torch.equal(before[0], after[0])
    assert before[1] == after[1] and after[1][-1].startswith("10 steps of 2 sections measured; ")


@pytest.mark.parametrize("sampler", ["dpm_fast", "dpm_adaptive"])
def test_a_sampler_with_noise_levels_of_its_own_measures_nothing_and_keeps_the_table_that_there_is(model, folder, sampler):
    still = Table((1.0, 0.1), (1.0, 1.0))
    tables.write(folder, checkpoint_path(model), still)

    latents, (said,) = measured(model, sections=1, sampler=sampler)

    assert latents.isfinite().all() and magnitudes(model) == still
    assert re.fullmatch(
        r"nothing measured: the sampler calls the model at [1-3] of the schedule's 10 noise levels; measure with another one, "
        r"such as auto or euler",
        said,
    )


def test_a_sampler_that_begins_a_little_below_the_schedule_measures_all_of_it(model, folder):
    _, (said,) = measured(model, sections=1, sampler="er_sde")

    assert said.startswith("10 steps of 1 sections measured; ") and len(magnitudes(model).levels) == 10


def with_comfyui_s_sampler(model, denoise: float = 1.0) -> None:
    (text, pooled), latent = given.inputs().positive, torch.zeros(1, 16, 9, given.HEIGHT, given.WIDTH)
    positive = [[text, {"pooled_output": pooled}]]
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
    settings = {"latent_image": latent, "denoise": denoise, "seed": 1, "disable_pbar": True}
    comfy.sample.sample(model, noise, 10, 1.0, "euler", "simple", positive, [], **settings)


def test_a_part_of_the_way_from_noise_is_no_table(model, folder):
    wrapped = with_method(model, "measure", EAGER, print)

    with pytest.raises(ValueError, match=r"sigmas begin at 0\.\d+, but a table is of the whole way .* measure with denoise 1"):
        with_comfyui_s_sampler(wrapped, denoise=0.5)
    assert not folder.exists()


def test_with_comfyui_s_own_sampler_each_video_is_measured_by_itself(model, folder):
    lines: list[str] = []
    wrapped = with_method(model, "measure", EAGER, lines.append)

    for _ in range(2):
        with_comfyui_s_sampler(wrapped)

    assert [line.partition(";")[0] for line in lines] == ["10 steps of 1 sections measured"] * 2


def test_what_is_measured_is_what_the_blocks_add_to_the_generated_tokens(model, folder):
    """Against hooks on the blocks themselves."""
    transformer = model.model.diffusion_model
    norms: list[torch.Tensor] = []
    seen: dict[str, torch.Tensor] = {}

    def before(module, args, kwargs):
        seen["img"] = kwargs["img"].clone()

    def after(module, args, kwargs, output):
        text = output.shape[1] - seen["img"].shape[1]
        added = output[:, text:] - seen["img"]
        norms.append(added[:, -GENERATED:].norm(dim=-1))

    handles = [
        transformer.double_blocks[0].register_forward_pre_hook(before, with_kwargs=True),
        transformer.single_blocks[-1].register_forward_hook(after, with_kwargs=True),
    ]
    try:
        measured(model, sections=1)
    finally:
        for handle in handles:
            handle.remove()

    expected = [1.0, *((later / earlier).mean().item() for earlier, later in pairwise(norms))]
    assert magnitudes(model).ratios == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_measured_table_takes_the_place_of_a_published_one(model, folder, monkeypatch):
    monkeypatch.setattr(caching, "checkpoint_name", lambda _: "FramePackI2V_HY_fp8.safetensors")
    assert magnitudes(model) == I2V

    still = Table((1.0, 0.1), (1.0, 1.0))  # nothing ever changes, so that all may be skipped
    tables.write(folder, checkpoint_path(model), still)
    _, ((skipped, calls),) = said(model, Skipping(0.001, start=0.0, max_skips=20), method="magcache", sections=1)

    assert magnitudes(model) == still
    assert (skipped, calls) == (STEPS - 3, STEPS)


@pytest.mark.slow
def test_the_demo_s_table_is_its_own_and_magcache_uses_it(folder, monkeypatch):
    quiet_comfyui()
    studio = Studio()
    video, plain = Video(0, "left", 1, "inverted", "framepack", steps=10), studio.model
    lines: list[str] = []

    def made_with(method: str) -> torch.Tensor:
        monkeypatch.setattr(studio, "model", with_method(plain, method, Skipping(0.1), lines.append))
        return studio.sample([video]).latents

    whole, cached = made_with("measure"), made_with("magcache")

    table = magnitudes(plain)
    assert len(table.levels) == 10 and all(0.5 < ratio < 2 for ratio in table.ratios)
    own, published = Tabulated(table), Tabulated(I2V)
    assert max(abs(own.error(1, level) - published.error(1, level)) for level in table.levels if level > 0.3) > 0.1
    assert re.fullmatch(r"[1-7] of 10 calls skipped in the last section", lines[-1])
    assert 0 < relative_error(cached, whole) < 0.2


def test_a_table_that_cannot_be_kept_does_not_cost_the_video(model, folder):
    folder.parent.write_text("no folder")

    latents, (said,) = measured(model, sections=1)

    assert latents.isfinite().all() and said.startswith("10 steps of 1 sections measured; but they cannot be kept: ")


@pytest.mark.parametrize("steps", [1, 9])
def test_too_few_steps_to_measure_are_refused_before_anything_is_sampled(model, folder, steps):
    with pytest.raises(ValueError, match=rf"{steps} steps say too little of a checkpoint; measure with 10 or more"):
        measured(model, steps=steps, sections=1)
    assert not folder.exists()


def test_a_model_that_comes_from_no_file_has_no_table(model, monkeypatch):
    nameless = model.clone()
    monkeypatch.setattr(nameless, "cached_patcher_init", None)

    with pytest.raises(ValueError, match=r"comes from no file .* load it with FramePack_LoadModel"):
        with_method(nameless, "measure", EAGER, print)
    with pytest.raises(ValueError, match=r"no table of magnitudes for this model"):
        with_method(nameless, "magcache", EAGER, print)


def test_off_gives_the_model_as_it_is(model):
    assert with_method(model, "off", EAGER, print) is model


def test_what_does_not_go_together_is_refused(model):
    cached = with_method(model, "easycache", EAGER, print)
    measuring = with_method(model, "measure", EAGER, print)
    core = caches.EasyCacheNode.execute(model, 0.2, 0.1, 0.9, False).args[0]

    for other, name in ((cached, "FramePack Cache"), (measuring, "FramePack Cache"), (core, "EasyCache")):
        with pytest.raises(ValueError, match=rf"has a cache already \({name}\); remove one of the two"):
            with_method(other, "easycache", EAGER, print)
    with pytest.raises(ValueError, match=r"start is 0\.5, after end 0\.2; lower it"):
        with_method(model, "easycache", Skipping(start=0.5, end=0.2), print)
