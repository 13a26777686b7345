"""Which pictures of what is placed an image encoder sees."""

from types import SimpleNamespace
from typing import Any

import comfy.sd
import pytest
import torch
from support.stand_ins.write_models import taehv
from support.threads import one_thread  # noqa: F401 - a fixture

from framepack_core.comfyui.placing import Picture, place
from framepack_core.placing import At, Frames, Placed, Use

SIZE = 64  # pixels
SEEING: Any = SimpleNamespace(encode_image=lambda image, crop: image.clone())  # whose embedding of an image is the image


@pytest.fixture(scope="module")
def vae() -> comfy.sd.VAE:
    return comfy.sd.VAE(sd=taehv(seed=5))


def clip(frames: int) -> torch.Tensor:
    """Each frame of a grey of its own."""
    return torch.linspace(0, 1, frames)[:, None, None, None].expand(-1, SIZE, SIZE, 3).contiguous()


def placed(vae, images: torch.Tensor, at: At, use: Use = "fixed", mask: torch.Tensor | None = None) -> Placed:
    with torch.inference_mode():
        frames, _ = place(Picture(images, at, use, 1.2, mask=mask), Frames(), vae, SEEING, SIZE)
    return frames.placed[0]


@pytest.mark.parametrize(("at", "first", "last"), [("start", 2, 10), ("time", 0, 8), ("end", 0, 8)])
def test_of_a_clip_they_are_the_first_and_the_last_that_is_used(vae, at, first, last):
    """Of 11 frames 9 are used, counted from where the clip meets what is made."""
    images = clip(11)

    found = placed(vae, images, at)

    assert torch.equal(found.embedding, images[first : first + 1])
    assert torch.equal(found.ending, images[last : last + 1])


@pytest.mark.parametrize(("frames", "use"), [(1, "fixed"), (1, "guide"), (11, "guide")])
def test_of_a_still_and_of_a_guide_it_is_the_first(vae, frames, use):
    images = clip(frames)

    found = placed(vae, images, "time", use)

    assert torch.equal(found.embedding, images[:1])
    assert found.ending is None


def test_a_mask_hides_the_latent_and_not_the_picture(vae):
    images, mask = clip(1) + 0.5, torch.zeros(SIZE, SIZE)
    mask[:, : SIZE // 2] = 1

    found = placed(vae, images, "time", "guide", mask)

    assert torch.equal(found.embedding, images)
    assert found.picture[..., : SIZE // 32].abs().sum() > 0 and found.picture[..., -2:].abs().max() < 0.1
