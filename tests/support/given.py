"""The inputs of both sides of the golden comparison: sizes, and tensors drawn from seeds."""

from dataclasses import dataclass
from functools import partial

import torch

CONFIG = {
    "num_attention_heads": 1,
    "attention_head_dim": 128,
    "num_layers": 1,
    "num_single_layers": 1,
    "num_refiner_layers": 2,
    "text_embed_dim": 64,
    "pooled_projection_dim": 768,
    "has_image_proj": True,
    "image_proj_dim": 32,
    "has_clean_x_embedder": True,
}
HEIGHT, WIDTH = 6, 10  # latent pixels
WINDOW, STEPS, GUIDANCE, SEED = 9, 5, 10.0, 11


@dataclass(frozen=True)
class Case:
    order: str
    sections: int
    cfg: float


CASES = {
    "inverted": Case("inverted", 3, 1.0),
    "inverted_cfg": Case("inverted", 3, 2.5),
    "inverted_long": Case("inverted", 6, 1.0),
    "forward": Case("forward", 3, 1.0),
    "forward_cfg": Case("forward", 3, 2.5),
}


@dataclass(frozen=True)
class Inputs:
    """Text, pooled and image embeddings, and the start and end latents in model space."""

    positive: tuple[torch.Tensor, torch.Tensor]
    negative: tuple[torch.Tensor, torch.Tensor]
    image: torch.Tensor
    start: torch.Tensor
    end: torch.Tensor


def inputs(height: int = HEIGHT, width: int = WIDTH) -> Inputs:
    normal = partial(torch.randn, generator=torch.Generator().manual_seed(5))
    return Inputs(
        positive=(normal(1, 9, 64), normal(1, 768)),
        negative=(normal(1, 6, 64), normal(1, 768)),
        image=normal(1, 5, 32),
        start=normal(1, 16, 1, height, width),
        end=normal(1, 16, 1, height, width),
    )
