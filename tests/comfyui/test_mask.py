"""What a mask leaves of the latent of an image."""

import math

import pytest
import torch

from framepack_core.comfyui.placing import Picture, latent_mask, pictures, require_fitting_mask

LATENT = torch.zeros(1, 16, 1, 4, 4)


def picture(mask: torch.Tensor) -> Picture:
    return Picture(torch.zeros(1, 32, 64, 3), "start", "guide", mask=mask)


def white(left: int, right: int, *more: int) -> torch.Tensor:
    """White from one column up to another, of 64 x 32 pixels."""
    mask = torch.zeros(*more, 32, 64)
    mask[..., left:right] = 1
    return mask


@pytest.mark.parametrize("more", [(), (1,)])
def test_a_mask_is_cropped_like_an_image_twice_as_wide_as_its_latent(more):
    """Columns 16 to 47 are used; white keeps, black hides."""
    mask = white(32, 64, *more)
    require_fitting_mask(picture(mask))

    found = latent_mask(mask, LATENT)

    assert found.shape == (1, 1, 1, 4, 4)
    torch.testing.assert_close(found[0, 0, 0, 0], torch.tensor([0.0, 0.0, 1.0, 1.0]), atol=0.1, rtol=0)


def test_grey_counts_in_part():
    found = latent_mask(torch.full((32, 64), 0.5), LATENT)

    torch.testing.assert_close(found, torch.full((1, 1, 1, 4, 4), 0.5), atol=0.01, rtol=0)


def test_a_mask_goes_where_its_latent_is():
    found = latent_mask(torch.ones(32, 64), LATENT.to("meta", torch.float64))

    assert (found.device.type, found.dtype) == ("meta", torch.float64)


def batch(mask: torch.Tensor) -> Picture:
    """Two images that go to two places."""
    return Picture(torch.zeros(2, 32, 64, 3), "start", "guide", mask=mask)


def test_each_still_of_a_batch_has_its_own_mask():
    masks = torch.stack([white(0, 32), white(32, 64)])

    found = pictures(batch(masks), "1.2, 3.5")

    for one, mask in zip(found, masks, strict=True):
        require_fitting_mask(one)
        assert torch.equal(one.mask, mask)


@pytest.mark.parametrize("more", [(), (1,)])
def test_one_mask_is_for_all_stills_of_a_batch(more):
    mask = white(0, 32, *more)

    assert all(torch.equal(one.mask, mask) for one in pictures(batch(mask), "1.2, 3.5"))


def test_neither_one_mask_nor_one_for_each_still_is_refused():
    first, _ = pictures(batch(torch.ones(3, 32, 64)), "1.2, 3.5")

    with pytest.raises(
        ValueError, match=r"mask is a batch of 3, .* give one mask of their size, or one for each image that times"
    ):
        require_fitting_mask(first)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (torch.ones(1, 64, 64), "mask is 64x64, but images are 64x32; give one mask of their size"),
        (torch.ones(3, 32, 64), "mask is a batch of 3, but images are 64x32"),
        (torch.zeros(1, 32, 64), "mask is black, so that nothing of the image would be seen; turn it with InvertMask"),
        (torch.full((1, 32, 64), math.nan), "mask has values that are not finite"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, said):
    with pytest.raises(ValueError) as error:
        require_fitting_mask(picture(mask))

    assert said in str(error.value)
