"""Files that are no FramePack model, or not all of one, are refused before anything is loaded, and said what they are."""

import comfy.memory_management
import pytest
import torch
from safetensors.torch import load_file
from support.checkpoints import Weights, save, save_shards

from framepack_core.comfyui.loading import checkpoints
from framepack_core.weights import names


@pytest.fixture(scope="module")
def weights(oracle) -> Weights:
    """Official/diffusers names."""
    return dict(oracle.state_dict())


def refused(path: str) -> str:
    with pytest.raises(ValueError) as error:
        checkpoints.load_path(path, {})
    return str(error.value)


def test_a_plain_hunyuanvideo_checkpoint_is_refused(weights, tmp_path):
    plain = {k: w for k, w in weights.items() if not k.startswith(("clean_x_embedder", "image_projection"))}

    for spelling in (plain.copy(), names.to_comfy(plain.copy())):
        message = refused(save(spelling, tmp_path, "hunyuan.safetensors"))
        assert "hunyuan.safetensors is a plain HunyuanVideo model" in message and "Load Diffusion Model" in message


def test_a_vae_is_refused(tmp_path):
    message = refused(save({"decoder.conv_in.conv.weight": torch.zeros(4)}, tmp_path, "vae.safetensors"))

    assert "vae.safetensors is a VAE" in message and "models/vae" in message


def test_something_else_is_refused_naming_what_was_found(tmp_path):
    assert "starts with lora_up" in refused(save({"lora_up": torch.zeros(4)}, tmp_path))


def test_a_truncated_file_is_refused(checkpoint, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(checkpoint.read_bytes()[:-1000])

    assert "cut.safetensors cannot be read" in refused(str(path)) and "download it again" in refused(str(path))


def test_missing_shards_are_named(weights, tmp_path):
    folder = save_shards(weights, tmp_path)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()

    assert "lacks 1 of 3 shards: model-00002-of-00003.safetensors" in refused(folder)


def test_a_shard_without_its_weights_is_refused(weights, tmp_path):
    folder = save_shards(weights, tmp_path)
    save({"proj_out.bias": weights["proj_out.bias"]}, tmp_path, "model-00002-of-00003.safetensors")

    assert "weights of its index, first" in refused(folder)


@pytest.mark.parametrize(
    "name",
    ["proj_out.weight", "transformer_blocks.1.ff.net.2.bias", "single_transformer_blocks.0.attn.to_k.weight",
     "time_text_embed.text_embedder.linear_1.weight", "image_projection.down.weight"],
)  # fmt: skip
def test_missing_weights_are_refused(weights, tmp_path, name):
    message = refused(save({key: weight for key, weight in weights.items() if key != name}, tmp_path))

    assert "download it again" in message or "in the file" in message


@pytest.mark.parametrize("lazy", [False, True], ids=["classic", "dynamic"])
@pytest.mark.parametrize(
    "name",
    ["double_blocks.0.img_attn.qkv.bias", "double_blocks.1.txt_mlp.2.weight", "single_blocks.0.norm.query_norm.weight",
     "txt_in.individual_token_refiner.blocks.0.norm1.bias", "clean_x_embedder.proj_2x.bias", "image_projection.up.bias"],
)  # fmt: skip
def test_weights_that_comfyui_would_fill_with_zeros_are_refused(weights, tmp_path, monkeypatch, lazy, name):
    """With dynamic VRAM, it makes the weights of linear layers when they are loaded."""
    monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", lazy)
    monkeypatch.setattr(checkpoints, "_read_file", lambda path: (load_file(path), None))
    left = {key: weight for key, weight in names.to_comfy(weights.copy()).items() if key != name}

    assert f"lacks 1 of FramePack's weights, first {name}" in refused(save(left, tmp_path))
