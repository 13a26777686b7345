"""ComfyUI is told how much memory a call takes: no less, and not so much more that it offloads weights needlessly."""

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import pytest
import torch
from safetensors.torch import load_file

from experiments.benchmarks.live import LiveBytes
from experiments.plans import memory
from framepack_core.comfyui.loading import checkpoints
from framepack_core.comfyui.model.framepack import CONTEXT_KEY, FramePack, FramePackModel, PackedContext
from framepack_core.layout import Kernel
from framepack_core.packing import Context
from framepack_core.plan import Plan
from scripts.support.environment import ROOT
from scripts.support.quantising.convert import convert
from scripts.support.quantising.to_gguf import write_gguf

KERNELS = {"proj": Kernel(1, 2, 2), "proj_2x": Kernel(2, 4, 4), "proj_4x": Kernel(4, 8, 8)}
TEXT, IMAGE = 512, 729
AXES, THETA = [16, 56, 56], 256


def model_without_weights(hidden: int) -> FramePackModel:
    """The released architecture with 2+2 blocks on the meta device: shapes and lifetimes are real, nothing is computed."""
    config = FramePack(
        {
            "image_model": "hunyuan_video",
            "in_channels": 16,
            "out_channels": 16,
            "vec_in_dim": 768,
            "context_in_dim": 4096,
            "hidden_size": hidden,
            "mlp_ratio": 4.0,
            "num_heads": hidden // 128,
            "depth": 2,
            "depth_single_blocks": 2,
            "axes_dim": AXES,
            "theta": THETA,
            "patch_size": [1, 2, 2],
            "qkv_bias": True,
            "guidance_embed": True,
            "byt5": False,
            "meanflow": False,
            "use_cond_type_embedding": False,
            "vision_in_dim": None,
            "meanflow_sum": False,
            "kernels": KERNELS,
            "image_dim": 1152,
        }
    )
    config.set_inference_dtype(torch.bfloat16, None)
    config.custom_operations = comfy.ops.disable_weight_init
    return FramePackModel(config, device="meta")


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=torch.bfloat16)


def flash_attention(default, q, k, v, heads, **kwargs) -> torch.Tensor:
    """A stand-in for a GPU's attention, which keeps only its output."""
    return q.new_empty(q.shape[0], q.shape[2], heads * q.shape[3])


@pytest.mark.parametrize("hidden", [3072, 512])
@pytest.mark.parametrize("window", [9, 18])
@pytest.mark.parametrize("size", [(76, 80), (48, 48)])
def test_the_estimate_covers_a_call(monkeypatch, hidden, window, size):
    monkeypatch.setattr(comfy.model_management, "pytorch_attention_flash_attention", lambda: True)
    model = model_without_weights(hidden)
    plan = Plan.of(5, window=window)
    section = plan.fill(1 + plan.generated)[1]
    latents = [meta(1, 16, len(group.frames), *size) for group in section.context]
    packed = PackedContext(Context(section, tuple(latents)), *size, AXES, THETA).to("meta")
    text, vision = meta(1, TEXT, 4096), {"last_hidden_state": meta(1, IMAGE, 1152)}

    shapes = model.extra_conds_shapes(**{CONTEXT_KEY: packed, "cross_attn": text, "clip_vision_output": vision})
    estimate = model.memory_required([1, 16, window, *size], {name: [shape] for name, shape in shapes.items()})
    with torch.inference_mode(), LiveBytes() as live:
        model.diffusion_model(
            meta(1, 16, window, *size),
            torch.zeros(1, device="meta"),
            text,
            y=meta(1, 768),
            clip_fea=vision["last_hidden_state"],
            guidance=torch.zeros(1, device="meta"),
            packed=packed,
            context_latents=latents,
            transformer_options={"optimized_attention_override": flash_attention},
        )

    assert 1.0 < estimate / live.peak < 1.35


def test_the_estimate_before_sampling_equals_the_one_while_sampling():
    """ComfyUI asks twice: from the conditioning, to free memory, and from what extra_conds returns, to form batches."""
    model = model_without_weights(512)
    plan = Plan.of(5)
    section = plan.fill(1 + plan.generated)[1]
    latents = tuple(torch.zeros(1, 16, len(group.frames), 8, 8) for group in section.context)
    cond = {
        CONTEXT_KEY: PackedContext(Context(section, latents), 8, 8, AXES, THETA),
        "cross_attn": torch.zeros(1, 7, 4096),
        "pooled_output": torch.zeros(1, 768),
        "clip_vision_output": {"last_hidden_state": torch.zeros(1, 5, 1152)},
    }

    before = model.extra_conds_shapes(**cond)
    during = model.extra_conds(**cond, noise=torch.zeros(1, 16, 9, 8, 8), device="cpu")

    shapes = [{name: [shape] for name, shape in before.items()}, {name: [c.size()] for name, c in during.items()}]
    first, second = (model.memory_required([1, 16, 9, 8, 8], given) for given in shapes)
    assert first == second > model.memory_required([1, 16, 9, 8, 8], {})


class Card:
    """A device that ComfyUI takes for a GPU of some size; its used memory is what its models say they have loaded."""

    device = torch.device("cpu", 0)

    def __init__(self, monkeypatch) -> None:
        self.size, self.patchers = 0.0, []
        management = comfy.model_management
        monkeypatch.setattr(management, "current_loaded_models", [])
        monkeypatch.setattr(management, "vram_state", management.VRAMState.NORMAL_VRAM)
        monkeypatch.setattr(management, "is_device_cpu", lambda device: device != self.device)
        monkeypatch.setattr(management, "get_free_memory", lambda device, torch_free_too=False: self.free(torch_free_too))

    def free(self, of_torch_too: bool = False):
        free = self.size - sum(patcher.loaded_size() for patcher in self.patchers)
        return (free, 0) if of_torch_too else free

    def encoder(self, megabytes: int) -> comfy.model_patcher.ModelPatcher:
        layers = torch.nn.Sequential(comfy.ops.manual_cast.Linear(1000, 250 * megabytes, bias=False))
        return self.patcher(comfy.model_patcher.ModelPatcher(layers, self.device, torch.device("cpu")))

    def patcher(self, patcher: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher:
        self.patchers.append(patcher)
        return patcher


def reserved(call: float) -> float:
    """What ComfyUI keeps free for a call."""
    management = comfy.model_management
    return max(management.minimum_inference_memory(), call + management.extra_reserved_memory())


@pytest.fixture(params=["nvfp4", "Q4_0"])
def quantised(request, checkpoint, tmp_path) -> str:
    if request.param == "nvfp4":
        convert(checkpoint, tmp_path / "quantised.safetensors", "nvfp4")
        return str(tmp_path / "quantised.safetensors")
    return str(write_gguf(tmp_path / "quantised.gguf", load_file(checkpoint), request.param))


CALL = 2e9  # bytes that a call is said to take


def test_encoders_and_vae_leave_the_card_for_a_quantised_model_that_fits(monkeypatch, quantised):
    card = Card(monkeypatch)
    model = card.patcher(checkpoints.load_path(quantised, {"load_device": card.device}))
    text, vae = card.encoder(20), card.encoder(10)
    card.size = reserved(CALL) + 1.1 * model.model_size() + 1e6
    comfy.model_management.load_models_gpu([text, vae])
    assert text.loaded_size() == text.model_size()

    comfy.model_management.load_models_gpu([model], memory_required=CALL)

    assert model.loaded_size() == model.model_size()
    assert card.free() >= reserved(CALL)
    assert text.loaded_size() == 0


def test_of_a_model_that_does_not_fit_just_enough_is_offloaded(monkeypatch, quantised, checkpoint):
    """On a card that holds the quantised model, part of the full one stays outside; not one more layer would have fitted.

    This is for a call smaller than what ComfyUI keeps free anyway: for larger ones it gives weights two fifths of the card.
    """
    card = Card(monkeypatch)
    card.size = reserved(0) + 1.1 * checkpoints.load_path(quantised, {}).model_size()
    model = card.patcher(checkpoints.load_path(str(checkpoint), {"load_device": card.device}))

    comfy.model_management.load_models_gpu([model], memory_required=0)

    largest = max(weight.nbytes for weight in model.model.parameters())
    assert 0 < model.loaded_size() < model.model_size()
    assert reserved(0) <= card.free() < reserved(0) + 4 * largest


def test_the_memory_table_in_the_documentation_is_computed(capsys):
    memory.main()

    assert capsys.readouterr().out in (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
