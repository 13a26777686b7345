"""Corrupted histories: how much noise, and k-means against brute force."""

import pytest
import torch
from torch import Tensor

from framepack_core.training import history
from framepack_core.training.cache import Clip, ClipCache, write_clip
from framepack_core.training.history import CachedLatents, Codebook, corrupt, nearest


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(B: int = 2, T: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(B, 16, T, 4, 6, generator=seeded(seed))


def test_noise_is_mixed_in_as_flow_matching_does():
    clean = latents(B=3)
    levels = 0.5 * torch.rand(3, generator=(generator := seeded(7)))
    noise = torch.randn(clean.shape, generator=generator)

    corrupted = corrupt(clean, seeded(7), 0.5)

    for sample, sigma in enumerate(levels):
        expected = (1 - sigma) * clean[sample] + sigma * noise[sample]
        torch.testing.assert_close(corrupted[sample], expected)


def test_levels_fill_the_range_and_differ_between_samples():
    ones = torch.ones(2000, 1, 1, 4, 4)

    corrupted = corrupt(ones, seeded(), 0.4)
    levels = (corrupted - 1).flatten(1).std(dim=1)

    assert 0.17 < levels.mean() < 0.24  # of U(0, 0.4), times the spread of noise around it
    assert levels.min() < 0.02 and levels.max() > 0.4


def test_kept_frames_stay_clean_and_the_rest_does_not():
    clean = latents()

    corrupted = corrupt(clean, seeded(), 0.5, keep=(0, 2))

    assert torch.equal(corrupted[:, :, [0, 2]], clean[:, :, [0, 2]])
    assert not torch.equal(corrupted[:, :, 1], clean[:, :, 1])


def test_no_noise_is_the_history_itself_and_the_input_is_left_alone():
    clean = latents()
    before = clean.clone()

    assert torch.equal(corrupt(clean, seeded(), 0.0), clean)
    corrupt(clean, seeded(), 1.0)
    assert torch.equal(clean, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_precision_is_kept_and_a_seed_repeats(dtype):
    clean = latents().to(dtype)

    corrupted = corrupt(clean, seeded(3), 0.5)

    assert corrupted.dtype == dtype
    assert torch.equal(corrupted, corrupt(clean, seeded(3), 0.5))
    assert not torch.equal(corrupted, corrupt(clean, seeded(4), 0.5))


@pytest.mark.parametrize("maximum", [-0.1, 1.1])
def test_a_sigma_out_of_range_is_refused(maximum):
    with pytest.raises(ValueError, match=f"largest sigma is {maximum}"):
        corrupt(latents(), seeded(), maximum)


def brute_force_nearest(pixels_NC: Tensor, centres_KC: Tensor) -> list[int]:
    distances = [[sum((a - b) ** 2 for a, b in zip(pixel, centre, strict=True)) for centre in centres_KC.tolist()]
                 for pixel in pixels_NC.tolist()]  # fmt: skip
    return [row.index(min(row)) for row in distances]


def test_the_nearest_centre_is_that_of_brute_force_whatever_the_chunk(monkeypatch):
    pixels, centres = torch.randn(70, 5, generator=seeded(1)), torch.randn(9, 5, generator=seeded(2))

    expected = brute_force_nearest(pixels, centres)

    assert nearest(pixels, centres).tolist() == expected
    monkeypatch.setattr(history, "CHUNK", 16)
    assert nearest(pixels, centres).tolist() == expected


def test_discretised_latents_hold_the_nearest_centres_only():
    codebook = Codebook(torch.randn(8, 16, generator=seeded(2)))
    clean = latents(B=2, T=2)

    discrete = codebook.discretise(clean)

    assert discrete.shape == clean.shape and discrete.dtype == clean.dtype
    pixels = clean.permute(0, 2, 3, 4, 1).reshape(-1, 16)
    expected = codebook.centres_KC[brute_force_nearest(pixels, codebook.centres_KC)]
    assert torch.equal(discrete.permute(0, 2, 3, 4, 1).reshape(-1, 16), expected)
    assert torch.equal(codebook.discretise(discrete), discrete)
    assert codebook.discretise(clean.bfloat16()).dtype == torch.bfloat16


def test_k_means_finds_well_separated_clusters():
    truth = 10 * torch.randn(6, 16, generator=seeded(5))
    members = torch.arange(600) % 6
    pixels = truth[members] + 0.1 * torch.randn(600, 16, generator=seeded(6))
    clips = pixels.T.reshape(16, 6, 10, 10)[None]

    codebook = Codebook.fit(clips, 6, seeded())

    found = codebook.centres_KC[nearest(truth, codebook.centres_KC)]
    means = torch.stack([pixels[members == cluster].mean(dim=0) for cluster in range(6)])
    torch.testing.assert_close(found, means, atol=1e-5, rtol=1e-5)


def test_k_means_ends_where_each_centre_is_the_mean_of_its_pixels():
    """Lloyd's fixed point, by brute force."""
    clips = latents(B=2, T=3)

    centres = Codebook.fit(clips, 5, seeded()).centres_KC

    pixels = clips.permute(0, 2, 3, 4, 1).reshape(-1, 16)
    members = torch.tensor(brute_force_nearest(pixels, centres))
    assert set(members.tolist()) == set(range(5))
    means = torch.stack([pixels[members == cluster].double().mean(dim=0) for cluster in range(5)]).float()
    torch.testing.assert_close(centres, means, atol=1e-5, rtol=1e-5)


def test_more_centres_come_nearer_to_the_latents():
    clips = latents(B=4)

    errors = [(Codebook.fit(clips, K, seeded()).discretise(clips) - clips).square().mean() for K in (2, 16, 128)]

    assert errors[0] > errors[1] > errors[2]


def test_a_cluster_that_loses_all_pixels_takes_the_farthest_one():
    pixels = torch.tensor([[0.0], [0.1], [5.0], [9.0]])
    centres = torch.tensor([[0.0], [5.0], [100.0]])

    means = history._means(pixels, nearest(pixels, centres), centres)

    torch.testing.assert_close(means, torch.tensor([[0.05], [7.0], [9.0]]))


def test_a_seed_repeats_and_pixels_are_drawn_evenly():
    clips = [torch.full((16, 1, 8, 8), float(value)) for value in range(4)]

    drawn = history._draw_pixels(clips, 40, seeded())

    assert torch.bincount(drawn[:, 0].long()).tolist() == [10, 10, 10, 10]
    first, second, other = (Codebook.fit(latents(B=4), 9, seeded(seed), pixels=60).centres_KC for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_too_few_different_pixels_are_an_error():
    with pytest.raises(ValueError, match="2 different latent pixels are too few for 3 centres"):
        Codebook.fit([torch.zeros(16, 1, 2, 2), torch.ones(16, 1, 2, 2)], 3, seeded())


def test_a_cache_is_read_clip_by_clip(tmp_path):
    for index, each in enumerate(latents(B=3)):
        write_clip(tmp_path, f"clip-{index}", Clip(each, torch.zeros(1, 8), torch.zeros(8), None, ""))
    stored = latents(B=3).bfloat16()

    fitted = Codebook.fit(CachedLatents(ClipCache(tmp_path)), 8, seeded())

    assert torch.equal(fitted.centres_KC, Codebook.fit(stored, 8, seeded()).centres_KC)


def test_a_codebook_is_saved_and_loaded(tmp_path):
    codebook = Codebook(torch.randn(8, 16))

    path = codebook.save(tmp_path / "codebook.safetensors")

    assert torch.equal(Codebook.load(path).centres_KC, codebook.centres_KC)


def test_other_files_and_other_channels_are_said(tmp_path):
    (tmp_path / "text.safetensors").write_text("no codebook at all")
    with pytest.raises(ValueError, match=r"text\.safetensors is not a codebook"):
        Codebook.load(tmp_path / "text.safetensors")
    with pytest.raises(ValueError, match=r"absent\.safetensors is not a codebook"):
        Codebook.load(tmp_path / "absent.safetensors")
    with pytest.raises(ValueError, match="the codebook has 8 channels, but the latents have 16"):
        Codebook(torch.randn(4, 8)).discretise(latents())
