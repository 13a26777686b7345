"""A finished video, enlarged and sampled again with less noise, as users do for a higher resolution."""

import pytest
import torch

import nodes
from framepack_core.comfyui.decoding.stream import decode_video
from framepack_core.comfyui.demo import load_demo
from framepack_core.comfyui.encoding import encode_images, fit_images
from framepack_core.comfyui.families import AUTO, family_of
from framepack_core.comfyui.sampling.request import Given, Request, make_guider
from framepack_core.comfyui.sampling.sample import sample
from framepack_core.demo.scenes import UNSEEN, picture
from framepack_core.demo.world import Scene
from framepack_core.plan import Plan

SCENE = Scene.draw(UNSEEN + 12)
SMALL, LARGE = 96, 128  # pixels


@pytest.fixture(scope="module")
def models():
    return load_demo()


@pytest.fixture(autouse=True)
def no_gradients():
    """As ComfyUI runs nodes."""
    with torch.inference_mode():
        yield


def start(models, size: int) -> dict:
    """The start image's LATENT, in a size."""
    return {"samples": encode_images(models[2], fit_images(picture(SCENE), size, size))}


def video(models, order: str, given: Given, seed: int, denoise: float = 1.0) -> dict:
    """The LATENT of one section, as FramePack Sampler makes it."""
    model, clip, _, vision = models
    own, plan = family_of(model), Plan.of(1.2, order)
    timeline = given.timeline(plan)
    sections = plan.bind(timeline)
    request = Request(
        guider=make_guider(model, nodes.CLIPTextEncode().encode(clip, SCENE.caption)[0], None, 1.0, own.family.guidance),
        sampler=own.sampler(AUTO),
        plan=plan,
        timeline=timeline,
        sections=sections,
        sigmas=own.sigmas(sections, timeline, 6, 0.0, denoise),
        seed=seed,
        clip_vision_output=vision.encode_image(picture(SCENE), crop=False),
        given=given.known(plan),
        initial=given.initial(timeline, from_noise=denoise >= 1.0),
    )
    return {"samples": sample(request, say=lambda text: None).latents}


@pytest.mark.parametrize("order", ["inverted", "forward", "endpoints"])
def test_a_second_pass_at_a_higher_resolution_keeps_the_video_and_has_the_larger_start_image(models, order):
    first = video(models, order, Given(start(models, SMALL)), seed=1)
    (enlarged,) = nodes.LatentUpscale().upscale(first, "bilinear", LARGE, LARGE, "disabled")
    larger = start(models, LARGE)

    again = video(models, order, Given(larger, latent_image=enlarged), seed=2, denoise=0.3)

    def away(latent: dict) -> float:
        """From the first pass: the error of a pixel, 0..1."""
        before, after = (torch.stack(list(decode_video(models[2], each["samples"]))) for each in (first, latent))
        return (after - fit_images(before, LARGE, LARGE)).square().mean().sqrt().item()

    assert torch.equal(again["samples"][:, :, :1], larger["samples"])
    assert not torch.allclose(again["samples"][:, :, 1:], enlarged["samples"][:, :, 1:], atol=0.1)
    assert away(again) < 0.4 * away(video(models, order, Given(larger), seed=2))
