"""Tests of the measures and studies in experiments/."""

from pathlib import Path

import pytest
from support.in_process import checkpoint, oracle  # noqa: F401 - fixtures
from support.threads import one_thread  # noqa: F401 - autouse

from experiments.making.__main__ import read
from experiments.making.clips import Film, write_clips
from experiments.study.run import quiet_comfyui
from experiments.study.studio import Studio
from framepack_core.demo.text import TextEncoder
from framepack_core.demo.vae import DemoVAE
from framepack_core.demo.vision import VisionEncoder
from framepack_core.demo.world import Scene


@pytest.fixture(scope="module")
def studio() -> Studio:
    """The demo's models."""
    quiet_comfyui()
    return Studio()


@pytest.fixture
def films(tmp_path) -> Path:
    """Two encoded films, with their scenes' seeds as names."""
    scenes = {seed: Film(Scene.draw(seed)) for seed in range(2)}
    encoders = read(TextEncoder(), "demo_text"), read(VisionEncoder(), "demo_vision")
    write_clips(tmp_path / "films", scenes, read(DemoVAE(), "demo_vae"), *encoders)
    return tmp_path / "films"
