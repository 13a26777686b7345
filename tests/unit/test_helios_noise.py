"""The random numbers of a Helios video: in which order they are drawn, and how they are distributed."""

import pytest
import torch
from torch.nn import functional as F

from framepack_core.helios.noise import block_noise, coarsest, draw, finer, noised
from framepack_core.helios.recipes import MID
from framepack_core.helios.stages import stages_of

SHAPE = (1, 16, 9, 16, 24)
STAGES = stages_of(MID, 3, 16, 24, 9)
SIZES = [(stage.height, stage.width) for stage in STAGES]


def generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The noise of a chunk


def test_the_noise_of_a_chunk_is_drawn_at_full_size_and_then_for_the_blocks_of_each_later_stage():
    expected = generator()
    whole = torch.randn(SHAPE, generator=expected)
    blocks = [torch.randn(16 * 9 * h * w // 4, 4, generator=expected) for h, w in ((8, 12), (16, 24))]

    found = draw(SIZES, SHAPE, generator())

    assert torch.equal(found.whole, whole)
    assert len(found.blocks) == 2
    assert all(map(torch.equal, found.blocks, blocks))


def test_without_a_pyramid_the_noise_of_a_chunk_is_one_tensor():
    found = draw([(10, 14)], (1, 16, 9, 10, 14), generator())

    assert found.blocks == ()
    assert torch.equal(coarsest(found), torch.randn(1, 16, 9, 10, 14, generator=generator()))


def test_the_first_stage_begins_with_noise_halved_bilinearly_and_doubled_for_each_later_stage():
    noise = draw(SIZES, SHAPE, generator())
    frames = noise.whole[0].transpose(0, 1)  # T C H W
    for size in ((8, 12), (4, 6)):
        frames = F.interpolate(frames, size=size, mode="bilinear") * 2

    found = coarsest(noise)

    torch.testing.assert_close(found[0].transpose(0, 1), frames)
    assert found.std() == pytest.approx(1, abs=0.05)


def test_a_later_stage_begins_with_the_one_before_at_twice_the_size_and_with_block_noise():
    noise, before = draw(SIZES, SHAPE, generator()), torch.randn(1, 16, 9, 4, 6, generator=generator(8))
    stage = STAGES[1]

    found = finer(before, noise.blocks[0], stage, MID.gamma)

    added = (found - stage.alpha * before.repeat_interleave(2, 3).repeat_interleave(2, 4)) / stage.beta
    block = block_noise(noise.blocks[0], MID.gamma).view(1, 16, 9, 4, 6, 2, 2)
    torch.testing.assert_close(added[:, :, :, 0::2, 1::2], block[..., 0, 1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(added[:, :, :, 1::2, 0::2], block[..., 1, 0], atol=1e-5, rtol=1e-5)


# Block noise


def covariance(gamma: float) -> torch.Tensor:
    return (1 + gamma) * torch.eye(4, dtype=torch.float64) - gamma * torch.ones(4, 4, dtype=torch.float64)


@pytest.mark.parametrize("gamma", [0.05, 0.25, 0.333, 0.3333])
def test_block_noise_equals_that_of_a_cholesky_factor(gamma):
    normal = torch.randn(100, 4, dtype=torch.float64, generator=generator())
    factor = torch.linalg.cholesky(covariance(gamma))

    torch.testing.assert_close(block_noise(normal, gamma), normal @ factor.T, rtol=1e-9, atol=1e-9)


def test_the_released_gamma_has_a_factor_although_its_covariance_is_singular():
    factor = block_noise(torch.eye(4, dtype=torch.float64), 1 / 3).T

    torch.testing.assert_close(factor @ factor.T, covariance(1 / 3), rtol=0, atol=1e-9)
    published = [[1, 0, 0, 0], [-1 / 3, 0.942809, 0, 0], [-1 / 3, -0.471405, 0.816497, 0], [-1 / 3, -0.471405, -0.816497, 0]]
    torch.testing.assert_close(factor, torch.tensor(published, dtype=torch.float64), rtol=0, atol=1e-6)


def test_with_the_released_gamma_each_block_adds_up_to_nothing():
    normal = torch.randn(1000, 4, generator=generator())

    assert block_noise(normal, 1 / 3).sum(dim=1).abs().max() < 1e-5


# The noise on what is given


def test_what_is_given_gets_noise_of_one_strength_drawn_before_it():
    latents, expected = torch.randn(1, 16, 1, 4, 6, generator=generator(1)), generator()
    strength = torch.rand(1, generator=expected) * (0.135 - 0.111) + 0.111
    normal = torch.randn(latents.shape, generator=expected)

    torch.testing.assert_close(noised(latents, generator()), strength * normal + (1 - strength) * latents)


def test_each_frame_of_a_clip_has_a_strength_of_its_own():
    latents, expected = torch.zeros(1, 16, 9, 4, 6), generator()
    strengths = torch.rand(9, generator=expected) * (0.135 - 0.111) + 0.111
    normal = torch.randn(latents.shape, generator=expected)

    found = noised(latents, generator(), each_frame=True)

    torch.testing.assert_close(found, normal * strengths[None, None, :, None, None])
