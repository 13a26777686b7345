"""Bad input is refused before the first step, in a sentence that says the node, the value and what to do.

Long because it is a list: one case for each mistake that can be made in a graph.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from support.graph import Graph, Outputs, own_models
from support.stand_ins.prompt import INVERTED, LORA, PLAIN, SHARDED, VAE

from scripts.support.server import PromptRefused, RunFailed, Server


@pytest.fixture
def graph(start_image) -> Graph:
    return Graph(start_image)


# Bad inputs for the sampler. Each function makes one, and its name says what is wrong with it.

Bad = Callable[[Graph], dict[str, Outputs]]


def end_of_another_size(graph: Graph) -> dict:
    return {"start_latent": graph.start, "end_latent": graph.encode(graph.image, size=96)}


def image_latent_of_another_model(graph: Graph) -> dict:
    return {"start_latent": graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)}


def several_frames(graph: Graph) -> dict:
    return {"start_latent": graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=9, batch_size=1)}


def end_of_several_frames(graph: Graph) -> dict:
    return {"end_latent": graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=9, batch_size=1)}


def noise_mask(graph: Graph) -> dict:
    mask = graph.add("SolidMask", value=1.0, width=64, height=64)
    return {"start_latent": graph.add("SetLatentNoiseMask", samples=graph.start, mask=mask)}


def odd_latent(graph: Graph) -> dict:
    size = {"width": 72, "height": 64, "crop": "disabled"}
    return {"start_latent": graph.add("LatentUpscale", samples=graph.start, upscale_method="bilinear", **size)}


def no_negative(graph: Graph) -> dict:
    return {"cfg": 2.5}


def end_in_the_forward_order(graph: Graph) -> dict:
    return {"plan": graph.plan_of(order="forward"), "end_latent": graph.start}


def end_of_a_loop(graph: Graph) -> dict:
    return {"plan": graph.plan_of(loop=1), "end_latent": graph.start}


def end_of_an_exact_length(graph: Graph) -> dict:
    return {"plan": graph.plan_of(exact_length=True), "end_latent": graph.start}


def a_loop_that_leads_up_to_a_clip(graph: Graph) -> dict:
    inputs = {"images": graph.image, "vae": graph.vae, "at": "end", "seconds": 0.0, "use": "fixed"}
    return {"plan": graph.plan_of(loop=1), "frames": graph.add("FramePack_Place", **inputs, base_resolution=64)}


def a_plain_model(graph: Graph) -> dict:
    return {"model": graph.add("UNETLoader", unet_name=PLAIN, weight_dtype="default")}


@pytest.mark.parametrize(
    ("bad", "said", "remedy"),
    [
        (end_of_another_size, "start_latent is 8x8 but end_latent is 12x12", "encode both images at the same size"),
        (image_latent_of_another_model, "start_latent has shape (1, 4, 8, 8), expected (1, 16, 1, H, W)", "encode the image"),
        (several_frames, "start_latent holds 3 latent frames, expected 1", "encode a single image"),
        (end_of_several_frames, "end_latent holds 3 latent frames, expected 1", "encode a single image"),
        (noise_mask, "start_latent has a noise mask", "remove the mask node"),
        (odd_latent, "the latent is 9x8, an odd number of latent pixels", "crop the image to multiples of 16 pixels"),
        (no_negative, "cfg is 2.5 but negative is not connected", "connect a negative prompt or set cfg to 1"),
        (end_in_the_forward_order, "end_latent is connected, but the forward order never looks ahead", "or disconnect it"),
        (end_of_a_loop, "end_latent is connected, but a loop has no end (loop is 1)", "set loop to 0, or disconnect it"),
        (
            end_of_an_exact_length,
            "end_latent is connected, but exact_length cuts frames off",
            "switch it off, or disconnect it",
        ),
        (a_loop_that_leads_up_to_a_clip, "something is placed at the end, but a loop has no end (loop is 1)", "set loop to 0"),
        (a_plain_model, "model is HunyuanVideo, not FramePack", "load a FramePack checkpoint with FramePack_LoadModel"),
    ],
)
def test_the_sampler_refuses(graph, server, bad: Bad, said, remedy):
    message = graph.refusal(server, graph.sampler(**bad(graph)))

    assert message.startswith("FramePack_Sampler: ") and said in message and remedy in message


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (end_of_another_size, "start_latent is 8x8 but end_latent is 12x12"),
        (image_latent_of_another_model, "start_latent has shape (1, 4, 8, 8)"),
        (noise_mask, "start_latent has a noise mask"),
        (end_in_the_forward_order, "end_latent is connected"),
    ],
)
def test_the_custom_sampler_refuses_the_same(graph, server, bad: Bad, said):
    message = graph.refusal(server, graph.custom_sampler(**bad(graph)))

    assert message.startswith("FramePack_SamplerCustom: ") and said in message


def test_a_guider_on_another_model_is_refused(graph, server):
    plain = a_plain_model(graph)["model"]
    guider = graph.add("BasicGuider", model=plain, conditioning=graph.positive)

    message = graph.refusal(server, graph.custom_sampler(guider=guider))

    assert "FramePack_SamplerCustom: model is HunyuanVideo, not FramePack" in message


@pytest.mark.parametrize("steps", [0, 1])
def test_sigmas_without_a_step_are_refused(graph, server, steps):
    """A scheduler at denoise 0 gives no sigmas at all, a split at step 0 a single one."""
    sigmas = graph.add("BasicScheduler", model=graph.model, scheduler="simple", steps=4, denoise=0.0)
    if steps:
        schedule = graph.add("FramePack_Scheduler", steps=4, shift=0.0, latent=graph.start, window=9)
        sigmas = graph.add("SplitSigmas", sigmas=schedule, step=0)

    message = graph.refusal(server, graph.custom_sampler(sigmas=sigmas))

    assert f"FramePack_SamplerCustom: sigmas holds {steps} values, expected at least 2" in message
    assert "use FramePack_Scheduler" in message


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_sigmas_that_come_twice_count_once(graph, server, sampler):
    """Steps of no length, by which these samplers divide."""
    once, twice = (
        graph.custom_sampler(
            sigmas=graph.add("ManualSigmas", sigmas=sigmas), sampler=graph.add("KSamplerSelect", sampler_name=sampler)
        )
        for sigmas in ("1, 0.7, 0.3, 0", "1, 0.7, 0.7, 0.3, 0, 0")
    )

    assert torch.equal(graph.latents(server, twice), graph.latents(server, once))


# Conditioning, as a stock node reads it from a file that another encoder may have written.


@pytest.mark.parametrize(
    ("width", "extra", "said"),
    [
        (768, {}, "positive has no pooled output"),
        (4096, {"pooled_output": torch.zeros(1, 768)}, "positive has text embeddings 4096 wide, but the model takes 768"),
        (768, {"pooled_output": torch.zeros(1, 1280)}, "positive has a pooled output 1280 wide, expected 768"),
    ],
)
def test_conditioning_of_another_encoder_is_refused(graph, server, width, extra, said):
    positive = conditioning(graph, server, [[torch.zeros(1, 7, width), extra]])

    messages = (
        graph.refusal(server, graph.sampler(positive=positive)),
        graph.refusal(server, graph.custom_sampler(guider=graph.add("BasicGuider", model=graph.model, conditioning=positive))),
    )

    for node, message in zip(("FramePack_Sampler", "FramePack_SamplerCustom"), messages, strict=True):
        assert message.startswith(f"{node}: {said}") and "CLIPTextEncode and DualCLIPLoader (type hunyuan_video)" in message


def test_a_bad_negative_is_named(graph, server):
    negative = conditioning(graph, server, [[torch.zeros(1, 7, 768), {}]])

    message = graph.refusal(server, graph.sampler(negative=negative, cfg=2.0))

    assert message.startswith("FramePack_Sampler: negative has no pooled output")


def test_an_image_embedding_of_another_width_is_refused(graph, server, models_directory):
    weights = load_file(models_directory / "diffusion_models" / INVERTED)
    weights["image_projection.up.weight"] = weights["image_projection.up.weight"][:, :32].clone()
    with own_models(server) as folder:
        save_file(weights, folder / "narrow.safetensors")
        model = graph.add("FramePack_LoadModel", model_name=f"{folder.name}/narrow.safetensors", weight_dtype="default")

        message = graph.refusal(server, graph.sampler(model=model))

    assert "FramePack_Sampler: clip_vision_output is 64 wide, but the model takes 32" in message
    assert "sigclip_vision_patch14_384.safetensors" in message


def conditioning(graph: Graph, server: Server, conds: list) -> Outputs:
    """Loaded by core's LoadTrainingDataset from a file with these conditions."""
    (server.base / "datasets").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=server.base / "datasets"))
    (folder / "metadata.json").write_text("{}")
    torch.save({"latents": [{"samples": torch.zeros(1)}], "conditioning": [conds]}, folder / "shard_0000.pkl")
    return graph.add("LoadTrainingDataset", folder_name=folder.name)[1]


# Files for FramePack_LoadModel. Each function makes one from the stand-in models in a folder, and returns its name.


def a_plain_checkpoint(models: Path, folder: Path) -> str:
    shutil.copy(models / "diffusion_models" / PLAIN, folder / "plain.safetensors")
    return "plain.safetensors"


def a_vae(models: Path, folder: Path) -> str:
    shutil.copy(models / "vae" / VAE, folder / "vae.safetensors")
    return "vae.safetensors"


def a_lora(models: Path, folder: Path) -> str:
    shutil.copy(models / "loras" / LORA, folder / "lora.safetensors")
    return "lora.safetensors"


def a_truncated_file(models: Path, folder: Path) -> str:
    whole = (models / "diffusion_models" / INVERTED).read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    return "cut.safetensors"


def an_empty_file(models: Path, folder: Path) -> str:
    (folder / "empty.safetensors").touch()
    return "empty.safetensors"


def a_page_instead_of_a_file(models: Path, folder: Path) -> str:
    (folder / "page.safetensors").write_text("<!doctype html><title>Sign in</title>" * 10)
    return "page.safetensors"


def missing_keys(models: Path, folder: Path) -> str:
    weights = load_file(models / "diffusion_models" / INVERTED)
    del weights["single_transformer_blocks.1.attn.to_k.weight"]
    save_file(weights, folder / "incomplete.safetensors")
    return "incomplete.safetensors"


def a_missing_embedder(models: Path, folder: Path) -> str:
    weights = load_file(models / "diffusion_models" / INVERTED)
    del weights["clean_x_embedder.proj.weight"]
    save_file(weights, folder / "no_embedder.safetensors")
    return "no_embedder.safetensors"


def missing_shards(models: Path, folder: Path) -> str:
    shutil.copytree(models / "diffusion_models" / SHARDED, folder / "unfinished")
    next((folder / "unfinished").glob("*00002-of-00002.safetensors")).unlink()
    return "unfinished/"


def a_folder_with_a_broken_index(models: Path, folder: Path) -> str:
    shutil.copytree(models / "diffusion_models" / SHARDED, folder / "broken")
    next((folder / "broken").glob("*.index.json")).write_text('{"weight_map": ')
    return "broken/"


@pytest.mark.parametrize(
    ("file", "said", "remedy"),
    [
        (a_plain_checkpoint, "plain.safetensors is a plain HunyuanVideo model", "load it with Load Diffusion Model"),
        (a_vae, "vae.safetensors is a VAE", "put it into models/vae and load it with Load VAE"),
        (a_lora, "lora.safetensors is not a FramePack or Helios transformer (it starts with lora_unet_", "choose another file"),
        (a_truncated_file, "cut.safetensors cannot be read: it is damaged or not fully downloaded", "download it again"),
        (an_empty_file, "empty.safetensors cannot be read: it is damaged or not fully downloaded", "download it again"),
        (a_page_instead_of_a_file, "page.safetensors cannot be read: it is damaged", "download it again"),
        (missing_keys, "incomplete.safetensors: ", "download it again"),
        (a_missing_embedder, "no_embedder.safetensors is a plain HunyuanVideo model", "load it with Load Diffusion Model"),
        (missing_shards, "unfinished lacks 1 of 2 shards: diffusion_pytorch_model-00002-of-00002", "download them"),
        (a_folder_with_a_broken_index, "broken has no readable *.safetensors.index.json", "download the folder again"),
    ],
)
def test_the_loader_refuses(graph, server, models_directory, file, said, remedy):
    with own_models(server) as folder:
        name = file(models_directory, folder)
        model = graph.add("FramePack_LoadModel", model_name=f"{folder.name}/{name}", weight_dtype="default")

        message = graph.refusal(server, graph.sampler(model=model))

    assert message.startswith("FramePack_LoadModel: ") and said in message and remedy in message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cut.safetensors", b"\x00" * 8, "cannot be read: it is damaged"),
        ("page.pt", b"<!doctype html>", "cannot be read: it is damaged"),
        ("wan.safetensors", save({"blocks.0.self_attn.q.lora_A.weight": torch.ones(2, 8)}), "it seems to be for Wan"),
    ],
)
def test_our_lora_loader_refuses(graph, server, name, content, said):
    with own_models(server, "loras") as folder:
        (folder / name).write_bytes(content)
        lora = graph.add("FramePack_LoadLora", model=graph.model, lora_name=f"{folder.name}/{name}", strength=1.0)

        message = graph.refusal(server, graph.sampler(model=lora))

    assert message.startswith(f"FramePack_LoadLora: {folder.name}/{name} ") and said in message


def test_a_model_that_is_not_there_is_refused_when_queued(graph, server):
    model = graph.add("FramePack_LoadModel", model_name="nothing.safetensors", weight_dtype="default")

    assert "nothing.safetensors" in refused_when_queued(graph, server, graph.sampler(model=model))


# Images


def test_several_start_images_are_refused(graph, server):
    images = graph.add("RepeatImageBatch", image=graph.image, amount=2)

    message = graph.refusal(server, graph.sampler(start_latent=graph.encode(images)))

    assert "FramePack_EncodeImage: image holds 2 images, expected one" in message and "ImageFromBatch" in message


def test_a_vae_of_another_model_cannot_encode(graph, server):
    graph.vae = graph.add("VAELoader", vae_name="pixel_space")

    message = graph.refusal(server, graph.sampler(start_latent=graph.encode(graph.image)))

    assert message.startswith("FramePack_EncodeImage: vae gives latents of shape") and "hunyuan_video_vae" in message


def test_a_latent_of_another_model_cannot_be_decoded(graph, server):
    latent = graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)
    graph.add("PreviewImage", images=graph.add("FramePack_Decode", latent=latent, vae=graph.vae))

    with pytest.raises(RunFailed) as failure:
        server.run(graph.prompt)

    assert failure.value.message.startswith("FramePack_Decode: latent has shape (1, 4, 8, 8), expected (B, 16, T, H, W)")


# Plans are refused when the prompt is queued: nothing runs at all.

FRAMEPACK = "f1k1_x_g9_f1k1f2k2f16k4_td"
F1 = "f1k1_td_f16k4f2k2f1k1_g9"
SYMMETRIC = "f1k1f1k1h4w2f1k1h4w4_td_f1k1h4w4f1k1h4w2f1k1_g9"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seconds": 0.0}, "seconds is 0.0; choose a value above 0 and up to 3600"),
        ({"seconds": -5.0}, "seconds is -5.0; choose a value above 0"),
        ({"seconds": 3601.0}, "seconds is 3601.0; choose a value above 0 and up to 3600"),
        ({"window": 0}, "window is 0; choose a value above 0 and up to 64"),
        ({"window": 65}, "window is 65; choose a value above 0 and up to 64"),
        ({"seconds": 3600.0, "window": 1, "fps": 240.0}, "3600 s at 240 fps and window 1 are 216,000 sections"),
        ({"fps": 0.0}, "fps is 0.0; choose a value above 0 and up to 240"),
        ({"layout": "framepack", "order": "forward"}, f"layout framepack ({FRAMEPACK}) does not fit the order forward, which"),
        ({"layout": "f1", "order": "inverted"}, f"layout f1 ({F1}) does not fit the order inverted, which"),
        ({"layout": "symmetric", "order": "endpoints"}, f"layout symmetric ({SYMMETRIC}) does not fit the order endpoints"),
        ({"layout": "custom", "custom_layout": "f1k1_g9_x_f1k1"}, "layout f1k1_g9_x_f1k1 does not fit the order inverted"),
        ({"layout": "custom"}, "layout is custom but custom_layout is empty; write one, e.g. f1k1_x_g9_f1k1f2k2f16k4_td"),
        ({"layout": "custom", "custom_layout": "   "}, "layout is custom but custom_layout is empty"),
    ],
)
def test_a_plan_out_of_range_or_order_is_refused_when_queued(graph, server, change, said):
    sampler = graph.sampler(plan=graph.plan_of(**change))

    message = refused_when_queued(graph, server, sampler)

    assert f"FramePack_Plan: {said}" in message


@pytest.mark.parametrize(
    ("layout", "caret", "said"),
    [
        ("f1k1_x_g9_f1k1q2k2_td", 14, "expected a group like f2k2"),
        ("f1k1_x_g9_f1k_td", 10, "expected a group like f2k2"),
        ("f1k1_x_f1k1", 11, "no generated frames: add a field like g9"),
        ("td_g9_g9", 6, "a layout generates only once, but this is a second g"),
    ],
)
def test_a_bad_layout_string_is_shown_with_the_place_marked(graph, server, layout, caret, said):
    message = refused_when_queued(graph, server, graph.sampler(plan=graph.plan_of(layout="custom", custom_layout=layout)))

    sentence, shown, mark = message.splitlines()
    assert f"FramePack_Plan: layout '{layout}': {said}" in sentence
    assert shown.index(layout) + caret == mark.index("^") and mark.strip() == "^"


def test_a_linked_value_out_of_range_is_refused_when_it_is_known(graph, server):
    seconds = graph.add("PrimitiveFloat", value=9999.0)

    message = graph.refusal(server, graph.sampler(plan=graph.plan_of(seconds=seconds)))

    assert "FramePack_Plan: seconds is 9999.0; choose a value above 0 and up to 3600" in message


@pytest.mark.parametrize("change", [{"steps": -1}, {"cfg": -1.0}, {"seed": -1}, {"shift": 101.0}, {"sampler": "none"}])
def test_widgets_out_of_range_are_refused_when_queued(graph, server, change):
    (name,) = change

    assert name in refused_when_queued(graph, server, graph.sampler(**change))


def test_nothing_is_written_for_a_refused_run(graph, server):
    files = set((server.base / "output").rglob("*"))

    graph.refusal(server, graph.sampler(**several_frames(graph)))

    assert set((server.base / "output").rglob("*")) == files


def refused_when_queued(graph: Graph, server: Server, latent: Outputs) -> str:
    """ComfyUI's answer to a prompt that it does not queue."""
    with pytest.raises(PromptRefused) as refusal:
        server.queue(graph.saving(latent))
    (node,) = refusal.value.details["node_errors"].values()
    (error,) = node["errors"]
    return error["details"]
