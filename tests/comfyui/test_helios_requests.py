"""What Helios is asked for: what it cannot do is refused with the reason, and what it is given is placed and told about."""

from typing import Any

import pytest
import torch
from support.helios import SMALL, write_helios

from framepack_core.comfyui import families
from framepack_core.comfyui.latent import STILL
from framepack_core.comfyui.loading import checkpoints
from framepack_core.comfyui.sampling.request import Given, Request, make_guider
from framepack_core.comfyui.sampling.sample import sample
from framepack_core.comfyui.sampling.samplers import descents, sampler_named, step_count
from framepack_core.family import FRAMEPACK, HELIOS
from framepack_core.helios.recipes import RECIPES
from framepack_core.placing import Frames, Placed
from framepack_core.plan import Plan
from framepack_core.redo import redo, whole

H, W = 16, 24
TEXT = torch.randn(2, 1, 7, SMALL["text_dim"], generator=torch.Generator().manual_seed(3))
PROMPTS = {"positive": TEXT[0], "negative": TEXT[1]}


def latent(frames: int = 1, seed: int = 4, height: int = H, width: int = W) -> torch.Tensor:
    return torch.randn(1, 16, frames, height, width, generator=torch.Generator().manual_seed(seed))


def still(at: str = "start", **changes) -> Placed:
    return Placed(**{"latents": latent(), "picture": latent(), "at": at, "apart": True, **changes})


EMPTY: dict[str, Any] = {"latent_image": {"samples": torch.zeros(1, 16, 1, H, W)}}
IMAGE: dict[str, Any] = {"start_latent": {"samples": latent(), STILL: latent(seed=5)}}


def plan_of(chunks: int = 2, **options) -> Plan:
    return Plan.of(chunks * 1.5, **{"order": "forward", "fps": 24.0, **options})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    names = {variant: f"Helios-{variant.capitalize()}.safetensors" for variant in RECIPES}
    return {variant: checkpoints.load_path(write_helios(folder, name), {}) for variant, name in names.items()}


def request_of(model, given: Given, plan: Plan | None = None, steps: int = 1, cfg: float = 1.0, **options) -> Request:
    own = families.family_of(model)
    plan = given.fit(plan or plan_of(), own.family)
    timeline = given.timeline(plan)
    sections = plan.bind(timeline)
    positive, negative = ([[PROMPTS[name], options.pop(name, {"pooled_output": None})]] for name in PROMPTS)
    return Request(
        **{
            "guider": make_guider(model, positive, negative if cfg != 1 else None, cfg, 10.0),
            "sampler": own.sampler("auto"),
            "plan": plan,
            "timeline": timeline,
            "sections": sections,
            "sigmas": own.sigmas(sections, timeline, steps * own.stages, 0.0),
            "seed": 3,
            "given": given.known(plan),
            "notes": tuple(given.notes(plan)),
            **options,
        }
    )


def video(request: Request, say=lambda text: None) -> torch.Tensor:
    return sample(request, say).latents


# What it cannot do


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "inverted"}, "the plan's order is inverted, but Helios Base makes videos in the order forward only"),
        ({"order": "endpoints"}, "the plan's order is endpoints, but Helios Base makes videos in the order forward only"),
        ({"loop": 1}, r"the plan is of a loop \(loop is 1\), but Helios Base does not look ahead"),
        ({"window": 12}, "g12, but Helios Base knows .*_g9 only; set its layout to auto and its window to 9"),
        ({"layout": "geometric"}, "but Helios Base knows f1k1_td_f16k4f2k2f1k1_g9 only; set its layout to auto"),
    ],
)
def test_another_plan_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Given(**EMPTY).fit(plan_of(**options), HELIOS["base"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"end_latent": {"samples": latent()}}, "end_latent is connected, but Helios never looks ahead; disconnect it"),
        ({"frames": Frames((still("end"),), 24.0)}, "something is placed after the start, but Helios never looks ahead"),
        ({"frames": Frames((still("time", seconds=1.0),), 24.0)}, "something is placed after the start"),
        ({"frames": Frames((still(use="guide"),), 24.0)}, "a guide is placed, but Helios knows no other picture"),
        ({"frames": Frames((still(apart=False),), 24.0)}, "encoded with another model's VAE; encode it with Wan's VAE"),
    ],
)
def test_what_helios_cannot_be_given_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Given(**given).fit(plan_of(), HELIOS["mid"])


def test_denoising_a_video_and_single_frames_are_refused():
    with pytest.raises(ValueError, match="denoise is below 1, but Helios makes each stage of a section from noise"):
        Given(**EMPTY).fit(plan_of(), HELIOS["base"], from_noise=False)
    with pytest.raises(ValueError, match="Helios makes chunks of 33 frames, not single pictures"):
        HELIOS["base"].require(["one frame"])


@pytest.mark.parametrize("given", [{"frames": Frames((still(),))}, IMAGE])
def test_what_wan_s_vae_has_encoded_is_refused_by_framepack(given):
    with pytest.raises(ValueError, match="encoded with another model's VAE; encode it with HunyuanVideo's VAE"):
        Given(**given).fit(plan_of(), FRAMEPACK)


@pytest.mark.parametrize(
    ("steps", "message"), [(7, "steps is 7, but Helios Mid shares .* choose 6 or 9"), (1, "choose 3 or 6")]
)
def test_steps_that_cannot_be_shared_are_refused(models, steps, message):
    own, given = families.family_of(models["mid"]), Given(**EMPTY)
    timeline = given.timeline(plan := given.fit(plan_of(), own.family))

    with pytest.raises(ValueError, match=message):
        own.sigmas(plan.bind(timeline), timeline, steps, 0.0)


def test_a_size_that_cannot_be_halved_twice_is_refused(models):
    with pytest.raises(ValueError, match=r"the latent is 24x12, but Helios Mid needs multiples of 8 .* multiples of 64 pixels"):
        request_of(models["mid"], Given(latent_image={"samples": torch.zeros(1, 16, 1, 12, 24)}))


def test_another_text_encoder_is_refused(models):
    """HunyuanVideo's Llama is as wide as Wan's UMT5, but comes with a text for the whole."""
    with pytest.raises(ValueError, match=r"positive has a pooled output 768 wide, expected none; .* \(type wan"):
        video(request_of(models["base"], Given(**EMPTY), positive={"pooled_output": torch.zeros(1, 768)}))


def test_one_schedule_for_several_stages_is_refused(models):
    with pytest.raises(ValueError, match="sigmas are one schedule, but the model makes a section in 3 stages"):
        video(request_of(models["mid"], Given(**EMPTY), sigmas=[torch.tensor([1.0, 0.5, 0.0])] * 2))


# What it is told and given


def test_values_that_it_was_not_made_for_are_noted():
    assert HELIOS["base"].advice(24, 5.0) == HELIOS["distilled"].advice(24, 1.0) == FRAMEPACK.advice(30, 3.0) == []
    assert HELIOS["base"].advice(30, 5.0) == ["Helios Base is made for 24 frames a second: at 30, motion has another speed"]
    assert HELIOS["mid"].advice(24, 1.0) == ["Helios Mid is made for cfg 5: at 1, the picture suffers"]
    assert HELIOS["distilled"].advice(24, 3.0) == ["Helios Distilled is made for cfg 1: at 3, the picture suffers"]


def test_an_image_alone_is_its_own_still_with_a_note():
    given = Given(start_latent={"samples": latent()})
    plan = given.fit(plan_of(), HELIOS["base"])

    timeline = given.timeline(plan)

    assert torch.equal(timeline.latents[:, :, :1], latent())
    assert given.notes(plan) == [
        "the video may begin with a jump: start_latent is the image alone; encode it with FramePack_EncodeImage"
    ]
    assert Given(**IMAGE).notes(plan) == []


@pytest.mark.parametrize(("variant", "steps"), [("base", 50), ("mid", 60), ("distilled", 6)])
def test_0_steps_are_the_variant_s_own_number(models, variant, steps):
    own, given = families.family_of(models[variant]), Given(**EMPTY)
    timeline = given.timeline(plan := given.fit(plan_of(), own.family))

    first, second = own.sigmas(plan.bind(timeline), timeline, 0, 0.0)

    assert step_count(second) == steps
    assert step_count(first) == steps * (1 + (variant == "distilled"))
    assert len(descents(first)) == RECIPES[variant].stages


def test_a_shift_of_its_own_is_taken(models):
    own, given = families.family_of(models["base"]), Given(**EMPTY)
    timeline = given.timeline(plan := given.fit(plan_of(1), own.family))

    (found,) = own.sigmas(plan.bind(timeline), timeline, 2, 3.0)

    torch.testing.assert_close(found, torch.tensor([0.999, 0.4995, 0.0]).double().apply_(lambda s: 3 * s / (1 + 2 * s)))


def test_other_samplers_work_in_every_stage(models):
    assert (
        video(request_of(models["distilled"], Given(**EMPTY), plan_of(1), sampler=sampler_named("dpmpp_2m"))).isfinite().all()
    )


# What comes out


@pytest.mark.parametrize(("given", "hidden"), [(EMPTY, 0), (IMAGE, 1)])
def test_the_video_is_what_was_made_in_clips_of_their_own(models, given, hidden):
    request = request_of(models["distilled"], Given(**given))

    found = sample(request, lambda text: None)

    assert request.timeline.frames == hidden + 18
    assert torch.equal(found.latents, request.timeline.latents[:, :, hidden:])
    assert (found.made.given, found.length.frames, found.length.hidden) == ((), 66, 0)


def test_steps_of_all_stages_count(models):
    lines = []

    video(request_of(models["distilled"], Given(**EMPTY)), lines.append)

    steps = [line.split(", ")[1] for line in lines if line.startswith("section")]
    assert steps == [*(f"step {n} of 6" for n in range(7)), *(f"step {n} of 3" for n in range(4))]


# Stopping


class Killed(Exception):
    """The process ends."""


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where finished sections are kept."""
    monkeypatch.setattr("folder_paths.get_system_user_directory", lambda name: str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("variant", ["base", "distilled"])
def test_a_run_that_was_killed_continues_with_the_same_bits(models, kept, variant):
    def kill(line: str) -> None:
        if line.splitlines()[-1].startswith("section 3 of 3") and "step 1 of" in line:
            raise Killed

    def again(**options) -> Request:
        return request_of(models[variant], Given(**IMAGE), plan_of(3), **options)

    expected = video(again())
    with pytest.raises(Killed):
        video(again(origin="here"), kill)
    lines = []

    found = video(again(origin="here"), lines.append)

    assert any("resumed: 2 of 3 sections" in line for line in lines)
    assert torch.equal(found, expected)


def test_a_longer_video_finds_the_sections_of_the_shorter_one(models, kept):
    """Although all of them see the picture, whose number depends on the video's length."""
    before = video(request_of(models["distilled"], Given(**IMAGE), plan_of(2), origin="here"))
    lines = []

    after = video(request_of(models["distilled"], Given(**IMAGE), plan_of(3), origin="here"), lines.append)

    assert any("resumed: 2 of 3 sections" in line for line in lines)
    assert torch.equal(after[:, :, : before.shape[2]], before)
    assert torch.equal(after, video(request_of(models["distilled"], Given(**IMAGE), plan_of(3))))


def test_the_variants_of_a_model_have_kept_sections_of_their_own(models, kept, monkeypatch):
    lines = []
    video(request_of(models["mid"], Given(**EMPTY), plan_of(1), origin="here"))
    monkeypatch.setattr(models["mid"].model, "variant", "distilled")

    video(request_of(models["mid"], Given(**EMPTY), plan_of(1), origin="here", sampler=sampler_named("unipc")), lines.append)

    assert not any("resumed" in line for line in lines)


def test_sections_are_made_again_after_what_the_video_begins_with(models):
    """With the same seed, the second section of three sees what it saw, so nothing changes."""
    request = request_of(models["distilled"], Given(**IMAGE), plan_of(3))
    before, made = request.before, sample(request, lambda text: None)
    latents, of_all = whole(made.latents, made.made, before)

    plan, frames = redo(of_all, latents, {1}, before)
    given = Given(frames=frames)
    again = request_of(models["distilled"], given, plan)
    found = video(again)

    assert [section.target for section in again.sections] == [tuple(range(10, 19))]
    assert again.timeline.guides[0].start == 1
    assert torch.equal(found[:, :, :9], made.latents[:, :, :9])
    assert torch.equal(found[:, :, 18:], made.latents[:, :, 18:])
    assert not torch.equal(found[:, :, 9:18], made.latents[:, :, 9:18])
