"""What ComfyUI does for any model, it does for FramePack."""

import re
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.graph import Graph, Seen, new_log_lines, own_models
from support.stand_ins.prompt import INVERTED, LORA, PLAIN, SHARDED

from framepack_core.weights.names import to_comfy

NATIVE = "FramePackI2V_native.safetensors"


@pytest.fixture
def graph(start_image) -> Graph:
    return Graph(start_image)


@pytest.fixture
def plain(graph, server) -> torch.Tensor:
    return graph.latents(server, graph.sampler())


def test_a_stock_lora_loader_changes_the_video(graph, server, plain):
    def change(strength: float) -> float:
        lora = graph.add("LoraLoaderModelOnly", model=graph.model, lora_name=LORA, strength_model=strength)
        return difference(graph.latents(server, graph.sampler(model=lora)), plain)

    with new_log_lines(server) as log:
        assert change(1.0) > change(0.2) > 1e-3
    assert "not loaded" not in log.text


@pytest.mark.parametrize(
    "layers",
    [
        ["blocks.0.attn.to_q"],
        ["lora_unet_blocks_0_to_q"],
        ["lora_unet_blocks_0_to_q", "lora_te1_text_model_encoder_layers_0_mlp_fc1"],
        ["diffusion_model.double_blocks.0.img_attn.proj"],
    ],
    ids=["unknown names", "kohya's", "SDXL's with text encoders", "another width"],
)
def test_a_lora_that_changes_nothing_is_named_in_the_sampler(graph, server, layers, plain):
    with own_models(server, "loras") as folder:
        weights = {f"{layer}.lora_{part}.weight": torch.ones(4, 4) for layer in layers for part in ("down", "up")}
        save_file(weights, folder / "other.safetensors")
        name = f"{folder.name}/other.safetensors"
        lora = graph.add("LoraLoaderModelOnly", model=graph.model, lora_name=name, strength_model=1.0)
        sampler, seen = graph.sampler(model=lora, resume=False), Seen()

        latents = graph.latents(server, sampler, on_message=seen)

    assert torch.equal(latents, plain)
    assert all(f"LoRA {name} changes nothing of the model: it is for another one" in text for text in seen.texts(sampler))


OFFICIAL = "transformer_blocks.0.attn.to_q"  # ComfyUI's own loaders do not know this name


@pytest.fixture
def official_lora(server) -> Iterator[str]:
    """A file in diffusers' names."""
    with own_models(server, "loras") as folder:
        normal = partial(torch.randn, generator=torch.Generator().manual_seed(3))
        weights = {f"{OFFICIAL}.lora_A.weight": normal(4, 256) / 4, f"{OFFICIAL}.lora_B.weight": normal(256, 4) / 4}
        save_file(weights, folder / "official.safetensors")
        yield f"{folder.name}/official.safetensors"


def test_our_loader_takes_a_lora_in_official_names_and_shows_what_matched(graph, server, plain, official_lora):
    def change(strength: float, seen: Seen | None = None) -> float:
        lora = graph.add("FramePack_LoadLora", model=graph.model, lora_name=official_lora, strength=strength)
        latents = graph.latents(server, graph.sampler(model=lora), on_message=seen)
        if seen:
            assert f"{official_lora} at strength 1: changes 1 weights (1 in the double blocks)" in seen.texts(lora)
        return difference(latents, plain)

    assert change(1.0, Seen()) > change(0.2) > 1e-3
    assert change(0.0) == 0


def test_our_loader_does_what_the_stock_one_does_with_names_that_both_know(graph, server, plain):
    stock = graph.add("LoraLoaderModelOnly", model=graph.model, lora_name=LORA, strength_model=0.7)
    own = graph.add("FramePack_LoadLora", model=graph.model, lora_name=LORA, strength=0.7)

    found, expected = (graph.latents(server, graph.sampler(model=model)) for model in (own, stock))

    assert torch.equal(found, expected) and difference(found, plain) > 1e-3


def test_the_sampler_names_our_loader_for_a_lora_that_the_stock_one_cannot_use(graph, server, plain, official_lora):
    lora = graph.add("LoraLoaderModelOnly", model=graph.model, lora_name=official_lora, strength_model=1.0)
    sampler, seen = graph.sampler(model=lora, resume=False), Seen()

    latents = graph.latents(server, sampler, on_message=seen)

    assert torch.equal(latents, plain)
    assert any("load it with Load FramePack LoRA" in text for text in seen.texts(sampler))


def test_a_lora_hook_on_the_conditioning_does_what_the_loader_does(graph, server, plain):
    hooks = graph.add("CreateHookLoraModelOnly", lora_name=LORA, strength_model=1.0)
    settings = {"strength": 1.0, "set_cond_area": "default"}
    hooked = graph.add("ConditioningSetProperties", cond_NEW=graph.positive, hooks=hooks, **settings)
    loaded = graph.add("LoraLoaderModelOnly", model=graph.model, lora_name=LORA, strength_model=1.0)

    found, expected = (graph.latents(server, graph.sampler(**given)) for given in ({"positive": hooked}, {"model": loaded}))

    assert difference(found, expected) < 1e-5 < difference(found, plain)


def test_framepack_cache_skips_calls_and_says_so_and_another_threshold_is_another_run(graph, server):
    def cached(threshold: float) -> tuple[torch.Tensor, list[str], list[str]]:
        limits = {"method": "easycache", "start": 0.0, "end": 1.0, "max_skips": 3}
        cache, seen = graph.add("FramePack_Cache", model=graph.model, threshold=threshold, **limits), Seen()
        sampler = graph.sampler(model=cache, plan=graph.plan_of(2), steps=8, seed=77)
        latents = graph.latents(server, sampler, on_message=seen)
        return latents, seen.texts(cache), seen.texts(sampler)

    exact, said_exact, _ = cached(0.0)
    fast, said_fast, told = cached(2.0)

    assert said_exact == ["0 of 8 calls skipped in the last section"] * 2
    assert len(said_fast) == 2
    assert all(re.fullmatch(r"[1-5] of 8 calls skipped in the last section", text) for text in said_fast)
    assert difference(fast, exact) > 1e-4 and fast.isfinite().all()
    assert "resumed" not in "".join(told)


def test_magcache_goes_by_a_measured_table_and_runs_again_once_that_has_changed(graph, server):
    limits = {"threshold": 2.0, "start": 0.0, "end": 1.0, "max_skips": 3}
    cache = graph.add("FramePack_Cache", model=graph.model, method="off", **limits)
    sampler = graph.sampler(model=cache, plan=graph.plan_of(1), steps=10, seed=78)

    def said_with(method: str) -> str:
        graph.prompt[cache.node]["inputs"]["method"], seen = method, Seen()
        server.run(graph.saving(sampler), on_message=seen)
        return "".join(seen.texts(cache))

    measured = said_with("measure")
    (table,) = (server.base / "user" / "__framepack" / "magnitudes").glob("*.json")
    first, same = said_with("magcache"), said_with("magcache")
    table.write_text(table.read_text())
    changed = said_with("magcache")

    assert measured.startswith("10 steps of 1 sections measured; magcache uses them for ")
    assert same == "", "ComfyUI need not run it again"
    assert first == changed and re.fullmatch(r"[1-7] of 10 calls skipped in the last section", first)


def test_cfg_with_a_negative_changes_the_video(graph, server, plain):
    with_negative = graph.sampler(negative=graph.negative)
    guided = graph.sampler(negative=graph.negative, cfg=2.0)

    assert torch.equal(graph.latents(server, with_negative), plain), "at cfg 1 the negative is not used"
    assert difference(graph.latents(server, guided), plain) > 1e-2


def test_combined_prompts_are_both_used(graph, server, plain):
    """Stock conditioning nodes work: each condition gets the section's context."""
    both = graph.add("ConditioningCombine", conditioning_1=graph.positive, conditioning_2=graph.negative)

    assert difference(graph.latents(server, graph.sampler(positive=both)), plain) > 1e-4


def test_a_plain_hunyuanvideo_checkpoint_still_loads_and_samples_as_core_s(graph, server):
    video = graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=9, batch_size=1)
    model = graph.add("UNETLoader", unet_name=PLAIN, weight_dtype="default")
    sampler = graph.add(
        "KSampler",
        model=model,
        positive=graph.positive,
        negative=graph.negative,
        latent_image=video,
        **{"seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0},
    )

    assert graph.latents(server, sampler).std() > 0.1
    assert "model is HunyuanVideo, not FramePack" in graph.refusal(server, graph.sampler(model=model))


def test_a_file_in_native_names_loads_through_core_s_own_loader(graph, server, models_directory, plain):
    weights = to_comfy(load_file(models_directory / "diffusion_models" / INVERTED))
    with own_models(server) as folder:
        save_file(weights, folder / NATIVE)
        model = graph.add("UNETLoader", unet_name=f"{folder.name}/{NATIVE}", weight_dtype="default")

        assert torch.equal(graph.latents(server, graph.sampler(model=model)), plain)


def test_a_sharded_folder_gives_the_same_video_as_the_single_file(graph, server, plain):
    model = graph.add("FramePack_LoadModel", model_name=f"{SHARDED}/", weight_dtype="default")

    assert torch.equal(graph.latents(server, graph.sampler(model=model)), plain)


@pytest.mark.parametrize("weight_dtype", ["fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"])
def test_fp8_weights_run_and_change_the_video_a_little(graph, server, plain, weight_dtype):
    model = graph.add("FramePack_LoadModel", model_name=INVERTED, weight_dtype=weight_dtype)

    assert 1e-4 < difference(graph.latents(server, graph.sampler(model=model)), plain) < 0.5


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The relative difference over the generated frames."""
    return ((found - expected).norm() / expected.norm()).item()
