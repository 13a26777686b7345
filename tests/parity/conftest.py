"""diffusers as the oracle, and this pack loaded the way ComfyUI loads it: as one package with relative imports."""

import os
import sys
from pathlib import Path

import pytest
from diffusers import HunyuanVideoFramepackTransformer3DModel
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "golden")]

from sharp import sharp_transformer  # noqa: E402

from scripts.pack import load_pack  # noqa: E402

load_pack(Path(os.environ["FRAMEPACK_COMFYUI"]))

SMALL = {
    "num_attention_heads": 2,
    "attention_head_dim": 128,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_refiner_layers": 2,
    "text_embed_dim": 64,
    "pooled_projection_dim": 768,
    "has_image_proj": True,
    "image_proj_dim": 32,
    "has_clean_x_embedder": True,
}


@pytest.fixture(scope="session")
def oracle() -> HunyuanVideoFramepackTransformer3DModel:
    return sharp_transformer(SMALL)


@pytest.fixture(scope="session")
def checkpoint(oracle, tmp_path_factory) -> Path:
    """The oracle's weights as a single file in official/diffusers names."""
    path = tmp_path_factory.mktemp("models") / "FramePackI2V_small.safetensors"
    save_file(oracle.state_dict(), path)
    return path
