"""ComfyUI nodes that stand in for the text encoders and SigLIP: same types and shapes, random weights.

They work with the stock CLIPTextEncode (`[1, 77, 768]`, pooled `[1, 768]`; Wan's `[1, 77, 4096]` without a pooled output,
where the real one gives 512 tokens) and CLIPVisionEncode (`[1, 16, 64]`). The last node lets previews take their time, because
a run of a test is over before a preview could be afforded.
"""

import sys

import comfy.sd
import comfy.sd1_clip
import torch
from comfy.clip_vision import ClipVisionModel
from comfy_api.latest import ComfyExtension, io

CATEGORY = "FramePack/stand-ins"
PREVIEWS = tuple(f"framepack_core.comfyui.preview.{part}" for part in ("clip", "filmstrip"))
SMALL_CLIP = {"num_hidden_layers": 1}
SMALL_SIGLIP = {
    "model_type": "siglip_vision_model",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "hidden_act": "gelu_pytorch_tanh",
    "num_channels": 3,
    "image_size": 56,
    "patch_size": 14,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


class ClipTarget:
    """What comfy.sd.CLIP is told about a text encoder."""

    params = {}
    clip = comfy.sd1_clip.SD1ClipModel
    tokenizer = comfy.sd1_clip.SD1Tokenizer


class WanTextModel(comfy.sd1_clip.SD1ClipModel):
    """What the small CLIP says of each token, spread over as many features as Wan's text encoder has."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.spread = torch.nn.Linear(768, 4096)

    def encode_token_weights(self, token_weight_pairs):
        tokens, _ = super().encode_token_weights(token_weight_pairs)[:2]
        return self.spread(tokens.to(self.spread.weight)), None


class WanTarget(ClipTarget):
    clip = WanTextModel


def random_weights(model: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Norms pass through, everything else is drawn so that activations keep their size."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, weight in model.state_dict().items():
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name:
            weights[name] = torch.ones_like(noise) if name.endswith("weight") else torch.zeros_like(noise)
        elif "embedding" in name or weight.ndim < 2:
            weights[name] = 0.5 * noise
        else:
            weights[name] = noise / weight[0].numel() ** 0.5
    return weights


def text_encoder(target: type[ClipTarget]) -> comfy.sd.CLIP:
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32, "clip_l_model_config": SMALL_CLIP})
    clip.load_sd(random_weights(clip.cond_stage_model, seed=1), full_model=True)
    return clip


class TextEncoders(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StandIn_TextEncoders",
            display_name="Stand-in Text Encoders",
            category=CATEGORY,
            description="Random weights: the words matter, their meaning does not.",
            outputs=[io.Clip.Output(tooltip="For CLIP Text Encode.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(text_encoder(ClipTarget))


class WanTextEncoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StandIn_WanTextEncoder",
            display_name="Stand-in Text Encoder of Wan",
            category=CATEGORY,
            description="Random weights: the words matter, their meaning does not.",
            outputs=[io.Clip.Output(tooltip="For CLIP Text Encode.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(text_encoder(WanTarget))


class ClipVision(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StandIn_ClipVision",
            display_name="Stand-in CLIP Vision",
            category=CATEGORY,
            description="Random weights: different images differ, what they show does not matter.",
            outputs=[io.ClipVision.Output(tooltip="For CLIP Vision Encode.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        vision = ClipVisionModel(SMALL_SIGLIP)
        vision.load_sd(random_weights(vision.model, seed=2))
        return io.NodeOutput(vision)


class UnlimitedPreviews(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StandIn_UnlimitedPreviews",
            display_name="Stand-in Unlimited Previews",
            category=CATEGORY,
            description="From now on this server shows each section as soon as it is finished, whatever that costs.",
            is_output_node=True,
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        for module in [module for name, module in sys.modules.items() if name.endswith(PREVIEWS)]:
            module.SHARE = 1e6
        return io.NodeOutput()


class StandInExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [TextEncoders, WanTextEncoder, ClipVision, UnlimitedPreviews]


async def comfy_entrypoint() -> StandInExtension:
    return StandInExtension()
