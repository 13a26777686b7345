"""Whole videos equal diffusers' pipeline with Euler, in float32 on a CPU: same weights, embeddings, start latent and seed."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, HunyuanVideoFramepackPipeline
from diffusers.video_processor import VideoProcessor
from support import given
from support.given import GUIDANCE, SEED, Inputs
from support.ours import relative_error, sample

from framepack_core import filling
from framepack_core.comfyui.loading import checkpoints
from framepack_core.layout import PRESETS

HEIGHT, WIDTH = 10, 14  # latent pixels: neither is a multiple of the 4x kernel
STEPS = 4
TOLERANCE = 1e-4

ORDERS = {"inverted": "inverted_anti_drifting", "forward": "vanilla"}


class OraclePipeline(HunyuanVideoFramepackPipeline):
    """diffusers' loop on given embeddings: no text encoders, no VAE."""

    def __init__(self, transformer, scheduler) -> None:
        DiffusionPipeline.__init__(self)
        self.register_modules(transformer=transformer, scheduler=scheduler)
        self.vae = SimpleNamespace(dtype=torch.float32)
        self.vae_scale_factor_temporal, self.vae_scale_factor_spatial = 4, 8
        self.video_processor = VideoProcessor(vae_scale_factor=8)
        self.set_progress_bar_config(disable=True)

    @classmethod
    def on(cls, transformer, image_embedding: torch.Tensor, image_latents: list[torch.Tensor]) -> "OraclePipeline":
        pipeline = cls(transformer, FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True))
        pipeline.image_embedding = image_embedding
        pipeline.image_latents = iter(image_latents)
        return pipeline

    def encode_image(self, image, device=None, dtype=None):
        return self.image_embedding

    def prepare_image_latents(self, image, **kwargs):
        return next(self.image_latents)


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return given.inputs(HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def model(checkpoint):
    return checkpoints.load_path(str(checkpoint), {"dtype": torch.float32})


def run_diffusers(oracle, inputs: Inputs, order: str, sections: int, cfg: float, end: bool = False) -> torch.Tensor:
    (text, pooled), (negative_text, negative_pooled) = inputs.positive, inputs.negative
    picture = torch.zeros(1, 3, HEIGHT * 8, WIDTH * 8)
    latents = OraclePipeline.on(oracle, inputs.image, [inputs.start, inputs.end])(
        image=picture,
        last_image=picture if end else None,
        height=HEIGHT * 8,
        width=WIDTH * 8,
        num_frames=33 * sections,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        true_cfg_scale=cfg,
        generator=torch.Generator().manual_seed(SEED),
        prompt_embeds=text,
        pooled_prompt_embeds=pooled,
        prompt_attention_mask=torch.ones(text.shape[:2]),
        negative_prompt_embeds=negative_text,
        negative_pooled_prompt_embeds=negative_pooled,
        negative_prompt_attention_mask=torch.ones(negative_text.shape[:2]),
        output_type="latent",
        sampling_type=ORDERS[order],
    ).frames
    return latents[-1]


CASES = [("inverted", 3, 1.0), ("inverted", 3, 3.0), ("forward", 3, 1.0), ("forward", 3, 3.0), ("inverted", 5, 1.0)]


@pytest.mark.parametrize(("order", "sections", "cfg"), CASES)
def test_a_whole_video_equals_diffusers(oracle, model, inputs, order, sections, cfg):
    expected = run_diffusers(oracle, inputs, order, sections, cfg)
    found = sample(model, inputs, order, sections, cfg)

    assert found.shape == expected.shape == (1, 16, 1 + 9 * sections, HEIGHT, WIDTH)
    assert relative_error(found, expected) < TOLERANCE


def test_an_end_frame_equals_diffusers(oracle, model, inputs):
    expected = run_diffusers(oracle, inputs, "inverted", 3, 1.0, end=True)

    assert relative_error(sample(model, inputs, "inverted", 3, 1.0, end=True), expected) < TOLERANCE
    assert relative_error(sample(model, inputs, "inverted", 3, 1.0), expected) > 10 * TOLERANCE


@pytest.mark.parametrize("order", ORDERS)
def test_parity_notices_one_wrong_time_index(oracle, model, inputs, order, monkeypatch):
    expected = run_diffusers(oracle, inputs, order, 3, 1.0)
    target_spans = filling._target_spans
    monkeypatch.setattr(filling, "_target_spans", lambda target: [filling._Span(1), *target_spans(target)])

    assert relative_error(sample(model, inputs, order, 3, 1.0), expected) > 10 * TOLERANCE


def test_parity_notices_newest_frames_in_the_wrong_group(oracle, model, inputs, monkeypatch):
    """16 frames next to the target and the newest one last: same tokens, wrong frames."""
    expected = run_diffusers(oracle, inputs, "inverted", 3, 1.0)
    monkeypatch.setitem(PRESETS, "framepack", "f1k1_x_g9_f16k4f2k2f1k1_td")

    assert relative_error(sample(model, inputs, "inverted", 3, 1.0), expected) > 10 * TOLERANCE
