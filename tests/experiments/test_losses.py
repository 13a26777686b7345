"""The demo transformer's loss on films, as the making of the demo prints it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.making import losses
from experiments.making.__main__ import TRANSFORMER_FILE, read
from experiments.making.clips import Film, write_clips
from framepack_core.demo.text import TextEncoder
from framepack_core.demo.vae import DemoVAE
from framepack_core.demo.vision import VisionEncoder
from framepack_core.demo.world import Scene
from framepack_core.orders import FORWARD


@pytest.fixture
def films(tmp_path) -> Path:
    scenes = {seed: Film(Scene.draw(seed)) for seed in range(2)}
    encoders = read(TextEncoder(), "demo_text"), read(VisionEncoder(), "demo_vision")
    write_clips(tmp_path / "films", scenes, read(DemoVAE(), "demo_vae"), *encoders)
    return tmp_path / "films"


@pytest.mark.slow
def test_a_model_that_predicts_nothing_has_a_larger_loss(films, tmp_path):
    weights = load_file(TRANSFORMER_FILE)
    nothing = {name: torch.zeros_like(value) if name.startswith("proj_out") else value for name, value in weights.items()}
    save_file(nothing, tmp_path / "nothing.safetensors")

    trained, untrained = (losses.loss(films, file, FORWARD, 2) for file in (TRANSFORMER_FILE, tmp_path / "nothing.safetensors"))

    assert 0 < trained.first < untrained.first / 2 and 0 < trained.later < untrained.later / 2
    assert trained == losses.loss(films, TRANSFORMER_FILE, FORWARD, 2), "the same draws every time"
