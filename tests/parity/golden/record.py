"""Records what the official program samples, for test_official.py. Run once, with a checkout of that program:

    python tests/parity/golden/record.py PATH_TO_FRAMEPACK     (needs opencv-python-headless, imageio)

The official transformer and sampler run unchanged, in float32 on a CPU; the loops around them are those of its two demo
programs (demo_gradio.py, demo_gradio_f1.py). Weights and inputs are drawn from seeds (see given.py).
"""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path[:0] = [sys.argv[1], str(HERE.parents[1])]

from diffusers_helper.models.hunyuan_video_packed import HunyuanVideoTransformer3DModelPacked  # noqa: E402
from diffusers_helper.pipelines.k_diffusion_hunyuan import sample_hunyuan  # noqa: E402
from support import given  # noqa: E402
from support.sharp import sharp_weights  # noqa: E402


def main() -> None:
    transformer = HunyuanVideoTransformer3DModelPacked(**given.CONFIG).eval().requires_grad_(False)
    sharp_weights(transformer)
    for name, case in given.CASES.items():
        inputs = given.inputs()
        run = inverted if case.order == "inverted" else forward
        latents = run(transformer, inputs, case)
        save_file({"latents": latents.contiguous()}, HERE / f"{name}.safetensors")
        print(name, tuple(latents.shape), latents.std().item())


def inverted(transformer, inputs: given.Inputs, case: given.Case) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(given.SEED)
    w, n = given.WINDOW, case.sections
    history = torch.zeros(1, 16, 1 + 2 + 16, given.HEIGHT, given.WIDTH)
    paddings = [3] + [2] * (n - 3) + [1, 0] if n > 4 else list(reversed(range(n)))
    for padding in paddings:
        indices = torch.arange(0, 1 + padding * w + w + 1 + 2 + 16).unsqueeze(0)
        start, _, target, newest, two, four = indices.split([1, padding * w, w, 1, 2, 16], dim=1)
        post, clean_2x, clean_4x = history[:, :, : 1 + 2 + 16].split([1, 2, 16], dim=2)
        clean = torch.cat([inputs.start, post], dim=2)
        context = (target, clean, torch.cat([start, newest], dim=1), clean_2x, two, clean_4x, four)
        latents = sample(transformer, inputs, case, generator, context)
        if padding == 0:
            latents = torch.cat([inputs.start, latents], dim=2)
        history = torch.cat([latents, history], dim=2)
    return history[:, :, : 1 + n * w]


def forward(transformer, inputs: given.Inputs, case: given.Case) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(given.SEED)
    w, n = given.WINDOW, case.sections
    history = torch.cat([torch.zeros(1, 16, 16 + 2 + 1, given.HEIGHT, given.WIDTH), inputs.start], dim=2)
    for _ in range(n):
        indices = torch.arange(0, 1 + 16 + 2 + 1 + w).unsqueeze(0)
        start, four, two, newest, target = indices.split([1, 16, 2, 1, w], dim=1)
        clean_4x, clean_2x, clean_1x = history[:, :, -(16 + 2 + 1) :].split([16, 2, 1], dim=2)
        clean = torch.cat([inputs.start, clean_1x], dim=2)
        context = (target, clean, torch.cat([start, newest], dim=1), clean_2x, two, clean_4x, four)
        history = torch.cat([history, sample(transformer, inputs, case, generator, context)], dim=2)
    return history[:, :, -(1 + n * w) :]


def sample(transformer, inputs: given.Inputs, case: given.Case, generator, context) -> torch.Tensor:
    target, clean, clean_indices, clean_2x, two, clean_4x, four = context
    (text, pooled), (negative_text, negative_pooled) = inputs.positive, inputs.negative
    return sample_hunyuan(
        transformer=transformer,
        sampler="unipc",
        width=given.WIDTH * 8,
        height=given.HEIGHT * 8,
        frames=given.WINDOW * 4 - 3,
        real_guidance_scale=case.cfg,
        distilled_guidance_scale=given.GUIDANCE,
        num_inference_steps=given.STEPS,
        generator=generator,
        prompt_embeds=text,
        prompt_embeds_mask=torch.ones(text.shape[:2], dtype=torch.long),
        prompt_poolers=pooled,
        negative_prompt_embeds=negative_text,
        negative_prompt_embeds_mask=torch.ones(negative_text.shape[:2], dtype=torch.long),
        negative_prompt_poolers=negative_pooled,
        device=torch.device("cpu"),
        dtype=torch.float32,
        image_embeddings=inputs.image,
        latent_indices=target,
        clean_latents=clean,
        clean_latent_indices=clean_indices,
        clean_latents_2x=clean_2x,
        clean_latent_2x_indices=two,
        clean_latents_4x=clean_4x,
        clean_latent_4x_indices=four,
    )


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    main()
