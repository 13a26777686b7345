"""The arithmetic of docs/training.md: parameters, operations and kept bytes, compared with the real transformer."""

import re
from pathlib import Path

import pytest
import torch
from diffusers import HunyuanVideoFramepackTransformer3DModel
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from experiments.plans import training as training_plan
from framepack_core.training.__main__ import main
from framepack_core.training.transformer import PackedTransformer

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
TOKENS, TEXT = 301, 57
ADAPTED = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "net.0.proj", "net.2",
           "proj_mlp", "proj_out")  # fmt: skip
RELEASED = {"has_image_proj": True, "has_clean_x_embedder": True, "image_proj_dim": 1152}


def test_the_released_transformer_has_as_many_parameters():
    with torch.device("meta"):
        transformer = HunyuanVideoFramepackTransformer3DModel(**RELEASED)

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert training_plan.parameters() == count(transformer) == 12_874_314_816
    assert training_plan.double_block() == count(transformer.transformer_blocks[0])
    assert training_plan.single_block() == count(transformer.single_transformer_blocks[0])


def test_a_lora_has_as_many_parameters():
    with torch.device("meta"):
        blocks = HunyuanVideoFramepackTransformer3DModel(**RELEASED | {"num_layers": 1, "num_single_layers": 1})
    adapted = get_peft_model(blocks, LoraConfig(r=32, target_modules=rf".*transformer_blocks\.0\..*({'|'.join(ADAPTED)})"))
    found = {kind: sum(p.numel() for name, p in adapted.named_parameters() if "lora" in name and f"model.{kind}" in name)
             for kind in ("transformer_blocks", "single_transformer_blocks")}  # fmt: skip

    assert training_plan.lora_parameters(32) == 20 * found["transformer_blocks"] + 40 * found["single_transformer_blocks"]


@pytest.fixture
def transformer() -> PackedTransformer:
    """A block of each kind, 256 wide."""
    small = {"num_attention_heads": 2, "num_layers": 1, "num_single_layers": 1, "num_refiner_layers": 1, "text_embed_dim": 32}
    return PackedTransformer(**small, pooled_projection_dim=32, has_clean_x_embedder=True)


def blocks(transformer: PackedTransformer) -> dict[str, torch.nn.Module]:
    return {"double": transformer.transformer_blocks[0], "single": transformer.single_transformer_blocks[0]}


def run(block: torch.nn.Module, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    tokens, text = (torch.randn(1, count, 256, dtype=dtype, requires_grad=True) for count in (TOKENS, TEXT))
    return block(tokens, text, torch.randn(1, 256), None, (torch.randn(TOKENS, 1, 64), torch.randn(TOKENS, 1, 64)))


@pytest.fixture
def small_plan(monkeypatch) -> training_plan.Sample:
    """A sample of TOKENS + TEXT tokens in a transformer with one block of each kind, 256 wide."""
    for name, value in {"HIDDEN": 256, "HEADS": 2, "DOUBLE": 1, "SINGLE": 1, "TEXT_TOKENS": TEXT, "IMAGE_TOKENS": 0}.items():
        monkeypatch.setattr(training_plan, name, value)
    monkeypatch.setattr(training_plan.Sample, "context", 0)
    monkeypatch.setattr(training_plan.Sample, "target", TOKENS)
    return training_plan.Sample("framepack", "832x480")


MODULATION = 2 * (2 * 6 + 3) * 256**2  # operations per sample of the layers that see one vector per clip


def test_operations_are_those_that_pytorch_counts(transformer, small_plan):
    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={on_cpu: attention_operations}) as counter:
        for block in blocks(transformer).values():
            run(block)

    expected = small_plan.forward + MODULATION
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-6)


def attention_operations(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], *args, **kwargs) -> int:
    return sdpa_flop_count(q, k, v)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_gradients_take_as_many_operations_more(transformer, small_plan, method):
    """For matrices only: PyTorch does not count attention's backward pass on a CPU."""
    transformer.requires_grad_(method == "full")
    with FlopCounterMode(display=False) as counter:
        for block in blocks(transformer).values():
            sum(part.sum() for part in run(block)).backward()

    counted = sum(
        count for operation, count in counter.get_flop_counts()["Global"].items() if "attention" not in str(operation)
    )
    attention = small_plan.attention_operations
    expected = small_plan.training(method, checkpointing=False) - 3 * attention
    assert counted == pytest.approx(expected, rel=0.01)
    assert small_plan.training(method, True) - small_plan.training(method, False) == small_plan.forward


@pytest.mark.parametrize("kind", ["double", "single"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_block_keeps_as_many_bytes_for_the_backward_pass(transformer, kind, method):
    if method == "lora":
        adapt(transformer.to(torch.bfloat16).requires_grad_(False))
    block = blocks(transformer)[kind]
    weights = {parameter.untyped_storage().data_ptr() for parameter in block.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.shape[-1] != 64 and tensor.numel() > 16 * TOKENS:
            kept[storage.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        tokens, text = run(block, torch.bfloat16)

    cast_weights = [tensor for tensor in kept.values() if TOKENS not in tensor.shape and TEXT not in tensor.shape
                    and TOKENS + TEXT not in tensor.shape]  # fmt: skip
    count = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    count -= sum(tensor.untyped_storage().nbytes() for tensor in cast_weights)
    assert tokens.dtype == text.dtype == torch.bfloat16  # what checkpointing keeps from a block
    assert count / (256 * (TOKENS + TEXT)) == pytest.approx(training_plan.KEPT[method, kind], rel=0.1)


def adapt(transformer: PackedTransformer) -> None:
    """Add adapters in float32 to weights in bfloat16."""
    inject_adapter_in_model(LoraConfig(r=1, target_modules=list(ADAPTED)), transformer)
    for name, parameter in transformer.named_parameters():
        if "lora" in name:
            parameter.data = parameter.data.float()


def test_the_page_shows_what_the_script_prints():
    assert training_plan.report() in PAGE.read_text(encoding="utf-8")


def test_the_page_names_options_that_exist(capsys):
    of_accelerate = {"--num_processes", "--mixed_precision"}
    known = set()
    for command in ("cache", "codebook", "train"):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        known |= set(re.findall(r"--[a-z][a-z_-]+", capsys.readouterr().out))

    named = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]+", PAGE.read_text(encoding="utf-8")))
    assert len(named) > 20
    assert named - of_accelerate <= known
