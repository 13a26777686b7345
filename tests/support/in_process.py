"""ComfyUI in the test process, and diffusers as the oracle of a small transformer."""

import os
from pathlib import Path

import pytest
from diffusers import HunyuanVideoFramepackTransformer3DModel
from safetensors.torch import save_file
from support import given
from support.sharp import sharp_transformer

from scripts.support.pack import load_comfyui

if "FRAMEPACK_COMFYUI" not in os.environ:
    raise pytest.UsageError("these tests need a ComfyUI: run them with python3 scripts/test.py")
load_comfyui(Path(os.environ["FRAMEPACK_COMFYUI"]))

SMALL = {**given.CONFIG, "num_attention_heads": 2, "num_layers": 2, "num_single_layers": 2}


@pytest.fixture(scope="session")
def oracle() -> HunyuanVideoFramepackTransformer3DModel:
    return sharp_transformer(SMALL)


@pytest.fixture(scope="session")
def checkpoint(oracle: HunyuanVideoFramepackTransformer3DModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The oracle's weights as a single file in official/diffusers names."""
    path = tmp_path_factory.mktemp("models") / "FramePackI2V_small.safetensors"
    save_file(oracle.state_dict(), path)
    return path
