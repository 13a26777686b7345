"""Files that cannot be read, or not as a LoRA of this model."""

import logging
from pathlib import Path

import comfy.sd
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import given as with_given
from hypothesis import strategies as st
from safetensors.torch import save_file
from support.checkpoints import save
from support.loras import KINDS, everything, loaded, make, patched, stored

from framepack_core.weights import names


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("<!doctype html><title>Sign in</title>" * 10)


@pytest.mark.parametrize("suffix", [".safetensors", ".sft", ".pt", ".bin", ".ckpt"])
@pytest.mark.parametrize("damage", [truncated, emptied, text])
def test_a_damaged_file_is_refused_by_name(official, model, folder, suffix, damage):
    path = folder / f"some{suffix}"
    tensors = everything(official, 1).tensors
    save_file(tensors, path) if suffix in (".safetensors", ".sft") else torch.save(tensors, path)
    damage(path)

    with pytest.raises(ValueError, match=rf"^some\{suffix} cannot be read: it is damaged, .* download it again"):
        loaded(model, path.name)


class Evil:
    def __reduce__(self):
        return print, ("the file ran code",)


@pytest.mark.parametrize(
    "held", [Evil(), {"a": Evil()}, [1, 2], "text", {"a": "text"}, {1: torch.zeros(2), 2: 1}, {}, torch.zeros(2)], ids=repr
)
def test_a_pickle_of_something_else_is_refused_and_runs_no_code(model, folder, held, capsys):
    torch.save(held, folder / "some.pt")

    with pytest.raises(ValueError, match=r"^some\.pt (cannot be read|holds no weights|changes nothing)"):
        loaded(model, "some.pt")
    assert "ran code" not in capsys.readouterr().out


def test_a_lora_that_lacks_half_of_a_module_is_refused(official, model, folder):
    file = make(official, {"proj_out": "transformer.proj_out"}, KINDS["LoRA of diffusers"])
    del file.tensors["transformer.proj_out.lora_A.weight"]

    with pytest.raises(ValueError, match=r"some.safetensors is damaged: transformer.proj_out lacks .*lora_A.weight"):
        loaded(model, stored(folder, file.tensors))


SHAPES = st.sampled_from(
    [(), (1,), (4,), (256,), (768,), (4, 256), (256, 4), (256, 3), (768, 4), (256, 256), (2, 2), (256, 4, 1)]
)
PARTS = st.sampled_from(
    [
        *("lora_up.weight", "lora_down.weight", "lora_A.weight", "lora_B.weight", "alpha", "dora_scale", "diff", "diff_b"),
        *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "lokr_w1", "lokr_w2", "lokr_w1_a", "lokr_w1_b", "lokr_w2_b"),
        *("w_norm", "b_norm", "set_weight", "weight", "bias", "lora_magnitude_vector"),
    ]
)
SPELLED = st.sampled_from(
    [
        *("transformer.transformer_blocks.0.attn.to_q", "lora_unet_double_blocks_0_img_attn_qkv", "norm_out.linear"),
        *("blocks.0.attn", "transformer.proj_out", "context_embedder.token_refiner.refiner_blocks.0.norm1"),
        "transformer_blocks.0.attn.norm_q",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@with_given(st.dictionaries(st.builds("{}.{}".format, SPELLED, PARTS), SHAPES, min_size=1, max_size=8))
def test_whatever_a_file_holds_it_is_refused_or_does_what_is_said(model, folder, caplog, shapes):
    """ComfyUI only logs what it cannot apply."""
    caplog.clear()
    name = stored(folder, {key: torch.ones(shape) for key, shape in shapes.items()})
    try:
        found = loaded(model, name)
    except ValueError as error:
        assert str(error).startswith(("some.safetensors changes nothing", "some.safetensors is damaged"))
        return

    patched(found)

    assert [record.message for record in caplog.records if record.name == "root" and record.levelno >= logging.WARNING] == []


def test_an_empty_safetensors_file_holds_no_weights(model, folder):
    with pytest.raises(ValueError, match=r"some.safetensors holds no weights; download it again"):
        loaded(model, stored(folder, {}))


def test_a_file_that_is_gone_is_named(model):
    with pytest.raises(ValueError, match=r"^gone.safetensors is no longer under models/loras; refresh the browser"):
        loaded(model, "gone.safetensors")


def test_another_model_is_refused(official, folder, tmp_path):
    plain = {key: weight for key, weight in official.items() if not key.startswith(("clean_x_embedder", "image_projection"))}
    model = comfy.sd.load_diffusion_model(save(names.to_comfy(plain), tmp_path))

    with pytest.raises(ValueError, match=r"^model is HunyuanVideo, not FramePack"):
        loaded(model, stored(folder, everything(official, 1).tensors))
