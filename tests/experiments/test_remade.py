"""Films that the transformer finishes, on which the demo's decoder is trained last."""

from pathlib import Path

import pytest
import torch

from experiments.making.__main__ import TRANSFORMER_FILE, read
from experiments.making.autoencoder import REMADE, Films, remade_batch, remade_loss
from experiments.making.remade import Remade, write_remade
from framepack_core.demo.vae import DemoVAE
from framepack_core.demo.world import Scene
from framepack_core.training.cache import ClipCache

pytestmark = pytest.mark.slow


@pytest.fixture
def batches(films, tmp_path) -> list[Path]:
    write_remade(tmp_path / "remade", films, TRANSFORMER_FILE, 2)
    return sorted((tmp_path / "remade").iterdir())


def test_a_section_is_near_what_the_films_show_and_what_comes_before_is_theirs(films, batches):
    clips = ClipCache(films)

    for remade in map(Remade.load, batches):
        frames = slice(remade.begins, remade.begins + remade.latents.shape[2])
        truth = torch.stack([clips[seed].latents[:, frames].float() for seed in remade.seeds])
        assert torch.equal(remade.latents[:, :, : remade.own], truth[:, :, : remade.own])
        off = (remade.latents - truth)[:, :, remade.own :].square().mean().sqrt()
        assert 0.02 < off < 0.4  # of a standard deviation


def test_what_is_there_stays(films, batches, tmp_path):
    before = batches[0].stat().st_mtime_ns

    write_remade(tmp_path / "remade", films, TRANSFORMER_FILE, 2)

    assert batches[0].stat().st_mtime_ns == before


def test_the_decoder_learns_the_frames_that_the_films_show_there(batches):
    vae = read(DemoVAE(), "demo_vae")

    shown = remade_batch(REMADE, Films(batches, Scene.draw), 0)

    with torch.no_grad():
        pixels = vae.decode(shown.latents)[:, :, -shown.pixels.shape[2] :]
        assert (pixels - shown.pixels).square().mean() < 0.01  # of values in -1..1, 26 dB
        later = Films(batches, lambda seed: Scene.draw(seed + 1000))
        assert remade_loss(vae, REMADE, shown) < remade_loss(vae, REMADE, remade_batch(REMADE, later, 0)) / 2
