"""What the demo's decoder is trained on besides videos: pictures that are placed in others, and cuts."""

import pytest
import torch

from experiments.making.autoencoder import Settings, batch, cut
from framepack_core.demo.vae import DemoVAE

CLIPS, STILL, JOINED = 4, 0, 1  # the first clip has a still of the last, the second begins as the first does


class Clips:
    """Latents, pixels and weights of some clips before and after they are cut."""

    def __init__(self):
        self.vae = DemoVAE().eval().requires_grad_(False)
        pixels, weight = batch(Settings(clips=CLIPS), 0)
        self.before = self.vae.encode(pixels), pixels, weight
        latents, pixels, weight = self.after = [part.clone() for part in self.before]
        cut(self.vae, 2, latents, pixels, weight, torch.Generator().manual_seed(0))

    def changed(self, clip: int) -> list[int]:
        """Latent frames of a clip that are not what they were."""
        return [frame for frame in range(4) if not torch.equal(self.after[0][clip, :, frame], self.before[0][clip, :, frame])]


@pytest.fixture(scope="module")
def clips() -> Clips:
    return Clips()


def test_a_still_is_seen_in_all_frames_of_its_latent_frame_and_encoded_as_when_it_is_placed(clips):
    (latent,) = clips.changed(STILL)
    frames = slice(4 * latent - 3, 4 * latent + 1)
    (picture, shape) = (part[-1, :, frames][:, :1] for part in clips.before[1:])

    for part, still in zip(clips.after[1:], (picture, shape), strict=True):
        assert torch.equal(part[STILL, :, frames], still.expand_as(part[STILL, :, frames]))
    repeated = clips.vae.encode(picture[None].expand(-1, -1, 5, -1, -1))
    torch.testing.assert_close(clips.after[0][STILL, :, latent], repeated[0, :, 1])


def test_until_a_cut_everything_is_another_clip_s(clips):
    latents = len(clips.changed(JOINED))

    assert clips.changed(JOINED) == list(range(latents)) and 1 <= latents <= 3
    for new, old, stop in zip(clips.after, clips.before, (latents, 4 * latents - 3, 4 * latents - 3), strict=True):
        assert torch.equal(new[JOINED], torch.cat([old[STILL, :, :stop], old[JOINED, :, stop:]], dim=1))


def test_other_clips_stay_whole(clips):
    for new, old in zip(clips.after, clips.before, strict=True):
        assert torch.equal(new[2:], old[2:])
