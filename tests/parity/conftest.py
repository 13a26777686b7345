"""diffusers as the oracle, and this pack loaded the way ComfyUI loads it: as one package with relative imports."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch
from diffusers import HunyuanVideoFramepackTransformer3DModel
from safetensors.torch import save_file

sys.path.insert(0, os.environ["FRAMEPACK_COMFYUI"])

from comfy.cli_args import args  # noqa: E402

args.cpu = True


def load_pack(name: str = "framepack"):
    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location(name, root / "__init__.py", submodule_search_locations=[str(root)])
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


load_pack()

from framepack.framepack_core.comfyui.model import register  # noqa: E402

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


def sharp_transformer(config: dict, seed: int = 0) -> HunyuanVideoFramepackTransformer3DModel:
    """Random weights under which a wrong index, phase or kernel shows: attention far from uniform, gates wide open."""
    torch.manual_seed(seed)
    model = HunyuanVideoFramepackTransformer3DModel(**config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if "norm_q" in name or "norm_k" in name:
            weight.copy_(1.5 + 0.5 * torch.rand_like(weight))
        elif "clean_x_embedder" in name or "x_embedder" in name:
            weight.normal_(std=0.3)
        elif "norm" in name and "linear" in name:
            weight.normal_(std=0.05)
        elif weight.ndim > 1:
            weight.normal_(std=weight[0].numel() ** -0.5)
        else:
            weight.normal_(std=0.1)
    return model
