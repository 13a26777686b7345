"""Tiny transformers on tiny clips, and small videos: the arithmetic of training is tested, not what is learnt."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from support.threads import one_thread  # noqa: F401 - autouse


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """accelerate keeps one precision per process, but every test chooses its own."""
    from accelerate.state import AcceleratorState

    yield
    AcceleratorState._reset_state(reset_partial_state=True)


LOSSLESS = "ffv1", "bgr0"
CODECS = {".mkv": LOSSLESS, ".mp4": ("libx264", "yuv420p"), ".mov": ("mpeg4", "yuv420p"), ".avi": ("mpeg4", "yuv420p"),
          ".webm": ("libvpx-vp9", "yuv420p"), ".gif": ("gif", "rgb8")}  # fmt: skip

WriteVideo = Callable[..., Path]


@pytest.fixture(scope="session")
def write_video() -> WriteVideo:
    return _write_video


def _write_video(
    path: Path, frames: Sequence[np.ndarray] | int = 20, fps: float = 30, height=48, width=64, **options: str
) -> Path:
    """Write frames uint8 `H W 3`, or this many grey ones that go up by 4; .mkv is lossless. Every eighth is a key frame."""
    if isinstance(frames, int):
        frames = [np.full((height, width, 3), 4 * index % 256, np.uint8) for index in range(frames)]
    codec, pixels = CODECS[path.suffix.lower()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width, _ = frames[0].shape
        stream.pix_fmt = pixels
        stream.bit_rate, stream.gop_size = 4_000_000, 8
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels)))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def hunyuan_folder(tmp_path_factory) -> Path:
    """HunyuanVideo's encoders and SigLIP in diffusers' layout: tiny, with random weights."""
    from diffusers import AutoencoderKLHunyuanVideo
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        LlamaConfig,
        LlamaModel,
        SiglipImageProcessor,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    folder = tmp_path_factory.mktemp("hunyuan")
    torch.manual_seed(0)
    llama = dict(vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4)
    clip = dict(vocab_size=512, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
    siglip = dict(
        hidden_size=20, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14
    )
    vae = dict(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, layers_per_block=1)
    LlamaModel(LlamaConfig(**llama)).save_pretrained(folder / "text_encoder")
    CLIPTextModel(CLIPTextConfig(**clip, bos_token_id=1, eos_token_id=2, pad_token_id=0)).save_pretrained(
        folder / "text_encoder_2"
    )
    SiglipVisionModel(SiglipVisionConfig(**siglip)).save_pretrained(folder / "image_encoder")
    SiglipImageProcessor(size={"height": 28, "width": 28}).save_pretrained(folder / "feature_extractor")
    AutoencoderKLHunyuanVideo(**vae).save_pretrained(folder / "vae")
    _tokenizer().save_pretrained(folder / "tokenizer")
    _tokenizer().save_pretrained(folder / "tokenizer_2")
    return folder


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory) -> Path:
    """The demo's encoders with random weights, since the shipped ones may be retrained."""
    from safetensors.torch import save_file

    from framepack_core.demo.text import TextEncoder
    from framepack_core.demo.vae import DemoVAE
    from framepack_core.demo.vision import VisionEncoder

    folder = tmp_path_factory.mktemp("demo")
    torch.manual_seed(0)
    for part, module in (("text", TextEncoder()), ("vae", DemoVAE()), ("vision", VisionEncoder())):
        save_file(module.state_dict(), folder / f"demo_{part}.safetensors")
    return folder


def _tokenizer():
    """Words and punctuation, numbered as they appear in the instruction and a few captions."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from framepack_core.training.encoders import TEMPLATE

    splitter = pre_tokenizers.Whitespace()
    text = f"{TEMPLATE} a an the cat dog red circle square moves left right over striped background long"
    words = dict.fromkeys(["<pad>", "<s>", "</s>", "<unk>", *(word for word, _ in splitter.pre_tokenize_str(text))])
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    special = dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="right", **special)
