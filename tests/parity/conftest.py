"""diffusers as the oracle, and this pack loaded the way ComfyUI loads it: as one package with relative imports."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from diffusers import HunyuanVideoFramepackTransformer3DModel
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path[:0] = [os.environ["FRAMEPACK_COMFYUI"], str(HERE), str(HERE / "golden")]

from comfy.cli_args import args  # noqa: E402

args.cpu = True


def load_pack(name: str = "framepack"):
    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location(name, root / "__init__.py", submodule_search_locations=[str(root)])
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


load_pack()

from framepack.framepack_core.comfyui.model import register  # noqa: E402
from sharp import sharp_transformer  # noqa: E402

register()

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
