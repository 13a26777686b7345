"""What is refused before the model is loaded, and what is warned about; tests/server does the same through a real server."""

import logging
import math

import comfy.model_management
import pytest
import torch
from support import given

from framepack_core.comfyui.loading.checkpoints import load_path
from framepack_core.comfyui.sampling import checks
from framepack_core.comfyui.sampling import sample as sampling
from framepack_core.comfyui.sampling.request import Given, Request, make_guider
from framepack_core.comfyui.sampling.samplers import sampler_named
from framepack_core.plan import Plan
from framepack_core.trained import Trained

NAN = math.nan
I2V, F1 = "FramePackI2V_HY_bf16.safetensors", "FramePack_F1_I2V_HY_20250503.safetensors"
TEXT = torch.zeros(1, 9, 64)
POOLED = {"pooled_output": torch.zeros(1, 768)}
START = {"samples": torch.zeros(1, 16, 1, 6, 10)}
GOOD = {
    "positive": [[TEXT, POOLED]],
    "negative": None,
    "cfg": 1.0,
    "guidance": 10.0,
    "order": "inverted",
    "start_latent": START,
    "end_latent": None,
    "clip_vision_output": {"last_hidden_state": torch.zeros(1, 5, 32)},
    "embeddings": {},
    "sigmas": torch.tensor([1.0, 0.0]),
}


class Loaded(Exception):
    """The model was about to be loaded."""


@pytest.fixture
def model(checkpoint, monkeypatch):
    """A model that is never loaded: loading it would raise."""

    def load(*_, **__):
        raise Loaded

    patcher = load_path(str(checkpoint), {})
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", load)
    return patcher


def sample(model, **changes) -> None:
    bad = {**GOOD, **changes}
    guider = make_guider(model, bad["positive"], bad["negative"], bad["cfg"], bad["guidance"])
    plan = Plan.of(1.2, bad["order"])
    timeline = Given(bad["start_latent"], bad["end_latent"]).timeline(plan)
    sections = plan.bind(timeline)
    sigmas = [bad["sigmas"] for _ in sections]
    embedding = bad["clip_vision_output"]
    request = Request(
        guider, sampler_named("unipc_bh1"), plan, timeline, sections, sigmas, given.SEED, embedding, bad["embeddings"]
    )
    sampling.sample(request, say=lambda text: None)


def test_good_input_comes_as_far_as_loading_the_model(model):
    with pytest.raises(Loaded):
        sample(model)


def latent(*shape: int, **extra) -> dict:
    return {"samples": torch.zeros(shape), **extra}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"positive": []}, "positive is empty"),
        ({"positive": [[TEXT, {}]]}, "positive has no pooled output"),
        ({"positive": [[TEXT, {"pooled_output": None}]]}, "positive has no pooled output"),
        ({"positive": [[TEXT, {"pooled_output": torch.zeros(1, 1280)}]]}, "pooled output 1280 wide, expected 768"),
        ({"positive": [[torch.zeros(1, 9, 4096), POOLED]]}, "positive has text embeddings 4096 wide, but the model takes 64"),
        ({"positive": [[None, POOLED]]}, "positive has no text embedding, but the model takes 64"),
        ({"positive": [[TEXT, POOLED], [TEXT, {}]]}, "positive has no pooled output"),
        ({"negative": [[TEXT, {}]], "cfg": 2.0}, "negative has no pooled output"),
        ({"cfg": 2.0}, "cfg is 2 but negative is not connected"),
        ({"cfg": NAN, "negative": [[TEXT, POOLED]]}, "cfg is nan; choose a number"),
        ({"guidance": math.inf}, "guidance is inf; choose a number"),
        ({"start_latent": latent(1, 4, 6, 10)}, "start_latent has shape (1, 4, 6, 10), expected (1, 16, 1, H, W)"),
        ({"start_latent": latent(1, 128, 1, 6, 10)}, "start_latent has shape (1, 128, 1, 6, 10)"),
        ({"start_latent": latent(1, 16, 3, 6, 10)}, "start_latent holds 3 latent frames, expected 1"),
        ({"start_latent": latent(1, 16, 1, 6, 10, noise_mask=torch.ones(6, 10))}, "start_latent has a noise mask"),
        ({"start_latent": latent(1, 16, 1, 5, 10)}, "the latent is 10x5, an odd number of latent pixels"),
        ({"end_latent": latent(1, 16, 1, 6, 8)}, "start_latent is 10x6 but end_latent is 8x6"),
        (
            {"start_latent": latent(3, 16, 1, 6, 10), "end_latent": latent(2, 16, 1, 6, 10)},
            "start_latent is a batch of 3 but end_latent is a batch of 2; give both the same number of images",
        ),
        ({"end_latent": START, "order": "forward"}, "end_latent is connected, but the forward order never looks ahead"),
        ({"clip_vision_output": {"last_hidden_state": torch.zeros(1, 5, 1024)}}, "is 1024 wide, but the model takes 32"),
        ({"embeddings": {0: {"last_hidden_state": torch.zeros(1, 5, 1024)}}}, "is 1024 wide, but the model takes 32"),
        ({"sigmas": torch.tensor([])}, "sigmas holds 0 values, expected at least 2"),
        ({"sigmas": torch.tensor([1.0])}, "sigmas holds 1 values, expected at least 2"),
        (
            {"sigmas": torch.tensor([14.6, 1.0, 0.0])},
            "sigmas begin at 14.6, but FramePack's go from 1 down to 0; use FramePack_Sch",
        ),
        ({"sigmas": torch.tensor([0.5, 0.2, 0.0])}, "sigmas begin at 0.5"),
        ({"sigmas": torch.tensor([0.5, 0.2, 0.0])}, "or connect the video that is to be changed as latent_image"),
        ({"sigmas": torch.tensor([1.0, 0.7, 0.5])}, "sigmas end at 0.5"),
        ({"sigmas": torch.tensor([0.0, 0.5, 1.0])}, "sigmas rise"),
        ({"sigmas": torch.tensor([1.0, 0.4, 0.6, 0.0])}, "sigmas rise"),
        ({"sigmas": torch.tensor([1.0, NAN, 0.0])}, "sigmas rise, or are not numbers"),
        (
            {"positive": [[TEXT + NAN, POOLED]]},
            "positive has values that are not finite (NaN or infinite), which make frames black",
        ),
        (
            {"positive": [[TEXT, {"pooled_output": POOLED["pooled_output"] + math.inf}]]},
            "positive has values that are not finite",
        ),
        ({"start_latent": {"samples": START["samples"] + NAN}}, "start_latent has values that are not finite"),
        ({"end_latent": {"samples": START["samples"] + NAN}}, "end_latent has values that are not finite"),
        (
            {"clip_vision_output": {"last_hidden_state": torch.full((1, 5, 32), NAN)}},
            "clip_vision_output has values that are not",
        ),
    ],
)
def test_bad_input_is_refused_before_the_model_is_loaded(model, bad, said):
    with pytest.raises(ValueError) as error:
        sample(model, **bad)

    assert said in str(error.value)


@pytest.mark.parametrize("sigmas", [[1.0, 0.5, 0.5, 0.0], [0.88, 0.3, 0.0], [1.0, 0.3, 0.002]])
def test_schedules_that_nearly_go_from_1_to_0_are_good(model, sigmas):
    with pytest.raises(Loaded):
        sample(model, sigmas=torch.tensor(sigmas))


def test_sigmas_that_begin_a_little_low_are_warned_about():
    """As BasicScheduler's at denoise 0.5 do."""
    assert checks.sigma_warnings([torch.tensor([0.955, 0.5, 0.0])]) == []

    (warning,) = checks.sigma_warnings([torch.tensor([0.875, 0.5, 0.0])])

    assert warning.startswith("sigmas begin at 0.875") and "denoise 1" in warning and "as latent_image" in warning


@pytest.mark.parametrize(("first", "noise"), [(1.01, True), (1.0, True), (0.97, False), (0.825, False), (0.5, False)])
def test_only_a_schedule_from_the_model_s_highest_sigma_begins_in_noise(model, first, noise):
    """0.825 is where BasicScheduler's 25 steps begin at denoise 0.4."""
    assert checks.begins_in_noise(torch.tensor([first, 0.2, 0.0]), model) == noise


@pytest.mark.parametrize(
    ("samples", "video"),
    [(torch.ones(1, 16, 10, 6, 10), True), (torch.zeros(1, 16, 10, 6, 10), False), (torch.ones(1, 16, 1, 6, 10), False)],
    ids=["a video", "an empty latent", "a single frame"],
)
def test_an_empty_latent_or_a_single_frame_gives_the_size_only(samples, video):
    assert Given(latent_image={"samples": samples}).holds_video == video
    assert not Given().holds_video


@pytest.mark.parametrize(("starts", "ends"), [(3, 1), (1, 3), (2, 2)])
def test_a_single_start_or_end_image_serves_a_whole_batch(starts, ends):
    start, end = (latent(count, 16, 1, 6, 10) for count in (starts, ends))

    timeline = Given(start, end).timeline(Plan.of(1.2))

    assert len(timeline.latents) == len(timeline.end) == max(starts, ends)


def test_a_strength_of_an_end_image_that_is_not_there_is_told():
    (note,) = Given(START, end_strength=0.5).notes(Plan.of(1.2))

    assert note.startswith("end_strength 0.5 is without effect: it is for end_latent, which is not connected")
    assert Given(START, START, end_strength=0.5).notes(Plan.of(1.2)) == Given(START).notes(Plan.of(1.2)) == []


@pytest.mark.parametrize(
    "name",
    [
        F1,
        "FramePack_F1_I2V_HY_20250503_fp8_e4m3fn.safetensors",
        "framepack-f1.safetensors",
        "FramePackF1_HY.safetensors",
    ],
)
def test_f1_is_known_by_its_file_name(name):
    assert checks.is_f1(name)


@pytest.mark.parametrize("name", [I2V, "FramePackI2V_HY_half1.safetensors", "wolf1.safetensors", ""])
def test_other_names_are_not_f1(name):
    assert not checks.is_f1(name)


@pytest.mark.parametrize(
    ("name", "order", "layout", "said"),
    [
        (F1, "inverted", "auto", ["looks like F1, which was trained for the forward order"]),
        (F1, "forward", "auto", []),
        (I2V, "inverted", "auto", []),
        (I2V, "forward", "auto", ["was trained for the inverted order, but the plan is forward"]),
        (I2V, "inverted", "geometric", ["is untrained on this checkpoint"]),
        (I2V, "endpoints", "auto", ["is untrained on this checkpoint"]),
        ("mine.safetensors", "forward", "auto", []),
    ],
)
def test_warnings_tell_checkpoint_and_plan_apart(model, name, order, layout, said):
    model.cached_patcher_init = (load_path, (f"/models/{name}", {}))

    found = checks.warnings(Plan.of(1.2, order, layout=layout), model)

    assert len(found) == len(said) and all(part in warning for part, warning in zip(said, found, strict=True))


def test_a_warning_names_what_is_made_where_there_is_no_plan(model):
    model.cached_patcher_init = (load_path, (f"/models/{F1}", {}))

    (found,) = checks.warnings(Plan(1), model, "one frame")

    assert found.endswith("which was trained for the forward order, but one frame is inverted")


@pytest.mark.parametrize(
    ("order", "layout", "said"),
    [
        ("forward", "geometric", []),
        ("forward", "auto", ["layout f1k1_td_f16k4f2k2f1k1_g9 is untrained on", "it knows geometric"]),
        ("inverted", "geometric", ["the inverted order is untrained on", "it knows forward, endpoints"]),
        ("endpoints", "auto", ["layout td_f16k4f2k2f1k1_g9_x_f1k1 is untrained on", "it knows geometric"]),
    ],
)
def test_a_checkpoint_that_says_what_it_was_trained_with_is_believed(model, order, layout, said):
    """Whatever its name suggests."""
    model.cached_patcher_init = (load_path, (f"/models/{I2V}", {}))
    model.model.trained = Trained(("geometric",), ("forward", "endpoints"))

    found = checks.warnings(Plan.of(1.2, order, layout=layout), model)

    assert len(found) == bool(said) and all(part in found[0] for part in [*said, *[I2V][: len(said)]])


def test_a_warning_is_logged_once(caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            checks.log_once("F1 meets an inverted plan")

    assert caplog.text.count("F1 meets an inverted plan") == 1
