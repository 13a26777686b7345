"""The fake card sees what a real one would refuse, and what would cost a real one time or memory."""

import comfy.model_management
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.card.card import DEVICE, GB, TURING, FakeCard
from experiments.card.models import released_transformer, released_vae, released_weights
from experiments.card.rules import Broken
from experiments.card.steps import request, sampled
from framepack_core.comfyui.decoding import hunyuan
from framepack_core.comfyui.decoding.norm import MeasuredNorm
from framepack_core.comfyui.decoding.room import Kept
from framepack_core.comfyui.decoding.stream import stream_frames
from framepack_core.comfyui.model import transformer
from framepack_core.comfyui.model.conditions import PackedContext
from framepack_core.plan import Plan

context_tokens = transformer.context_tokens


def on_card(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.zeros(shape, dtype=dtype, device=DEVICE)


# Each rule by itself

REFUSED = {
    "a matrix on the CPU": lambda: on_card(2, 3) @ torch.zeros(3, 4, dtype=torch.bfloat16),
    "a bias on the CPU": lambda: F.linear(on_card(2, 3), on_card(4, 3), torch.zeros(4, dtype=torch.bfloat16)),
    "a sum across devices": lambda: on_card(2) + torch.zeros(2),
    "a join across devices": lambda: torch.cat([on_card(2), torch.zeros(2)]),
    "an index on the card into the CPU": lambda: torch.zeros(5)[on_card(2, dtype=torch.int64)],
    "float32 into a bf16 layer": lambda: F.linear(on_card(2, 3, dtype=torch.float32), on_card(4, 3)),
    "a bias of another dtype": lambda: F.linear(on_card(2, 3), on_card(4, 3), on_card(4, dtype=torch.float32)),
    "float32 into a bf16 convolution": lambda: F.conv3d(on_card(1, 2, 3, 3, 3, dtype=torch.float32), on_card(4, 2, 1, 1, 1)),
    "fp16 keys for bf16 queries": lambda: F.scaled_dot_product_attention(
        on_card(1, 1, 4, 8), on_card(1, 1, 4, 8, dtype=torch.float16), on_card(1, 1, 4, 8)
    ),
    "fp8 into a product": lambda: F.linear(*[on_card(4, 4, dtype=torch.float8_e4m3fn)] * 2),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_a_card_refuses_is_refused(fault):
    with FakeCard(GB), pytest.raises((Broken, RuntimeError)):
        REFUSED[fault]()


def test_what_a_card_accepts_is_accepted():
    with FakeCard(GB) as card:
        x = on_card(2, 3) * 2.0 + torch.tensor(1.0)
        x.copy_(torch.zeros(2, 3))
        assert (x @ on_card(3, 4)).to("cpu").device.type == "cpu"
        assert card.memory.peak > 0


def test_bytes_are_counted_and_limited_and_every_way_to_ask_says_how_many_are_free():
    with FakeCard(1000) as card:
        first = on_card(100)
        view = first.view(10, 10)
        assert card.memory.used == 200 and view.device == DEVICE
        assert comfy.model_management.get_free_memory(DEVICE) == torch.cuda.mem_get_info()[0] == 800
        assert comfy.model_management.get_total_memory(DEVICE) == torch.cuda.get_device_properties(DEVICE).total_memory == 1000
        with pytest.raises(torch.OutOfMemoryError):
            on_card(500)
        assert comfy.model_management.is_oom(torch.OutOfMemoryError())
        del first, view
        assert (card.memory.used, card.memory.peak) == (0, 200)


WAITS = {
    "to the CPU": lambda x: x.cpu(),
    "to the card": lambda x: torch.tensor([1, 2, 3], device=DEVICE),
    "read": lambda x: x.sum().item(),
    "synchronize": lambda x: torch.cuda.synchronize(),
}


@pytest.mark.parametrize("kind", WAITS)
def test_waits_for_the_card_are_counted(kind):
    with FakeCard(GB) as card:
        x = on_card(3)
        before = card.counted.copy()
        WAITS[kind](x)
        x.to("cpu", non_blocking=True)
        assert set(card.counted - before) == {kind}


def test_a_card_without_bf16_is_one():
    with FakeCard(12 * GB, TURING):
        assert not comfy.model_management.should_use_bf16(DEVICE)
        assert released_vae().vae_dtype == torch.float16


# Faults put into the pack's own code


def step() -> None:
    sampled(request(released_transformer(released_weights(blocks=1)), Plan.of(1.2)))


def decode(size: int = 24) -> None:
    for _ in stream_frames(released_vae(torch.bfloat16), torch.zeros(1, 16, 3, size, size)):
        pass


def phases_on_the_cpu(patch):
    patch.setattr(PackedContext, "to", lambda self, device: self)


def context_on_the_cpu(patch):
    patch.setattr(transformer, "context_tokens", lambda latents, *args: context_tokens([x.cpu() for x in latents], *args))


def context_in_float32(patch):
    patch.setattr(transformer, "context_tokens", lambda latents, *args: context_tokens([x.float() for x in latents], *args))


def image_in_float32(patch):
    forward = transformer.ImageProjection.forward
    patch.setattr(transformer.ImageProjection, "forward", lambda self, x: forward(self, x.float()))


def timestep_on_the_cpu(patch):
    embedding = transformer.timestep_embedding
    patch.setattr(transformer, "timestep_embedding", lambda t, *args, **kwargs: embedding(t, *args, **kwargs).cpu())


def phases_of_text_on_the_cpu(patch):
    patch.setattr(transformer, "unturned", lambda tokens, rotary: torch.eye(2).expand(1, 1, tokens, rotary.shape[3], 2, 2))


def layers_left_on_the_cpu(patch):
    patch.setattr(hunyuan, "UP_PLANES", 1e9)
    patch.setattr(Kept, "read", lambda self, *place: self.tensor.cpu()[(..., *place)])


def norms_in_float32(patch):
    patch.setattr(hunyuan, "UP_PLANES", 1e9)
    patch.setattr(MeasuredNorm, "__call__", lambda self, x: x.float() * self.scale.to(x.device))


FAULTS = {
    phases_on_the_cpu: step,
    context_on_the_cpu: step,
    context_in_float32: step,
    image_in_float32: step,
    timestep_on_the_cpu: step,
    phases_of_text_on_the_cpu: step,
    layers_left_on_the_cpu: decode,
    norms_in_float32: decode,
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_in_our_code_is_seen(fault, monkeypatch):
    with FakeCard(40 * GB):
        FAULTS[fault]()
        with monkeypatch.context() as patch:
            fault(patch)
            with pytest.raises((Broken, RuntimeError)):
                FAULTS[fault]()


def test_a_decode_that_takes_more_than_is_free_is_seen(monkeypatch):
    """The layers at once, where there is room for bands only; and no second try."""
    monkeypatch.setattr(hunyuan, "UP_PLANES", 1)
    monkeypatch.setattr(hunyuan.private, "is_oom", lambda error: False, raising=False)
    with FakeCard(GB), pytest.raises(torch.OutOfMemoryError):
        decode(40)
